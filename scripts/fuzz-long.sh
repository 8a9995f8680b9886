#!/usr/bin/env bash
# MINUTES of fuzzing in all, spread evenly over the targets, two at a time. Fails when one crashes. Needs nightly and
# cargo-fuzz. Afterwards scripts/fuzz-corpus.sh takes what was found into the committed corpora.
# usage: scripts/fuzz-long.sh MINUTES [TARGET...]
source "$(dirname "${BASH_SOURCE[0]}")/fuzz-common.sh"

minutes=${1:?usage: scripts/fuzz-long.sh MINUTES [TARGET...]}
case $minutes in *[!0-9]* | 0) echo "MINUTES is a whole number above 0, not $minutes" >&2 && exit 1 ;; esac
shift
names=(${*:-$(targets)})
seconds=$((minutes * 60 / ${#names[@]}))
build
export binaries && export -f fuzz run
printf '%s\n' "${names[@]}" | xargs -P 2 -I '{}' bash -c "set -euo pipefail; fuzz {} $seconds" &&
    echo "every target held: ${#names[@]} times $seconds seconds"
