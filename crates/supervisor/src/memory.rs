//! The memory that starting took and nothing needs again.

use std::ffi::c_void;
use std::fs;

/// Lets go of the pages of this program's and its libraries' code that are resident only because
/// the start ran through them (reading the command line, making tables): the page cache keeps them,
/// and what is run again comes back by itself. To be called once, when everything stands.
pub fn forget_start() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, len) in maps.lines().filter_map(code_of_file) {
        // SAFETY: the range is a mapping of this process, as the kernel has just said, and nothing
        // unmaps code. It is a private mapping of a file that was never written to (its permissions
        // are read and execute), so dropping its pages loses nothing: they are read from the file
        // again when they are touched.
        unsafe { libc::madvise(start as *mut c_void, len, libc::MADV_DONTNEED) };
    }
}

/// Start and length of a mapping of code from a file, by its line in `/proc/self/maps`.
fn code_of_file(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_code = words.next()? == "r-xp";
    let is_of_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    (is_code && is_of_file).then(|| (start, end - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_that_comes_from_a_file_is_meant() {
        let line = "55e0-55f0 r-xp 00001000 fe:00 123   /usr/bin/ganger";
        assert_eq!(code_of_file(line), Some((0x55e0, 0x10)));
        for other in [
            "55e0-55f0 r--p 00001000 fe:00 123   /usr/bin/ganger",
            "55e0-55f0 rw-p 00001000 fe:00 123   /usr/bin/ganger",
            "55e0-55f0 r-xp 00000000 00:00 0     [vdso]",
            "55e0-55f0 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(code_of_file(other), None, "{other}");
        }
    }

    #[test]
    fn the_program_goes_on() {
        forget_start();
        assert_eq!("7".parse(), Ok(7));
    }
}
