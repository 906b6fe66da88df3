#!/usr/bin/env bash
# Trains what benchmarks/results/cross_modal.md compares, in about two hours of one core:
#
#     benchmarks/train_cross_modal.sh MULTIMODAL OUT
#     python benchmarks/cross_modal.py OUT/parts/* --weights OUT/*/best.safetensors
#
# MULTIMODAL holds aerial_map, visible_thermal and rgb_nir. Of aerial_map, pairs of open sea are left out: their maps are
# of one colour. What is in OUT already is gone on with.
set -euo pipefail
multimodal=$1 out=$2
cd "$(dirname "$0")/.."

photos="$out/photos-of-all"
for name in aerial_map visible_thermal rgb_nir; do
  [ -e "$out/parts/$name" ] || python datasets/split_pairs.py "$multimodal/$name" --out "$out/parts/$name" --leave-out-plain
  for part in train val; do
    mkdir -p "$photos/$part"
    ln -sfn "$(realpath "$out/parts/$name/$part")" "$photos/$part/$name"
  done
done

small="--side-px 64 --width 32 --iterations 4 --precision bf16 --validate-every 100 --save-every 100"
started="--start $out/photos/best.safetensors --validation-pairs 32"
train() { # METHOD DATA NAME OPTION...
  local method=$1 data=$2 name=$3
  shift 3
  # shellcheck disable=SC2086 (lists of options)
  vpr-dhe train "$method" "$data" --out "$out/$name" $small "$@"
}

map="$out/parts/aerial_map" thermal="$out/parts/visible_thermal" nir="$out/parts/rgb_nir"
train iterative "$photos" photos --unpaired --steps 6500 --learning-rate 1e-3
train iterative "$map" iterative-map $started --steps 800 --learning-rate 5e-4
train iterative "$thermal" iterative-thermal $started --steps 800 --learning-rate 5e-4
train iterative "$nir" iterative-nir $started --steps 400 --learning-rate 5e-4
for name in map thermal; do
  train iterative "${!name}" "pixels-$name" $started --steps 200 --no-labels
  train sshnet "${!name}" "sshnet-$name" $started --steps 250 --transfer convolutional
  train sshnet-d "${!name}" "sshnet-d-$name" $started --steps 200 --teacher "$out/sshnet-$name/best.safetensors"
done
train iterative "$nir" pixels-nir $started --steps 200 --no-labels
train sshnet "$thermal" sshnet-joint-thermal $started --steps 250 --transfer convolutional --joint
train alto "$thermal" alto-thermal $started --steps 200 --encoder resnet18
train alto "$thermal" alto-no-alternation-thermal $started --steps 200 --encoder resnet18 --no-alternation
