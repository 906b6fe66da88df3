"""Make the fixtures beside this file: one of each file format, as commit 13c2b52 wrote it.

Later code has to read what this commit wrote, so run this with that commit alone, in a worktree of it:

    PYTHONPATH=WORKTREE python make.py fixtures

Names of segments and of FAISS files are random, and answers hold timings; the rest should come out the same each time.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
from vpr_dhe.places.synthetic_town import NEUTRAL, Appearance, Camera, SyntheticTown, image_name

from vpr_dhe.index.manifest import publish, read_manifest
from vpr_dhe.records import Size
from vpr_dhe.training.trainable_extractor import new_model

SEED = 5
TOWN, DATABASE, QUERIES = Path("town"), Path("town/images/test/database"), Path("town/images/test/queries")
MODEL, ONNX, NETWORK, RUN = Path("tiny.safetensors"), Path("tiny-onnx"), Path("iterative.safetensors"), Path("run")
BROKEN = "@500010.00@5700010.00@32@U@@@broken@@0.00@@@@@@.webp"
# What manifests hold instead of the paths of the machine that made them.
NEUTRAL_DATABASE, NEUTRAL_MODEL = "/data/town/images/test/database", "/data/models/tiny.safetensors"
RERANK = 12
TRAIN_NETWORK = (
    *("train", "iterative", QUERIES, "--unpaired", "--width", 8, "--iterations", 1, "--side-px", 32),
    *("--batch-size", 2, "--steps", 1, "--validation-pairs", 1, "--training-data", "a synthetic town"),
)
TRAIN_DESCRIPTOR = (
    *("train", "descriptor", TOWN, "--split", "test", "--model", MODEL, "--mining", "random", "--negatives", 2),
    *("--batch-size", 2, "--learning-rate", 1e-3, "--training-data", "a synthetic town", "--validation-pairs", 1),
    *("--steps", 4, "--save-every", 1, "--log-every", 1),
)


def vpr_dhe(*arguments: object, out: str | None = None) -> None:
    """Run a command where the work lies; what it prints goes to a file, if one is named."""
    command = [sys.executable, "-m", "vpr_dhe", *map(str, arguments)]
    print("vpr-dhe", *arguments, flush=True)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    if out:
        Path(out).write_text(done.stdout)
    else:
        print(done.stdout, end="")


def write_images() -> None:
    """Six places of a town in two folders, a file that is no image, and three queries; all files of one time."""
    town, rng = SyntheticTown(seed=SEED, streets=4), np.random.default_rng(SEED)
    places = town.database_cameras(spacing_m=40.0, relative_headings_deg=(75.0,))[:6]
    cameras = [small(view) for place in places for view in (place, turned(place))]
    for number, camera in enumerate(cameras):
        street = "first" if number < 6 else "second"
        write_image(DATABASE / street, camera, f"{number:02}", town.render(camera, NEUTRAL))
    for number, camera in enumerate(map(small, town.query_cameras(3, SEED, places, max_shift_m=2.0))):
        write_image(QUERIES, camera, f"query{number}", town.render(camera, Appearance.sample(rng)))
    (DATABASE / "second" / BROKEN).write_bytes(rng.bytes(64))
    write_positions()
    for path in DATABASE.rglob("*.webp"):
        os.utime(path, (1_700_000_000, 1_700_000_000))


def small(camera: Camera) -> Camera:
    """The same view in fewer pixels."""
    return replace(camera, width_px=160, height_px=120, focal_px=115.0)


def turned(camera: Camera) -> Camera:
    """Another photo of the same place."""
    return replace(camera, x_m=camera.x_m + 1, y_m=camera.y_m + 0.5, heading_deg=(camera.heading_deg + 6) % 360)


def write_image(folder: Path, camera: Camera, place: str, pixels: np.ndarray) -> None:
    """One view as WebP, named by its position."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / Path(image_name(camera, place)).with_suffix(".webp")
    content = cv2.imencode(".webp", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 75])[1]
    path.write_bytes(content.tobytes())


