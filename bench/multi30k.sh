#!/usr/bin/env bash
# Makes bench/results/multi30k.json again: every criterion at several budgets on Multi30k English to German.
#   bench/multi30k.sh MODEL DATA OUT RESULTS
# Every choice is made on the val split; test_2016_flickr is read once, at the end. What is already in OUT is not made
# again, so a killed run continues. Two cores: two lanes of one thread each, about 2 hours.
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

run() { # CRITERION KEEP SEED: 360 steps for every criterion, distilled from the dense model
  local lr=5e-4 # chosen on val with SHS: at 30 % kept 1e-3 is better (1.574 nats against 1.599), at 50 % it is not needed
  case $2 in 0.2 | 0.3) lr=1e-3 ;; esac
  prune "$1-$2-s$3" --criterion "$1" --keep "$2" --seed "$3" --distill --steps 60 --finetune-steps 300 --lr 5e-4 \
    --finetune-lr "$lr"
}

lane() { # CRITERION...
  for of in "0.5 0" "0.3 0" "0.5 1" "0.7 0"; do
    for criterion in "$@"; do run "$criterion" $of; done # $of is two words
  done
}

(lane shs random && run shs 0.2 0) &
(lane magnitude group-lasso) &
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
for name in shs-0.5-s0 magnitude-0.5-s0; do
  export_ "$name" "$out/models/$name"
done
for name in shs-0.5-s0 magnitude-0.5-s0 shs-0.3-s0 shs-0.2-s0; do
  export_ "$name+trim" "$out/models/$name" --trim-vocabulary train
done

score dense "$model"
for folder in "$out"/models/*; do score "$(basename "$folder")" "$folder"; done
for folder in "$out"/onnx/*+trim; do score "$(basename "$folder")" "$folder"; done

"$tprune" bench "$out"/onnx/* "${test[@]}" --limit 200 --blocks 5 --out "$out/records.jsonl"
"$tprune" report "$out/quality" "$out/records.jsonl" "$out/onnx" --out "$out/report" --results "$results"
