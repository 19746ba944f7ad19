//! The classic BPF program that gives a new connection to a socket of its group, by weight. The
//! kernel runs it for each connection; the result is the index of a socket in the group.

use libc::sock_filter;

/// Weights are scaled so that their sum stays below this: comparisons with larger numbers would
/// cost an instruction more.
const TOTAL_MAX: u64 = 1 << 30;
/// So many choices are told apart one after the other; more are halved first. A chain takes two
/// instructions for a choice, a tree three.
const CHAIN_MAX: usize = 8;
/// From so many neighbours of equal weight on, a division is shorter than a choice for each.
const RUN_MIN: usize = 3;
/// Where a load finds a random number (`SKF_AD_OFF + SKF_AD_RANDOM`).
const RANDOM: u32 = 0xffff_f000 + 56;
/// Where a load finds the network header (`SKF_NET_OFF`).
const NETWORK: u32 = 0xfff0_0000;
/// Spreads the bits of what tells one peer from another.
const MIX: u32 = 0x9e37_79b1;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const TO_X: u16 = 0x07;
const ADD: u16 = 0x04;
const SUB: u16 = 0x14;
const MUL: u16 = 0x24;
const DIV: u16 = 0x34;
const SHIFT_RIGHT: u16 = 0x74;
const MOD: u16 = 0x94;
const ADD_X: u16 = 0x0c;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
const RETURN_A: u16 = 0x16;

/// Connections from this part of the loopback network (a /16) are probes: the rest of their source
/// address is the index of the socket that they are for.
pub(super) const PROBE_NET: [u8; 2] = [127, 71];

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Chance, for each connection anew.
    Random,
    /// The peer's address and port: its datagrams all go the same way.
    Peer,
}

/// The program for weights by index; `None` if they are all zero.
pub(crate) fn program(weights: &[u32], choice: Choice) -> Option<Vec<sock_filter>> {
    let weights = scaled(weights);
    let runs = runs(&weights);
    let total = runs.last().map(|run| run.end())?;
    let mut code = match choice {
        Choice::Random => vec![op(LOAD_WORD, RANDOM)],
        Choice::Peer => peer(),
    };
    if runs.len() > 1 || runs[0].count > 1 {
        code.push(op(MOD, total));
    }
    code.extend(choose(&runs));
    Some(code)
}

/// What comes before a program so that probes get where they are meant for.
pub(super) fn with_probes(program: Vec<sock_filter>) -> Vec<sock_filter> {
    let net = u32::from(u16::from_be_bytes(PROBE_NET));
    let mut code = vec![
        op(LOAD_BYTE, NETWORK),
        op(SHIFT_RIGHT, 4),
        jump(JUMP_IF_EQUAL, 4, 0, 4),
        // v4: the halves of the source address.
        op(LOAD_HALF, NETWORK + 12),
        jump(JUMP_IF_EQUAL, net, 0, 2),
        op(LOAD_HALF, NETWORK + 14),
        op(RETURN_A, 0),
    ];
    code.extend(program);
    code
}

/// Sockets of equal weight that follow one another, and the numbers that stand for them.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: u32,
    index: u32,
    weight: u32,
    count: u32,
}

impl Run {
    const fn end(&self) -> u32 {
        self.start + self.weight * self.count
    }
}

fn scaled(weights: &[u32]) -> Vec<u32> {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let divisor = total / TOTAL_MAX + 1;
    // The smallest keep a share, unless they had none.
    let scale = |weight: u32| u64::from(weight).div_ceil(divisor);
    let narrow = |weight: u64| u32::try_from(weight).unwrap_or(u32::MAX);
    weights
        .iter()
        .map(|weight| narrow(scale(*weight)))
        .collect()
}

fn runs(weights: &[u32]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at < weights.len() {
        let weight = weights[at];
        let equal = weights[at..]
            .iter()
            .take_while(|other| **other == weight)
            .count();
        let whole = weight == 0 || equal >= RUN_MIN;
        let count = if whole { equal } else { 1 };
        if weight > 0 {
            let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            let run = Run {
                start,
                index: narrow(at),
                weight,
                count: narrow(count),
            };
            start = run.end();
            runs.push(run);
        }
        at += count;
    }
    runs
}

/// A number of the peer that is the same for all its datagrams, in A.
fn peer() -> Vec<sock_filter> {
    vec![
        op(LOAD_BYTE, NETWORK),
        op(SHIFT_RIGHT, 4),
        jump(JUMP_IF_EQUAL, 4, 0, 4),
        // v4 without options: source address, source port.
        op(LOAD_WORD, NETWORK + 12),
        op(TO_X, 0),
        op(LOAD_HALF, NETWORK + 20),
        op(JUMP, 3),
        // v6: the last word of the source address, source port.
        op(LOAD_WORD, NETWORK + 20),
        op(TO_X, 0),
        op(LOAD_HALF, NETWORK + 40),
        op(MUL, MIX),
        op(ADD_X, 0),
        op(MUL, MIX),
        op(SHIFT_RIGHT, 3),
    ]
}

