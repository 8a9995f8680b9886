#!/usr/bin/env bash
# Prints the environment in which `--features cuda` compiles and links on a machine without a CUDA toolkit and without a
# GPU: nvcc and the libraries come as wheels from PyPI, and the driver's library is stood in for at link time.
#
#     eval "$(scripts/cuda-env.sh)"
#
# What is built this way runs where an NVIDIA driver is installed, and nowhere else. With a toolkit of your own (nvcc on
# the path) you need none of this. GLASSHOUSE_CUDA_DIR says where it goes, CUDA_COMPUTE_CAP what to compile for (90).
set -euo pipefail

root=${GLASSHOUSE_CUDA_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/glasshouse/cuda-13.0}
wheels=(
  nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
  nvidia-cuda-cccl==13.0.85 nvidia-cuda-nvrtc==13.0.88 'nvidia-cublas>=13.0,<13.2' 'nvidia-curand>=10.4,<10.5'
)

toolkit() { echo "$root"/venv/lib/python3*/site-packages/nvidia/cu13; }

install() {
  command -v python3 >/dev/null || { echo "cuda-env: python3 is needed to fetch the CUDA wheels" >&2; exit 1; }
  rm -rf "$root"
  mkdir -p "$root"
  python3 -m venv "$root/venv" >&2
  "$root/venv/bin/pip" install --quiet --disable-pip-version-check "${wheels[@]}" >&2
  local cuda library
  cuda=$(toolkit)
  ln -sfn lib "$cuda/lib64"
  # The wheels ship versioned names; the linker asks for the bare ones.
  for library in "$cuda"/lib/lib*.so.*; do
    ln -sfn "$(basename "$library")" "${library%.so.*}.so"
  done
  # libcuda belongs to the driver. For linking, every function that its headers declare is enough.
  {
    grep -hoE '\bcu[A-Z][A-Za-z0-9_]*' "$cuda"/include/cuda.h "$cuda"/include/cudaGL.h "$cuda"/include/cudaProfiler.h 2>/dev/null || true
    echo cuProfilerInitialize
  } | sort -u | sed 's/.*/void &(void) {}/' >"$root/driver.c"
  cc -w -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$cuda/lib/libcuda.so" "$root/driver.c" >&2
  touch "$root/complete"
}

[ -e "$root/complete" ] || install
cuda=$(toolkit)
printf 'export CUDA_HOME=%q CUDA_PATH=%q CUDA_COMPUTE_CAP=%q\n' "$cuda" "$cuda" "${CUDA_COMPUTE_CAP:-90}"
printf 'export PATH=%q:"$PATH" LIBRARY_PATH=%q:"${LIBRARY_PATH:-}"\n' "$cuda/bin" "$cuda/lib"
printf 'export RUSTFLAGS="${RUSTFLAGS:-} -L native=%s"\n' "$cuda/lib"
