use serde::{Deserialize, Serialize};

/// How the learning rate changes after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Falls to zero in a straight line.
    Linear,
    /// Falls to zero along half a cosine.
    #[default]
    Cosine,
    /// Stays.
    Constant,
}

impl Schedule {
    /// The learning rate of step `step`, from 0, as `get_scheduler` of transformers has it: rising in a straight line
    /// from 0 over `warmup` steps, then falling until `steps`.
    pub fn rate(self, peak: f64, step: u64, warmup: u64, steps: u64) -> f64 {
        if step < warmup {
            return peak * step as f64 / warmup as f64;
        }
        let (done, all) = (step.saturating_sub(warmup), steps.saturating_sub(warmup).max(1));
        let progress = (done as f64 / all as f64).min(1.0);
        match self {
            Self::Linear => peak * (1.0 - progress),
            Self::Cosine => peak * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress)),
            Self::Constant => peak,
        }
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Linear => "linear",
            Self::Cosine => "cosine",
            Self::Constant => "constant",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_transformers_schedules() {
        // transformers 5: get_scheduler(name, optimizer of lr 2.0, num_warmup_steps=2, num_training_steps=6), 6 steps.
        let rates = |schedule: Schedule| (0..7).map(|step| schedule.rate(2.0, step, 2, 6)).collect::<Vec<_>>();
        assert_eq!(rates(Schedule::Linear), [0.0, 1.0, 2.0, 1.5, 1.0, 0.5, 0.0]);
        assert_eq!(rates(Schedule::Constant), [0.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
        let cosine = [0.0, 1.0, 2.0, 1.707_106_781_186_547_5, 1.0, 0.292_893_218_813_452_5, 0.0];
        assert!(rates(Schedule::Cosine).iter().zip(cosine).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn no_division_by_nothing() {
        for schedule in [Schedule::Linear, Schedule::Cosine, Schedule::Constant] {
            for (step, warmup, steps) in [(0, 0, 0), (5, 0, 0), (5, 9, 3), (u64::MAX, 1, 1)] {
                assert!(schedule.rate(1.0, step, warmup, steps).is_finite());
            }
        }
    }
}
