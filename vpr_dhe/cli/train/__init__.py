"""`vpr-dhe train`: one command and one file per stage of training."""

import typer

from vpr_dhe.cli.shared.help import Group
from vpr_dhe.cli.shared.registration import add_command
from vpr_dhe.cli.train import (
    alto,
    descriptor,
    dhe,
    dhe_lite,
    distillation,
    iterative,
    joint,
    local,
    pretrain,
    ransac_flow,
    sshnet,
    sshnet_d,
    vlad,
    weak_descriptor,
    whitening,
)
from vpr_dhe.cli.train.running import interruptible

app = typer.Typer(
    name="train",
    cls=Group,
    help="Train a stage; run the same command again to continue an interrupted run.",
    epilog="vpr-dhe train dhe-lite photos synthetic-town --out run\nvpr-dhe train dhe-lite -h",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_STAGES = (
    pretrain,
    descriptor,
    dhe,
    dhe_lite,
    distillation,
    joint,
    local,
    ransac_flow,
    weak_descriptor,
    iterative,
    alto,
    sshnet,
    sshnet_d,
    vlad,
    whitening,
)
for stage in _STAGES:
    add_command(app, stage, wrap=interruptible)
