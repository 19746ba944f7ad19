//! Starting and ending processes.

use crate::support::{all, command, forking, shell, spec, until, Child, Folder, DEADLINE};
use ganger_supervisor::leftovers::{kill_all, Whose, MARK_VARIABLE};
use ganger_supervisor::spawn::{
    ended, signal, signal_group, spawn, try_reap, Cgroup, SpawnError, OWN_PID,
};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;

/// Signals 32 and 33, which the C library keeps for itself.
const INTERNAL: u64 = 0b11 << 31;

#[test]
fn a_program_gets_its_arguments_environment_and_directory() {
    let mut command = shell("echo $0-$A-$B-$PWD; echo complaint >&2");
    command.args.push("zero".into());
    command.cwd = "/usr".into();
    command.env.push(("A".into(), "first".into()));
    command.env.push(("B".into(), "own".into()));
    let mut spec = spec(&command);
    spec.env = vec![("B".into(), "given".into())];
    let mut child = Child::new(spec);
    let complaint = all(child.0.stderr.take().unwrap());
    assert_eq!(child.read(), "zero-first-given-/usr\n");
    assert_eq!(complaint, "complaint\n");
    assert_eq!(child.wait().code, Some(0));
}

#[test]
fn descriptors_come_under_their_numbers_whatever_numbers_they_had() {
    let folder = Folder::new();
    let files: Vec<OwnedFd> = (0..6)
        .map(|at| {
            let path = folder.0.join(at.to_string());
            fs::write(&path, format!("text {at}")).unwrap();
            fs::File::open(&path).unwrap().into()
        })
        .collect();
    let numbers: Vec<i32> = files.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect();
    let command = shell(
        "for fd in 3 4 5 6 7 8; do cat <&$fd; echo; done; \
         for fd in /proc/self/fd/*; do echo ${fd##*/}; done",
    );
    let mut spec = spec(&command);
    // Targets that are, in part, the numbers of others: 3..9 in reverse.
    spec.fds = files.into_iter().zip((3..9).rev()).collect();
    let mut child = Child::new(spec);
    let text = child.read();
    let expected: String = (0..6).rev().map(|at| format!("text {at}\n")).collect();
    let rest = text
        .strip_prefix(&expected)
        .unwrap_or_else(|| panic!("{numbers:?}: {text}"));
    let mut open: Vec<i32> = rest.lines().map(|line| line.parse().unwrap()).collect();
    open.retain(|fd| *fd < 9);
    assert_eq!(open, (0..9).collect::<Vec<_>>());
    assert!(
        rest.lines().count() <= 10,
        "the program got more than its own: {rest}"
    );
}

#[test]
fn signals_are_as_a_program_expects_them() {
    // This process ignores SIGPIPE, as all of Rust's do.
    let command = shell("cat /proc/self/status");
    let mut child = Child::new(spec(&command));
    let text = child.read();
    for (name, but) in [("SigBlk", 0), ("SigIgn", INTERNAL), ("SigCgt", 0)] {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        let set = u64::from_str_radix(line.trim_start_matches(":\t"), 16).unwrap();
        assert_eq!(set & !but, 0, "{name}{line}");
    }
}

#[test]
fn each_process_leads_its_own_group_and_dies_with_its_parent() {
    let command = shell("cut -d' ' -f1,5 /proc/$$/stat; read x < /proc/$$/stat; echo $$");
    let mut child = Child::new(spec(&command));
    let pid = child.0.pid.as_raw_nonzero();
    assert_eq!(child.read(), format!("{pid} {pid}\n{pid}\n"));
}

#[test]
fn a_child_knows_its_own_number_where_asked() {
    let command = shell("echo $$ $LISTEN_PID");
    let mut spec = spec(&command);
    spec.env = vec![("LISTEN_PID".into(), OWN_PID.into())];
    let mut child = Child::new(spec);
    let pid = child.0.pid.as_raw_nonzero();
    assert_eq!(child.read(), format!("{pid} {pid}\n"));
}

