"""Pages and tables generated from the command line and from `benchmarks/results/`."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
_MARKER = re.compile(r"^<!-- table: (\S+) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference of the command line."""
    for name, content in (("cli.md", commands_page()), ("cli-train.md", stages_page())):
        files.append(File.generated(config, f"reference/{name}", content=content))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace the markers `<!-- table: NAME -->` by tables."""
    return _MARKER.sub(lambda marker: table(marker[1]), markdown)


def commands_page() -> str:
    """Reference of all commands with arguments, options and examples, as in `vpr-dhe COMMAND -h`."""
    sections = [
        section for name, command in _commands().items() if name != "train" for section in _section(command, name)
    ]
    introduction = (
        "Generated from the help of the program, `vpr-dhe COMMAND -h`. "
        "See also the [stages of `vpr-dhe train`](cli-train.md) and the [exit codes](exit-codes.md)."
    )
    return "\n".join(["# Commands", "", introduction, "", *sections])


def stages_page() -> str:
    """The stages of `vpr-dhe train`."""
    stages = _commands()["train"].commands
    sections = [section for name, command in stages.items() for section in _section(command, f"train {name}")]
    introduction = "The guide [Train](../guides/train.md) describes the stages and their data."
    return "\n".join(["# Training stages", "", introduction, "", *sections])


def _commands() -> dict[str, Any]:
    from typer.main import get_command

    from vpr_dhe.cli.app import app

    return get_command(app).commands  # pyright: ignore


def _section(command: Any, name: str) -> Iterator[str]:
    context = command.make_context(f"vpr-dhe {name}", [], resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"## {name} {{ #{name.replace(' ', '-')} }}\n"
    yield f"```text\nvpr-dhe {name} {usage}\n```\n"
    yield f"{_escaped(' '.join((command.help or '').split()))}\n"
    for heading, options in (("Argument", False), ("Option", True)):
        parameters = [one for one in command.params if one.opts[0].startswith("-") is options and one.name != "help"]
        if parameters:
            yield f"| {heading} | Meaning |\n|---|---|"
            yield from (_row(*parameter.get_help_record(context)) for parameter in parameters)
            yield ""
    if command.epilog:
        yield f"```text\n{command.epilog.strip()}\n```\n"


def _row(name: str, description: str) -> str:
    from vpr_dhe.cli.shared.help import in_words

    return f"| <code>{_escaped(name.split(' <', maxsplit=1)[0])}</code> | {_escaped(in_words(description))} |"


def _escaped(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("*", "&#42;")):
        text = text.replace(character, entity)
    return text


def table(name: str) -> str:
    """Table of figures by name.

    Raises:
        PluginError: if there is no table of this name, so that the build fails.
    """
    if name not in TABLES:
        raise PluginError(f"there is no table {name!r}; available: {', '.join(TABLES)}")
    return TABLES[name]()


def cross_modal(name: str) -> str:
    """Mean corner error by method and data set, from a result of `cross_modal.py`."""
    rows = _results(name)["rows"]
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    found = {(row["method"], row["dataset"]): row for row in rows}
    lines = [["method", "steps of training", *(f"{dataset}, px" for dataset in datasets)]]
    for method in methods:
        cells = [found[method, dataset] for dataset in datasets]
        steps = cells[0]["training"].partition(" of ")[0].replace("not known", "")
        lines.append([method, steps, *(_error(cell) for cell in cells)])
    return markdown_table(lines)


def _error(row: dict[str, Any]) -> str:
    pairs = row["pairs"] * len(row["mace_px"])
    failed = f" (fails on {row['failed']} of {pairs})" if row["failed"] > pairs // 20 else ""
    spread = f" ± {stdev(row['of_trainings_px']):.1f}" if len(row["of_trainings_px"]) > 1 else ""
    return f"{mean(row['mace_px']):.1f}{spread}{failed}"


def service() -> str:
    """Load and kills of `service.json`."""
    found = _results("service")
    load, kills = found["load"], found["kills"]
    return markdown_table(
        [
            ["measured", "found"],
            ["requests, at once", f"{load['requests']}, {load['concurrency']}"],
            ["of them broken, and refused with 422", str(load["statuses"]["422"])],
            ["lost, answered wrongly", f"{load['lost']}, {load['wrong']}"],
            ["requests per second", f"{load['per_second']:.1f}"],
            ["latency, median and 95th percentile", f"{load['median_s']:.1f} s, {load['p95_s']:.1f} s"],
            ["images per batch", f"{load['images_per_batch']:.1f}"],
            ["memory before and after", f"{load['memory_before_mb']:.0f} MB, {load['memory_after_mb']:.0f} MB"],
            [
                "kills, images acknowledged before them, of these lost",
                f"{kills['kills']}, {kills['acknowledged']}, {kills['lost']}",
            ],
        ]
    )


TABLES: dict[str, Callable[[], str]] = {
    "across-sensors": partial(cross_modal, "across_sensors"),
    "cross-modal": partial(cross_modal, "cross_modal"),
    "cross-modal-seeds": partial(cross_modal, "cross_modal_seeds"),
    "service": service,
}


def _results(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def markdown_table(rows: list[list[str]]) -> str:
    """Markdown table with the first row as header."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
