"""Toy for the losses of AltO, where the answer is known: the second modality is an inverted contrast of the first.

    python benchmarks/alto_toy.py PHOTOS --runs descent edges resnet10t lite-vlad

takes photos of a folder, inverts their contrast for B, and deforms A as training does. `edges` is a fixed encoder of
gradients, which an inverted contrast does not change; the others are those of `vpr-dhe train alto --encoder`, or any
ResNet of timm. Prints tables, and writes them to the JSON file `--out`:

- the geometry loss at the true corners, at corners moved by known distances, and at random ones, before any training;
- `descent`: corner errors while the geometry loss of `edges` corrects the corners themselves, without a network;
- the corner error of held-out pairs, and the geometry loss at their true and at random corners, while a registration
  network learns: with `labels` by its errors, as a control; with `edges` by the geometry loss alone; with the others by
  both losses, as `train alto` does;
- `NAME@truth` and `NAME@unregistered`: the same, while the modality loss alone trains the encoder, on pairs registered
  by their labels, or not at all.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch
from jaxtyping import Float
from measuring import table, write_result
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vpr_dhe.images.decoding import decode_named
from vpr_dhe.images.listing import list_images
from vpr_dhe.records import Image
from vpr_dhe.training.registration.aligned import AlignedData, AlignedPair, some_part
from vpr_dhe.training.registration.alto import AltoSettings, AltoStage
from vpr_dhe.training.registration.deformed_patches import (
    PatchBatch,
    PatchBatches,
    image_side_px,
    largest_displacement_px,
    random_displacements,
)
from vpr_dhe.training.registration.encoders import Encoder
from vpr_dhe.training.registration.sequence_loss import displacement_loss
from vpr_dhe.training.registration.stage import RegistrationTraining
from vpr_dhe.training.sources.base import Draws, PairSource, TrainingPair
from vpr_dhe.training.stage import Turn
from vpr_dhe.verification.estimators.cross_modal.registration.networks import LAYOUTS, RegistrationSettings

FIXED, DESCENT, LABELS = "edges", "descent", "labels"
AT_TRUTH, UNREGISTERED = "@truth", "@unregistered"
OFFSETS_PX = (0, 1, 2, 4, 8, 16)
_GAMMA = 0.6
_DRAWS = 3
_GREY = (0.299, 0.587, 0.114)
_DESCENT_STEPS, _DESCENT_RATE_PX = 60, 0.25


class InvertedPhotos(PairSource):
    """Images paired with themselves in an inverted contrast, 1 - x^0.6."""

    knows_homographies = True

    def __init__(self, photos: Sequence[Image], side_px: int) -> None:
        self._photos, self._side_px = photos, side_px
        self.description = f"{len(photos)} photos and their inversions"

    def __len__(self) -> int:
        return len(self._photos)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Crop a photo at random, and invert its contrast."""
        photo = self._photos[index]
        part = np.ascontiguousarray(some_part(AlignedPair(photo, photo), random).a)
        image = cv2.resize(part, (self._side_px, self._side_px), interpolation=cv2.INTER_AREA).astype(np.uint8)
        inverted = np.rint(255 * (1 - (image / 255) ** _GAMMA)).astype(np.uint8)
        return TrainingPair(image, inverted, np.eye(3), frozenset([str(index)]), holds_everywhere=True)


