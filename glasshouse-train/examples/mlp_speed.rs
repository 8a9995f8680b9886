//! CPU epochs/s of the hand-written epoch and of candle's autograd, in turns on the same data.
//!
//! ```text
//! cargo run --release -p glasshouse-train --example mlp_speed [-- ROUNDS SECONDS_PER_TURN]
//! RAYON_NUM_THREADS=1 taskset -c 0 cargo run --release -p glasshouse-train --example mlp_speed
//! ```
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Instant;

use candle_core::Device as CandleDevice;
use glasshouse_core::traits::{Device, Inputs, Workload};
use glasshouse_train::mlp::{Autograd, MlpConfig, MlpData, MlpWorkload, Optimizer, Shape, package_entries};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let seconds: f64 = arguments.next().map_or(Ok(1.0), |text| text.parse())?;
    println!("{} threads, medians of {rounds} turns of {seconds} s each", rayon::current_num_threads());
    println!("{:<10} {:<6} {:>12} {:>12} {:>6}", "shape", "", "by hand /s", "autograd /s", "ratio");
    for shape in Shape::ALL {
        for (name, optimizer) in [("adamw", Optimizer::ADAMW), ("sgd", Optimizer::SGD)] {
            let config = MlpConfig { optimizer, ..MlpConfig::new(shape) };
            let inputs = || -> Result<_, Box<dyn Error>> {
                Ok(Inputs { sealed: package_entries(&config)?, ..Inputs::default() })
            };
            let mut by_hand = MlpWorkload::new();
            by_hand.prepare(inputs()?, Device::Cpu)?;
            let (_, data) = MlpData::take(&mut inputs()?)?;
            let mut autograd = Autograd::new(&config, &data, &CandleDevice::Cpu)?;
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                a.push(rate(seconds, |n| Ok(by_hand.advance(n).map(drop)?))?);
                b.push(rate(seconds, |n| Ok(autograd.advance(n).map(drop)?))?);
            }
            let (a, b) = (median(a), median(b));
            println!("{:<10} {name:<6} {a:>12.1} {b:>12.1} {:>6.2}", shape.to_string(), a / b);
        }
    }
    Ok(())
}

/// Epochs per second over at least this long, after one uncounted epoch.
fn rate(seconds: f64, mut advance: impl FnMut(u64) -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    advance(1)?;
    let (start, mut epochs, mut group) = (Instant::now(), 0u64, 1);
    while start.elapsed().as_secs_f64() < seconds {
        advance(group)?;
        epochs += group;
        // Groups of about a twentieth of the turn.
        group = ((epochs as f64 / start.elapsed().as_secs_f64() * seconds / 20.0) as u64).max(1);
    }
    Ok(epochs as f64 / start.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
