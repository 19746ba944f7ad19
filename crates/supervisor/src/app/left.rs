//! What a worker leaves behind: members of its process group, and processes that ran from it and
//! were adopted by this one.

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

struct Stat {
    is_alive: bool,
    parent: i32,
    group: i32,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, so the fields are counted from its end.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some(Stat {
        is_alive: !matches!(fields.next()?, "Z" | "X"),
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    #[test]
    fn a_group_has_others_as_long_as_one_of_them_lives() {
        // The shell leads a group; the cat that it runs ends with its input.
        let mut leader = Command::new("sh")
            .args(["-c", "cat & exec cat"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&leader);
        assert!(children().any(|child| child == pid.as_raw_nonzero().get()));
        drop(leader.stdin.take());
        leader.wait().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while group_has_others(pid) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
    }
}
