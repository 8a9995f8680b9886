#!/usr/bin/env bash
# Takes what was found (fuzz/found) into the committed corpora (fuzz/corpus) and leaves the fewest inputs that reach the
# same edges. Found inputs above 4 KiB stay out, so that a checkout stays small. Needs nightly and cargo-fuzz.
# usage: scripts/fuzz-corpus.sh [TARGET...]
source "$(dirname "${BASH_SOURCE[0]}")/fuzz-common.sh"

build
for target in ${*:-$(targets)}; do
    mkdir -p "fuzz/found/$target" "fuzz/corpus/$target" fuzz/logs
    smallest=$(mktemp -d)
    find "fuzz/found/$target" -type f -size +4k -delete
    run "$target" -set_cover_merge=1 -use_counters=0 "$smallest" "fuzz/corpus/$target" "fuzz/found/$target" \
        >"fuzz/logs/$target.merge.log" 2>&1
    rm -rf "fuzz/corpus/$target" "fuzz/found/$target"
    mkdir -p "fuzz/corpus/$target"
    cp "$smallest"/* "fuzz/corpus/$target/"
    rm -rf "$smallest"
    printf '%-10s %5s inputs, %s\n' "$target" "$(ls "fuzz/corpus/$target" | wc -l)" "$(du -sh --apparent-size "fuzz/corpus/$target" | cut -f1)"
done