#[test]
fn failures_of_exec_are_told_by_name() {
    let folder = Folder::new();
    let file = |name: &str, text: &str, mode: u32| {
        let path = folder.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let failed = |program: &str| forking(|| spawn(spec(&command(program, &[])))).unwrap_err();
    let missing = failed("no-such-program-here");
    assert!(matches!(&missing, SpawnError::NotFound { path, .. } if path.contains("bin")));
    assert!(missing.to_string().contains("no-such-program-here"));
    assert!(matches!(failed("/no/such/file"), SpawnError::NoFile { .. }));
    assert!(matches!(failed("/usr"), SpawnError::NotExecutable { .. }));
    let plain = file("plain", "#!/bin/sh\n", 0o644);
    assert!(matches!(failed(&plain), SpawnError::NotExecutable { .. }));
    let garbage = file("garbage", "no program", 0o755);
    assert!(matches!(failed(&garbage), SpawnError::NotAProgram { .. }));
    let no_interpreter = file("script", "#!/no/such/interpreter\n", 0o755);
    assert!(matches!(failed(&no_interpreter), SpawnError::NoFile { .. }));
    let mut elsewhere = shell("true");
    elsewhere.cwd = "/no/such/folder".into();
    let error = forking(|| spawn(spec(&elsewhere))).unwrap_err();
    assert!(matches!(&error, SpawnError::Directory { .. }));
    assert!(error.to_string().contains("/no/such/folder"));
    let mut zero = shell("true");
    zero.args.push("a\0b".into());
    assert!(matches!(
        forking(|| spawn(spec(&zero))).unwrap_err(),
        SpawnError::NulByte { .. }
    ));
}

#[test]
fn a_filter_is_handed_over_and_the_program_runs_with_it() {
    let command = shell("grep Seccomp: /proc/self/status");
    let mut spec = spec(&command);
    spec.has_seccomp = true;
    let mut child = Child::new(spec);
    assert!(child.0.seccomp.is_some());
    assert_eq!(child.read(), "Seccomp:\t2\n");
    assert_eq!(child.wait().code, Some(0));
}

#[test]
fn the_end_is_told_by_code_or_signal() {
    assert_eq!(Child::new(spec(&shell("exit 7"))).wait().code, Some(7));
    let child = Child::new(spec(&shell("sleep 100")));
    signal(&child.0.pidfd, libc::SIGKILL).unwrap();
    let end = child.wait();
    assert_eq!((end.code, end.signal), (None, Some(libc::SIGKILL)));
    // One that has ended is no error to signal, and can't be reaped twice.
    signal(&child.0.pidfd, libc::SIGTERM).unwrap();
    assert!(try_reap(&child.0.pidfd).is_err());
    assert!(signal(&child.0.pidfd, 4711).is_err());
}

#[test]
fn the_end_can_be_waited_for() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let child = Child::new(spec(&shell("read line < /dev/zero & exit 3")));
    runtime.block_on(async {
        ended(&child.0.pidfd).await.unwrap();
        ended(&child.0.pidfd).await.unwrap();
    });
    // Not reaped yet, so the group can still be named.
    signal_group(child.0.pid, libc::SIGKILL).unwrap();
    assert_eq!(child.wait().code, Some(3));
}

#[test]
fn a_group_is_killed_whole() {
    let mut child = Child::new(spec(&shell("sleep 1000 & sleep 1000 & echo up; wait")));
    let mut stdout = fs::File::from(child.0.stdout.take().unwrap());
    let mut three = [0; 3];
    std::io::Read::read_exact(&mut stdout, &mut three).unwrap();
    signal_group(child.0.pid, libc::SIGKILL).unwrap();
    // The pipe ends when nobody holds it any more.
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn what_forked_twice_is_found_by_its_mark() {
    let mark = format!(
        "test-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    );
    let daemons =
        "setsid sh -c 'setsid sh -c \"echo up; exec sleep 1000\" & echo up; sleep 1000' &";
    let command = shell(&format!("{daemons} exec true"));
    let mut spec = spec(&command);
    spec.env = vec![(MARK_VARIABLE.into(), mark.clone().into())];
    let mut child = Child::new(spec);
    let mut stdout = fs::File::from(child.0.stdout.take().unwrap());
    let mut both = [0; 6];
    std::io::Read::read_exact(&mut stdout, &mut both).unwrap();
    child.wait();
    assert!(kill_all(Whose::Worker(&mark), DEADLINE) >= 2);
    // The pipe ends when nobody holds it any more.
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn a_control_group_ends_all_that_is_in_it() {
    end_a_control_group("born");
}

/// As in a container whose filter knows no `clone3`: what can't begin in the group moves there.
#[test]
fn a_control_group_is_moved_to_where_nothing_can_begin_in_it() {
    forbid(libc::SYS_clone3);
    end_a_control_group("moved");
}

fn end_a_control_group(name: &str) {
    let name = format!("ganger-test-{name}-{}", std::process::id());
    let Ok(group) = Cgroup::new(&name) else {
        eprintln!("skipped: no control group can be made here");
        return;
    };
    let command = shell("setsid sleep 1000 & echo; wait");
    let mut spec = spec(&command);
    spec.cgroup = Some(&group);
    let child = Child::new(spec);
    assert!(group.is_populated());
    group.kill().unwrap();
    assert_eq!(child.wait().signal, Some(libc::SIGKILL));
    until("the group is empty", || {
        (!group.is_populated()).then_some(())
    });
}

/// Has the system know no such call any more, for this thread and all that it starts.
fn forbid(call: libc::c_long) {
    let op = |code: u32, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf,
        k,
    };
    let unknown = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::ENOSYS).unwrap();
    let mut filter = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        op(
            libc::BPF_JMP | libc::BPF_JEQ,
            1,
            u32::try_from(call).unwrap(),
        ),
        op(libc::BPF_RET, 0, unknown),
        op(libc::BPF_RET, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap(),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: plain numbers.
    let allowed = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(allowed, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: `program` names as many instructions as there are, which the kernel copies.
    let installed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    assert_eq!(installed, 0);
}
