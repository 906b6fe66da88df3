"""Two modalities of one scene, generated: B is A in other colours, and blurred."""

import numpy as np
import PIL.Image


def write_aligned_pairs(folder, count, side_px=64, cells=12, seed=3):
    rng = np.random.default_rng(seed)
    for side in ("a", "b"):
        (folder / side).mkdir(parents=True)
    for number in range(count):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        image = coarse.resize((side_px, side_px), PIL.Image.Resampling.BICUBIC)
        image.save(folder / "a" / f"{number:03}.png")
        PIL.Image.fromarray(255 - np.asarray(image)[:, :, ::-1]).save(folder / "b" / f"{number:03}.png")
