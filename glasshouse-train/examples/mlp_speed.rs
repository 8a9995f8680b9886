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
    println!("{:<10} {:<6} {:>25}   {:>25}", "", "", "epochs a second", "epochs a CPU second");
    let columns = format!("{:>9} {:>9} {:>5}", "by hand", "autograd", "ratio");
    println!("{:<10} {:<6} {columns}   {columns}", "shape", "");
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
                a.push(rates(seconds, |n| Ok(by_hand.advance(n).map(drop)?))?);
                b.push(rates(seconds, |n| Ok(autograd.advance(n).map(drop)?))?);
            }
            let columns = [0, 1].map(|i| {
                let (a, b) = (median(&a, i), median(&b, i));
                format!("{a:>9.1} {b:>9.1} {:>5.2}", a / b)
            });
            println!("{:<10} {name:<6} {}   {}", shape.to_string(), columns[0], columns[1]);
        }
    }
    Ok(())
}

/// Epochs per second, and per second of this process's CPU time (what a busy machine leaves comparable), over at least
/// this long, after one uncounted epoch.
fn rates(seconds: f64, mut advance: impl FnMut(u64) -> Result<(), Box<dyn Error>>) -> Result<[f64; 2], Box<dyn Error>> {
    advance(1)?;
    let (start, cpu, mut epochs, mut group) = (Instant::now(), cpu_seconds(), 0u64, 1);
    while start.elapsed().as_secs_f64() < seconds {
        advance(group)?;
        epochs += group;
        // Groups of about a twentieth of the turn.
        group = ((epochs as f64 / start.elapsed().as_secs_f64() * seconds / 20.0) as u64).max(1);
    }
    Ok([start.elapsed().as_secs_f64(), cpu_seconds() - cpu].map(|seconds| epochs as f64 / seconds))
}

/// User and system time of this process (proc(5), fields 14 and 15 of `stat`, in ticks of 10 ms); NaN elsewhere.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: Vec<f64> = after_name.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
    if ticks.len() == 2 { ticks.iter().sum::<f64>() / 100.0 } else { f64::NAN }
}

fn median(turns: &[[f64; 2]], figure: usize) -> f64 {
    let mut values: Vec<f64> = turns.iter().map(|turn| turn[figure]).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
