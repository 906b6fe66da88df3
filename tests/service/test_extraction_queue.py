"""Batches of images from many threads."""

import weakref
from threading import Event

import numpy as np
import pytest
import torch
from waiting import wait_until

from vpr_dhe.features.base import Extractor
from vpr_dhe.service.extraction_queue import ExtractionQueue


def image_of(grey: int) -> np.ndarray:
    return np.full((20, 20, 3), grey, np.uint8)


def test_waiting_images_are_extracted_together_and_everybody_gets_their_own(thumbnail_extractor):
    seen = []
    queue = ExtractionQueue(
        thumbnail_extractor, batch_size=4, batch_wait_s=0.3, observe=lambda size, seconds: seen.append(size)
    )
    futures = [queue.submit(image_of(10 * number)) for number in range(10)]
    extracted = [future.result(5) for future in futures]
    queue.close()
    alone = [thumbnail_extractor.extract([image_of(10 * number)])[0] for number in range(10)]
    for together, single in zip(extracted, alone, strict=True):
        assert torch.equal(together.global_descriptor, single.global_descriptor)
    assert (sum(seen), max(seen)) == (10, 4)


def test_a_single_image_waits_no_longer_than_it_must(thumbnail_extractor):
    queue = ExtractionQueue(thumbnail_extractor, batch_size=8, batch_wait_s=0.01)
    queue.submit(image_of(1)).result(1)
    queue.close()
    assert thumbnail_extractor.batches == [1]


class FailsOnBlack(Extractor):
    """Raises for a batch with a black image in it."""

    def __init__(self, extractor: Extractor) -> None:
        self.spec, self.extractor, self.gate = extractor.spec, extractor, Event()
        self.sizes: list[int] = []

    def extract(self, images):
        self.sizes.append(len(images))
        assert self.gate.wait(5)
        if any(not image.any() for image in images):
            raise RuntimeError("black")
        return self.extractor.extract(images)


def test_one_image_does_not_take_its_batch_with_it(thumbnail_extractor):
    extractor = FailsOnBlack(thumbnail_extractor)
    queue = ExtractionQueue(extractor, batch_size=3, batch_wait_s=5.0)
    for grey in (10, 20, 30):  # a whole batch, for which the next three wait together
        queue.submit(image_of(grey))
    wait_until(lambda: extractor.sizes == [3])
    futures = [queue.submit(image_of(grey)) for grey in (50, 0, 70)]
    extractor.gate.set()
    assert futures[0].result(5).frame.image_size == (20, 20)
    with pytest.raises(RuntimeError, match="black"):
        futures[1].result(5)
    assert futures[2].result(5).frame.image_size == (20, 20)
    queue.close()
    assert extractor.sizes == [3, 3, 1, 1, 1]


def test_cancelled_images_are_not_extracted(thumbnail_extractor):
    queue = ExtractionQueue(thumbnail_extractor, batch_size=4, batch_wait_s=0.2)
    given_up, wanted = queue.submit(image_of(1)), queue.submit(image_of(2))
    assert given_up.cancel()
    wanted.result(5)
    queue.close()
    assert thumbnail_extractor.batches == [1]


def test_closing_describes_what_was_submitted(thumbnail_extractor):
    queue = ExtractionQueue(thumbnail_extractor, batch_size=2, batch_wait_s=0.01)
    futures = [queue.submit(image_of(number)) for number in range(5)]
    queue.close()
    for number, future in enumerate(futures):
        (alone,) = thumbnail_extractor.extract([image_of(number)])
        assert torch.equal(future.result(0).global_descriptor, alone.global_descriptor)


@pytest.mark.usefixtures("no_garbage_collector")
@pytest.mark.parametrize("greys", [(50,), (0,), (50, 0)])
def test_images_are_let_go_with_their_results(greys, thumbnail_extractor):
    extractor = FailsOnBlack(thumbnail_extractor)
    extractor.gate.set()
    queue = ExtractionQueue(extractor, batch_size=4, batch_wait_s=0.1)

    def ask() -> list[weakref.ref]:
        images = [image_of(grey) for grey in greys]
        futures = [queue.submit(image) for image in images]
        assert [future.exception(5) is None for future in futures] == [grey > 0 for grey in greys]
        return [weakref.ref(image) for image in images]

    images = ask()
    # The thread of the queue lets go of an image after its result.
    wait_until(lambda: not any(image() is not None for image in images))
    queue.close()
