//! Whether an answer is the right one, and who gave it.

use super::Shape;
use serde::Deserialize;

/// What the small answers of the test servers say.
#[derive(Debug, Deserialize)]
pub(crate) struct Said {
    pub(crate) pid: u32,
    pub(crate) id: String,
    /// Of an upload: how many bytes came, and their sum.
    pub(crate) bytes: Option<u64>,
    pub(crate) sum: Option<u64>,
}

/// The request that this shape makes.
pub(crate) fn request(shape: Shape, id: u64, is_kept: bool) -> Vec<u8> {
    let (method, path) = match shape {
        Shape::Hello | Shape::Echo => ("GET", format!("/hello?id={id}")),
        Shape::Slow(ms) => ("GET", format!("/slow?ms={ms}&id={id}")),
        Shape::Download(bytes) => ("GET", format!("/large?bytes={bytes}&id={id}")),
        Shape::Upload(_) => ("POST", format!("/sum?id={id}")),
        Shape::File(_) => ("GET", "/file.txt".to_owned()),
    };
    let connection = if is_kept { "keep-alive" } else { "close" };
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: {connection}\r\n");
    if let Shape::Upload(bytes) = shape {
        head += &format!("content-type: application/octet-stream\r\ncontent-length: {bytes}\r\n");
    }
    head += "\r\n";
    let mut request = head.into_bytes();
    if let Shape::Upload(bytes) = shape {
        request.extend((0..bytes).map(|index| upload_byte(id, index)));
    }
    request
}

/// Who gave this answer, or what is wrong with it. `told` is the process that its head names.
pub(crate) fn judge(
    shape: Shape,
    id: u64,
    status: u16,
    told: Option<u32>,
    body: &[u8],
) -> Result<Option<u32>, String> {
    if status != 200 {
        return Err(format!("status {status}"));
    }
    match shape {
        Shape::File(text) if body == text.as_bytes() => Ok(None),
        Shape::File(_) => Err("another file".to_owned()),
        Shape::Download(bytes) => {
            if body.len() != bytes {
                return Err(format!("{} bytes instead of {bytes}", body.len()));
            }
            let pattern = id.to_string().into_bytes();
            let is_right = body
                .iter()
                .zip(pattern.iter().cycle())
                .all(|(have, want)| have == want);
            is_right
                .then_some(told)
                .ok_or_else(|| "bytes of another body".to_owned())
        }
        _ => judge_small(shape, id, body),
    }
}

fn judge_small(shape: Shape, id: u64, body: &[u8]) -> Result<Option<u32>, String> {
    let said: Said = serde_json::from_slice(body).map_err(|error| {
        let start = String::from_utf8_lossy(&body[..body.len().min(80)]);
        format!("{error}: {start}")
    })?;
    if said.id != id.to_string() {
        return Err(format!("answer to {} instead of {id}", said.id));
    }
    if let Shape::Upload(bytes) = shape {
        let sum: u64 = (0..bytes)
            .map(|index| u64::from(upload_byte(id, index)))
            .sum();
        if said.bytes != Some(bytes as u64) || said.sum != Some(sum) {
            return Err(format!("{said:?} instead of {bytes} bytes, sum {sum}"));
        }
    }
    Ok(Some(said.pid))
}

fn upload_byte(id: u64, index: usize) -> u8 {
    ((id as usize).wrapping_mul(31).wrapping_add(index) % 251) as u8
}
