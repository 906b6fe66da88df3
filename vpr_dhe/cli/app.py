"""Composition of the commands into one program, and its exit codes."""

import sys

import typer

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
    serve,
    train,
    verifiers,
)
from vpr_dhe.cli.encoding import write_all_names
from vpr_dhe.cli.groups import with_groups
from vpr_dhe.errors import VprDheError
from vpr_dhe.runtime.system import require_linux

app = typer.Typer(
    name="vpr-dhe",
    help="Visual place recognition with geometric verification by homographies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_COMMANDS = (
    demo,
    index,
    adapt,
    query,
    serve,
    calibrate,
    evaluate,
    evaluate_pairs,
    align,
    frames,
    loops,
    check,
    remove,
    compact,
    models,
    verifiers,
    import_weights,
    export,
)
for command in _COMMANDS:
    app.command(name=command.NAME)(with_groups(command.run))
app.add_typer(train.app)


def main() -> None:
    """Run the program; expected errors become one line on stderr and an exit code, never a traceback."""
    write_all_names(sys.stdout)
    try:
        require_linux()
        app()
    except VprDheError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except UnicodeEncodeError as error:
        # Python cannot even name such a file to the system.
        name = error.object[:200].encode("ascii", "backslashreplace").decode()
        print(
            f"error: {name} has letters that the encoding of this locale, {error.encoding}, lacks; set LC_ALL=C.UTF-8",
            file=sys.stderr,
        )
        sys.exit(1)
    except OSError as error:
        # Such as a full disk or a missing permission.
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
