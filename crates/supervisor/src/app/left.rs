//! What a worker leaves behind: members of its process group, and processes that ran from it and
//! were adopted by this one.

use crate::proc::{pids, stat};
use rustix::process::Pid;
use std::fs;

/// Whether anybody but the leader is in its process group and not yet dead.
pub(crate) fn group_has_others(leader: Pid) -> bool {
    let leader = leader.as_raw_nonzero().get();
    let members = group_members(leader).into_iter();
    members
        .filter(|pid| *pid != leader)
        .any(|pid| stat(pid).is_some_and(|stat| stat.is_alive))
}

/// The members of a process group, its leader included.
pub(crate) fn group_members(leader: i32) -> Vec<i32> {
    pids()
        .filter(|pid| *pid == leader || stat(*pid).is_some_and(|stat| stat.group == leader))
        .collect()
}

/// This process's children.
pub(crate) fn children() -> Vec<i32> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread?.path().join("children")));
    match lists.collect::<std::io::Result<Vec<String>>>() {
        Ok(lists) => {
            let numbers = lists.iter().flat_map(|list| list.split(' '));
            numbers.filter_map(|pid| pid.parse().ok()).collect()
        }
        // A kernel without these files, or a thread that ended meanwhile.
        Err(_) => {
            let own = rustix::process::getpid().as_raw_nonzero().get();
            pids()
                .filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == own))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{kill_process, Signal};
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[test]
    fn a_group_has_others_as_long_as_one_of_them_lives() {
        let mut leader = Command::new("sh")
            .args(["-c", "sleep 1000 & echo $!"])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&leader);
        let is_child = |pid: Pid| children().contains(&pid.as_raw_nonzero().get());
        assert!(is_child(pid));
        let mut other = String::new();
        let mut stdout = BufReader::new(leader.stdout.take().unwrap());
        stdout.read_line(&mut other).unwrap();
        let other = Pid::from_raw(other.trim().parse().unwrap()).unwrap();
        assert!(group_has_others(pid));
        kill_process(other, Signal::KILL).unwrap();
        leader.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while group_has_others(pid) {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }
}
