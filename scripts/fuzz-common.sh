# Sourced by the fuzz scripts: finds the tools, or says what to install.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing() {
    echo "fuzzing needs $1, which is not here; install it with: $2" >&2
    exit 1
}

command -v cargo >/dev/null || missing "cargo" "https://rustup.rs"
cargo +nightly --version >/dev/null 2>&1 || missing "a nightly toolchain (sanitizers)" "rustup toolchain install nightly"
cargo fuzz --version >/dev/null 2>&1 || missing "cargo-fuzz" "cargo install cargo-fuzz"

# One thread per process: two jobs fill two cores, and runs repeat.
export RAYON_NUM_THREADS=1

targets() {
    cargo +nightly fuzz list
}

# Copies of the binaries, so that sources may be edited while they run.
binaries=fuzz/target/run

build() {
    echo "building the targets with nightly and AddressSanitizer (minutes the first time)"
    cargo +nightly fuzz build
    mkdir -p "$binaries"
    local built
    built=fuzz/target/$(rustc +nightly -vV | sed -n 's/^host: //p')/release
    for target in $(targets); do cp --remove-destination "$built/$target" "$binaries/"; done
}

# run TARGET ARGUMENT...: as `cargo fuzz run` does.
run() {
    local target=$1
    shift
    ASAN_OPTIONS=detect_odr_violation=0 "$binaries/$target" -artifact_prefix="fuzz/artifacts/$target/" \
        -timeout="${FUZZ_TIMEOUT:-20}" -rss_limit_mb=2560 "$@"
}

# fuzz TARGET SECONDS: new inputs go to fuzz/found/TARGET, the committed corpus is only read. Prints one line.
fuzz() {
    local target=$1 seconds=$2 log="fuzz/logs/$1.log" outcome=ok cpu TIMEFORMAT=%U
    mkdir -p "fuzz/found/$target" fuzz/logs "fuzz/artifacts/$target"
    cpu=$({ time run "$target" -max_total_time="$seconds" -print_final_stats=1 \
        "fuzz/found/$target" "fuzz/corpus/$target" >"$log" 2>&1; } 2>&1) || outcome=CRASHED
    local runs last
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
    last=$(grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' "$log" | tail -1 || true)
    printf '%-10s %-8s %12s runs in %s s (%s s of CPU)   %s\n' "$target" "$outcome" "${runs:-?}" "$seconds" "$cpu" "$last"
    if [ "$outcome" != ok ]; then
        grep -E 'panicked at|ERROR: |assertion|SUMMARY|Test unit written' -A2 "$log" | head -20 >&2 || true
        echo "the whole log is in $log; the input is under fuzz/artifacts/$target" >&2
        return 1
    fi
}
