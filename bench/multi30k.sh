#!/usr/bin/env bash
# Makes bench/results/multi30k.json again: every criterion at several budgets on Multi30k English to German.
#   bench/multi30k.sh MODEL DATA OUT
# Every choice is made on the val split; test_2016_flickr is read once, at the end. What is already in OUT is not made
# again, so a killed run continues. Two cores: two lanes of one thread each.
set -euo pipefail
model=$1 data=$2 out=$3
tprune=${TPRUNE:-tprune}
mkdir -p "$out/models" "$out/quality" "$out/onnx" "$out/log"

prune() { # NAME OPTIONS...
  local name=$1
  shift
  [ -e "$out/models/$name" ] && return
  "$tprune" prune "$model" --data "$data" --out "$out/models/$name" --threads 1 "$@" >"$out/log/$name.txt" 2>&1
  echo "$(date +%T) $name: $(tail -n 1 "$out/log/$name.txt")"
}

table() { # the comparison: the same steps for every criterion
  local steps=(--steps 80 --finetune-steps 220)
  for keep in 0.5 0.3 0.7; do
    for criterion in "$@"; do
      prune "$criterion-$keep-s0" --criterion "$criterion" --keep "$keep" --seed 0 "${steps[@]}"
    done
  done
  for criterion in "$@"; do
    prune "$criterion-0.5-s1" --criterion "$criterion" --keep 0.5 --seed 1 "${steps[@]}"
  done
}

best() { # the curve: SHS with distillation and a longer schedule
  for keep in "$@"; do
    prune "shs-$keep-distilled" --keep "$keep" --distill --steps 150 --finetune-steps 450
  done
}

lane() { # each lane is one core
  case $1 in
    1) table shs random; best 0.5 0.2 ;;
    2) table group-lasso magnitude; best 0.35 0.1 ;;
  esac
}

lane 1 &
lane 2 &
wait

score() { # MODEL NAME
  [ -e "$out/quality/$2.json" ] && return
  local versus=()
  [ "$2" = dense ] || versus=(--baseline "$out/quality/dense.json")
  "$tprune" evaluate "$1" --data "$data" --split test_2016_flickr --out "$out/quality/$2.json" "${versus[@]}"
}

score "$model" dense
for folder in "$out"/models/*; do score "$folder" "$(basename "$folder")"; done

# Timed: the dense model and SHS, table and curve. Random and magnitude cuts of the same budget run no faster.
for name in dense shs-0.7-s0 shs-0.5-s0 shs-0.3-s0 shs-0.5-distilled shs-0.35-distilled shs-0.2-distilled shs-0.1-distilled; do
  [ -e "$out/onnx/$name" ] && continue
  folder=$out/models/$name
  [ $name = dense ] && folder=$model
  "$tprune" export "$folder" --data "$data" --out "$out/onnx/$name"
done
"$tprune" bench "$out"/onnx/* --data "$data" --split test_2016_flickr --limit 200 --blocks 5 --out "$out/records.jsonl"
"$tprune" report "$out/quality" "$out/records.jsonl" "$out/onnx" --out "$out/report"