def write_positions() -> None:
    """A table of the database with degrees, headings and times, for the second index."""
    with (TOWN / "positions.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["image", "latitude", "longitude", "heading", "timestamp"])
        for number, path in enumerate(sorted(DATABASE.rglob("*.webp"))):
            place = f"{51.45 + 0.0003 * number:.4f}", f"{9 + 0.0002 * number:.4f}"
            rows.writerow([path.relative_to(DATABASE).as_posix(), *place, 25 * number, 1_700_000_000 + number])


def make_sift_index() -> None:
    """Two segments, a removed image, one that could not be read, a calibration, and answers."""
    Path("later").mkdir()
    shutil.move(DATABASE / "second", "later/second")
    vpr_dhe("index", DATABASE, "--out", "sift-index", "--model", "sift-vlad")
    shutil.move("later/second", DATABASE / "second")
    vpr_dhe("index", DATABASE / "second", "--out", "sift-index", "--add")
    vpr_dhe("calibrate", "sift-index", "--rerank", RERANK)
    vpr_dhe("remove", "sift-index", removed_image())
    asked = ("query", "sift-index", QUERIES, "--rerank", RERANK)
    vpr_dhe(*asked, "--top-k", 2, "--format", "json", out="answers/sift-magsac.json")
    vpr_dhe(*asked, "--top-k", 2, "--format", "jsonl", out="answers/sift-magsac.jsonl")
    vpr_dhe(*asked, "--top-k", 1, "--format", "json", "--verifier", "dhe-lite", out="answers/sift-dhe-lite.json")
    options = ("--rerank", 5, "--recall-at", "1,2", "--cache", "none")
    vpr_dhe("evaluate", TOWN, "--verifier", "magsac,poselib", *options, "--out", "answers/results.json")
    results = json.loads(Path("answers/results.json").read_text())
    results["machine"] |= {"cpu": "a processor", "system": "Linux"}
    Path("answers/results.json").write_text(json.dumps(results, indent=2) + "\n")


def removed_image() -> str:
    """The last image of the first street."""
    return max((DATABASE / "first").iterdir()).relative_to(DATABASE).as_posix()


def make_tiny_index() -> None:
    """A model file, its export, and an index by it with half precision, a graph of FAISS, and positions in degrees."""
    model = new_model("timm-cnn:ghostnet_050", "gem", Size(64, 64), SEED)
    replace(model, name="tiny", licence="CC0").save(MODEL)
    vpr_dhe("export", MODEL, "--out", ONNX)
    kind = ("--codec", "float16", "--index-type", "hnsw")
    vpr_dhe("index", DATABASE, "--out", "tiny-index", "--model", MODEL, *kind, "--positions", TOWN / "positions.csv")
    options = ("--rerank", RERANK, "--top-k", RERANK, "--format", "jsonl")
    vpr_dhe("query", "tiny-index", QUERIES, *options, out="answers/tiny-magsac.jsonl")


def make_network() -> None:
    """The network of a method, and what it finds."""
    vpr_dhe(*TRAIN_NETWORK, "--out", "network-run")
    Path("network-run/best.safetensors").rename(NETWORK)
    shutil.rmtree("network-run")
    options = ("--method", "iterative", "--weights", NETWORK, "--format", "json")
    vpr_dhe("align", *sorted(QUERIES.iterdir())[:2], *options, out="answers/align.json")


def make_run() -> None:
    """A run that stopped twice, after two of four steps, and the log of the same run without a break."""
    (DATABASE / "second" / BROKEN).rename("broken")
    for _ in range(2):
        vpr_dhe(*TRAIN_DESCRIPTOR, "--out", RUN, "--max-minutes", 0)
    vpr_dhe(*TRAIN_DESCRIPTOR, "--out", "whole")
    shutil.copy("whole/log.csv", "answers/log.csv")
    shutil.rmtree("whole")
    # Names of its files hold that of the machine, and nothing goes on from them.
    shutil.rmtree(RUN / "tensorboard")
    Path("broken").rename(DATABASE / "second" / BROKEN)


def leave_paths_out(index: str, model: str) -> None:
    """Name another folder of images, and another place of the model, than those of this machine."""
    manifest = read_manifest(Path(index))
    publish(replace(manifest, images_folder=NEUTRAL_DATABASE, spec=replace(manifest.spec, model=model)), Path(index))
    for folder in [path for path in Path(index).iterdir() if path.is_dir() and not any(path.iterdir())]:
        folder.rmdir()  # as git leaves them out


def main() -> None:
    """Work in a temporary folder, and move all of it to where it is wanted."""
    target = Path(sys.argv[1]).absolute()
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("answers").mkdir()
        write_images()
        make_sift_index()
        make_tiny_index()
        make_network()
        make_run()
        leave_paths_out("sift-index", "sift-vlad")
        leave_paths_out("tiny-index", NEUTRAL_MODEL)
        Path("later").rmdir()
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        os.chdir(target)


if __name__ == "__main__":
    main()
