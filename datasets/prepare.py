"""Show how to get a data set, compare a copy with its card, and make the expected layout.

    python datasets/prepare.py list
    python datasets/prepare.py show pitts30k
    python datasets/prepare.py check pitts30k FOLDER
    python datasets/prepare.py lay-out nordland FOLDER --out OUT --database summer --queries winter

Nothing is downloaded, and the user's files are not changed. Exit codes: 0 success, 1 the copy has faults, 2 bad usage
or bad input.
"""

import argparse
import signal
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from cards import Card, CardError, card_paths, find_card, read_card
from faults import find_faults
from links import LayOutError, lay_out
from user_copy import UserCopy

FAULTY, BAD_INPUT = 1, 2


def list_cards(_: argparse.Namespace) -> int:
    """List the data sets with their counts."""
    for path in card_paths():
        card = read_card(path)
        print(f"{card.name:15} {card.title}")
        for split in card.split:
            print(f"{'':15}   {split.name}: {split.summary}")
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Print a card in readable form."""
    card = _card(arguments)
    paragraphs = f"How to get it: {card.obtain.strip()}\n\nTerms: {card.terms.strip()}\n\nThe tree that is expected:"
    print(f"{card.title}\n{card.page}\n\n{_wrapped(paragraphs)}\n\n{_indented(card.tree)}\n")
    for split in card.split:
        print(f"Split {split.name}: {split.summary} ({split.source})")
    for variant in card.protocol:
        asked = f", {variant.queries:,} queries" if variant.queries is not None else ""
        print("\n" + _wrapped(f"Protocol {variant.name}{asked}: {variant.meaning.strip()} ({variant.source})"))
        if variant.options is not None:
            print(f"    vpr-dhe {card.command} {arguments.folder} {variant.options}")
        _print_published(card, variant.name)
    return 0


def _print_published(card: Card, protocol: str) -> None:
    rows = [row for row in card.published if row.protocol == protocol]
    title = "published, %"
    width = max([len(title), *(len(row.method) for row in rows)])
    if rows:
        print(f"    {title:{width}}    R@1    R@5   R@10   source")
    for row in rows:
        recalls = (row.recall_at_1, row.recall_at_5, row.recall_at_10)
        cells = "".join(f"{'-' if recall is None else f'{recall:.1f}':>7}" for recall in recalls)
        print(f"    {row.method:{width}}{cells}   {row.source}")


def _wrapped(text: str) -> str:
    wrapper = textwrap.TextWrapper(100, break_long_words=False, break_on_hyphens=False)
    return "\n\n".join(wrapper.fill(paragraph) for paragraph in text.split("\n\n"))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.strip("\n").splitlines())


def check(arguments: argparse.Namespace) -> int:
    """Compare a folder with the card."""
    return _check(UserCopy(_card(arguments), _folder(arguments.folder), arguments.split))


def _check(copy: UserCopy) -> int:
    findings = find_faults(copy)
    for finding in findings:
        print(finding)
    faults = [finding for finding in findings if not finding.is_note]
    if faults:
        print(f"{copy.root}: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}")
        return FAULTY
    seen = copy.present or copy.splits
    print(f"{copy.root} is as {copy.card.name} should be: {'; '.join(f'{s.name}: {s.summary}' for s in seen)}")
    return 0


def lay_out_and_check(arguments: argparse.Namespace) -> int:
    """Make the expected layout by links, and compare it with the card."""
    card = _card(arguments)
    split = card.split[0] if arguments.split is None else card.split_named(arguments.split)
    for link in lay_out(_folder(arguments.folder), arguments.out, split, arguments.database, arguments.queries):
        print(f"{link} -> {link.readlink()}")
    return _check(UserCopy(card, arguments.out, split.name))


def _card(arguments: argparse.Namespace) -> Card:
    return read_card(arguments.card or find_card(arguments.name))


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise LayOutError(f"{path} {'is a file' if path.exists() else 'does not exist'}; expected a folder")
    return path


def parse(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; argparse exits with code 2 on errors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("list", help="name the data sets").set_defaults(run=list_cards)
    described = commands.add_parser("show", help="how to get a data set, its protocols, what was published")
    described.set_defaults(run=show)
    checked = commands.add_parser("check", help="compare a copy with its card")
    checked.set_defaults(run=check)
    laid_out = commands.add_parser("lay-out", help="make the expected tree by links")
    laid_out.set_defaults(run=lay_out_and_check)
    for command in (described, checked, laid_out):
        command.add_argument("name", metavar="NAME", help="data set; see list")
        command.add_argument("--card", type=Path, metavar="FILE", help="a card of your own instead of NAME's")
    described.add_argument("folder", metavar="FOLDER", nargs="?", default="DATA", help="to be named in command lines")
    for command in (checked, laid_out):
        command.add_argument("folder", metavar="FOLDER", type=Path, help="your copy")
        command.add_argument("--split", help="one split of the card")
    laid_out.add_argument("--out", type=Path, required=True, help="a new or an empty folder")
    laid_out.add_argument("--database", type=Path, metavar="DIR", help="folder of the database, relative to FOLDER")
    laid_out.add_argument("--queries", type=Path, metavar="DIR", help="folder of the queries, relative to FOLDER")
    return parser.parse_args(command_line)


def main(command_line: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    arguments = parse(command_line)
    try:
        return int(arguments.run(arguments))
    except (CardError, LayOutError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


if __name__ == "__main__":
    # Without this, `prepare.py show NAME | head` would end with a broken pipe error.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
