#!/usr/bin/env bash
# One measuring trip to a CUDA machine with a built overhead_mlp: every run's table, and all files in one archive.
#
#     scripts/gpu-overhead.sh BINARY OUT_DIR NAME[:ARGUMENTS]...
#     scripts/gpu-overhead.sh ./overhead_mlp out "abba-20s:--duration 20s --repeats 2" "raw-60s:--order raw-first --duration 60s --repeats 1"
#
# Builds nothing. The device is cuda unless the arguments say otherwise.
set -uo pipefail
binary=$1 out=$2
shift 2
mkdir -p "$out"
status=0
for run in "$@"; do
  name=${run%%:*}
  read -ra arguments <<<"${run#*:}"
  case " ${arguments[*]} " in *" --device "*) ;; *) arguments+=(--device cuda) ;; esac
  printf '\n#### %s: %s\n' "$name" "${arguments[*]}"
  "$binary" "${arguments[@]}" --out "$out/runs/$name" 2>"$out/$name.log" | tee "$out/$name.txt" | sed -n '1,18p'
  code=${PIPESTATUS[0]}
  [ "$code" = 0 ] || { echo "exit status $code"; tail -3 "$out/$name.log"; status=1; }
done
tar -C "$out" -czf "$out/runs.tgz" runs
exit $status
