"""Compute positions of photos by reconstructing the image pairs retrieved by an index with COLMAP.

    vpr-dhe index photos --out my-index
    vpr-dhe query my-index photos --names-relative-to photos --format hloc --top-k 12 --out pairs.txt
    python examples/colmap_positions.py photos pairs.txt --work colmap --out positions.csv
    vpr-dhe index photos --out my-index --positions positions.csv

Needs `pip install pycolmap`. Photos of one folder are assumed to be of one camera. `--model sparse/0`, of COLMAP or
hloc, replaces PAIRS. The two axes with the largest spread of the cameras become x and y.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from vpr_dhe.datasets.colmap import read_camera_centres


def reconstruct(photos: Path, pairs_file: Path, work: Path) -> Path:
    """Match the pairs, reconstruct them, and return the folder of the model with the most images."""
    import pycolmap

    pairs = {tuple(sorted(line.split())) for line in pairs_file.read_text(encoding="utf-8").splitlines()}
    pairs = sorted(pair for pair in pairs if pair[0] != pair[1])  # each photo also retrieves itself
    work.mkdir(parents=True, exist_ok=True)
    database, matched = work / "database.db", work / "pairs.txt"
    matched.write_text("".join(f"{one} {other}\n" for one, other in pairs), encoding="utf-8")
    pycolmap.extract_features(database, photos, camera_mode=pycolmap.CameraMode.PER_FOLDER)
    pycolmap.match_image_pairs(database, pairing_options=pycolmap.ImportedPairingOptions(match_list_path=matched))
    if not (models := pycolmap.incremental_mapping(database, photos, work)):
        raise SystemExit(f"COLMAP found no model in {len(pairs)} pairs; retrieve more of them (--top-k)")
    return work / str(max(models, key=lambda number: models[number].num_reg_images()))


def main() -> None:
    """Write a table of positions for `vpr-dhe index --positions`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("pairs", type=Path, nargs="?", help="of the format hloc")
    parser.add_argument("--model", type=Path, help="an existing model, instead of PAIRS")
    parser.add_argument("--work", type=Path, default=Path("colmap"), help="folder of COLMAP's files [colmap]")
    parser.add_argument("--metres-per-unit", type=float, default=1.0, help="scale of the model [1]")
    parser.add_argument("--out", type=Path, default=Path("positions.csv"))
    arguments = parser.parse_args()
    if (arguments.pairs is None) == (arguments.model is None):
        parser.error("give either PAIRS or --model")
    centres = read_camera_centres(arguments.model or reconstruct(arguments.photos, arguments.pairs, arguments.work))
    points = np.array([*centres.values()]) * arguments.metres_per_unit
    points -= points.mean(axis=0)
    places = points @ np.linalg.svd(points, full_matrices=False)[2][:2].T
    rows = [(name, *place) for name, place in zip(centres, places.tolist(), strict=True)]
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "x", "y"), *rows])
    print(f"positions of {len(centres)} photos: {arguments.out}")


if __name__ == "__main__":
    main()
