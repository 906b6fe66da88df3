"""Make the network of the verifier `cross-modal` from openly licensed photos.

    python datasets/cross_modal.py DATA --out cross-modal.safetensors

DATA contains the folders of `_PHOTOS`, of which held-out scenes are left out. An interrupted run leaves its state in
the folder `cross-modal.work`; the same command resumes it. A step takes about half a second of one core with products
in bfloat16.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from held_out import link_images
from saving import save
from tqdm import tqdm

from vpr_dhe.models.network_file import NetworkFile, load_network
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.registration.deformed_patches import image_side_px
from vpr_dhe.training.registration.iterative import IterativeStage
from vpr_dhe.training.registration.self_pairs import open_self_pairs
from vpr_dhe.training.registration.stage import RegistrationTraining
from vpr_dhe.verification.estimators.cross_modal.registration.networks import (
    LAYOUTS,
    RegistrationSettings,
    narrowed,
)

_PAIRS = "aerial_red_nir"
_PHOTOS = ("facades", "ie_tower", "opensfm", "brighton_beach", "hdri_views", "aerial_open", _PAIRS)
_WIDTH, _SIDE_PX, _ITERATIONS = 32, 64, 4
_TRAINING = RegistrationTraining(steps=14_000, learning_rate=1e-3, validation_pairs=128)
_VALIDATIONS = 28
_MATCHING_WEIGHT = 1.0
_PHOTOS_INFO = (
    "single photos in random contrasts: street facades, views of Poly Haven panoramas, aerial photos of Caliterra and "
    "in single bands of Garfield (CC0), frames of an office tower (MIT), photos of OpenSfM and of Brighton Beach "
    "(BSD), aerial photos of Boruszyn by Andrew Zaborowski, OpenStreetMap-PL (CC BY 3.0)"
)


def stage(data: Path, work: Path, training: RegistrationTraining) -> IterativeStage:
    """The training of the network."""
    photos = work / "photos"
    link_images(data, photos, _PHOTOS)
    options = vars(narrowed(LAYOUTS["ihn"], _WIDTH))
    network = RegistrationSettings(**options, side_px=_SIDE_PX, width=_WIDTH, iterations=_ITERATIONS)
    return IterativeStage(
        network,
        open_self_pairs(photos, image_side_px(_SIDE_PX), data / _PAIRS),
        training,
        training_data=_PHOTOS_INFO,
        matching_weight=_MATCHING_WEIGHT,
    )


def make(data: Path, work: Path, training: RegistrationTraining) -> NetworkFile:
    """Train, and halve the precision of the weights."""
    every = math.ceil(training.steps / _VALIDATIONS)
    loop = LoopSettings(training.steps, training.seed, every, save_every=250, precision="bf16", on_cpu=True)
    with tqdm(total=loop.steps, desc="cross-modal", unit="step") as bar:
        trained = train(stage(data, work, training), loop, work / "run", progress=bar.update)
    return for_package(load_network(trained.best_model))


def for_package(file: NetworkFile) -> NetworkFile:
    """Bundled version of the network: in half precision, under the licence of the package."""
    tensors = {name: value.half() if value.is_floating_point() else value for name, value in file.tensors.items()}
    return replace(file, licence="Apache-2.0", tensors=tensors)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds the photos")
    parser.add_argument("--steps", type=int, default=_TRAINING.steps, help="fewer show how much trainings differ")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, data and their order")
    parser.add_argument("--out", type=Path, required=True, help="network file to write, ending in .safetensors")
    options = parser.parse_args(arguments)
    training = replace(_TRAINING, steps=options.steps, seed=options.seed)
    return save(options.out, lambda work: make(options.data, work, training))


if __name__ == "__main__":
    sys.exit(main())
