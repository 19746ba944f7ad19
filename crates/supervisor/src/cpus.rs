//! How many CPUs this process may use: by affinity and by the quotas of its control groups, not
//! how many the machine has.

use crate::config::WORKERS_MAX;
use std::fs;
use std::path::{Path, PathBuf};

/// CPUs this process may use: at least 1, at most [`WORKERS_MAX`].
pub fn available() -> u16 {
    let allowed = by_affinity().unwrap_or(1);
    let quota = quota(Path::new("/proc/self")).unwrap_or(allowed);
    allowed.min(quota).clamp(1, WORKERS_MAX)
}

fn by_affinity() -> Option<u16> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    u16::try_from(set.count()).ok()
}

/// The smallest quota on the way from this process's control group to the root, rounded up.
fn quota(process: &Path) -> Option<u16> {
    let groups = fs::read_to_string(process.join("cgroup")).ok()?;
    let mounts = fs::read_to_string(process.join("mountinfo")).ok()?;
    let version_2 = group_path(&groups, "0::").and_then(|group| {
        let mount = mount_point(&mounts, "cgroup2", None)?;
        smallest(&mount, &group, |folder| {
            parse_max(&fs::read_to_string(folder.join("cpu.max")).ok()?)
        })
    });
    let version_1 = cpu_group(&groups).and_then(|group| {
        let mount = mount_point(&mounts, "cgroup", Some("cpu"))?;
        smallest(&mount, &group, |folder| {
            let quota = fs::read_to_string(folder.join("cpu.cfs_quota_us")).ok()?;
            let period = fs::read_to_string(folder.join("cpu.cfs_period_us")).ok()?;
            parse_max(&format!("{} {}", quota.trim(), period.trim()))
        })
    });
    [version_2, version_1].into_iter().flatten().min()
}

/// The path behind `prefix` in `/proc/PID/cgroup`.
fn group_path(groups: &str, prefix: &str) -> Option<String> {
    groups
        .lines()
        .find_map(|line| line.strip_prefix(prefix))
        .map(str::to_owned)
}

/// The path of the version-1 controller `cpu`.
fn cpu_group(groups: &str) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let is_cpu = controllers.split(',').any(|name| name == "cpu");
        is_cpu.then(|| path.to_owned())
    })
}

/// Where a control group file system is mounted, and which group its root is, by `mountinfo`.
fn mount_point(mounts: &str, kind: &str, controller: Option<&str>) -> Option<(PathBuf, String)> {
    mounts.lines().find_map(|line| {
        let (place, system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, path) = (place.next()?, place.next()?);
        let mut system = system.split(' ');
        if system.next()? != kind {
            return None;
        }
        let options = system.nth(1).unwrap_or_default();
        let has = |name| options.split(',').any(|option| option == name);
        controller
            .is_none_or(has)
            .then(|| (PathBuf::from(path), root.to_owned()))
    })
}

/// Where the control group (version 2) of this process is, if it is mounted.
pub(crate) fn own_group() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let (mount, root) = mount_point(&mounts, "cgroup2", None)?;
    Some(mount.join(below(&group_path(&groups, "0::")?, &root)))
}

/// A group's path relative to the group that is mounted: all of it if it is not below.
fn below<'a>(group: &'a str, root: &str) -> &'a str {
    let inner = match root {
        "/" => group,
        root => group.strip_prefix(root).unwrap_or_default(),
    };
    inner.trim_start_matches('/')
}

fn smallest(
    (mount, root): &(PathBuf, String),
    group: &str,
    quota: impl Fn(&Path) -> Option<u16>,
) -> Option<u16> {
    let inner = mount.join(below(group, root));
    let folders = inner.ancestors().take_while(|path| path.starts_with(mount));
    folders.filter_map(quota).min()
}

/// `max 100000`, `150000 100000`, `-1 100000`: CPUs, rounded up; nothing without a limit.
fn parse_max(text: &str) -> Option<u16> {
    let mut numbers = text.split_whitespace();
    let quota: u64 = numbers.next()?.parse().ok()?;
    let period: u64 = numbers.next()?.parse().ok()?;
    let cpus = quota
        .checked_add(period.checked_sub(1)?)?
        .checked_div(period)?;
    Some(u16::try_from(cpus).unwrap_or(u16::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_at_least_one_and_no_more_than_the_machine_has() {
        let all = std::thread::available_parallelism().unwrap().get();
        assert!((1..=all).contains(&usize::from(available())));
    }

    #[test]
    fn quotas_are_rounded_up_and_no_limit_is_none() {
        assert_eq!(parse_max("max 100000"), None);
        assert_eq!(parse_max("-1 100000"), None);
        assert_eq!(parse_max("150000 100000"), Some(2));
        assert_eq!(parse_max("200000 100000"), Some(2));
        assert_eq!(parse_max("1000 100000"), Some(1));
        assert_eq!(parse_max("1000 0"), None);
        assert_eq!(parse_max(""), None);
    }

    #[test]
    fn mounts_are_found_by_kind_and_controller() {
        let mounts = "31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
                      35 24 0:31 /docker/x /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let found = mount_point(mounts, "cgroup2", None);
        assert_eq!(found, Some(("/sys/fs/cgroup/unified".into(), "/".into())));
        let found = mount_point(mounts, "cgroup", Some("cpu"));
        let wanted = ("/sys/fs/cgroup/cpu,cpuacct".into(), "/docker/x".to_owned());
        assert_eq!(found, Some(wanted));
        assert_eq!(mount_point(mounts, "cgroup", Some("memory")), None);
    }

    #[test]
    fn groups_are_found_in_both_versions() {
        let groups = "9:name=systemd:/\n2:cpu,cpuacct:/box\n0::/user.slice\n";
        assert_eq!(group_path(groups, "0::").as_deref(), Some("/user.slice"));
        assert_eq!(cpu_group(groups).as_deref(), Some("/box"));
        assert_eq!(below("/docker/x/y", "/docker/x"), "y");
        assert_eq!(below("/a", "/"), "a");
    }

    #[test]
    fn the_smallest_quota_on_the_way_up_counts() {
        let temp = std::env::temp_dir().join(format!("ganger-cpus-{}", std::process::id()));
        let inner = temp.join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(temp.join("a/cpu.max"), "300000 100000").unwrap();
        fs::write(inner.join("cpu.max"), "max 100000").unwrap();
        let read = |folder: &Path| parse_max(&fs::read_to_string(folder.join("cpu.max")).ok()?);
        let mount = (temp.clone(), "/".to_owned());
        assert_eq!(smallest(&mount, "/a/b", read), Some(3));
        fs::remove_dir_all(temp).unwrap();
    }
}
