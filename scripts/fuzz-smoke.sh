#!/usr/bin/env bash
# Ten seconds of each fuzz target. Fails when one crashes. Needs nightly and cargo-fuzz.
# usage: scripts/fuzz-smoke.sh [TARGET...]
source "$(dirname "${BASH_SOURCE[0]}")/fuzz-common.sh"

build
failed=0
for target in ${*:-$(targets)}; do
    fuzz "$target" 10 || failed=1
done
[ "$failed" = 0 ] && echo "every target held for ten seconds"
exit "$failed"