fn choose(runs: &[Run]) -> Vec<sock_filter> {
    if runs.len() <= CHAIN_MAX {
        return chain(runs);
    }
    let (low, high) = runs.split_at(runs.len() / 2);
    let below = choose(low);
    let distance = u32::try_from(below.len()).unwrap_or(u32::MAX);
    // Conditional jumps reach 255 instructions only, so the far one is taken apart.
    let mut code = vec![
        jump(JUMP_IF_AT_LEAST, high[0].start, 0, 1),
        op(JUMP, distance),
    ];
    code.extend(below);
    code.extend(choose(high));
    code
}

fn chain(runs: &[Run]) -> Vec<sock_filter> {
    let mut code = Vec::new();
    for (at, run) in runs.iter().enumerate() {
        let leaf = leaf(run);
        if at + 1 < runs.len() {
            let skip = u8::try_from(leaf.len()).unwrap_or(u8::MAX);
            code.push(jump(JUMP_IF_AT_LEAST, run.end(), skip, 0));
        }
        code.extend(leaf);
    }
    code
}

fn leaf(run: &Run) -> Vec<sock_filter> {
    if run.count == 1 {
        return vec![op(RETURN, run.index)];
    }
    let mut code = Vec::new();
    for (code_of, number, neutral) in [
        (SUB, run.start, 0),
        (DIV, run.weight, 1),
        (ADD, run.index, 0),
    ] {
        if number != neutral {
            code.push(op(code_of, number));
        }
    }
    code.push(op(RETURN_A, 0));
    code
}

const fn op(code: u16, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Instructions that the kernel takes (`BPF_MAXINSNS`), and as many as fit the smallest limit
    /// of memory for them (20 KiB until Linux 6.8, eight bytes each, some kept for conversion).
    const INSTRUCTIONS_MAX: usize = 2500;

    /// Runs what follows the loading of the random number.
    fn run(code: &[sock_filter], random: u32) -> u32 {
        let mut a = random;
        let mut at = 1;
        loop {
            let now = code[at];
            at += 1;
            match now.code {
                MOD => a %= now.k,
                SUB => a -= now.k,
                DIV => a /= now.k,
                ADD => a += now.k,
                JUMP => at += now.k as usize,
                JUMP_IF_AT_LEAST => {
                    at += usize::from(if a >= now.k { now.jt } else { now.jf });
                }
                RETURN => return now.k,
                RETURN_A => return a,
                other => panic!("unexpected {other:#x}"),
            }
        }
    }

    fn counts(weights: &[u32]) -> Vec<u32> {
        let code = program(weights, Choice::Random).unwrap();
        let total: u32 = weights.iter().sum();
        let mut counts = vec![0; weights.len()];
        for random in 0..total {
            counts[run(&code, random) as usize] += 1;
        }
        counts
    }

    proptest! {
        #[test]
        fn each_socket_gets_its_exact_share(weights in prop::collection::vec(0..40_u32, 1..80)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            prop_assert_eq!(counts(&weights), weights);
        }

        #[test]
        fn equal_neighbours_get_their_exact_share(
            parts in prop::collection::vec((0..4_u32, 1..9_usize), 1..20)
        ) {
            let weights: Vec<u32> =
                parts.iter().flat_map(|(weight, count)| vec![*weight; *count]).collect();
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            prop_assert_eq!(counts(&weights), weights);
        }

        #[test]
        fn huge_weights_stay_in_proportion(weights in prop::collection::vec(any::<u32>(), 2..9)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let scaled = scaled(&weights);
            let total: u64 = scaled.iter().map(|weight| u64::from(*weight)).sum();
            prop_assert!(total <= TOTAL_MAX + 9);
            for (weight, scaled) in weights.iter().zip(&scaled) {
                prop_assert_eq!(*weight == 0, *scaled == 0);
            }
        }
    }

    #[test]
    fn no_weight_at_all_gives_no_program() {
        assert!(program(&[], Choice::Random).is_none());
        assert!(program(&[0, 0], Choice::Random).is_none());
    }

    #[test]
    fn the_most_workers_of_all_weights_fit_the_limit() {
        let weights: Vec<u32> = (1..=1024).collect();
        let code = program(&weights, Choice::Peer).unwrap();
        assert!(code.len() <= INSTRUCTIONS_MAX, "{}", code.len());
        assert_eq!(counts(&weights), weights);
        let equal = program(&[5; 1024], Choice::Random).unwrap();
        assert!(equal.len() <= 4, "{}", equal.len());
    }
}
