//! Subjects, patterns, and names of queue groups: parsed once, sound from then on.

use crate::limits::{NAME_LEN_MAX, SUBJECT_LEN_MAX, SUBJECT_TOKENS_MAX};
use std::fmt;
use std::str::FromStr;

/// Why a text is no subject, pattern or group name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubjectError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Too long.
    #[error("it has {len} bytes: {limit} are the most")]
    Len {
        /// Its length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many tokens.
    #[error("it has more than {SUBJECT_TOKENS_MAX} tokens")]
    Tokens,
    /// A dot at the beginning or end, or two in a row.
    #[error("it has an empty token at byte {at}")]
    EmptyToken {
        /// Where.
        at: usize,
    },
    /// Whitespace or a control character.
    #[error("it has whitespace or a control character at byte {at}")]
    Character {
        /// Where.
        at: usize,
    },
    /// Not UTF-8.
    #[error("it is not UTF-8 from byte {at} on")]
    Utf8 {
        /// Where.
        at: usize,
    },
    /// A wildcard where none may be: in a subject, or within a token.
    #[error("`*` and `>` stand alone between dots, and only in patterns (byte {at})")]
    Wildcard {
        /// Where.
        at: usize,
    },
    /// `>` before the end.
    #[error("`>` stands for all the rest, so only at the end (byte {at})")]
    RestNotLast {
        /// Where.
        at: usize,
    },
}

/// Where a message goes: tokens between dots, without wildcards.
///
/// ```
/// use ganger_protocol::{Subject, SubjectError};
///
/// let subject: Subject = "orders.eu.new".parse()?;
/// assert_eq!(subject.as_str(), "orders.eu.new");
/// assert_eq!("orders..new".parse::<Subject>(), Err(SubjectError::EmptyToken { at: 7 }));
/// # Ok::<(), SubjectError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Box<str>);

impl Subject {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        check_subject(text.as_bytes()).map(|text| Self(text.into()))
    }
}

/// The text of a frame's subject slot, if it is a [`Subject`]; nothing is allocated.
#[inline]
pub fn check_subject(bytes: &[u8]) -> Result<&str, SubjectError> {
    let text = check_text(bytes, SUBJECT_LEN_MAX)?;
    if !is_plain(bytes) {
        check_tokens(text, false)?;
    }
    Ok(text)
}

/// Whether the tokens are sound at first sight: what nearly all subjects are, and every message has
/// one.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    let (mut tokens, mut begins) = (1, true);
    for byte in bytes {
        match byte {
            b'*' | b'>' => return false,
            b'.' if begins => return false,
            b'.' => {
                tokens += 1;
                begins = true;
            }
            _ => begins = false,
        }
    }
    !begins && tokens <= SUBJECT_TOKENS_MAX
}

/// What a subscription asks for: a subject in which `*` may stand for one token, and `>` at the end
/// for all the rest, one token or more.
///
/// ```
/// use ganger_protocol::Pattern;
///
/// let pattern: Pattern = "orders.*.new".parse()?;
/// assert!(pattern.matches("orders.eu.new"));
/// assert!(!pattern.matches("orders.eu.de.new"));
/// assert!("orders.>".parse::<Pattern>()?.matches("orders.eu.de.new"));
/// # Ok::<(), ganger_protocol::SubjectError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    text: Box<str>,
    is_exact: bool,
}

impl Pattern {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has no wildcards, and so matches one subject: its own text.
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// What stands between its dots.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.text.split('.')
    }

    /// Whether a subject is among those it asks for.
    pub fn matches(&self, subject: &str) -> bool {
        if self.is_exact {
            return *self.text == *subject;
        }
        let mut asked = self.tokens();
        let mut given = subject.split('.');
        loop {
            match (asked.next(), given.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some("*"), Some(_)) => {}
                (Some(asked), Some(given)) if asked == given => {}
                _ => return false,
            }
        }
    }
}

impl FromStr for Pattern {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        check_text(text.as_bytes(), SUBJECT_LEN_MAX)?;
        let is_exact = check_tokens(text, true)?;
        Ok(Self {
            text: text.into(),
            is_exact,
        })
    }
}

impl From<Subject> for Pattern {
    fn from(subject: Subject) -> Self {
        Self {
            text: subject.0,
            is_exact: true,
        }
    }
}

/// The name of a queue group: any text without whitespace and control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(Box<str>);

