//! Compiles the CUDA kernels for feature `cuda`: machine code for `CUDA_COMPUTE_CAP` (80 unless told) and PTX for what
//! comes after it.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    for variable in ["CUDA_COMPUTE_CAP", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let capability = env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "80".to_owned()).replace('.', "");
    let nvcc = ["CUDA_HOME", "CUDA_PATH"]
        .iter()
        .filter_map(env::var_os)
        .map(|home| PathBuf::from(home).join("bin/nvcc"))
        .find(|nvcc| nvcc.exists())
        .unwrap_or_else(|| PathBuf::from("nvcc"));
    for (source, name) in [("src/mlp/cuda/kernels.cu", "mlp.fatbin"), ("src/ops/kernels.cu", "ops.fatbin")] {
        println!("cargo::rerun-if-changed={source}");
        let output = PathBuf::from(env::var("OUT_DIR")?).join(name);
        let status = Command::new(&nvcc)
            .args(["-fatbin", "-O3", "-std=c++17", "-Xptxas", "-warn-spills"])
            .arg(format!("-gencode=arch=compute_{capability},code=[sm_{capability},compute_{capability}]"))
            .arg("-o")
            .args([output.as_os_str(), source.as_ref()])
            .status()
            .map_err(|error| format!("{}: {error}; install the CUDA toolkit or set CUDA_HOME", nvcc.display()))?;
        if !status.success() {
            return Err(format!("nvcc could not compile {source} for capability {capability}").into());
        }
    }
    Ok(())
}
