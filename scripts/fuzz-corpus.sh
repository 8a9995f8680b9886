#!/usr/bin/env bash
# Takes what was found (fuzz/found) into the committed corpora (fuzz/corpus) and leaves the fewest inputs that reach the
# same code. Needs nightly and cargo-fuzz.
# usage: scripts/fuzz-corpus.sh [TARGET...]
source "$(dirname "${BASH_SOURCE[0]}")/fuzz-common.sh"

build
for target in ${*:-$(targets)}; do
    mkdir -p "fuzz/found/$target" "fuzz/corpus/$target" fuzz/logs
    smallest=$(mktemp -d)
    cargo +nightly fuzz run "$target" "$smallest" "fuzz/corpus/$target" "fuzz/found/$target" -- \
        -merge=1 -timeout="${FUZZ_TIMEOUT:-20}" -rss_limit_mb=2560 >"fuzz/logs/$target.merge.log" 2>&1
    rm -rf "fuzz/corpus/$target" "fuzz/found/$target"
    mkdir -p "fuzz/corpus/$target"
    cp "$smallest"/* "fuzz/corpus/$target/"
    rm -rf "$smallest"
    printf '%-10s %5s inputs, %s\n' "$target" "$(ls "fuzz/corpus/$target" | wc -l)" "$(du -sh --apparent-size "fuzz/corpus/$target" | cut -f1)"
done