impl Group {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Group {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        check_text(text.as_bytes(), NAME_LEN_MAX).map(|text| Self(text.into()))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_text(bytes: &[u8], limit: usize) -> Result<&str, SubjectError> {
    if bytes.is_empty() {
        return Err(SubjectError::Empty);
    }
    if bytes.len() > limit {
        return Err(SubjectError::Len {
            len: bytes.len(),
            limit,
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| SubjectError::Utf8 {
        at: error.valid_up_to(),
    })?;
    // Bytes first: subjects are ASCII nearly always.
    let suspect = |byte: u8| byte <= b' ' || byte >= 0x7f;
    if bytes.iter().copied().any(suspect) {
        let bad = |&(_, c): &(usize, char)| c.is_whitespace() || c.is_control();
        if let Some((at, _)) = text.char_indices().find(bad) {
            return Err(SubjectError::Character { at });
        }
    }
    Ok(text)
}

/// Whether there are no wildcards.
fn check_tokens(text: &str, wildcards: bool) -> Result<bool, SubjectError> {
    let mut is_exact = true;
    let (mut at, mut count) = (0, 0);
    for token in text.as_bytes().split(|byte| *byte == b'.') {
        count += 1;
        match token {
            [] => return Err(SubjectError::EmptyToken { at }),
            b"*" if wildcards => is_exact = false,
            b">" if wildcards && at + 1 == text.len() => is_exact = false,
            b">" if wildcards => return Err(SubjectError::RestNotLast { at }),
            _ => {
                if let Some(place) = token.iter().position(|byte| matches!(byte, b'*' | b'>')) {
                    return Err(SubjectError::Wildcard { at: at + place });
                }
            }
        }
        at += token.len() + 1;
    }
    if count > SUBJECT_TOKENS_MAX {
        return Err(SubjectError::Tokens);
    }
    Ok(is_exact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use SubjectError as E;

    fn pattern(text: &str) -> Result<Pattern, E> {
        text.parse()
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let both = [
            ("", E::Empty),
            (".", E::EmptyToken { at: 0 }),
            (".a", E::EmptyToken { at: 0 }),
            ("a.", E::EmptyToken { at: 2 }),
            ("a..b", E::EmptyToken { at: 2 }),
            ("a b", E::Character { at: 1 }),
            ("a.\n", E::Character { at: 2 }),
            ("a\0", E::Character { at: 1 }),
            ("\x7f", E::Character { at: 0 }),
            ("a\u{a0}", E::Character { at: 1 }),
            ("a\u{85}", E::Character { at: 1 }),
            ("a*.b", E::Wildcard { at: 1 }),
            ("a.b>", E::Wildcard { at: 3 }),
            ("a.**", E::Wildcard { at: 2 }),
        ];
        for (text, error) in both {
            assert_eq!(text.parse::<Subject>(), Err(error), "{text:?}");
            assert_eq!(pattern(text), Err(error), "{text:?}");
        }
        assert_eq!("a.*".parse::<Subject>(), Err(E::Wildcard { at: 2 }));
        assert_eq!(">".parse::<Subject>(), Err(E::Wildcard { at: 0 }));
        assert_eq!(pattern("a.>.b"), Err(E::RestNotLast { at: 2 }));
        assert_eq!(check_subject(b"a.\xff"), Err(E::Utf8 { at: 2 }));
        let umlaut = "stra\u{df}e.n\u{f6}rdlich";
        assert_eq!(check_subject(umlaut.as_bytes()), Ok(umlaut));
    }

    #[test]
    fn one_byte_and_one_token_beyond_the_limits_are_refused() {
        assert!(pattern(&"a".repeat(SUBJECT_LEN_MAX)).is_ok());
        let len = SUBJECT_LEN_MAX + 1;
        let limit = SUBJECT_LEN_MAX;
        assert_eq!(pattern(&"a".repeat(len)), Err(E::Len { len, limit }));
        let tokens = |count: usize| vec!["a"; count].join(".");
        assert!(tokens(SUBJECT_TOKENS_MAX).parse::<Subject>().is_ok());
        assert_eq!(pattern(&tokens(SUBJECT_TOKENS_MAX + 1)), Err(E::Tokens));
        assert!("g".repeat(NAME_LEN_MAX).parse::<Group>().is_ok());
        assert!("g".repeat(NAME_LEN_MAX + 1).parse::<Group>().is_err());
        assert!("work.queue*".parse::<Group>().is_ok());
        assert_eq!("a b".parse::<Group>(), Err(E::Character { at: 1 }));
    }

    #[test]
    fn wildcards_match_as_in_the_document() {
        let yes = [
            ("a.b", "a.b"),
            ("*", "a"),
            ("a.*", "a.b"),
            ("*.b", "a.b"),
            (">", "a"),
            (">", "a.b.c"),
            ("a.>", "a.b"),
            ("a.*.>", "a.b.c.d"),
        ];
        let no = [
            ("a.b", "a"),
            ("a.b", "a.b.c"),
            ("*", "a.b"),
            ("a.*", "a"),
            ("a.>", "a"),
            ("a.*.>", "a.b"),
            ("a.*", "b.a"),
        ];
        for (text, subject) in yes {
            assert!(pattern(text).unwrap().matches(subject), "{text} {subject}");
        }
        for (text, subject) in no {
            assert!(!pattern(text).unwrap().matches(subject), "{text} {subject}");
        }
        assert!(pattern("a.b").unwrap().is_exact() && !pattern("a.*").unwrap().is_exact());
    }

    /// As slow and as plain as can be.
    fn naive(pattern: &[&str], subject: &[&str]) -> bool {
        match (pattern, subject) {
            ([], []) => true,
            ([">"], [_, ..]) => true,
            ([asked, pattern @ ..], [given, subject @ ..]) => {
                (*asked == "*" || asked == given) && naive(pattern, subject)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_a_naive_model(
            asked in proptest::collection::vec("[ab*]", 1..6), rest: bool,
            given in proptest::collection::vec("[ab]", 1..6),
        ) {
            let mut asked: Vec<&str> = asked.iter().map(String::as_str).collect();
            if rest {
                asked.push(">");
            }
            let given: Vec<&str> = given.iter().map(String::as_str).collect();
            let pattern = pattern(&asked.join(".")).unwrap();
            prop_assert_eq!(pattern.matches(&given.join(".")), naive(&asked, &given));
        }

        #[test]
        fn no_bytes_make_a_check_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(subject) = check_subject(&bytes) {
                prop_assert!(pattern(subject).is_ok_and(|p| p.is_exact() && p.matches(subject)));
            }
        }
    }
}
