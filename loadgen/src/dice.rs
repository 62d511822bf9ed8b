//! Repeatable chance: a small generator and Zipf-distributed picks, from a seed.

/// SplitMix64 (Steele, Lea, Flood 2014): one 64-bit state, good enough to pick skus.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, 1.
    pub fn fraction(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn key(&mut self) -> u128 {
        u128::from(self.roll()) << 64 | u128::from(self.roll() | 1)
    }
}

/// Ranks 0..n with probability proportional to 1 / (rank + 1)^z, by the method of Gray et al., "Quickly
/// generating billion-record synthetic databases", SIGMOD 1994.
#[derive(Clone, Debug)]
pub struct Zipf {
    n: f64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    /// `z` from 0 (uniform) up to, not including, 1.
    pub fn new(n: usize, z: f64) -> Zipf {
        let zeta_of = |n: usize| (1..=n).map(|rank| 1.0 / (rank as f64).powf(z)).sum::<f64>();
        let (zeta, count) = (zeta_of(n), n as f64);
        let eta = (1.0 - (2.0 / count).powf(1.0 - z)) / (1.0 - zeta_of(2.min(n)) / zeta);
        Zipf { n: count, theta: z, alpha: 1.0 / (1.0 - z), zeta, eta }
    }

    pub fn pick(&self, dice: &mut Dice) -> usize {
        if self.n < 2.0 {
            return 0;
        }
        let u = dice.fraction();
        let scaled = u * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(self.theta) {
            return 1;
        }
        ((self.n * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as usize).min(self.n as usize - 1)
    }
}
