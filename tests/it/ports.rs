//! Ports that no other test has and no connection takes.

use std::net::{Ipv4Addr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

/// Beneath those that Linux gives to connections and to who asks for any port
/// (`net.ipv4.ip_local_port_range`): a port that was free a moment ago stays free.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Who holds the name of a port holds the port: until the process ends, killed or not.
static HELD: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A port where nobody listens, and this process's own among all tests on the machine.
pub(crate) fn free_port() -> u16 {
    let mut held = HELD.lock().unwrap();
    let name_of = |port| SocketAddr::from_abstract_name(format!("ganger-test-port-{port}"));
    for port in PORTS {
        let Ok(name) = UnixListener::bind_addr(&name_of(port).unwrap()) else {
            continue;
        };
        held.push(name);
        // Asked, not tried: a child that is forked meanwhile would hold the tried socket until it
        // executes its program.
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            return port;
        }
    }
    panic!("no port is free from {} to {}", PORTS.start, PORTS.end);
}
