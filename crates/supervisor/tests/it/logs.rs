//! The output of real processes: nothing torn, nothing lost uncounted, nobody held up.

use crate::support::forking;
use crate::watchdog;
use ganger_supervisor::logs::{Filter, Foreground, Logs, Options, LINE_MAX};
use ganger_supervisor::report::LogLine;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A shell script as worker `worker` of `web`.
fn spawn(logs: &Logs, worker: u16, script: &str) -> Child {
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = forking(|| command.spawn()).unwrap();
    let stdout = OwnedFd::from(child.stdout.take().unwrap());
    let stderr = OwnedFd::from(child.stderr.take().unwrap());
    let pid = i32::try_from(child.id()).unwrap();
    logs.attach("web", worker, pid, stdout, stderr).unwrap();
    child
}

/// Waits for its end without holding up the runtime, and tells the logs.
async fn end(logs: &Logs, mut child: Child) {
    let pid = i32::try_from(child.id()).unwrap();
    while child.try_wait().unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    logs.ended(pid);
}

fn texts(lines: &[LogLine]) -> Vec<String> {
    lines
        .iter()
        .map(|line| String::from_utf8(line.text.clone()).unwrap())
        .collect()
}

fn all() -> Filter {
    Filter::default()
}

#[tokio::test]
async fn both_streams_are_kept_with_whose_they_are_and_a_last_line_without_end() {
    let _watchdog = watchdog();
    let logs = Logs::new(Options::default());
    let child = spawn(&logs, 3, "echo out; echo err >&2; printf partial");
    let pid = i32::try_from(child.id()).unwrap();
    end(&logs, child).await;
    let mut lines = logs.last(&all(), 100);
    lines.sort_by_key(|line| line.text.clone());
    assert_eq!(texts(&lines), ["err", "out", "partial"]);
    assert!(lines[0].is_stderr && !lines[1].is_stderr);
    assert!(lines.iter().all(|line| line.worker == 3 && line.pid == pid));
    assert_eq!(logs.last(&all(), 1).len(), 1);
    let other = Filter {
        worker: Some(4),
        ..all()
    };
    assert!(logs.last(&other, 100).is_empty());
    logs.forget("web");
    assert!(logs.last(&all(), 100).is_empty());
}

#[tokio::test]
async fn what_a_process_wrote_before_it_died_is_there_at_once() {
    let _watchdog = watchdog();
    let logs = Logs::new(Options::default());
    let mut child = spawn(&logs, 0, "echo why it failed >&2; kill -9 $$");
    // No turn for the reading tasks in between.
    child.wait().unwrap();
    assert_eq!(texts(&logs.last(&all(), 10)), ["why it failed"]);
}

