//! The headers of a message: a MessagePack map of texts to bytes or texts, or nothing at all.
//!
//! Read by a walk over the bytes, because the broker looks for one header in every message of a
//! conflated subscription.

use crate::limits::HEADERS_LEN_MAX;

/// Header by which conflating subscriptions tell messages apart.
pub const KEY: &str = "key";
/// Header of a trace: the W3C `traceparent`.
pub const TRACE_PARENT: &str = "traceparent";

/// Why headers can't be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadersError {
    /// Not a map of texts to bytes or texts.
    #[error("headers are no map of texts to bytes (byte {at})")]
    Malformed {
        /// Where.
        at: usize,
    },
    /// Too long.
    #[error("headers of {len} bytes: {HEADERS_LEN_MAX} are the most")]
    Len {
        /// Their length.
        len: usize,
    },
}

/// The bytes of these headers; nothing for none.
///
/// ```
/// use ganger_protocol::headers;
///
/// let encoded = headers::encode(&[("key", b"sensor-7")])?;
/// assert_eq!(headers::find(&encoded, "key")?, Some(&b"sensor-7"[..]));
/// # Ok::<(), headers::HeadersError>(())
/// ```
pub fn encode<N, V>(headers: &[(N, V)]) -> Result<Vec<u8>, HeadersError>
where
    N: AsRef<str>,
    V: AsRef<[u8]>,
{
    let mut out = Vec::new();
    if headers.is_empty() {
        return Ok(out);
    }
    let mut len = 3;
    for (name, value) in headers {
        // Before any of it is copied.
        len += 6 + name.as_ref().len() + value.as_ref().len();
        if len > 2 * HEADERS_LEN_MAX {
            return Err(HeadersError::Len { len });
        }
    }
    put_len(&mut out, headers.len(), (0x80, 16), [None, Some(0xde)]);
    for (name, value) in headers {
        put_len(
            &mut out,
            name.as_ref().len(),
            (0xa0, 32),
            [Some(0xd9), Some(0xda)],
        );
        out.extend_from_slice(name.as_ref().as_bytes());
        put_len(
            &mut out,
            value.as_ref().len(),
            (0, 0),
            [Some(0xc4), Some(0xc5)],
        );
        out.extend_from_slice(value.as_ref());
    }
    match out.len() {
        len if len > HEADERS_LEN_MAX => Err(HeadersError::Len { len }),
        _ => Ok(out),
    }
}

/// The value of the first header of this name.
pub fn find<'a>(headers: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, HeadersError> {
    for header in iter(headers) {
        let (found, value) = header?;
        if found == name {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// All headers, in the order they were written. After an error nothing more comes.
pub fn iter(headers: &[u8]) -> Headers<'_> {
    let mut walk = Walk {
        bytes: headers,
        at: 0,
    };
    let left = match headers {
        [] => Ok(0),
        _ => walk.map_len(),
    };
    Headers { walk, left }
}

/// A walk over headers: see [`iter`].
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    walk: Walk<'a>,
    left: Result<usize, HeadersError>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<(&'a str, &'a [u8]), HeadersError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.left {
            Ok(0) if self.walk.at == self.walk.bytes.len() => return None,
            Ok(0) => Err(self.walk.malformed()),
            Ok(_) => self.walk.header(),
            Err(error) => Err(error),
        };
        self.left = match (self.left, &next) {
            (Ok(left), Ok(_)) => Ok(left - 1),
            _ => {
                // So that the next call returns None.
                self.walk.at = self.walk.bytes.len();
                Ok(0)
            }
        };
        Some(next)
    }
}

