"""`vpr-dhe index --panorama-views`."""

import json

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.images.decoding import decode_image


@pytest.mark.slow
def test_panoramas_are_indexed_in_views(run, photo_folder, tmp_path):
    for seed in (1, 2):
        coarse = np.random.default_rng(seed).integers(0, 256, (16, 32, 3), np.uint8)
        picture = PIL.Image.fromarray(coarse).resize((1200, 600), PIL.Image.Resampling.BICUBIC)
        picture.save(photo_folder / f"pano-{seed}.png")
    (tmp_path / "positions.csv").write_text("image,latitude,longitude,heading\npano-2.png,49,7,10\n")
    index, options = tmp_path / "index", ("--model", "sift-vlad", "--codec", "float16")
    command = ("index", photo_folder, "--out", index, *options, "--positions", tmp_path / "positions.csv")
    code, stdout, stderr = run(*command, "--panorama-views", 8)
    assert (code, "index: 28 images" in stdout) == (0, True)
    assert "2 of 14 images are panoramas of two to one, in 8 views each" in stderr

    query, report = tmp_path / "query.png", tmp_path / "report.html"
    PIL.Image.fromarray(decode_image(photo_folder / "pano-2.png#090")).save(query)
    code, stdout, _ = run("query", index, query, "--rerank", 5, "--format", "json", "--report", report)
    best = json.loads(stdout)["queries"][0]["matches"][0]
    assert (code, best["image"], best["panorama"], best["yaw_deg"]) == (0, "pano-2.png#090", "pano-2.png", 90)
    assert (best["heading_deg"], best["latitude"], best["inliers"] > 50) == (100, 49, True)
    assert "data:image" in report.read_text()

    # The index remembers the number of views.
    code, stdout, _ = run(*command, "--prune")
    assert (code, "28 unchanged" in stdout) == (0, True)
    code, _, stderr = run(*command, "--panorama-views", 12)
    assert (code, "holds panoramas in 8 views, and --panorama-views is 12" in stderr) == (2, True)
    assert run(*command, "--panorama-views", 3)[0] == 2
