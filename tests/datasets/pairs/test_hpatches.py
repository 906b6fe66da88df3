"""HPatches: which pairs are read, and whether resized images agree with the homographies that come with them."""

import cv2
import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets.pairs.hpatches import LAYOUT, LEFT_OUT, read_hpatches
from vpr_dhe.errors import DatasetError, ImageError
from vpr_dhe.images.loading import image_size

HOMOGRAPHY = np.array([[1.05, -0.06, 4.0], [0.04, 0.97, -6.0], [2e-4, -1e-4, 1.0]])


def smooth(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    channels = [np.sin(x / 17.0) + np.cos(y / 23.0), np.sin((x + y) / 31.0) * 2, np.cos((x - 2 * y) / 41.0) * 2]
    return np.clip(127 + 60 * np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


def write_sequence(root, name: str, suffix: str = ".ppm", size: tuple[int, int] = (660, 500), scale: float = 1) -> None:
    """Five images seen through one homography, `scale` times as large as the first."""
    homography = np.diag([scale, scale, 1]) @ HOMOGRAPHY
    other_size = (round(scale * size[0]), round(scale * size[1]))
    folder = root / name
    folder.mkdir(parents=True)
    image = smooth(*size)
    PIL.Image.fromarray(image).save(folder / f"1{suffix}")
    lines = [" ".join(f"  {value!r}" for value in row) for row in homography.tolist()]
    for number in range(2, 7):
        warped = cv2.warpPerspective(image, homography, other_size, borderMode=cv2.BORDER_REPLICATE)
        PIL.Image.fromarray(warped).save(folder / f"{number}{suffix}")
        # The published files end their lines with blanks and have a blank line at the end.
        (folder / f"H_1_{number}").write_text(" \n".join(lines) + " \n\n")


def test_the_field_s_sequences_are_read(tmp_path):
    for name in ("i_one", "v_two", "v_talent", "another"):
        write_sequence(tmp_path, name, ".png" if name == "i_one" else ".ppm", (90, 60))
    pairs = read_hpatches(tmp_path)
    assert LAYOUT.recognises(tmp_path)
    assert [pair.name for pair in pairs.pairs[:6]] == [*(f"i_one/1-{k}" for k in range(2, 7)), "v_two/1-2"]
    assert [pair.group for pair in pairs.pairs] == ["illumination"] * 5 + ["viewpoint"] * 5
    assert "2 sequences (large ones left out: 1)" in pairs.protocol
    assert len(LEFT_OUT) == 8


@pytest.mark.parametrize(
    ("size", "expected"),
    [((660, 500), (633, 480)), ((500, 660), (480, 633)), ((90, 60), (720, 480)), ((480, 481), (480, 481))],
)
def test_the_shorter_side_has_480_pixels(tmp_path, size, expected):
    write_sequence(tmp_path, "v_one", size=size)
    pair = read_hpatches(tmp_path).pairs[0]
    assert image_size(pair.image_a()) == image_size(pair.image_b()) == expected


def test_the_homography_is_that_of_the_resized_images(tmp_path):
    # Half as large, the second images are enlarged, and that moves the centre of their first pixel by half a pixel.
    write_sequence(tmp_path, "v_one", scale=0.5)
    pair = read_hpatches(tmp_path).pairs[0]
    image_a, image_b = pair.image_a(), pair.image_b()
    height, width = image_a.shape[:2]
    assert pair.homography[2, 2] == 1.0

    def difference(homography: np.ndarray) -> float:
        predicted = cv2.warpPerspective(image_a, homography, (width, height)).astype(int)
        return float(np.abs(predicted - image_b)[100:380, 100:500].mean())

    right = difference(pair.homography)
    assert right < 0.6
    for shift in ((0.3, 0.0), (-0.3, 0.0), (0.0, 0.3), (0.0, -0.3)):
        moved = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]])
        assert difference(moved @ pair.homography) > right + 0.1


def remove_image(folder):
    (folder / "4.ppm").unlink()


def remove_homography(folder):
    (folder / "H_1_4").unlink()


def short_homography(folder):
    (folder / "H_1_4").write_text("1 0 0\n0 1 0\n0 0\n")


def wordy_homography(folder):
    (folder / "H_1_4").write_text("1 0 0\n0 1 0\n0 0 one\n")


def endless_homography(folder):
    (folder / "H_1_4").write_text("1 0 0\n0 1 0\n0 0 nan\n")


def singular_homography(folder):
    (folder / "H_1_4").write_text("1 0 0\n2 0 0\n0 0 1\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_image, r"v_one has no image 4\.ppm"),
        (remove_homography, "H_1_4 does not exist"),
        (short_homography, "H_1_4 does not hold the nine numbers"),
        (wordy_homography, "H_1_4 does not hold the nine numbers .* found '1 0 0 0 1 0 0 0 one'"),
        (endless_homography, "H_1_4: the homography must be finite"),
        (singular_homography, "H_1_4: the homography is singular"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, spoil, message):
    write_sequence(tmp_path, "v_one", size=(40, 30))
    spoil(tmp_path / "v_one")
    with pytest.raises(DatasetError, match=message):
        read_hpatches(tmp_path)


def test_a_file_that_is_no_image_is_named(tmp_path):
    write_sequence(tmp_path, "v_one", size=(40, 30))
    (tmp_path / "v_one" / "3.ppm").write_text("P6 nothing")
    with pytest.raises(ImageError, match=r"3\.ppm: not an image"):
        read_hpatches(tmp_path)


def test_a_folder_without_sequences_is_refused(tmp_path):
    assert not LAYOUT.recognises(tmp_path)
    with pytest.raises(DatasetError, match="holds no sequences of HPatches; expected folders i_"):
        read_hpatches(tmp_path)
