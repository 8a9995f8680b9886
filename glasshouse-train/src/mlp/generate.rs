use rayon::prelude::*;

use super::config::MlpConfig;
use super::data::{Floats, MlpData};
use super::params::Layout;
use crate::rng::Stream;

/// Width of the teacher's one hidden layer.
const TEACHER: usize = 32;
/// Standard deviation of the noise on the targets; those themselves have about 1.
const NOISE: f64 = 0.01;

/// Inputs from a standard normal, targets from a random ReLU teacher of one hidden layer plus noise, and the student's
/// initial weights uniform within 1 / sqrt(fan-in), as PyTorch's `Linear` draws them.
///
/// All arithmetic is f64 in a fixed order without fused multiply-add, so that platform and threads change no bit.
pub(crate) fn data(config: &MlpConfig) -> MlpData {
    let [x_stream, y_noise, teacher_in, teacher_out, student] = [0, 1, 2, 3, 4].map(|i| Stream::new(config.seed, i));
    let layout = Layout::new(&config.layers);
    let inputs = layout.layers.first().map_or(0, |layer| layer.inputs);
    let outputs = layout.layers.last().map_or(0, |layer| layer.outputs);
    let rows = config.batch;

    let normals = |stream: Stream, count: usize, scale: f64| -> Vec<f64> {
        (0..count as u64).into_par_iter().map(|i| stream.normal(i) * scale).collect()
    };
    let first = normals(teacher_in, inputs * TEACHER, (2.0 / inputs as f64).sqrt());
    let second = normals(teacher_out, TEACHER * outputs, (1.0 / TEACHER as f64).sqrt());

    let mut x = Floats::new(vec![0.0; rows * inputs]);
    let mut y = Floats::new(vec![0.0; rows * outputs]);
    x.par_chunks_mut(inputs).zip(y.par_chunks_mut(outputs)).enumerate().for_each(|(row, (x, y))| {
        for (i, value) in x.iter_mut().enumerate() {
            *value = x_stream.normal((row * inputs + i) as u64) as f32;
        }
        let mut hidden = [0.0; TEACHER];
        for (&value, weights) in x.iter().zip(first.chunks_exact(TEACHER)) {
            accumulate(&mut hidden, f64::from(value), weights);
        }
        let mut target = vec![0.0; outputs];
        for (value, weights) in hidden.into_iter().zip(second.chunks_exact(outputs)) {
            accumulate(&mut target, value.max(0.0), weights);
        }
        for (i, (value, target)) in y.iter_mut().zip(target).enumerate() {
            *value = (target + NOISE * y_noise.normal((row * outputs + i) as u64)) as f32;
        }
    });

    let mut weights = Floats::new(vec![0.0; layout.total]);
    for layer in &layout.layers {
        let bound = (1.0 / layer.inputs as f64).sqrt();
        let range = layer.weight.start..layer.bias.end;
        for (i, value) in range.clone().zip(&mut weights[range]) {
            *value = ((2.0 * student.uniform(i as u64) - 1.0) * bound) as f32;
        }
    }
    MlpData { layout, rows, inputs, outputs, x, y, weights }
}

fn accumulate(sums: &mut [f64], value: f64, weights: &[f64]) {
    for (sum, weight) in sums.iter_mut().zip(weights) {
        *sum += value * weight;
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::super::config::Shape;
    use super::super::data::{DATA_ENTRY, package_entries};
    use super::*;

    /// Pinned: another platform, thread count or version that makes other data breaks comparisons across them.
    #[test]
    fn the_tiny_data_of_seed_0_are_these_bytes() {
        let bytes = package_entries(&MlpConfig::new(Shape::Tiny)).unwrap().remove(DATA_ENTRY).unwrap();
        let digest = hex::encode(Sha256::digest(&bytes[..]));
        assert_eq!(digest, "a964aa8d83d03ed771a38955d7ae4313c7cdef964d9b1c82f2057813c07923e3");
    }

    #[test]
    fn targets_have_the_size_that_the_learning_rates_were_chosen_for() {
        for seed in 0..4 {
            let data = data(&MlpConfig { seed, ..MlpConfig::new(Shape::Tiny) });
            let mean_square = data.y.iter().map(|y| f64::from(*y).powi(2)).sum::<f64>() / data.y.len() as f64;
            assert!((0.2..5.0).contains(&mean_square), "{mean_square}");
        }
    }

    #[test]
    fn seeds_differ() {
        let [a, b] = [1, 2].map(|seed| data(&MlpConfig { seed, ..MlpConfig::new(Shape::Tiny) }));
        assert!(a.x != b.x && a.y != b.y && a.weights != b.weights);
    }
}
