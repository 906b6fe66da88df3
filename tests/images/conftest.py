"""A picture that tests of image files share."""

import numpy as np
import PIL.Image
import pytest


@pytest.fixture
def picture() -> PIL.Image.Image:
    rows, columns = np.indices((40, 60))
    return PIL.Image.fromarray(np.stack([rows * 6, columns * 4, rows + columns], axis=-1).astype(np.uint8))
