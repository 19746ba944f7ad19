//! Keys, values and the order in which they are asked for.

/// Bytes of a key.
pub(crate) const KEY_LEN: usize = 16;
/// Bytes of a value.
pub(crate) const VALUE_LEN: usize = 64;
/// Keys that the comparisons work on.
pub(crate) const KEYS: u64 = 100_000;
/// Draws that are prepared before a measurement and then repeated: 4 MiB of keys, read in order.
const DRAWS: usize = 1 << 18;
/// Draws of the hot key: so many can be taken at once.
const HOT: usize = 16;

pub(crate) type Key = [u8; KEY_LEN];
pub(crate) type Value = [u8; VALUE_LEN];

/// What every set stores.
pub(crate) const VALUE: Value = [0x5a; VALUE_LEN];

/// Which keys are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// One key, always.
    Hot,
    /// Each of the keys as often as any other.
    Uniform,
    /// Zipf with exponent 0.99, as YCSB has it.
    Zipf,
}

impl Pattern {
    pub(crate) const ALL: [Self; 3] = [Self::Hot, Self::Uniform, Self::Zipf];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
        }
    }
}

/// Keys in the order in which they will be asked for, over and over.
#[derive(Clone)]
pub(crate) struct Draws {
    keys: Vec<Key>,
    at: usize,
}

impl Draws {
    pub(crate) fn new(pattern: Pattern, seed: u64) -> Self {
        Self::among(KEYS, pattern, seed)
    }

    /// Draws among the keys below `count`.
    pub(crate) fn among(count: u64, pattern: Pattern, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let keys = match pattern {
            Pattern::Hot => vec![key(0); HOT],
            Pattern::Uniform => (0..DRAWS).map(|_| key(random.below(count))).collect(),
            Pattern::Zipf => {
                let zipf = Zipf::new(count, 0.99);
                (0..DRAWS).map(|_| key(zipf.draw(&mut random))).collect()
            }
        };
        Self { keys, at: 0 }
    }

    /// Uniform draws among all keys but the hot one.
    pub(crate) fn all_but_hot(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let keys = (0..DRAWS).map(|_| key(1 + random.below(KEYS - 1)));
        Self {
            keys: keys.collect(),
            at: 0,
        }
    }

    /// Calls `each` with the next `count` keys. The number of draws is a power of two.
    #[inline(always)]
    pub(crate) fn take(&mut self, count: u64, mut each: impl FnMut(&Key)) {
        let mask = self.keys.len() - 1;
        for _ in 0..count {
            each(&self.keys[self.at & mask]);
            self.at = self.at.wrapping_add(1);
        }
    }

    /// The next keys, a power of two up to sixteen.
    #[inline(always)]
    pub(crate) fn take_many(&mut self, count: usize) -> &[Key] {
        let from = self.at & (self.keys.len() - 1) & !(count - 1);
        self.at = from + count;
        &self.keys[from..from + count]
    }
}

/// Key number `index`: 16 bytes, as an application would print them.
pub(crate) fn key(index: u64) -> Key {
    let mut key = *b"user:00000000000";
    let mut rest = index;
    for digit in key[5..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// All keys below `count` in an order of their own, so that neighbours in rank are none in memory.
pub(crate) fn shuffled(count: u64) -> Vec<u64> {
    let mut random = Random::new(0x5eed);
    let mut order: Vec<u64> = (0..count).collect();
    for end in (1..order.len()).rev() {
        order.swap(end, random.below(end as u64 + 1) as usize);
    }
    order
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(end)) >> 64) as u64
    }

    fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Zipf ranks by the method of Gray et al. 1994, the one YCSB uses.
struct Zipf {
    count: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
    second: f64,
}

impl Zipf {
    fn new(count: u64, theta: f64) -> Self {
        let zeta: f64 = (1..=count).map(|rank| (rank as f64).powf(-theta)).sum();
        let second = 1.0 + 0.5_f64.powf(theta);
        let count = count as f64;
        Self {
            count,
            alpha: 1.0 / (1.0 - theta),
            zeta,
            eta: (1.0 - (2.0 / count).powf(1.0 - theta)) / (1.0 - second / zeta),
            second,
        }
    }

    fn draw(&self, random: &mut Random) -> u64 {
        let unit = random.unit();
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            0
        } else if scaled < self.second {
            1
        } else {
            let rank = self.count * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
            rank.min(self.count - 1.0) as u64
        }
    }
}
