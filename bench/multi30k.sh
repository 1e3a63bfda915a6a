#!/usr/bin/env bash
# Makes bench/results/multi30k.json again: every criterion at several budgets on Multi30k English to German.
#   bench/multi30k.sh MODEL DATA OUT RESULTS
# Every choice is made on the val split; test_2016_flickr is read once, at the end. What is already in OUT is not made
# again, so a killed run continues. Two cores: two lanes of one thread each, about 90 minutes.
set -euo pipefail
model=$1 data=$2 out=$3 results=$4
tprune=${TPRUNE:-tprune}
test=(--data "$data" --split test_2016_flickr)
mkdir -p "$out/models" "$out/quality" "$out/onnx" "$out/log"

prune() { # NAME OPTIONS...
  local name=$1
  shift
  [ -e "$out/models/$name" ] && return
  "$tprune" prune "$model" --data "$data" --out "$out/models/$name" --threads 1 "$@" >"$out/log/$name.txt" 2>&1
  echo "$(date +%T) $name: $(tail -n 1 "$out/log/$name.txt")"
}

table() { # CRITERION...: the comparison, the same 300 steps for every criterion
  for criterion in "$@"; do
    for run in 0.5:0 0.3:0 0.7:0 0.5:1; do
      prune "$criterion-${run%:*}-s${run#*:}" --criterion "$criterion" --keep "${run%:*}" --seed "${run#*:}" \
        --steps 60 --finetune-steps 240 --lr 5e-4 --finetune-lr 1e-3
    done
  done
}

long() { # CRITERION KEEP LR: 360 steps with distillation from the dense model
  prune "$1-$2-long" --criterion "$1" --keep "$2" --distill --steps 60 --finetune-steps 300 --lr 5e-4 --finetune-lr "$3"
}

(table shs group-lasso && long shs 0.6 5e-4) &
(table magnitude random && long magnitude 0.6 5e-4 && long shs 0.25 1e-3) &
wait -n
wait -n

export_() { # NAME CHECKPOINT OPTIONS...
  local name=$1 checkpoint=$2
  shift 2
  [ -e "$out/onnx/$name" ] || "$tprune" export "$checkpoint" --data "$data" --out "$out/onnx/$name" "$@"
}

score() { # NAME MODEL|ARTEFACT
  local versus=()
  [ "$1" = dense ] || versus=(--baseline "$out/quality/dense.json")
  [ -e "$out/quality/$1.json" ] || "$tprune" evaluate "$2" "${test[@]}" --out "$out/quality/$1.json" "${versus[@]}"
}

export_ dense "$model"
export_ dense+trim "$model" --trim-vocabulary train
export_ magnitude-0.6-long "$out/models/magnitude-0.6-long"
for name in shs-0.5-s0 shs-0.3-s0 shs-0.6-long shs-0.25-long magnitude-0.6-long; do
  export_ "$name+trim" "$out/models/$name" --trim-vocabulary train
done

score dense "$model"
for folder in "$out"/models/*; do score "$(basename "$folder")" "$folder"; done
for folder in "$out"/onnx/*+trim; do score "$(basename "$folder")" "$folder"; done

"$tprune" bench "$out"/onnx/* "${test[@]}" --limit 200 --blocks 5 --out "$out/records.jsonl"
"$tprune" report "$out/quality" "$out/records.jsonl" "$out/onnx" --out "$out/report" --results "$results"