#[derive(Debug, Clone)]
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn malformed(&self) -> HeadersError {
        HeadersError::Malformed { at: self.at }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], HeadersError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..len).ok_or(self.malformed())?;
        self.at += len;
        Ok(taken)
    }

    fn number(&mut self, len: usize) -> Result<usize, HeadersError> {
        let bytes = self.take(len)?;
        Ok(bytes
            .iter()
            .fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn map_len(&mut self) -> Result<usize, HeadersError> {
        match self.number(1)? {
            marker @ 0x80..=0x8f => Ok(marker - 0x80),
            0xde => self.number(2),
            _ => Err(HeadersError::Malformed { at: 0 }),
        }
    }

    fn header(&mut self) -> Result<(&'a str, &'a [u8]), HeadersError> {
        let at = self.at;
        let (is_text, name) = self.text_or_bytes()?;
        let name = std::str::from_utf8(name).ok().filter(|_| is_text);
        let name = name.ok_or(HeadersError::Malformed { at })?;
        Ok((name, self.text_or_bytes()?.1))
    }

    fn text_or_bytes(&mut self) -> Result<(bool, &'a [u8]), HeadersError> {
        let at = self.at;
        let marker = self.number(1)?;
        let len = match marker {
            0xa0..=0xbf => marker - 0xa0,
            0xd9 | 0xc4 => self.number(1)?,
            0xda | 0xc5 => self.number(2)?,
            _ => return Err(HeadersError::Malformed { at }),
        };
        let is_text = !matches!(marker, 0xc4 | 0xc5);
        Ok((is_text, self.take(len)?))
    }
}

/// The shortest of the markers that hold a length: one with the length in it (below `short.1`), one
/// with 8 bits behind it, one with 16. Longer ones never leave [`encode`].
#[allow(clippy::cast_possible_truncation)]
fn put_len(out: &mut Vec<u8>, len: usize, short: (u8, usize), long: [Option<u8>; 2]) {
    match long {
        _ if len < short.1 => out.push(short.0 | len as u8),
        [Some(marker), _] if len < 1 << 8 => out.extend([marker, len as u8]),
        [_, Some(marker)] => out.extend([marker, (len >> 8) as u8, len as u8]),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn no_headers_are_no_bytes_and_an_empty_map_is_fine_too() {
        assert_eq!(encode::<&str, &[u8]>(&[]), Ok(vec![]));
        assert_eq!(iter(b"").count(), 0);
        assert_eq!(iter(b"\x80").count(), 0);
        assert_eq!(find(b"", "key"), Ok(None));
    }

    #[test]
    fn what_is_no_map_of_texts_to_bytes_is_refused_once_and_with_its_place() {
        let cases: [(&[u8], usize); 9] = [
            (b"\xc0", 0),
            (b"\x90", 0),
            (b"\x81", 1),
            (b"\x81\xa3ke", 2),
            (b"\x81\xa1k\x07", 3),
            (b"\x81\xc4\x01k\xa1v", 1),
            (b"\x81\xa1\xff\xa1v", 1),
            (b"\x81\xa1k\xa1v\x00", 5),
            (b"\x82\xa1k\xa1v", 5),
        ];
        for (bytes, at) in cases {
            let all: Vec<_> = iter(bytes).collect();
            assert_eq!(
                all.last(),
                Some(&Err(HeadersError::Malformed { at })),
                "{bytes:?}"
            );
            assert_eq!(all.iter().filter(|header| header.is_err()).count(), 1);
        }
    }

    #[test]
    fn headers_of_exactly_the_limit_can_be_written_and_one_byte_more_can_not() {
        // Map marker, name, marker of the value: 6 bytes.
        let longest = vec![7; HEADERS_LEN_MAX - 6];
        let encoded = encode(&[("k", &longest)]).unwrap();
        assert_eq!(encoded.len(), HEADERS_LEN_MAX);
        assert_eq!(find(&encoded, "k"), Ok(Some(&longest[..])));
        let longer = vec![7; longest.len() + 1];
        let len = HEADERS_LEN_MAX + 1;
        assert_eq!(encode(&[("k", &longer)]), Err(HeadersError::Len { len }));
        let longer = vec![7; 1 << 20];
        assert!(encode(&[("k", &longer)]).is_err());
        assert!(encode(&vec![("", ""); 70_000]).is_err());
    }

    #[test]
    fn other_encoders_write_headers_that_can_be_read() {
        let map = std::collections::BTreeMap::from([("key", "sensor-7"), ("zone", "eu")]);
        let bytes = rmp_serde::to_vec(&map).unwrap();
        assert_eq!(find(&bytes, "zone"), Ok(Some(&b"eu"[..])));
        assert_eq!(find(&bytes, "no"), Ok(None));
    }

    proptest! {
        #[test]
        fn headers_come_back_as_they_went(
            headers in vec((".{0,40}", vec(any::<u8>(), 0..400)), 0..20),
        ) {
            let encoded = encode(&headers).unwrap();
            let back: Result<Vec<_>, _> = iter(&encoded).collect();
            let sent = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
            prop_assert_eq!(back.unwrap(), sent.collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_a_walk_panic_or_run_on(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(iter(&bytes).count() <= bytes.len() + 1);
        }
    }
}