class Edges(Encoder):
    """Mean strength and direction of gradients in cells of 4 x 4 pixels; opposite directions are equal."""

    def forward(self, images: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images 3 rows columns"]:
        """Encode RGB images in [0, 1]."""
        grey = (images * images.new_tensor(_GREY).view(3, 1, 1)).sum(dim=1)
        x, y = grey.diff(dim=2, append=grey[:, :, -1:]), grey.diff(dim=1, append=grey[:, -1:])
        strength = (x.square() + y.square() + 1e-6).sqrt()
        return avg_pool2d(torch.stack([strength, (x.square() - y.square()) / strength, 2 * x * y / strength], 1), 4)


@dataclass(frozen=True)
class Reading:
    """State of a run after a number of steps; losses are those of the geometry, at true and at random corners."""

    steps: int
    minutes: float
    mace_px: float
    loss_at_truth: float
    loss_at_random: float

    def cells(self) -> list[str]:
        """Cells of a table."""
        values = (self.minutes, self.mace_px, self.loss_at_truth, self.loss_at_random)
        return [str(self.steps), *(f"{value:.2f}" for value in values)]


@dataclass(frozen=True)
class Results:
    """All measurements: losses by encoder and distance, errors before and after descent by start, readings by run."""

    identity_px: float
    losses: dict[str, dict[str, float]] = field(default_factory=dict)
    descent: dict[str, list[float]] = field(default_factory=dict)
    runs: dict[str, list[Reading]] = field(default_factory=dict)


def read_photos(root: Path, count: int, side_px: int) -> list[Image]:
    """Evenly spread photos of a folder, resized with a margin for crops."""
    names, side_px = list_images(root), side_px * 4 // 3
    chosen = [names[number * len(names) // count] for number in range(min(count, len(names)))]
    return [cv2.resize(decode_named(root / name), (side_px, side_px), interpolation=cv2.INTER_AREA) for name in chosen]


def open_toy(root: Path, count: int, side_px: int) -> AlignedData:
    """Hold out every sixth photo."""
    photo_px = image_side_px(side_px)
    photos = read_photos(root, count, photo_px)
    learned = [photo for number, photo in enumerate(photos) if number % 6]
    return AlignedData(InvertedPhotos(learned, photo_px), InvertedPhotos(photos[::6], photo_px))


def toy_stage(
    data: AlignedData, shape: RegistrationSettings, settings: RegistrationTraining, encoder: str
) -> AltoStage:
    """Stage with an encoder of `train alto`, or with `edges` in its place."""
    method = AltoSettings("resnet10t" if encoder == FIXED else encoder)
    stage = AltoStage(shape, data, settings, training_data="toy", method=method)
    if encoder == FIXED:
        stage.encoder = Edges()
    return stage


def encoder_of(run: str) -> str:
    """Encoder of a run by its name."""
    return FIXED if run in (DESCENT, LABELS) else run.partition("@")[0]


def moved(batch: PatchBatch, distance_px: float, seed: int) -> Float[Tensor, "pairs 4 2"]:
    """Displacements with each corner moved from the truth by a distance, in a random direction."""
    angles = torch.from_numpy(np.random.default_rng(seed).uniform(0, 2 * np.pi, (len(batch.displacements), 4))).float()
    return batch.displacements + distance_px * torch.stack([angles.cos(), angles.sin()], dim=2)


def mean_loss(stage: AltoStage, batch: PatchBatch, estimates: Sequence[Float[Tensor, "pairs 4 2"]]) -> float:
    """Mean geometry loss of estimates."""
    with torch.no_grad():
        return float(np.mean([stage.geometry_loss(batch, [estimate]).item() for estimate in estimates]))


def random_corners(batch: PatchBatch) -> list[Float[Tensor, "pairs 4 2"]]:
    """Draws of displacements as wide as the true ones, independent of them."""
    pairs, *_, side_px = batch.patches_b.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [random_displacements(pairs, side_px, torch.device("cpu")) for _ in range(_DRAWS)]


def losses_around_truth(stage: AltoStage, batch: PatchBatch) -> dict[str, float]:
    """Geometry loss by distance of the corners from the truth, and at random corners."""
    offsets = [px for px in OFFSETS_PX if px <= largest_displacement_px(stage.shape.side_px)]
    by_offset = {
        f"{px} px": mean_loss(stage, batch, [moved(batch, px, seed) for seed in range(_DRAWS)]) for px in offsets
    }
    return by_offset | {"random": mean_loss(stage, batch, random_corners(batch))}


def descend(stage: AltoStage, batch: PatchBatch) -> dict[str, list[float]]:
    """Median corner errors before and after descent along the geometry loss, by distance of the start, and from 0."""
    starts = {f"{px} px": moved(batch, px, 0) for px in OFFSETS_PX[1:5]}
    results = {}
    for name, start in {**starts, "no displacement": torch.zeros_like(batch.displacements)}.items():
        corners = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([corners], lr=_DESCENT_RATE_PX)
        for _ in range(_DESCENT_STEPS):
            optimizer.zero_grad()
            stage.geometry_loss(batch, [corners]).backward()
            optimizer.step()
        ends = (start, corners.detach())
        results[name] = [float((end - batch.displacements).norm(dim=2).mean(dim=1).median()) for end in ends]
    return results


def learn(stage: AltoStage, held_out: PatchBatch, name: str, options: argparse.Namespace) -> Iterator[Reading]:
    """Train a stage as the loop does, and read it at regular steps; with `memorise`, on the held-out pairs alone."""
    optimizer, rate, started = stage.optimizer(), stage.settings.learning_rate, perf_counter()
    for step in range(stage.settings.steps + 1):
        if step % options.every == 0:
            yield read(stage.eval(), held_out, step, (perf_counter() - started) / 60)
        batch = held_out if options.memorise else stage.batches.batch(Turn(step, 0, 1))
        stage.train()
        for group in optimizer.param_groups:
            group["lr"] = rate * stage.learning_rate_factor(step)
        optimizer.zero_grad()
        loss_of(stage, batch, name if step >= options.encoder_steps else UNREGISTERED).backward()
        for part in stage.gradient_parts():
            torch.nn.utils.clip_grad_norm_(part.parameters(), 1.0)
        optimizer.step()


def loss_of(stage: AltoStage, batch: PatchBatch, name: str) -> Float[Tensor, ""]:
    """Loss of a run by its name."""
    if name.endswith((AT_TRUTH, UNREGISTERED)):
        return stage.modality_loss(batch, batch.displacements * name.endswith(AT_TRUTH))
    if name in (FIXED, LABELS):
        estimates = stage.network(batch.patches_a, batch.patches_b)
        if name == LABELS:
            return displacement_loss(estimates, batch.displacements, stage.settings.decay)
        return stage.geometry_loss(batch, estimates)
    return stage(batch).loss


def read(stage: AltoStage, held_out: PatchBatch, steps: int, minutes: float) -> Reading:
    """Evaluate a stage on held-out pairs."""
    with torch.no_grad():
        errors_px = (stage.estimate(held_out) - held_out.displacements).norm(dim=2)
    at_truth = mean_loss(stage, held_out, [held_out.displacements])
    at_random = mean_loss(stage, held_out, random_corners(held_out))
    return Reading(steps, minutes, float(errors_px.mean()), at_truth, at_random)


def markdown(results: Results) -> str:
    """Format all results as Markdown tables."""
    columns = list(next(iter(results.losses.values())))
    rows = [[name, *(f"{values[column]:.2f}" for column in columns)] for name, values in results.losses.items()]
    parts = [f"Corner error of the identity: {results.identity_px:.2f} px"]
    parts.append(table(["Encoder, untrained", *columns], rows))
    if results.descent:
        rows = [[name, *(f"{value:.2f}" for value in values)] for name, values in results.descent.items()]
        parts.append(table(["Start of descent", "error before, px", "error after, px"], rows))
    if results.runs:
        header = ["Run", "steps", "minutes", "corner error, px", "loss at truth", "loss at random"]
        rows = [[name, *one.cells()] for name, readings in results.runs.items() for one in readings]
        parts.append(table(header, rows))
    return "\n\n".join(parts)


def measure(options: argparse.Namespace, shape: RegistrationSettings, settings: RegistrationTraining) -> Results:
    """Measure all encoders, then do all runs."""
    data = open_toy(options.photos, options.count, shape.side_px)
    held_out = PatchBatches(Draws(data.validation, 1), shape.side_px, 0).of(range(min(32, len(data.validation))))
    results = Results(float(held_out.displacements.norm(dim=2).mean()))
    for name in dict.fromkeys(encoder_of(name) for name in (FIXED, *options.runs)):
        stage = toy_stage(data, shape, settings, name).eval()
        results.losses[name] = losses_around_truth(stage, held_out)
    for name in options.runs:
        stage = toy_stage(data, shape, settings, encoder_of(name))
        if name == DESCENT:
            results.descent.update(descend(stage.eval(), held_out))
            continue
        for reading in learn(stage, held_out, name, options):
            results.runs.setdefault(name, []).append(reading)
            print(name, *reading.cells(), file=sys.stderr, flush=True)
    return results


def main() -> None:
    """Measure, train, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--runs", nargs="*", default=[DESCENT, FIXED, "resnet10t", "lite-vlad"])
    parser.add_argument("--count", type=int, default=288, help="number of photos")
    parser.add_argument("--side-px", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=50, help="steps between readings")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--memorise", action="store_true", help="train on the held-out pairs themselves")
    parser.add_argument("--encoder-steps", type=int, default=0, help="initial steps of the modality loss alone")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    options = parser.parse_args()
    shape = RegistrationSettings(
        side_px=options.side_px, width=options.width, iterations=options.iterations, **asdict(LAYOUTS["alto"])
    )
    settings = RegistrationTraining(options.steps, options.batch_size, options.learning_rate)
    results = measure(options, shape, settings)
    print(markdown(results))
    learned = {
        "memorise": options.memorise,
        "encoder_steps": options.encoder_steps,
        **asdict(shape),
        **asdict(settings),
    }
    write_result(options.out, "alto_toy", {"settings": learned, **asdict(results)})


if __name__ == "__main__":
    main()
