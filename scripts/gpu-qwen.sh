#!/usr/bin/env bash
# One measuring trip to a CUDA machine with a built qwen_lora: real model, published shapes, sustained run, overhead rows.
#
#     scripts/gpu-qwen.sh BINARY OUT_DIR MODEL_DIR DATA.jsonl [PART...]
#     scripts/gpu-qwen.sh ./qwen_lora out smollm2-qwen2 gsm8k_train.jsonl real half smoke
#     scripts/gpu-qwen.sh ./qwen_lora out smollm2-qwen2 gsm8k_train.jsonl sustained
#     scripts/gpu-qwen.sh ./qwen_lora out smollm2-qwen2 gsm8k_train.jsonl compare table
#
# Builds nothing. Parts (all when none is named; together about 15 minutes on an H200):
#   real       the model of MODEL_DIR, 200 protected steps on DATA, held-out loss before and after
#   folder     MODEL_DIR as it is (say, what random_qwen.py makes), 32 protected steps of 8 x 1024
#   half       Qwen2.5-0.5B's shape, random weights, 32 protected steps
#   smoke      Qwen2.5-7B's shape in bf16, random weights, 8 protected steps of 8 x 1024
#   sustained  the same for SUSTAINED (5m10s) of steady state
#   compare    overhead rows of the 0.5B shape: raw-first, protected-first and abba, DURATION (20s) a segment
#   peer       PEER, a pytorch_baseline.py: its Qwen rows at 8 x 1024, beside ours on the same card
#   table      what is in OUT_DIR so far, as one table
set -uo pipefail
[ $# -ge 4 ] || { sed -n '2,19p' "$0"; exit 2; }
binary=$1 out=$2 model=$3 data=$4
shift 4
[ $# -gt 0 ] || set -- real half smoke sustained compare table
big=(--batch 8 --seq 1024 --dtype bf16 --data "$data" --eval-fraction 0)
status=0
mkdir -p "$out"

# Runs one and samples the card's memory beside it.
run() {
  local name=$1
  shift
  printf '\n#### %s: %s\n' "$name" "$*"
  nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -lms 500 >"$out/$name.mib" 2>/dev/null &
  local sampler=$!
  "$binary" --device cuda "$@" --out "$out/runs/$name" 2>"$out/$name.log" | tee "$out/$name.txt"
  local code=${PIPESTATUS[0]}
  kill "$sampler" 2>/dev/null
  wait "$sampler" 2>/dev/null
  echo "exit status $code, most GPU memory $(sort -n "$out/$name.mib" 2>/dev/null | tail -1) MiB" | tee -a "$out/$name.txt"
  [ "$code" = 0 ] || { tail -3 "$out/$name.log"; status=1; }
}

for part in "$@"; do
  case $part in
  real)
    run real --model "$model" --data "$data" --steps 200 --batch 8 --seq 512 --lr 5e-4 --warmup 10 --rank 8 --alpha 16 \
      --eval-fraction 0.02 --eval-every 50 --checkpoint-every 100
    ;;
  folder) run folder --model "$model" "${big[@]}" --steps 32 --lr 5e-3 ;;
  half) run half --model random-0.5b "${big[@]}" --steps 32 --lr 5e-3 ;;
  smoke) run smoke --model random-7b "${big[@]}" --steps 8 --lr 5e-3 ;;
  sustained)
    run sustained --model random-7b "${big[@]}" --steps 100000 --schedule constant --lr 1e-3 --duration "${SUSTAINED:-5m10s}"
    ;;
  compare)
    for order in raw-first protected-first abba; do
      run "compare-$order" --mode compare --model random-0.5b "${big[@]}" --lr 1e-4 --order "$order" \
        --duration "${DURATION:-20s}"
    done
    ;;
  peer)
    printf '\n#### peer\n'
    sed -e '/^for d,b in/,/^from transformers/{/^from transformers/!d}' -e 's/in \[([0-9,]*),([0-9,]*),(8,1024)\]/in [(8,1024)]/' \
      "${PEER:?the path of pytorch_baseline.py}" >"$out/peer.py"
    python3 "$out/peer.py" 2>"$out/peer.log" | tee "$out/peer.txt"
    ;;
  table)
    printf '\n#### table\n'
    for file in "$out"/*.txt; do
      printf '\n%s\n' "$(basename "$file" .txt)"
      grep -E 'tok/s|speed|loss  |held-out loss|steps  |SHA-256|zeroized|allocation|overhead|Steps of each|exit status' "$file"
    done
    ;;
  *)
    echo "there is no part $part"
    exit 2
    ;;
  esac
done
tar -C "$out" -czf "$out/runs.tgz" runs 2>/dev/null
exit $status
