#!/usr/bin/env bash
# Makes bench/results/cnn-*.json and .png again: DeepHoyer on MNIST, SVD training and PENNI on CIFAR-10.
#   bench/images.sh MNIST CIFAR10 OUT RESULTS [TABLE...]
# TABLE: lenet-300-100, lenet-5, resnet20-svd, resnet20-penni, resnet18-penni; all of them by default, one after
# another. Every choice is made on 5,000 training images held out; the test images are read once, at the end. What is
# already in OUT is not made again and a killed run continues. One thread each: two tables side by side fill two cores.
set -euo pipefail
mnist=$1 cifar=$2 out=$3 results=$4
shift 4
tprune=${TPRUNE:-tprune}
mkdir -p "$out" "$results"

make() { # NAME VERB OPTIONS...: `tprune cnn VERB` writes OUT/NAME, if it is not there
  local name=$1
  shift
  [ -e "$out/$name" ] || { echo "$(date +%T) $name" && "$tprune" cnn "$@" --out "$out/$name" --threads 1; }
}

cuts() { # NAME LEVELS OPTIONS...: OUT/NAME-cut/cut-LEVEL for each of several; finished ones are left
  local name=$1 levels=$2
  shift 2
  echo "$(date +%T) $name-cut"
  "$tprune" cnn compress "$out/$name" --cut "$levels" --out "$out/$name-cut" --threads 1 "$@"
}

table() { # TABLE DATA DENSE NETWORK...: export all, measure them side by side, then read the test images
  local name=$1 data=$2 to network
  shift 2
  for to in onnx executorch; do
    for network in "$@"; do
      [ -e "$out/$to/$network" ] || "$tprune" cnn export "$out/$network" --to "$to" --data "$data" --out "$out/$to/$network"
    done
    "$tprune" bench "${@/#/$out/$to/}" --data "$data" --limit 200 --blocks 5 --out "$out/$name-$to.jsonl"
  done
  "$tprune" cnn evaluate "${@/#/$out/}" --data "$data" --records "$out/$name-onnx.jsonl" \
    --results "$results/cnn-$name.json" --figure "$results/cnn-$name.png"
}

grid() { # PENALTY LEVELS STRENGTH...: nine networks of one penalty, as many trials for each
  local penalty=$1 levels=$2 strength
  shift 2
  for strength in "$@"; do
    make "lenet-300-100/$penalty-$strength" train --from "$out/lenet-300-100/dense" --method deephoyer \
      --penalty "$penalty" --strength "$strength" --data "$mnist" --epochs 100 --smoothing 0.1
    cuts "lenet-300-100/$penalty-$strength" "$levels" --data "$mnist" --epochs 30 --lr 1e-3
  done
}

lenet_300_100() {
  make lenet-300-100/dense train --net lenet-300-100 --data "$mnist" --epochs 30 --smoothing 0.1
  grid hoyer-square 0.08,0.115,0.15 6e-5 1.2e-4 2.4e-4
  grid hoyer 0.1,0.3,1 1e-3 3e-3 1e-2
  grid l1 0.3,1,1.5 2.5e-5 5e-5 1e-4
  grid transformed-l1 0.3,1,1.5 1.2e-5 2.5e-5 5e-5
  grid none 1,1.5,2,2.5,3,3.5,4,4.5,5 0
}

for name in "$@"; do "${name//-/_}"; done
