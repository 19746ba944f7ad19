//! Other users, and directories that others prepared.

use super::hostile::Raw;
use super::keeper::Keeper;
use super::run;
use crate::harness::{become_user, report, wait_until, Child, Watchdog};
use ganger_client::{ClientBuilder, HomeError};
use ganger_protocol::{ErrorBody, ErrorCode, Frame};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{chown, symlink, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A user that is not us: `nobody`.
const OTHER: u32 = 65_534;

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can be another user");
    }
    is_root
}

/// What a broker that does not start says.
fn refusal(keeper: &Keeper) -> String {
    let output = keeper.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn another_user_can_not_come_near_the_socket_and_is_refused_if_it_does() {
    let _watchdog = Watchdog::new("broker_faults::strangers::user", 120);
    if !is_root() {
        return;
    }
    let keeper = Keeper::plain(&[]);
    drop(Raw::greeted(&keeper));
    let socket = keeper.socket();
    let visit = || {
        let arguments = [socket.to_str().unwrap().to_owned()];
        Child::spawn("fault-stranger", &arguments).hear()
    };
    assert_eq!(visit(), "PermissionDenied");
    // Somebody opens the doors: the broker still looks who it is.
    chmod(&keeper.home, 0o755);
    chmod(&socket, 0o666);
    assert_eq!(visit(), format!("{:?}", ErrorCode::NotAllowed));
    drop(Raw::greeted(&keeper));
}

/// Tells what becomes of a connection.
pub(super) fn play(socket: &str) {
    become_user(OTHER);
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) => return report(&format!("{:?}", error.kind())),
    };
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let frame = Frame::decode(bytes.split_off(4).into()).unwrap();
    report(&format!("{:?}", frame.body::<ErrorBody>().unwrap().code));
}

#[test]
fn a_link_planted_as_the_socket_is_not_followed_nor_removed() {
    let _watchdog = Watchdog::new("broker_faults::strangers::link", 120);
    let keeper = Keeper::new(&[]);
    let target = keeper.home.join("precious");
    fs::write(&target, "data").unwrap();
    symlink(&target, keeper.socket()).unwrap();
    let said = refusal(&keeper);
    assert!(said.contains("is no socket"), "{said}");
    assert_eq!(fs::read(&target).unwrap(), b"data");
    assert_eq!(fs::read_link(keeper.socket()).unwrap(), target);
}

#[test]
fn a_link_planted_as_the_home_is_refused_by_broker_and_client() {
    let _watchdog = Watchdog::new("broker_faults::strangers::home", 120);
    let real = Keeper::plain(&[]);
    drop(Raw::greeted(&real));
    let mut keeper = Keeper::new(&[]);
    fs::remove_dir(&keeper.home).unwrap();
    symlink(&real.home, &keeper.home).unwrap();
    let said = refusal(&keeper);
    assert!(said.contains("symbolic link"), "{said}");
    let refused = refused(&keeper.home);
    assert!(
        matches!(refused, HomeError::NotADirectory { .. }),
        "{refused}"
    );
    fs::remove_file(&keeper.home).unwrap();
    keeper.kill();
}

#[test]
fn a_home_of_somebody_else_or_open_to_others_is_refused_by_broker_and_client() {
    let _watchdog = Watchdog::new("broker_faults::strangers::foreign", 120);
    let keeper = Keeper::new(&[]);
    chmod(&keeper.home, 0o777);
    let said = refusal(&keeper);
    assert!(said.contains("0777") || said.contains("777"), "{said}");
    let told = refused(&keeper.home);
    assert!(matches!(told, HomeError::Writable { .. }), "{told}");
    chmod(&keeper.home, 0o700);
    if !is_root() {
        return;
    }
    chown(&keeper.home, Some(OTHER), None).unwrap();
    let said = refusal(&keeper);
    assert!(said.contains("65534"), "{said}");
    let told = refused(&keeper.home);
    assert!(matches!(told, HomeError::Foreign { .. }), "{told}");
    chown(&keeper.home, Some(0), None).unwrap();
}

#[test]
fn the_socket_that_a_killed_broker_left_is_taken_over() {
    let _watchdog = Watchdog::new("broker_faults::strangers::left", 120);
    let mut keeper = Keeper::plain(&[]);
    drop(Raw::greeted(&keeper));
    keeper.kill();
    assert!(keeper.socket().exists());
    keeper.start();
    wait_until("the next broker", || {
        UnixStream::connect(keeper.socket()).is_ok()
    });
    drop(Raw::greeted(&keeper));
}

fn refused(home: &Path) -> HomeError {
    let connected = run(ClientBuilder::new().home(home).connect());
    match connected.unwrap_err() {
        ganger_client::Error::Home(error) => error,
        error => panic!("{error:?}"),
    }
}
