#!/usr/bin/env bash
# Takes every wipe, lock and check out, one at a time, and looks whether a test fails: cargo-mutants over the session, gate,
# package and zeroizer modules (.cargo/mutants.toml). Works on a copy of HEAD, in its own target folder, at the lowest
# priority, for at most an hour; started again it goes on where it stopped.
#
#   bash scripts/mutants.sh            # begins, or goes on
#   bash scripts/mutants.sh --fresh    # begins again, with HEAD as it is now
#   bash scripts/mutants.sh --list     # what survived so far
#   bash scripts/mutants.sh core       # of one crate alone (core, train); behind --fresh as well
#
# MUTANTS_DIR (/tmp/mutants), MUTANTS_MINUTES (60), MUTANTS_NICE (19) and MUTANTS_TIMEOUT (240 s a mutant) may be set, and
# BASELINE=skip once the tests are known to pass.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=${MUTANTS_DIR:-/tmp/mutants}
ends=$(($(date +%s) + 60 * ${MUTANTS_MINUTES:-60}))
export CARGO_TERM_COLOR=never CARGO_PROFILE_DEV_DEBUG=none RUST_BACKTRACE=0
export CARGO_TARGET_DIR=$work/target
# In memory where that is possible: tests of durable stores sync hundreds of times.
TMPDIR=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo /tmp)" mutants-XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

command -v cargo-mutants >/dev/null || { echo "install it: cargo install --locked cargo-mutants --version 27.1.0"; exit 2; }
list() { cat "$work"/out-*/mutants.out/missed.txt "$work"/out-*/mutants.out/timeout.txt 2>/dev/null | sort -u; }
fresh=
case ${1:-} in
  --list) list; exit 0 ;;
  --fresh) fresh=1; shift ;;
esac
only=${1:-}
case $only in '' | core | train) ;; *) echo "core or train, not $only"; exit 2 ;; esac
[ -z "$fresh" ] || rm -rf "$work/tree" "$work/out-${only:-core}" "$work/out-${only:-train}"
mkdir -p "$work"
if [ ! -d "$work/tree" ]; then
  mkdir "$work/tree"
  git -C "$root" archive HEAD | tar -x -C "$work/tree"
  git -C "$root" rev-parse HEAD >"$work/commit"
fi
echo "mutants of $(cat "$work/commit")"

# A pass goes over what no pass before it has decided of some modules, with one set of test targets. 2 and 3 are mutants
# that survived or hung; whatever else is not 0 is a broken tree.
pass() { # pass NAME PACKAGE MODULES "TARGETS" ARGUMENTS OF THE TESTS...
  [ -z "$only" ] || [ "$only" = "$1" ] || return 0
  local out=$work/out-$1 package=$2 modules=$3 targets=() left=$((ends - $(date +%s))) code=0 target
  for target in $4; do targets+=(--cargo-arg "$target"); done
  shift 4
  [ "$left" -gt 0 ] || { echo "the hour is over; start it again to go on"; exit 1; }
  mkdir -p "$out"
  (cd "$work/tree" && timeout "$left" nice -n "${MUTANTS_NICE:-19}" cargo mutants --iterate --jobs 1 --no-shuffle --no-times \
    --timeout "${MUTANTS_TIMEOUT:-240}" --build-timeout 600 --baseline "${BASELINE:-run}" --re "$modules" --package "$package" \
    --output "$out" "${targets[@]}" -- -- "$@") || code=$?
  case $code in 0 | 2 | 3) ;; 124) echo "the hour is over; start it again to go on"; exit 1 ;; *) exit "$code" ;; esac
}

# First the quick tests of each module, then for what survived them all tests that have to do with it.
pass core glasshouse-core 'gate/(session|appraise|stored|channel_keys)|segment/' "--test=session --test=refusals"
pass core glasshouse-core 'secret/|host_memory/zero|segment/lease' "--lib" secret:: host_memory:: traits:: segment::
pass core glasshouse-core 'host_memory/(large|small|slots|reserved)' "--lib --test=large_blocks --test=small_blocks" \
  --skip overhead:: --skip fit:: --skip gate:: --skip package:: --skip record::
pass core glasshouse-core 'gate/|package/' "--lib" package:: gate::
pass core glasshouse-core '.' "--test=session --test=refusals --test=package --test=zero_on_free --test=canary \
  --test=unlocked --test=hidden --test=full_disk --test=large_blocks --test=small_blocks"
GLASSHOUSE_SIM_RUNS=40 pass core glasshouse-core '.' "--lib --test=simulation --test=record" \
  --skip every_defect --skip one_fault --skip overhead:: --skip fit::
pass train glasshouse-train '.' "--lib" cuda_zeroizer
echo "survivors:"
list
