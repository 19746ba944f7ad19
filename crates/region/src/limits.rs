//! Bounds on loops and waits, and the memory limit this process lives under.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Times a read starts over before it gives up. Each time, some writer completed a write to the
/// same bucket.
pub(crate) const READ_ATTEMPTS: u32 = 1_000_000;
/// Times a counter is read for a value and a revision that belong together.
pub(crate) const COUNTER_ATTEMPTS: u32 = 1000;
/// Times a compare-and-set loop starts over.
pub(crate) const UPDATE_ATTEMPTS: u32 = 100_000;
/// Buckets of a chain; more are damage. The hash is keyed per region, so no key set can be made to
/// collide.
pub(crate) const CHAIN_MAX: usize = 64;
/// Turns a writer spins for a lock before it sleeps; a write holds it for about 50 ns.
#[cfg(not(loom))]
pub(crate) const LOCK_SPINS: u32 = 100;
/// Few, because each is a state of the model.
#[cfg(loom)]
pub(crate) const LOCK_SPINS: u32 = 1;
/// First and longest sleep of a waiter before it looks at the lock and its holder again.
pub(crate) const LOCK_WAIT_MIN: Duration = Duration::from_micros(500);
pub(crate) const LOCK_WAIT_MAX: Duration = Duration::from_millis(8);
/// How long a writer waits for a living lock holder by default.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long attaching waits for a region that is being made.
pub(crate) const ATTACH_WAIT: Duration = Duration::from_secs(2);
/// Most handles with a session that one process can hold at a time.
pub(crate) const HANDLES_MAX: usize = 1024;
/// Pages committed at a time, so that growth asks the system rarely.
pub(crate) const COMMIT_PAGES: u64 = 16;
/// Searches for a page that others are just giving away, before there is said to be none.
pub(crate) const PAGE_SEARCHES: u32 = 64;
/// Pages looked at for a free one after the system refused memory.
pub(crate) const SEARCH_PAGES: u64 = 4096;
/// Entries an eviction looks at before it empties a page instead.
pub(crate) const EVICT_STEPS: u32 = 512;
/// Times a write that found no room makes some, beside once for each page of the region.
pub(crate) const ROOM_ATTEMPTS: u64 = 64;
/// Writes to a shard between two looks for expired entries.
pub(crate) const SWEEP_EVERY: u64 = 8;
/// Buckets in which a write that lacks room looks for expired entries before it evicts others.
pub(crate) const SWEEP_BUCKETS: u32 = 16;

/// Bytes this process may still use under the memory limits of its control groups, or `None`
/// without one.
pub(crate) fn memory_left() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_left_in(&groups, Path::new("/sys/fs/cgroup"))
}

fn memory_left_in(groups: &str, root: &Path) -> Option<u64> {
    groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let path = path.trim_start_matches('/');
            match controllers {
                "" => left_up_to(root, path, "memory.max", "memory.current", "inactive_file"),
                _ if controllers.split(',').any(|name| name == "memory") => left_up_to(
                    &root.join("memory"),
                    path,
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                    "total_inactive_file",
                ),
                _ => None,
            }
        })
        .min()
}

/// The tightest limit from the group up to the root of the hierarchy. Cached file pages that the
/// kernel would drop first do not count as used.
fn left_up_to(root: &Path, path: &str, max: &str, current: &str, cached: &str) -> Option<u64> {
    let mut group = root.join(path);
    if !group.is_dir() {
        // Inside a container the group's own directory is the root of what is mounted.
        group = PathBuf::from(root);
    }
    let mut left: Option<u64> = None;
    loop {
        let number = |file: &str| {
            fs::read_to_string(group.join(file))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        if let (Some(max), Some(current)) = (number(max), number(current)) {
            let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
            let here =
                u64::saturating_sub(max, u64::saturating_sub(current, stat_of(&stat, cached)));
            left = Some(left.map_or(here, |left| left.min(here)));
        }
        if group == root || !group.pop() {
            return left;
        }
    }
}

fn stat_of(stat: &str, name: &str) -> u64 {
    stat.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(' ')?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_tightest_limit_of_all_groups_above_counts() {
        let root = std::env::temp_dir().join(format!("ganger-limits-{}", std::process::id()));
        write(
            &root.join("a"),
            &[("memory.max", "1000\n"), ("memory.current", "700\n")],
        );
        write(
            &root.join("a/b"),
            &[("memory.max", "max\n"), ("memory.current", "600\n")],
        );
        fs::write(root.join("a/memory.stat"), "anon 5\ninactive_file 100\n").unwrap();
        write(
            &root.join("memory/c"),
            &[
                ("memory.limit_in_bytes", "9000"),
                ("memory.usage_in_bytes", "8800"),
            ],
        );
        assert_eq!(memory_left_in("0::/a/b\n", &root), Some(400));
        assert_eq!(memory_left_in("3:cpu:/a\n", &root), None);
        assert_eq!(
            memory_left_in("3:cpu:/a\n4:memory:/c\n0::/a/b\n", &root),
            Some(200)
        );
        assert_eq!(memory_left_in("0::/gone\n", &root), None);
        fs::remove_dir_all(&root).unwrap();
    }
}
