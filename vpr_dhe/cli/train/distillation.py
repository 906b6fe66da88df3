"""`vpr-dhe train distillation`: network that imitates another one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.shared.callbacks import existing_folders, known_model
from vpr_dhe.cli.shared.options import complete_model
from vpr_dhe.cli.shared.progress import print_stderr
from vpr_dhe.cli.train.options import DecayStepsOption, LoopOptions, PhotosOptions, StepsOption, open_network
from vpr_dhe.cli.train.running import train_stage
from vpr_dhe.models.names import CCT_OFFLINE, DEFAULT_MODEL

NAME = "distillation"
EXAMPLES = """
vpr-dhe train distillation photos --teacher lite-vlad --model cct-offline --out run
"""


@dataclass(frozen=True)
class DistillationLoopOptions(LoopOptions):
    """Loop options with the length of a run on a few thousand photos."""

    steps: StepsOption = 10_000


@dataclass(frozen=True)
class DistillationPhotosOptions(PhotosOptions):
    """Unlabelled photos to train on and to validate with."""

    validation: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of photos to validate with; may be repeated. [every tenth of PHOTOS]",
            callback=existing_folders,
        ),
    ] = None
    validation_photos: Annotated[int, typer.Option(min=1, help="Maximum number of photos to validate with.")] = 100


@dataclass(frozen=True)
class StudentOptions:
    """Teacher and student."""

    TITLE = "Networks"

    teacher: Annotated[
        str,
        typer.Option(
            help="Network to imitate, which pools by a VLAD.", callback=known_model, autocompletion=complete_model
        ),
    ] = DEFAULT_MODEL
    model: Annotated[
        str,
        typer.Option(
            help="Network that the student starts from: a model, a student, or new:BACKBONE@SIDE for random weights.",
            autocompletion=complete_model,
        ),
    ] = CCT_OFFLINE
    view_side: Annotated[
        int | None,
        typer.Option(
            min=16, help="Side of the training images in pixels; small ones are faster. [the teacher's input]"
        ),
    ] = None


def run(
    photos: DistillationPhotosOptions,
    networks: StudentOptions,
    loop: DistillationLoopOptions,
    batch_size: Annotated[int, typer.Option(min=1, help="Views per step and process.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate of AdamW.")] = 1e-3,
    decay_steps: DecayStepsOption = None,
) -> None:
    """Train a network to have the tokens of another one, cell by cell; no labels are needed."""
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.models.exported_model import require_weights
    from vpr_dhe.records import Size
    from vpr_dhe.training.distillation import DistillationSettings, DistillationStage, open_views, student_of
    from vpr_dhe.training.trainable_extractor import require_network

    device = loop.pick_device()
    teacher = require_network(require_weights(load_extractor(networks.teacher).model_file))
    student = student_of(teacher, require_network(open_network(networks.model, loop.seed)), loop.seed)
    size = student.preprocessing.size
    view_size = size if networks.view_side is None else Size(networks.view_side, networks.view_side)
    training, held_out = open_views(photos.photos, size, view_size, photos.validation or ())
    print_stderr(f"views of {training.description}")
    settings = DistillationSettings(
        batch_size=batch_size,
        learning_rate=learning_rate,
        decay_steps=decay_steps or loop.steps,
        seed=loop.seed,
        validation_photos=photos.validation_photos,
    )
    stage = DistillationStage(
        student,
        teacher,
        training,
        held_out,
        settings,
        view_size=view_size,
        training_data=photos.description,
        device=device,
    )
    train_stage(stage, loop, device)
