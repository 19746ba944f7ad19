//! What a worker leaves behind: members of its process group, and processes that ran from it and
//! were adopted by this one.

use crate::leftovers::stat;
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
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid == leader || stat(*pid).is_some_and(|stat| stat.group == leader))
        .collect()
}

/// This process's children.
pub(crate) fn children() -> Box<dyn Iterator<Item = i32>> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    match fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        Ok(text) => {
            let numbers: Vec<i32> = text.split(' ').filter_map(|pid| pid.parse().ok()).collect();
            Box::new(numbers.into_iter())
        }
        // A kernel without that file.
        Err(_) => {
            let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
            let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            Box::new(pids.filter(move |pid| stat(*pid).is_some_and(|stat| stat.parent == own)))
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
        let is_child = |pid: Pid| children().any(|child| child == pid.as_raw_nonzero().get());
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
