//! `examples/broker_client.py` knows nothing but `docs/protocol.md`: what it sends must be what this
//! crate reads, and the other way round. (The real broker runs the same conformance.)

use crate::{fake, samples};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output};

const CLIENT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../examples/broker_client.py"
);

/// A socket in a directory of its own, gone when dropped.
struct Socket(PathBuf);

impl Socket {
    fn new(name: &str) -> Self {
        let folder = format!("ganger-protocol-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.join("broker.sock")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn python(arguments: &[&str]) -> Output {
    let output = Command::new("python3").arg("-B").args(arguments).output();
    output.unwrap_or_else(|error| {
        panic!("python3 does not start ({error}): install it, for example by `apt install python3`")
    })
}

#[test]
fn the_python_client_holds_the_conformance() {
    let socket = Socket::new("conformance");
    let listener = UnixListener::bind(socket.path()).unwrap();
    let path = socket.path();
    let client =
        std::thread::spawn(move || python(&[CLIENT, path.to_str().unwrap(), "conformance"]));
    // A client that never connects ends, and then so does this wait.
    listener.set_nonblocking(true).unwrap();
    while !client.is_finished() {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                fake::serve(stream);
            }
            Err(_) => std::thread::yield_now(),
        }
    }
    let output = client.join().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{complaint}");
    assert!(
        told.contains(" 0 failed") && told.lines().count() > 20,
        "{told}"
    );
}

#[test]
fn python_reads_and_writes_every_message() {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let samples = samples::all();
    let script = "import sys; sys.path.insert(0, sys.argv[1]); import broker_client as c\n\
        for line in open(sys.argv[2]):\n\
        \x20   value, rest = c.unpack(bytes.fromhex(line))\n\
        \x20   assert rest == b''\n\
        \x20   print(c.pack(value).hex())";
    let socket = Socket::new("messages");
    let file = socket.0.join("messages");
    let lines: Vec<String> = samples.iter().map(|sample| hex(&sample.bytes)).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let folder = std::path::Path::new(CLIENT).parent().unwrap();
    let output = python(&[
        "-c",
        script,
        folder.to_str().unwrap(),
        file.to_str().unwrap(),
    ]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let written = String::from_utf8(output.stdout).unwrap();
    assert_eq!(written.lines().count(), samples.len());
    for (line, sample) in written.lines().zip(&samples) {
        let byte = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..line.len()).step_by(2).map(byte).collect();
        assert_eq!((sample.read)(&bytes), Ok(true), "{}", sample.name);
    }
}
