"""Composition of the commands into one program, and its exit codes."""

import sys
from typing import Annotated

import typer

import vpr_dhe
from vpr_dhe.cli import (
    adapt,
    align,
    calibrate,
    check,
    compact,
    demo,
    evaluate,
    evaluate_pairs,
    export,
    frames,
    import_weights,
    index,
    loops,
    models,
    query,
    remove,
    ros2,
    serve,
    train,
    verifiers,
)
from vpr_dhe.cli.shared.encoding import write_all_names
from vpr_dhe.cli.shared.help import Group
from vpr_dhe.cli.shared.messages import LOG, QuietOption, VerboseOption, set_verbosity
from vpr_dhe.cli.shared.registration import add_command
from vpr_dhe.errors import VprDheError
from vpr_dhe.runtime.system import require_linux

app = typer.Typer(
    name="vpr-dhe",
    cls=Group,
    help="Visual place recognition with geometric verification by homographies.",
    epilog="""
vpr-dhe demo
vpr-dhe index photos --out my-index
vpr-dhe query my-index where-is-this.jpg
vpr-dhe query -h""",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_SECTIONS = {
    "Maps and places": (demo, index, query, serve, ros2, adapt, calibrate),
    "Recordings": (frames, loops),
    "Upkeep of an index": (check, remove, compact),
    "Measurement": (evaluate, evaluate_pairs, align),
    "Models": (models, verifiers, import_weights, export),
}
for section, commands in _SECTIONS.items():
    for command in commands:
        add_command(app, command, section)
app.add_typer(train.app, rich_help_panel="Models")


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(f"vpr-dhe {vpr_dhe.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _begin(
    verbose: VerboseOption = 0,
    quiet: QuietOption = False,
    print_version: Annotated[  # noqa: ARG001 - its callback has done it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    set_verbosity(verbose, quiet=quiet)


def main() -> None:
    """Run the program; expected errors become one line on stderr and an exit code, never a traceback."""
    write_all_names(sys.stdout)
    try:
        require_linux()
        app()
    except VprDheError as error:
        LOG.debug("traceback of the error", exc_info=True)
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        # Left out of a small install (`docs/guides/small-install.md`).
        LOG.debug("traceback of the error", exc_info=True)
        print(
            f"error: the package {error.name} is not installed, and this command needs it; run `pip install vpr-dhe` "
            "again without --no-deps",
            file=sys.stderr,
        )
        sys.exit(1)
    except UnicodeEncodeError as error:
        # Python cannot even name such a file to the system.
        name = error.object[:200].encode("ascii", "backslashreplace").decode()
        print(
            f"error: {name} has characters that {error.encoding}, the encoding of this locale, cannot encode; set "
            "LC_ALL=C.UTF-8",
            file=sys.stderr,
        )
        sys.exit(1)
    except OSError as error:
        # Such as a full disk or a missing permission.
        LOG.debug("traceback of the error", exc_info=True)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
