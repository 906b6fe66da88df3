#!/usr/bin/env bash
# Trains what benchmarks/results/cross_modal.md compares, each method three times, in about an hour of one core:
#
#     benchmarks/train_cross_modal.sh MULTIMODAL OUT
#     python benchmarks/cross_modal.py OUT/parts/* --networks-only \
#         --weights vpr_dhe/models/weights/cross-modal.safetensors OUT/*/best.safetensors
#
# MULTIMODAL holds aerial_map, visible_thermal and rgb_nir. Of aerial_map, pairs of open sea are left out: their maps are
# of one colour. All networks start from that of the package, and learn from visible_thermal. What is in OUT already is
# gone on with.
set -euo pipefail
multimodal=$1 out=$2
cd "$(dirname "$0")/.."

for name in aerial_map visible_thermal rgb_nir; do
  [ -e "$out/parts/$name" ] || python datasets/split_pairs.py "$multimodal/$name" --out "$out/parts/$name" --leave-out-plain
done

train() { # METHOD NAME OPTION...
  local method=$1 name=$2
  shift 2
  vpr-dhe train "$method" "$out/parts/visible_thermal" --out "$out/$name-$seed" --seed "$seed" --steps 100 \
    --start vpr_dhe/models/weights/cross-modal.safetensors --side-px 64 --width 32 --iterations 4 \
    --validation-pairs 32 --validate-every 50 --save-every 50 "$@"
}

for seed in 0 1 2; do
  train iterative supervised --learning-rate 5e-4
  train alto alternating --encoder lite-vlad
  train sshnet split --transfer convolutional
  train sshnet-d student --teacher "$out/split-$seed/best.safetensors"
  train sshnet joint --transfer convolutional --joint
done
