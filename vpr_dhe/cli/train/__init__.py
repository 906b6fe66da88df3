"""`vpr-dhe train`: one command, and one file, per stage of training."""

import typer

from vpr_dhe.cli.train import alto, descriptor, dhe, dhe_lite, iterative, joint, pretrain, sshnet, sshnet_d
from vpr_dhe.cli.train.groups import with_groups

app = typer.Typer(
    name="train",
    help="Train a stage; the same command goes on with a run that was interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for stage in (pretrain, descriptor, dhe, dhe_lite, joint, iterative, alto, sshnet, sshnet_d):
    app.command(name=stage.NAME)(with_groups(stage.run))
