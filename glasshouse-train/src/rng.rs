use std::f64::consts::TAU;

/// Random numbers by counter: SplitMix64 (Steele, Lea and Flood 2014) over a key and an index, so that any value can be
/// had without those before it, in any order and on any number of threads.
///
/// The logarithm and cosine are `libm`'s, not the platform's: the bits are the same everywhere.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    key: u64,
}

impl Stream {
    /// The stream with this number under a seed.
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        Self { key: mix(seed.wrapping_add(mix(number.wrapping_add(GOLDEN)))) }
    }

    /// All 64 bits.
    pub(crate) fn word(self, index: u64) -> u64 {
        mix(self.key.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN)))
    }

    /// Uniform in [0, 1).
    pub(crate) fn uniform(self, index: u64) -> f64 {
        (self.word(index) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller; uses the uniforms at `2 * index` and the one after it.
    pub(crate) fn normal(self, index: u64) -> f64 {
        let radius = (-2.0 * libm::log(1.0 - self.uniform(index.wrapping_mul(2)))).sqrt();
        radius * libm::cos(TAU * self.uniform(index.wrapping_mul(2).wrapping_add(1)))
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published generator with state 1234567 gives this sequence; `mix` over a counter is the same function.
    #[test]
    fn mix_is_splitmix64() {
        let expected = [6457827717110365317u64, 3203168211198807973, 9817491932198370423];
        for (i, expected) in (1u64..).zip(expected) {
            assert_eq!(mix(1234567u64.wrapping_add(GOLDEN.wrapping_mul(i))), expected);
        }
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let stream = Stream::new(7, 3);
        let n = 100_000u64;
        let mean = |f: &dyn Fn(u64) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
        assert!((mean(&|i| stream.uniform(i)) - 0.5).abs() < 0.005);
        assert!(mean(&|i| stream.normal(i)).abs() < 0.02);
        assert!((mean(&|i| stream.normal(i).powi(2)) - 1.0).abs() < 0.02);
        assert!((mean(&|i| stream.normal(i).powi(4)) - 3.0).abs() < 0.15);
        let other = Stream::new(7, 4);
        assert!(mean(&|i| stream.normal(i) * other.normal(i)).abs() < 0.02);
    }
}
