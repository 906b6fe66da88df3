"""R@1 of retrieval after joint training of the default model and a DHE head, and after triplets alone.

    OMP_NUM_THREADS=1 python benchmarks/dhe_growth.py FOLDER/train_open/facades --head-out head.safetensors
    OMP_NUM_THREADS=1 python benchmarks/joint_training.py FOLDER --head head.safetensors

The network gets images of 384 px, so that its maps have the 24 x 24 cells of the head; the head was trained on maps of
320 px, enlarged. Triplets are of one of the sets for training in `splits.toml`; negatives are drawn at random, and may
show the same place from another side. The loss is that of triplets plus 100 times REI through the head, or that of
triplets alone, with frozen statistics of batch normalisation or not. All place data sets of the folder and the held-out
scenes are then retrieved by vectors as extracted. Gains are paired with the network before, with standard errors over
places, and are means over trainings. Writes `benchmarks/results/joint_training.md`.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from data_sets import add_tolerances
from jaxtyping import Float64
from learned_ranking import measured_sets
from measuring import RESULTS, folder_for, table
from safetensors.torch import load_file
from significance import gain_cells, hits_of
from splits import read_rules, read_split_of

from vpr_dhe.datasets import PlaceDataset
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.place_evaluation import Settings, evaluate_dataset
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.models.model_file import ModelFile, load_model
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.training.joint.stage import JointSettings, JointStage
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.mining import Mining, MiningSettings
from vpr_dhe.training.sources.positives import PositivePairs
from vpr_dhe.training.sources.triplets import TripletData
from vpr_dhe.training.trainable_extractor import TrainableExtractor
from vpr_dhe.verification.estimators.dhe import INPUT_SIZE, DheHead

# Weight of REI, and whether batch normalisation keeps its statistics.
TRAININGS = {
    "triplets, batch norm not frozen": (0.0, False),
    "triplets": (0.0, True),
    "triplets and REI": (100.0, True),
}
_VALIDATION_PAIRS = 16

Hits = Mapping[str, Float64[np.ndarray, " queries"]]


def model_for_head() -> ModelFile:
    """The default model with inputs of 384 px, whose maps have the 24 x 24 cells of a DHE head."""
    model = load_extractor(LITE_VLAD).model_file
    size = {"width": INPUT_SIZE.width, "height": INPUT_SIZE.height}
    return replace(model, name=f"{LITE_VLAD}-384", preprocessing=replace(model.preprocessing, **size))


def stage_of(
    model: ModelFile, head: Path, dataset: PlaceDataset, settings: JointSettings, *, freeze_batch_norm: bool
) -> JointStage:
    """Training of a model and a head on triplets of a data set."""
    start = DheHead()
    start.load_state_dict(load_file(head))
    data = TripletData(dataset, PositivePairs(dataset.limited(_VALIDATION_PAIRS)))
    extractor = TrainableExtractor(model, freeze_batch_norm=freeze_batch_norm)
    return JointStage(extractor, model, data, settings, training_data=dataset.name, head=start)


def retrieved(
    model: ModelFile, path: Path, datasets: Sequence[PlaceDataset], cache: Path
) -> Iterator[tuple[str, np.ndarray]]:
    """Whether the first database image is right, for each query of each set."""
    model.save(path)
    extractor = load_extractor(str(path))
    for dataset in datasets:
        index = FeatureCache(cache).index(dataset.database, extractor)
        index.unadapt()
        queries = list(FeatureCache(cache).queries(dataset.queries, extractor))
        result = evaluate_dataset(dataset, index, extractor, {}, Settings(), queries=queries)
        yield dataset.name, hits_of(result.methods[0].predictions, dataset, 1)


def row_of(name: str, datasets: Sequence[PlaceDataset], runs: Sequence[Hits], before: Hits) -> list[str]:
    """R@1 and gain of each set, and the mean gain, in the mean of all trainings."""
    means = [np.mean([run[dataset.name] for run in runs], axis=0) for dataset in datasets]
    before_each = [before[dataset.name] for dataset in datasets]
    return [name, *gain_cells(zip(means, before_each, datasets, strict=True))]


def digest_of(options: argparse.Namespace) -> str:
    """Digest of the head and of what else a training depends on, beside its loss and its seed."""
    facts = (options.scenes, options.steps, options.batch_size, options.negatives, options.learning_rate)
    return sha256(options.head.read_bytes() + repr(facts).encode()).hexdigest()[:12]


def main() -> None:
    """Train, measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--head", type=Path, required=True, help="weights of dhe_growth.py")
    parser.add_argument("--scenes", default="hdri_views", choices=("hdri_views", "ie_tower"), help="set to learn from")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=2, help="triplets [2]")
    parser.add_argument("--negatives", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--runs", type=int, default=1, help="trainings of each row [1]")
    add_tolerances(parser)
    parser.add_argument("--cache", type=Path, help="folder of features and runs, kept between runs")
    options = parser.parse_args()
    scenes = read_split_of(options.scenes, read_rules()[options.scenes], options.folder, held_out=False)
    assert scenes is not None
    datasets = [*measured_sets(options.folder, dict(options.frame_tolerance))]
    model = model_for_head()
    with folder_for(options.cache) as cache:

        def hits(found: ModelFile) -> Hits:
            return dict(retrieved(found, cache / "joint.safetensors", datasets, cache))

        before = hits(model)
        rows = [row_of("before", datasets, [before], before)]
        mining, steps = MiningSettings(Mining.random, negatives=options.negatives), options.steps
        for name, (weight, freeze) in TRAININGS.items():
            runs = list[Hits]()
            for seed in range(options.runs):
                settings = JointSettings(
                    options.batch_size, options.learning_rate, mining=mining, seed=seed, rei_weight=weight
                )
                stage = stage_of(model, options.head, scenes, settings, freeze_batch_norm=freeze)
                loop = LoopSettings(steps, seed, validate_every=steps, save_every=steps, log_every=10, on_cpu=True)
                run = cache / f"joint-{digest_of(options)}-{weight:.0f}-{freeze:d}-{seed}"
                runs.append(hits(load_model(train(stage, loop, run).best_model)))
            rows.append(row_of(name, datasets, runs, before))
            print(rows[-1], flush=True)
    names = [one.name.removesuffix(", held-out scenes") for one in datasets]
    text = table(("after", *names, "mean gain"), rows)
    print(text)
    (RESULTS / "joint_training.md").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
