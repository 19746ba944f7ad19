//! The least that a broker can cost: a process that only hands bytes from one Unix socket to
//! another.

use crate::link::ready;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

/// Bytes of a request and of its answer.
pub(crate) const LEN: usize = 64;

/// Takes the asker and the answerer, in this order, and hands what comes back and forth.
pub(crate) fn relay(address: &str) {
    let listener = UnixListener::bind(address).unwrap();
    ready();
    let mut answerer = listener.accept().unwrap().0;
    let mut asker = listener.accept().unwrap().0;
    let mut bytes = [0; LEN];
    while asker.read_exact(&mut bytes).is_ok() {
        answerer.write_all(&bytes).unwrap();
        answerer.read_exact(&mut bytes).unwrap();
        asker.write_all(&bytes).unwrap();
    }
}

pub(crate) fn reply(address: &str) {
    let mut stream = UnixStream::connect(address).unwrap();
    ready();
    let mut bytes = [0; LEN];
    while stream.read_exact(&mut bytes).is_ok() {
        stream.write_all(&bytes).unwrap();
    }
}
