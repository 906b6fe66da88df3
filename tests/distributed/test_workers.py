"""What a worker does, without Ray around it."""

import pickle

import numpy as np
import pytest

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.distributed.extraction import MAX_ATTEMPTS, ChunkSealer, _chunk_images, _Job, _ledger
from vpr_dhe.distributed.threads import Threads
from vpr_dhe.errors import BadInputError, ImageError, IndexFormatError, WorkerLostError
from vpr_dhe.index.codecs import fit_codec
from vpr_dhe.index.image_folders import ImageFolders
from vpr_dhe.index.ingest import Chunk
from vpr_dhe.index.place_index import PlaceIndex


@pytest.fixture
def job(photo_folder, tmp_path, thumbnail_extractor):
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    codec = fit_codec("float16", thumbnail_extractor.extract([np.zeros((8, 8, 3), np.uint8)])[0].local_map[None])
    with _ledger(index.folder / "segments") as ledger:
        folders = ImageFolders(str(photo_folder))
        yield _Job(ledger, folders, index.spec, codec, lambda: thumbnail_extractor, Threads.here(), 2, False)


@pytest.fixture
def chunk(photo_folder) -> Chunk:
    return Chunk(7, read_split(photo_folder).records[:3])


def altered(job, **changes):
    return ChunkSealer(type(job)(**(vars(job) | changes)))


def test_a_chunk_is_sealed_in_the_folder_of_the_index(job, chunk):
    answer = ChunkSealer(job)({"chunk": np.array([pickle.dumps(chunk)], object)})
    first_id, sealed = pickle.loads(answer["outcome"][0])
    assert (first_id, sealed.next_id, sealed.segment.count) == (7, 10, 3)
    assert (job.ledger.parent / sealed.segment.name).is_dir()


def test_errors_come_back_as_they_are(job, chunk, photo_folder, other_extractor):
    (photo_folder / "01.png").write_bytes(b"broken")
    assert isinstance(altered(job, strict=True).outcome(chunk), ImageError)
    assert isinstance(altered(job, load=lambda: other_extractor).outcome(chunk), IndexFormatError)
    unseen = altered(job, folders=ImageFolders(str(photo_folder / "elsewhere"))).outcome(chunk)
    assert isinstance(unseen, BadInputError)
    assert "does not see the folder" in str(unseen)
    assert pickle.loads(pickle.dumps(unseen)).args == unseen.args

    def fail():
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="bug"):
        altered(job, load=fail).outcome(chunk)


def test_a_chunk_that_ends_its_workers_is_given_up(job, chunk):
    worker = ChunkSealer(job)
    for _ in range(MAX_ATTEMPTS):
        worker._begin(chunk)
    lost = worker.outcome(chunk)
    assert isinstance(lost, WorkerLostError)
    assert "00.png to 02.png" in str(lost)
    assert not isinstance(worker.outcome(Chunk(20, chunk.records)), Exception)


def test_workers_use_as_many_threads_as_they_are_told():
    before = Threads.here()
    Threads(1, 1).use()
    assert Threads.here() == Threads(1, 1)
    before.use()
    assert Threads.here() == before
    assert before.largest >= 1


@pytest.mark.parametrize(
    ("images", "workers", "expected"), [(400, 4, 32), (1000, 4, 63), (10_000, 1, 2500), (10, 64, 32)]
)
def test_few_images_are_shared_out_among_all_workers(images, workers, expected):
    assert _chunk_images(images, workers) == expected
