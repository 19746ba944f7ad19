//! Bytes to lines: pure. Lines are cut at a limit, and a flood is thinned out.

/// Bytes of a line that are kept; what is longer is cut, and says so.
pub const LINE_MAX: usize = 16 * 1024;
/// Bytes at the end of a chunk whose lines are kept in a flood.
const FLOOD_KEPT: usize = 4096;

/// A whole line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Lines that were dropped just before this one.
    pub(crate) dropped: u64,
    pub(crate) text: Vec<u8>,
}

/// The lines of one pipe.
#[derive(Default)]
pub(crate) struct Splitter {
    partial: Vec<u8>,
    /// Bytes of the current line that are beyond the limit.
    cut: u64,
    /// Lines dropped since the last one that was given out.
    dropped: u64,
}

impl Splitter {
    /// Gives out the lines that `chunk` completes. In a flood most are dropped: those at the end of
    /// the chunk are kept, since what a program says last is why it died.
    pub(crate) fn push(&mut self, chunk: &[u8], is_flood: bool, mut line: impl FnMut(Line)) {
        let mut rest = chunk;
        if is_flood {
            rest = self.thin_out(chunk);
        }
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.extend(&rest[..end]);
            line(self.take());
            rest = &rest[end + 1..];
        }
        self.extend(rest);
    }

    /// The last line, which has no end.
    pub(crate) fn finish(&mut self) -> Option<Line> {
        (!self.partial.is_empty()).then(|| self.take())
    }

    /// Drops the lines of `chunk` that come before its end; what is left has at least one whole line.
    fn thin_out<'a>(&mut self, chunk: &'a [u8]) -> &'a [u8] {
        let newline = |part: &[u8]| part.iter().rposition(|byte| *byte == b'\n');
        let kept_from = newline(chunk)
            .map(|last| last.saturating_sub(FLOOD_KEPT))
            .and_then(|limit| newline(&chunk[..limit]));
        let Some(end) = kept_from else {
            return chunk;
        };
        let (dropped, rest) = chunk.split_at(end + 1);
        let count = dropped.iter().filter(|byte| **byte == b'\n').count();
        self.dropped += u64::try_from(count).unwrap_or(u64::MAX);
        self.partial.clear();
        self.cut = 0;
        rest
    }

    fn extend(&mut self, part: &[u8]) {
        let room = LINE_MAX - self.partial.len();
        let (kept, cut) = part.split_at(part.len().min(room));
        self.partial.extend_from_slice(kept);
        self.cut += u64::try_from(cut.len()).unwrap_or(u64::MAX);
    }

    fn take(&mut self) -> Line {
        let mut text = std::mem::take(&mut self.partial);
        match std::mem::take(&mut self.cut) {
            0 => {}
            cut => text.extend_from_slice(format!(" [... {cut} bytes cut]").as_bytes()),
        }
        text.shrink_to_fit();
        Line {
            dropped: std::mem::take(&mut self.dropped),
            text,
        }
    }
}

/// Bytes a pipe may give before its lines are thinned out.
pub(crate) struct Budget {
    left: u64,
    refilled_ms: u64,
}

/// Bytes at once.
const BURST: u64 = 32 * 1024 * 1024;
/// Bytes for each millisecond: 8 MB/s, forty thousand access log lines.
const PER_MS: u64 = 8 * 1000;

impl Budget {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            left: BURST,
            refilled_ms: now_ms,
        }
    }

    /// Takes `bytes` out; whether there were not enough.
    pub(crate) fn is_flood(&mut self, bytes: usize, now_ms: u64) -> bool {
        let passed = now_ms.saturating_sub(self.refilled_ms);
        self.refilled_ms = now_ms;
        self.left = BURST.min(self.left.saturating_add(passed.saturating_mul(PER_MS)));
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let is_flood = bytes > self.left;
        self.left = self.left.saturating_sub(bytes);
        is_flood
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]], is_flood: bool) -> Vec<Line> {
        let mut splitter = Splitter::default();
        let mut all = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, is_flood, |line| all.push(line));
        }
        all.extend(splitter.finish());
        all
    }

    fn texts(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let all = lines(chunks, false);
        all.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn the_last_line_needs_no_end_and_empty_lines_count() {
        assert_eq!(texts(&[b"a\n\nb"]), [&b"a"[..], b"", b"b"]);
        assert_eq!(texts(&[b"a", b"b\n"]), [b"ab"]);
        assert!(texts(&[b""]).is_empty());
        assert_eq!(texts(&[b"\xff\0\n"]), [b"\xff\0"]);
    }

    #[test]
    fn a_line_at_the_limit_is_whole_and_one_beyond_is_cut_and_says_so() {
        let whole = vec![b'x'; LINE_MAX];
        assert_eq!(texts(&[&whole, b"\n"]), [whole.as_slice()]);
        let cut = texts(&[&whole, b"y\nnext\n"]);
        assert!(cut[0].ends_with(b" [... 1 bytes cut]"));
        assert_eq!(cut[1], b"next", "the limit is per line");
    }

    #[test]
    fn an_endless_line_takes_no_more_memory_than_the_limit() {
        let mut splitter = Splitter::default();
        for _ in 0..1000 {
            splitter.push(&[b'x'; 65_536], true, |_| panic!("no line ended"));
        }
        assert!(splitter.partial.capacity() <= 2 * LINE_MAX);
        let text = splitter.finish().unwrap().text;
        assert!(text.ends_with(format!("{} bytes cut]", 65_536_000 - LINE_MAX).as_bytes()));
    }

    #[test]
    fn a_flood_loses_lines_counts_them_and_keeps_the_last() {
        let chunk: Vec<u8> = (0..9000)
            .flat_map(|n| format!("{n}\n").into_bytes())
            .collect();
        let kept = lines(&[&chunk], true);
        assert!(kept.len() < 1000 && kept.len() > 500);
        assert_eq!(kept.last().unwrap().text, b"8999");
        let total: u64 = kept.iter().map(|line| line.dropped + 1).sum();
        assert_eq!(total, 9000);
    }

    #[test]
    fn the_budget_comes_back_with_time() {
        let mut budget = Budget::new(0);
        assert!(!budget.is_flood(32 << 20, 0));
        assert!(budget.is_flood(1, 0));
        assert!(!budget.is_flood(8000, 1));
        assert!(budget.is_flood(8001, 2));
    }

    proptest! {
        #[test]
        fn chunks_of_any_size_give_the_same_lines(
            text in prop::collection::vec(prop::sample::select(b"ab\n\xff".to_vec()), 0..400),
            size in 1_usize..50,
        ) {
            let whole = texts(&[&text]);
            let pieces: Vec<&[u8]> = text.chunks(size).collect();
            prop_assert_eq!(whole, texts(&pieces));
        }

        #[test]
        fn no_line_of_a_flood_is_lost_uncounted(
            lens in prop::collection::vec(0_usize..3000, 1..60),
            size in 100_usize..70_000,
        ) {
            let mut text = Vec::new();
            for len in &lens {
                text.extend(std::iter::repeat_n(b'x', *len));
                text.push(b'\n');
            }
            let pieces: Vec<&[u8]> = text.chunks(size).collect();
            let total: u64 = lines(&pieces, true).iter().map(|line| line.dropped + 1).sum();
            prop_assert_eq!(total, lens.len() as u64);
        }
    }
}