#[tokio::test]
async fn a_process_left_behind_does_not_keep_the_pipes_open() {
    let _watchdog = watchdog();
    let logs = Logs::new(Options::default());
    let child = spawn(&logs, 0, "sleep 1000 & echo $!");
    end(&logs, child).await;
    let left = texts(&logs.last(&all(), 1)).remove(0);
    let mut fds = usize::MAX;
    while fds > 0 {
        let pipes = std::fs::read_dir("/proc/self/fd").unwrap();
        let link = format!("/proc/{left}/fd/1");
        let theirs = std::fs::read_link(&link).unwrap();
        fds = pipes
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|ours| *ours == theirs)
            .count();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let left: i32 = left.parse().unwrap();
    let pid = rustix::process::Pid::from_raw(left).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_worker_that_closes_its_output_goes_on() {
    let _watchdog = watchdog();
    let logs = Logs::new(Options::default());
    let child = spawn(&logs, 0, "echo first; exec 1>&-; echo second >&2; exit 0");
    end(&logs, child).await;
    let mut found = texts(&logs.last(&all(), 10));
    found.sort();
    assert_eq!(found, ["first", "second"]);
}

#[tokio::test]
async fn a_flood_is_thinned_out_counted_and_kept_within_its_room() {
    let _watchdog = watchdog();
    let logs = Logs::new(Options::default());
    let mut follow = logs.follow(all()).unwrap();
    let line = "0123456789".repeat(10);
    let count = 3_000_000_u64;
    let script = format!("yes {line} | head -n {count}; echo the end");
    let child = spawn(&logs, 0, &script);
    let counted = tokio::spawn(async move {
        let mut counted = 0;
        loop {
            let line = follow.recv().await;
            counted += line.dropped;
            if line.text == b"the end" {
                return counted;
            }
            counted += 1;
        }
    });
    end(&logs, child).await;
    assert_eq!(
        counted.await.unwrap(),
        count,
        "every line was told or counted"
    );
    let kept = logs.last(&all(), usize::MAX);
    let bytes: usize = kept.iter().map(|line| line.text.len()).sum();
    assert!(bytes <= 256 * 1024, "{bytes}");
    assert_eq!(kept.last().unwrap().text, b"the end");
}

#[tokio::test]
async fn a_follower_that_lags_loses_the_oldest_and_is_told_how_many() {
    let _watchdog = watchdog();
    let logs = Logs::new(Options::default());
    let mut follow = logs.follow(all()).unwrap();
    let child = spawn(&logs, 0, "seq 1 20000");
    end(&logs, child).await;
    let first = follow.recv().await;
    let number: u64 = String::from_utf8(first.text).unwrap().parse().unwrap();
    assert!(number > 1, "1 MiB holds fewer than 20000 lines");
    assert_eq!(first.dropped, number - 1);
    assert_eq!(follow.recv().await.dropped, 0);
}

#[tokio::test]
async fn lines_of_many_workers_come_out_whole() {
    let _watchdog = watchdog();
    let (reader, writer) = io::pipe().unwrap();
    let foreground = Foreground::new((writer.into(), false), None).unwrap();
    let logs = Logs::new(Options {
        foreground: Some(foreground.clone()),
        ..Options::default()
    });
    let shown = std::thread::spawn(move || {
        let mut text = String::new();
        let mut reader = reader;
        reader.read_to_string(&mut text).unwrap();
        text
    });
    let script = "for i in $(seq 300); do printf 'part '; printf 'of '; echo line $i; done";
    let children: Vec<Child> = (0..4).map(|worker| spawn(&logs, worker, script)).collect();
    for child in children {
        end(&logs, child).await;
    }
    foreground.finish(Duration::from_secs(20));
    drop((foreground, logs));
    let shown = shown.join().unwrap();
    let mut next = [1; 4];
    for line in shown.lines() {
        let (name, text) = line.split_once(" | ").unwrap();
        let worker: usize = name.strip_prefix("web.").unwrap().parse().unwrap();
        assert_eq!(text, format!("part of line {}", next[worker]));
        next[worker] += 1;
    }
    assert_eq!(next, [301; 4]);
}

#[tokio::test]
async fn a_foreground_that_nobody_reads_holds_nobody_up_and_tells_what_was_dropped() {
    let _watchdog = watchdog();
    let (mut reader, writer) = io::pipe().unwrap();
    let foreground = Foreground::new((writer.into(), false), None).unwrap();
    let logs = Logs::new(Options {
        foreground: Some(foreground.clone()),
        ..Options::default()
    });
    let child = spawn(&logs, 0, "seq 1 200000");
    end(&logs, child).await;
    // The worker ended though nobody reads. Now somebody does.
    let shown = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    foreground.finish(Duration::from_secs(20));
    drop((foreground, logs));
    let (mut lines, mut dropped) = (0, 0);
    for line in shown.join().unwrap().lines() {
        let notice = line.strip_prefix("[... ");
        match notice.and_then(|notice| notice.strip_suffix(" lines dropped]")) {
            Some(count) => dropped += count.parse::<u64>().unwrap(),
            None => lines += 1,
        }
    }
    assert!(dropped > 0);
    assert_eq!(lines + dropped, 200_000);
}

#[tokio::test]
async fn a_foreground_whose_reader_went_away_or_whose_disk_is_full_hurts_nobody() {
    let _watchdog = watchdog();
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let foreground = Foreground::new((writer.into(), false), Some((full.into(), false))).unwrap();
    let logs = Logs::new(Options {
        foreground: Some(foreground.clone()),
        ..Options::default()
    });
    let child = spawn(&logs, 0, "seq 1 1000; seq 1 1000 >&2");
    end(&logs, child).await;
    foreground.finish(Duration::from_millis(300));
    assert_eq!(logs.last(&all(), usize::MAX).len(), 2000);
}

#[tokio::test]
async fn bytes_that_are_no_text_and_lines_without_end_pass_through() {
    let _watchdog = watchdog();
    let logs = Logs::new(Options::default());
    let script = format!(
        "printf '\\377\\000\\376\\n'; head -c {} /dev/zero; printf '\\nafter\\n'",
        LINE_MAX + 10
    );
    let child = spawn(&logs, 0, &script);
    end(&logs, child).await;
    let lines = logs.last(&all(), 10);
    assert_eq!(lines[0].text, b"\xff\0\xfe");
    assert!(lines[1].text.ends_with(b" [... 10 bytes cut]"));
    assert_eq!(lines[2].text, b"after");
}
