#!/usr/bin/env bash
# Makes bench/results/cnn-*.json and .png again: DeepHoyer on MNIST, SVD training and PENNI on CIFAR-10.
#   bench/images.sh train|measure MNIST CIFAR10 OUT RESULTS TABLE...
# MNIST, CIFAR10: folders with train.parquet and test.parquet, or hub ids. TABLE: lenet-300-100, lenet-5, resnet20-svd,
# resnet20-svd-taught, resnet20-penni, resnet18-penni, vgg16-penni, resnet18-escalate, int8 (after resnet20-svd-taught and
# resnet18-penni). `train` makes the networks, one thread each, so that tables of two networks side by side fill two cores
# (all of them: about a day); what is in OUT already is not made again, whatever this file says by now, and a killed run
# continues. Every choice is made on 5,000 training images held out. `measure` wants a machine that does nothing else: it
# exports, times, and reads the test images. TPRUNE: the command, where it is not on the path.
set -euo pipefail
[ $# -ge 6 ] || { sed -n '2,9s/^# //p' "$0" >&2; exit 2; }
stage=$1 mnist=$2 cifar=$3 out=$4 results=$5
shift 5
tprune=${TPRUNE:-tprune}
mkdir -p "$out" "$results"

make() { # NAME VERB OPTIONS...: `tprune cnn VERB` writes OUT/NAME, if it is not there
  local name=$1
  shift
  [ -e "$out/$name" ] && return
  echo "$(date +%T) $name"
  "$tprune" cnn "$@" --out "$out/$name" --threads 1
}

cuts() { # NAME LEVELS OPTIONS...: OUT/NAME-cut/LEVEL for each of several
  local name=$1 level
  for level in ${2//,/ }; do # two words or more: not quoted
    make "$name-cut/$level" compress "$out/$name" --cut "$level" "${@:3}"
  done
}

under() { # GLOB...: `networks` becomes the networks of OUT that fit, as names under OUT
  local pattern folder
  networks=()
  for pattern in "$@"; do
    for folder in "$out"/$pattern/; do # not quoted: it is a pattern
      [ -e "$folder" ] || { echo "nothing in $out is named $pattern: train first" >&2 && exit 1; }
      folder=${folder#"$out"/}
      networks+=("${folder%/}")
    done
  done
}

leanest() { # FLOOR NETWORK...: the fewest weights at this held-out accuracy; else the most accurate network
  python3 - "$out" "$@" <<'PY'
import json, sys
from pathlib import Path

out, floor, *networks = sys.argv[1:]
last = {name: json.loads(Path(out, name, "network.json").read_text())["history"][-1] for name in networks}
enough = [name for name in networks if last[name]["accuracy_held_out"] >= float(floor)]
print(min(enough, key=lambda name: last[name]["counts"]["nonzero"]) if enough else
      max(networks, key=lambda name: last[name]["accuracy_held_out"]))
PY
}

table() { # TABLE DATA DENSE NETWORK...: export all, measure them side by side, then read the test images; `figure`: draw
  local name=$1 data=$2 network
  shift 2
  for network in "$@"; do
    [ -e "$out/onnx/$network" ] || "$tprune" cnn export "$out/$network" --data "$data" --out "$out/onnx/$network"
  done
  "$tprune" bench "${@/#/$out/onnx/}" --data "$data" --limit 200 --blocks 5 --out "$out/$name.jsonl"
  "$tprune" cnn evaluate "${@/#/$out/}" --data "$data" --records "$out/$name.jsonl" \
    --results "$results/cnn-$name.json" ${figure:+--figure "$results/cnn-$name.png"}
}

curve() { # TABLE DATA DENSE NETWORK...: many networks on the test images, without times
  local name=$1 data=$2
  shift 2
  "$tprune" cnn evaluate "${@/#/$out/}" --data "$data" --results "$results/cnn-$name-curve.json" \
    --figure "$results/cnn-$name-curve.png"
}

# ---- DeepHoyer ----

grid() { # PENALTY STRENGTH LEVELS: fifteen networks of each of the first three penalties, nine of the others
  local name=lenet-300-100/$1-$2
  make "$name" train --from "$out/lenet-300-100/dense" --method deephoyer --penalty "$1" --strength "$2" \
    --data "$mnist" --epochs 100 --shift 1
  cuts "$name" "$3" --data "$mnist" --epochs 30 --lr 1e-3 --shift 1
}

train_lenet_300_100() { # without the shift all networks are overfitted, and held-out images promise too much
  make lenet-300-100/dense train --net lenet-300-100 --data "$mnist" --epochs 40 --shift 1
  grid hoyer-square 2e-4 0.05,0.1,0.15,0.2,0.3
  grid hoyer-square 4e-4 0.05,0.1,0.15,0.2,0.3
  grid hoyer-square 8e-4 0.05,0.1,0.15,0.2,0.3
  grid l1 5e-5 0.3,1,1.5,2,2.5
  grid l1 1e-4 0.3,1,1.5,2,2.5
  grid l1 2e-4 0.3,1,1.5,2,2.5
  grid transformed-l1 2.5e-5 0.3,1,1.5,2,2.5
  grid transformed-l1 5e-5 0.3,1,1.5,2,2.5
  grid transformed-l1 1e-4 0.3,1,1.5,2,2.5
  grid hoyer 1e-2 0.03,0.06,0.1
  grid hoyer 2e-2 0.03,0.06,0.1
  grid hoyer 4e-2 0.03,0.06,0.1
  grid none 0 1,1.25,1.5,1.75,2,2.25,2.5,3,3.5
}

measure_lenet_300_100() {
  local own=lenet-300-100 penalty floor one chosen=()
  for penalty in hoyer-square l1 transformed-l1 hoyer none; do
    under "$own/$penalty-[0-9]*-cut/*"
    for floor in 0.99 0.988; do
      one=$(leanest $floor "${networks[@]}")
      [[ " ${chosen[*]} " = *" $one "* ]] || chosen+=("$one")
    done
  done
  table $own "$mnist" $own/dense "${chosen[@]}"
  under "$own/*-cut/*"
  curve $own "$mnist" $own/dense "${networks[@]}"
}

train_lenet_5() {
  local own=lenet-5
  make $own/dense train --net lenet-5 --data "$mnist" --epochs 20
  make $own/weights train --from "$out/$own/dense" --method deephoyer --penalty hoyer-square --strength 1e-4 \
    --data "$mnist" --epochs 60
  cuts $own/weights 0.1,0.2,0.3 --data "$mnist" --epochs 25 --lr 5e-4
  make $own/filters train --from "$out/$own/dense" --method deephoyer --structural --penalty group-hs --strength 0.005 \
    --data "$mnist" --epochs 40
  cuts $own/filters 0.1,0.15,0.2 --data "$mnist" --epochs 20 --lr 5e-4
}

measure_lenet_5() {
  under "lenet-5/*-cut/*"
  table lenet-5 "$mnist" lenet-5/dense "${networks[@]}"
}

# ---- SVD training ----

svd() { # NAME OPTIONS...: 12 epochs from the dense ResNet-20
  local name=$1
  shift
  make "resnet20/$name" train --from "$out/resnet20/dense" --method svd --data "$cifar" --epochs 12 --lr 0.05 "$@"
}

resnet20_dense() { # and as long a training without compression as SVD training and PENNI take
  make resnet20/dense train --net resnet20 --data "$cifar" --epochs 30
  make resnet20/dense-longer train --from "$out/resnet20/dense" --data "$cifar" --epochs 24 --lr 0.05
}

train_resnet20_svd() {
  local own=resnet20
  resnet20_dense
  svd channel-hoyer-0.015 --scheme channel --penalty hoyer --strength 0.015
  svd spatial-hoyer-0.01 --scheme spatial --penalty hoyer --strength 0.01
  svd spatial-hoyer-0.03 --scheme spatial --penalty hoyer --strength 0.03
  cuts $own/channel-hoyer-0.015 1e-3,1e-2 --data "$cifar" --epochs 12 --lr 0.05
  cuts $own/spatial-hoyer-0.01 3e-3,1e-2 --data "$cifar" --epochs 12 --lr 0.05
  cuts $own/spatial-hoyer-0.03 1e-4 --data "$cifar" --epochs 12 --lr 0.05
  # less weight decay in the fine-tuning: thin layers have less to spare
  make $own/channel-hoyer-0.015-decay-cut/3e-4 compress "$out/$own/channel-hoyer-0.015" --cut 3e-4 --data "$cifar" \
    --epochs 12 --lr 0.05 --weight-decay 1e-4
  make $own/spatial-hoyer-0.01-decay-cut/3e-3 compress "$out/$own/spatial-hoyer-0.01" --cut 3e-3 --data "$cifar" \
    --epochs 12 --lr 0.05 --weight-decay 1e-4
  # beside the first: no penalty on the singular values, l1 instead, no orthogonality
  svd channel-none --scheme channel --penalty none
  svd channel-l1 --scheme channel --penalty l1 --strength 0.003
  svd channel-not-orthogonal --scheme channel --penalty hoyer --strength 0.015 --orthogonality 0
  cuts $own/channel-none 0.43 --data "$cifar" --epochs 12 --lr 0.05 # each at the level that leaves as many products
  cuts $own/channel-l1 0.34 --data "$cifar" --epochs 12 --lr 0.05
  cuts $own/channel-not-orthogonal 7e-3 --data "$cifar" --epochs 12 --lr 0.05
}

measure_resnet20_svd() {
  local figure=yes
  under "resnet20/channel-*-cut/*" "resnet20/spatial-hoyer-*-cut/*"
  table resnet20-svd "$cifar" resnet20/dense-longer resnet20/dense "${networks[@]}"
}

train_resnet20_svd_taught() { # the spatial row once more, with the dense network as a teacher
  local own=resnet20 dense=$out/resnet20/dense-longer
  resnet20_dense
  svd spatial-taught --scheme spatial --penalty hoyer --strength 0.01 --teacher "$dense"
  make $own/spatial-taught-cut/0.0692 compress "$out/$own/spatial-taught" --cut 0.0692 --data "$cifar" --epochs 12 --lr 0.05 \
    --weight-decay 1e-4 --teacher "$dense"
}

measure_resnet20_svd_taught() {
  under "resnet20/spatial-taught-cut/*"
  table resnet20-svd-taught "$cifar" resnet20/dense-longer resnet20/dense "${networks[@]}"
}

# ---- PENNI ----

resnet18_dense() { # 16 epochs
  make resnet18/dense train --net resnet18 --data "$cifar" --epochs 4
  make resnet18/dense-8 train --from "$out/resnet18/dense" --data "$cifar" --epochs 4 --lr 0.05
  make resnet18/dense-longer train --from "$out/resnet18/dense-8" --data "$cifar" --epochs 8 --lr 0.05
}

train_resnet18_penni() { # 4 + 4 + 8 epochs, coefficients trained throughout; once more, taught by the dense network
  local own=resnet18 dense=$out/resnet18/dense-longer
  resnet18_dense
  make $own/penni4-l1 train --from "$out/$own/dense" --method penni --strength 5e-5 --bases 4 --interval 5 \
    --data "$cifar" --epochs 4 --lr 0.05
  make $own/penni4-bases compress "$out/$own/penni4-l1" --data "$cifar" --cut 1.57 --epochs 8 --lr 0.05 --keep-bases
  make $own/penni4-plain compress "$out/$own/penni4-bases" --data "$cifar" --cut 0 --epochs 0
  make $own/penni4-l1-taught train --from "$out/$own/dense" --method penni --strength 5e-5 --bases 4 --interval 5 \
    --data "$cifar" --epochs 4 --lr 0.05 --teacher "$dense"
  stages penni4 0.54 0.61 0.74 0.1 -lr
  make $own/penni6-l1-taught train --from "$out/$own/dense" --method penni --strength 5e-5 --bases 6 --interval 5 \
    --data "$cifar" --epochs 4 --lr 0.05 --teacher "$dense"
  stages penni6 0.76 0.64 0.9 0.05
}

stages() { # NAME CUT CUT CUT LR [SUFFIX]: three cuts of NAME-l1-taught, fine-tuned for 1, 1 and 6 epochs, then plain layers
  local own=resnet18 how=(--data "$cifar" --weight-decay 1e-4 --keep-bases --teacher "$out/resnet18/dense-longer")
  make $own/$1-stages-1 compress "$out/$own/$1-l1-taught" --cut "$2" --epochs 1 --lr 0.05 "${how[@]}"
  make $own/$1-stages-2 compress "$out/$own/$1-stages-1" --cut "$3" --epochs 1 --lr 0.05 "${how[@]}"
  make $own/$1-stages${6-} compress "$out/$own/$1-stages-2" --cut "$4" --epochs 6 --lr "$5" "${how[@]}"
  make $own/$1-stages${6-}-plain compress "$out/$own/$1-stages${6-}" --data "$cifar" --cut 0 --epochs 0
}

measure_resnet18_penni() {
  table resnet18-penni "$cifar" resnet18/dense-longer resnet18/dense-8 resnet18/penni4-plain \
    resnet18/penni4-stages-lr-plain resnet18/penni6-stages-plain
}

train_resnet20_penni() {
  local own=resnet20
  resnet20_dense
  make $own/penni train --from "$out/$own/dense" --method penni --strength 3e-4 --bases 3 --data "$cifar" --epochs 12 --lr 0.05
  cuts $own/penni 0.1 --data "$cifar" --epochs 12 --lr 0.05
}

measure_resnet20_penni() {
  under "resnet20/penni-cut/*"
  table resnet20-penni "$cifar" resnet20/dense-longer resnet20/dense "${networks[@]}"
}

train_vgg16_penni() { # as ResNet-18, in 9 epochs
  local own=vgg16
  make $own/dense train --net vgg16 --data "$cifar" --epochs 3
  make $own/penni4-l1 train --from "$out/$own/dense" --method penni --strength 5e-5 --bases 4 --interval 4 \
    --data "$cifar" --epochs 3 --lr 0.05
  make $own/penni4-cut/1.5 compress "$out/$own/penni4-l1" --cut 1.5 --data "$cifar" --epochs 3 --lr 0.05
  make $own/dense-6 train --from "$out/$own/dense" --data "$cifar" --epochs 3 --lr 0.05
  make $own/dense-longer train --from "$out/$own/dense-6" --data "$cifar" --epochs 3 --lr 0.05
}

measure_vgg16_penni() {
  under "vgg16/penni4-cut/*"
  table vgg16-penni "$cifar" vgg16/dense-longer vgg16/dense-6 "${networks[@]}"
}

# ---- ESCALATE ----

train_resnet18_escalate() { # of an earlier network: 5 bases, coefficients and bases by turns of 2 epochs
  local own=resnet18
  resnet18_dense
  make $own/penni train --from "$out/$own/dense" --method penni --strength 1.5e-4 --bases 5 --data "$cifar" --epochs 4 --lr 0.05
  make $own/penni-bases compress "$out/$own/penni" --data "$cifar" --cut 1.65 --epochs 8 --lr 0.05 --keep-bases
  make resnet18/quantised quantise "$out/resnet18/penni-bases" --data "$cifar" --activations --epochs 1
  # what the designs without bases run: single weights cut, nothing decomposed
  make resnet18/pruned compress "$out/resnet18/dense-longer" --method deephoyer --data "$cifar" --cut 1.5 --epochs 1 --lr 0.05
}

measure_resnet18_escalate() { # accuracy from stage to stage, then the accelerators
  local own=resnet18
  "$tprune" cnn evaluate "$out"/$own/{dense-longer,penni,penni-bases,quantised,pruned} --data "$cifar" \
    --results "$results/cnn-$own-escalate.json"
  [ -e "$out/$own.json" ] || "$tprune" cnn workload "$out/$own/quantised" --plain "$out/$own/pruned" \
    --data "$cifar" --name ResNet18-CIFAR10 --out "$out/$own.json"
  [ -e "$out/$own-simulated" ] || "$tprune" simulate "$out/$own.json" --out "$out/$own-simulated" --results "$results/simulator-$own.json"
}

# ---- int8 ----

train_int8() { :; } # of networks of other tables

family() { # DENSE NETWORK: fp32 and int8 of both, side by side; one dense network a call, for the others' speed-up
  local to network folders
  for to in onnx executorch; do
    folders=()
    for network in "$@"; do
      [ -e "$out/$to/$network" ] || "$tprune" cnn export "$out/$network" --to "$to" --data "$cifar" --out "$out/$to/$network"
      [ -e "$out/$to-int8/$network" ] || "$tprune" cnn export "$out/$network" --to "$to" --precision int8 \
        --data "$cifar" --out "$out/$to-int8/$network"
      folders+=("$out/$to/$network" "$out/$to-int8/$network")
    done
    "$tprune" bench "${folders[@]}" --data "$cifar" --limit 500 --blocks 3 --out "$out/int8-${1%/*}-$to.jsonl"
  done
  "$tprune" report "$out/int8-${1%/*}"-*.jsonl --out "$out/int8-${1%/*}" --results "$results/cnn-int8-${1%/*}.json"
}

measure_int8() {
  family resnet18/dense-longer
  family resnet20/dense-longer resnet20/spatial-taught-cut/0.0692
}

for name in "$@"; do
  declare -F "${stage}_${name//-/_}" >/dev/null || { echo "there is no '$stage $name'; legal are ${0##*/} train|measure, and the tables in its head" >&2 && exit 2; }
done
for name in "$@"; do "${stage}_${name//-/_}"; done
