"""Catalogue of published models, with URLs and licences; importable without torch.

Sizes are those of the tensors of a file; recalls are R@1 in percent, as published. The weights are not part of the
package; `vpr_dhe.models.hub` downloads them.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import resources
from typing import Any


class Licence(StrEnum):
    """Licences of published models."""

    mit = "MIT"
    apache = "Apache-2.0"
    gpl = "GPL-3.0"
    none = "none given"


_RESTRICTIONS = {
    Licence.gpl: "under GPL-3.0: whoever passes them on, or what is made of them, has to keep to that licence",
    Licence.none: "without a licence: nobody else has a right to pass them on or to use them in a product",
}


class Place(StrEnum):
    """Kinds of sites where files are published."""

    hub = "Hugging Face"
    release = "GitHub release"
    drive = "Google Drive, by hand"


@dataclass(frozen=True)
class PublishedModel:
    """Checkpoint published by its authors.

    Args:
        name: name in `--model`.
        family: kind of the importer.
        dimension: length of global descriptors.
        licence: licence of the file.
        place: kind of site that it is published at.
        repository: repository on GitHub or the hub, with its owner.
        file: name of the file; empty if unknown.
        megabytes: approximate size of the file; None if unknown.
        key: release on GitHub, or file id on Google Drive.
        recall: R@1 in percent by data set, as published.
        in_series: whether the same network is also published with other dimensions.
        code_bits: length of binary codes; 0 without codes.
    """

    name: str
    family: str
    dimension: int
    licence: Licence
    place: Place
    repository: str
    file: str
    megabytes: int | None = None
    key: str = ""
    recall: Mapping[str, float] = field(default_factory=dict)
    in_series: bool = False
    code_bits: int = 0

    @property
    def url(self) -> str:
        """URL of the file, or of the page for a manual download."""
        if self.place is Place.hub:
            return f"https://huggingface.co/{self.repository}/resolve/main/{self.file}"
        if self.place is Place.drive:
            return f"https://drive.google.com/file/d/{self.key}/view"
        return f"https://github.com/{self.repository}/releases/download/{self.key}/{self.file}"

    @property
    def restriction(self) -> str | None:
        """Sentence about the licence, if it restricts the use of the model."""
        how = _RESTRICTIONS.get(self.licence)
        return None if how is None else f"{self.repository} publishes its weights {how}"


@dataclass(frozen=True)
class PublishedNetwork:
    """Checkpoint of a homography network, to be downloaded and imported manually.

    Args:
        name: name in the catalogue.
        family: kind of the importer.
        method: the estimator that it is for, by its name in `--method` and `--verifier`.
        licence: licence of the file.
        repository: repository on GitHub, with its owner.
        url: URL of the file, or of an archive that contains it.
        file: name of the file.
    """

    name: str
    family: str
    method: str
    licence: Licence
    repository: str
    url: str
    file: str

    @property
    def instructions(self) -> str:
        """Instructions for download and import."""
        source = self.url if self.url.endswith(self.file) else f"{self.url} and take {self.file} out of it"
        return (
            f"download {source}, then run `vpr-dhe import-weights {self.file} --kind {self.family} --out "
            f"{self.name}.safetensors`, and use it by `--weights {self.name}.safetensors` with the method {self.method}"
        )


_CATALOGUE = tomllib.loads((resources.files("vpr_dhe.models") / "published.toml").read_text(encoding="utf-8"))


def _read() -> Iterator[PublishedModel]:
    """Models in the TOML file of the catalogue."""
    for line in _CATALOGUE["models"]:
        for dimension in line.get("dimensions", ()):
            linear = 4e-6 * (line["width"] + 1) * dimension
            yield _model(line, dimension, round(line["megabytes"] + linear))
        if "dimension" in line:
            yield _model(line, line["dimension"], line.get("megabytes"))


def _model(line: Mapping[str, Any], dimension: int, megabytes: int | None) -> PublishedModel:
    place = next(place for place in Place if place.name in line)
    repository, _, key = line[place.name].partition("@")
    return PublishedModel(
        name=line["name"].format(dimension),
        family=line["family"],
        dimension=dimension,
        licence=Licence(line["licence"]),
        place=place,
        repository=repository,
        file=line.get("file", "").format(dimension),
        megabytes=megabytes,
        key=key,
        recall=line.get("recall", {}),
        in_series=len(line.get("dimensions", ())) > 1,
        code_bits=line.get("code_bits", 0),
    )


PUBLISHED: Mapping[str, PublishedModel] = {model.name: model for model in _read()}
"""Published models by name."""


def _network(line: Mapping[str, Any]) -> PublishedNetwork:
    path = line.get("path", "")
    return PublishedNetwork(
        name=line["name"],
        family=line["family"],
        method=line["method"],
        licence=Licence(line["licence"]),
        repository=line["repository"],
        url=line.get("archive") or f"https://github.com/{line['repository']}/raw/HEAD/{path}",
        file=line.get("file") or path.rpartition("/")[2],
    )


PUBLISHED_NETWORKS: Mapping[str, PublishedNetwork] = {line["name"]: _network(line) for line in _CATALOGUE["networks"]}
"""Published homography networks, by name."""


def of_family(family: str) -> list[PublishedModel]:
    """Published models of a family of checkpoints."""
    return [model for model in PUBLISHED.values() if model.family == family]
