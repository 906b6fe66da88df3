"""What a shard does and what it is sent, without Ray around it."""

import pickle

import numpy as np
import pytest
import torch

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.distributed.shard_actor import SentQuery, ShardServer
from vpr_dhe.distributed.sharding import assign
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.candidate_maps import verify_images
from vpr_dhe.verification.build import build_verifier


def test_features_arrive_as_they_were_and_pixels_only_if_asked_for(photo_folder, thumbnail_extractor):
    image = decode_image(next(iter(sorted(photo_folder.glob("*.png")))))
    features = thumbnail_extractor.extract([image])[0]
    for decode in (None, lambda: image):
        sent = pickle.loads(pickle.dumps(SentQuery.of(decode, features)))
        assert (sent.grid, sent.frame, sent.features.code) == (features.grid, features.frame, features.code)
        assert torch.equal(sent.features.global_descriptor, features.global_descriptor)
        assert torch.equal(sent.features.local_map, features.local_map)
    np.testing.assert_array_equal(sent.query_image, image)
    with pytest.raises(LookupError, match="not sent"):
        SentQuery.of(None, features).query_image()


def test_a_shard_verifies_without_pixels_and_tells_the_records(photo_folder, tmp_path, thumbnail_extractor):
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, codec="float16")
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    image = decode_image(photo_folder / index.image(0).path)
    features, verifier, ids = thumbnail_extractor.extract([image])[0], build_verifier("magsac"), index.ids.tolist()
    server = ShardServer(index.folder, assign(index.manifest, 1)[0], verifier)
    found = server.verify(SentQuery.of(None, features), ids)
    expected = verify_images(index.snapshot, verifier, image, features, ids)
    assert {id: verified.score for id, (verified, _) in found.items()} == {
        id: verified.score for id, verified in expected.items()
    }
    assert {id: record for id, (_, record) in found.items()} == {id: index.image(id) for id in ids}
    near = server.search(features.global_descriptor[None].numpy(), 3)
    np.testing.assert_array_equal(near.ids, index.search(features.global_descriptor[None], 3).ids)
