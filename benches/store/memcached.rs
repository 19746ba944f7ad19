//! memcached over its Unix socket, in its text protocol.

use crate::link::{new_home, Server, Store};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

/// `None` if it is not installed.
pub(crate) fn start() -> Option<Server> {
    let home = new_home();
    let socket = home.join("memcached.sock");
    let mut command = Command::new("memcached");
    // Room for all that is stored, and for values of 1 MiB.
    command.args(["-m", "1024", "-I", "4m", "-s"]).arg(&socket);
    if rustix::process::getuid().is_root() {
        command.args(["-u", "root"]);
    }
    Server::run(command, socket.display().to_string(), home)
}

pub(crate) struct Memcached {
    stream: BufReader<UnixStream>,
    out: Vec<u8>,
    line: Vec<u8>,
    value: Vec<u8>,
}

impl Memcached {
    pub(crate) fn connect(address: &str) -> Self {
        let stream = UnixStream::connect(address).unwrap();
        Self {
            stream: BufReader::with_capacity(1 << 18, stream),
            out: Vec::new(),
            line: Vec::new(),
            value: Vec::new(),
        }
    }

    fn send(&mut self) {
        self.stream.get_mut().write_all(&self.out).unwrap();
        self.out.clear();
    }

    fn read_line(&mut self) {
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line).unwrap();
    }

    /// Reads the values of a `get`; tells how many there are.
    fn values(&mut self) -> usize {
        for found in 0.. {
            self.read_line();
            if self.line == b"END\r\n" {
                return found;
            }
            // VALUE <key> <flags> <bytes>
            let line = self.line.trim_ascii_end();
            let digits = line.rsplit(|byte| *byte == b' ').next().unwrap();
            let len: usize = std::str::from_utf8(digits).unwrap().parse().unwrap();
            self.value.resize(len + 2, 0);
            self.stream.read_exact(&mut self.value).unwrap();
        }
        unreachable!("a get has an end")
    }
}

impl Store for Memcached {
    fn get(&mut self, keys: &[[u8; 16]]) {
        self.out.extend_from_slice(b"get");
        for key in keys {
            self.out.push(b' ');
            self.out.extend_from_slice(key);
        }
        self.out.extend_from_slice(b"\r\n");
        self.send();
        assert_eq!(self.values(), keys.len());
    }

    fn set(&mut self, keys: &[[u8; 16]], value: &[u8]) {
        for key in keys {
            self.out.extend_from_slice(b"set ");
            self.out.extend_from_slice(key);
            write!(self.out, " 0 0 {}\r\n", value.len()).unwrap();
            self.out.extend_from_slice(value);
            self.out.extend_from_slice(b"\r\n");
        }
        self.send();
        for _ in keys {
            self.read_line();
            assert_eq!(self.line, b"STORED\r\n");
        }
    }

    fn incr(&mut self, keys: &[[u8; 16]]) {
        for key in keys {
            self.out.extend_from_slice(b"incr ");
            self.out.extend_from_slice(key);
            self.out.extend_from_slice(b" 1\r\n");
        }
        self.send();
        for _ in keys {
            self.read_line();
            assert!(self.line[0].is_ascii_digit(), "a counter is there");
        }
    }
}
