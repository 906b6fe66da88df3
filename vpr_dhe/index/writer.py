"""Writing to an index in steps that each end in a new manifest, so that a crash loses at most the current step."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vpr_dhe.errors import BadInputError, ImageError
from vpr_dhe.index.adaptation.fitting import Fit
from vpr_dhe.index.adaptation.map_images import MapImages
from vpr_dhe.index.adaptation.report import AdaptationInfo
from vpr_dhe.index.adaptation_update import AdaptationExtender, MapVectors, save_adaptation, with_joined_terms
from vpr_dhe.index.amending import amend
from vpr_dhe.index.changes import Changes
from vpr_dhe.index.codec_choice import CodecChoice, choose_codec
from vpr_dhe.index.codec_files import save_codec
from vpr_dhe.index.codecs import UNFITTED, LocalMapCodec, fit_codec
from vpr_dhe.index.compaction import Recoding, groups_to_rewrite, mergeable_tail, rewrite
from vpr_dhe.index.grey_levels import with_grey_levels
from vpr_dhe.index.ingest import Chunk, ExtractedImage, SealedChunk, Source, extract, load, seal_chunk
from vpr_dhe.index.manifest import Manifest, SkippedImage, publish
from vpr_dhe.index.merging import Merge, MergeReport, joined_folders, require_mergeable, with_rules_of
from vpr_dhe.index.segments import Segment, SegmentInfo, collect_garbage
from vpr_dhe.index.snapshot import SEGMENTS, STATE, VECTOR_FILES, Snapshot, make_folders
from vpr_dhe.index.tombstones import with_removed
from vpr_dhe.index.vector_files import Announce, with_vector_files
from vpr_dhe.records import Features, GreyLevels, ImageRecord, Progress
from vpr_dhe.runtime.choices import AUTO
from vpr_dhe.runtime.sampling import evenly_spread

# Images per segment while indexing, which are lost at most by a crash.
SEGMENT_IMAGES = 512
# Images on which a codec is fitted and chosen, spread over all that are added first.
CODEC_SAMPLE = 256
_CHUNKS_PER_COLLECTION = 32


class IndexWriter:
    """Writer of an index that is locked by this process."""

    def __init__(self, snapshot: Snapshot, on_publish: Callable[[Snapshot], object] = lambda _: None) -> None:
        """Start from the newest state; `on_publish` is called with each later one."""
        self.snapshot, self._on_publish = snapshot, on_publish
        self._extender: AdaptationExtender | None = None
        self._accepted = 0
        make_folders(snapshot.folder)
        self.collect_garbage()

    @property
    def manifest(self) -> Manifest:
        """Current manifest."""
        return self.snapshot.manifest

    @property
    def segments_folder(self) -> Path:
        """Folder of segments."""
        return self.snapshot.folder / SEGMENTS

    def publish(self, manifest: Manifest) -> None:
        """Make a manifest the current one."""
        publish(manifest, self.snapshot.folder)
        self.snapshot = Snapshot(self.snapshot.folder, manifest, self.snapshot)
        self._on_publish(self.snapshot)

    def add(self, changes: Changes, source: Source, progress: Progress) -> list[SealedChunk]:
        """Extract and publish images segment by segment; returns what was sealed."""
        done: list[SealedChunk] = []

        def accept(sealed: SealedChunk) -> None:
            self.accept(sealed, changes.replaced)
            done.append(sealed)

        left = self.ensure_codec(changes.to_extract, source, accept, progress)
        # Closing stops the readers before an error propagates.
        with closing(load(source, left)) as loaded:
            for chunk in self.chunks(left):
                codec = self.snapshot.require_codec()
                extracted = extract(source, chunk.records, loaded, progress)
                seal_chunk(self.segments_folder, chunk, extracted, codec, publish=accept)
                self.merge_tail()
        return done

    def settle_grey_levels(self, to_extract: Sequence[ImageRecord]) -> GreyLevels:
        """Find the grey levels of the 16-bit images of an index, if these are its first; returns those of the index."""
        manifest = with_grey_levels(self.manifest, to_extract)
        if manifest != self.manifest:
            self.publish(manifest)
        return manifest.levels

    def add_extracted(self, images: Sequence[ExtractedImage]) -> None:
        """Store images that were extracted elsewhere as one segment, with the next ids in their order.

        If the index has no codec yet, it is chosen on these images.
        """
        if self.snapshot.codec is None:
            self._save_codec_for([image.features for image in images])
        chunk = Chunk(self.manifest.next_id, [image.indexed.record for image in images])
        codec = self.snapshot.require_codec()
        seal_chunk(self.segments_folder, chunk, images, codec, publish=partial(self.accept, replaced={}))
        self.merge_tail()

    def chunks(self, records: Sequence[ImageRecord], max_images: int | None = None) -> list[Chunk]:
        """Split images into chunks of one segment each, of at most `max_images` if that is less, and assign ids."""
        size = SEGMENT_IMAGES if max_images is None else min(max_images, SEGMENT_IMAGES)
        return [
            Chunk(self.manifest.next_id + start, records[start : start + size])
            for start in range(0, len(records), size)
        ]

    def accept(self, sealed: SealedChunk, replaced: Mapping[str, int]) -> None:
        """Publish a sealed chunk, and remove the old rows of replaced images in the same step."""
        manifest = self.manifest.with_skipped(sealed.skipped, readable=sealed.paths)
        manifest = replace(manifest, next_id=max(manifest.next_id, sealed.next_id))
        if sealed.segment:
            manifest = self._with_terms(manifest.with_segment(sealed.segment), sealed.segment)
        gone = np.array([replaced[path] for path in sealed.paths if path in replaced], np.int64)
        self._publish_without(gone, manifest)
        self._accepted += 1
        if self._accepted % _CHUNKS_PER_COLLECTION == 0:
            self._collect_state()

    def ensure_codec(
        self,
        to_extract: Sequence[ImageRecord],
        source: Source,
        accept: Callable[[SealedChunk], object],
        progress: Progress,
    ) -> Sequence[ImageRecord]:
        """Choose and fit the codec of an index that has none yet; returns the images that are left to extract.

        The codec is fitted on images spread over all of them, which become the first segment.
        """
        if self.snapshot.codec is None and self.manifest.settings.codec in UNFITTED:
            self._save_codec(CodecChoice(fit_codec(self.manifest.settings.codec, self._no_maps())), 0)
        while to_extract and self.snapshot.codec is None:
            places = evenly_spread(len(to_extract), CODEC_SAMPLE)
            chunk = Chunk(self.manifest.next_id, [to_extract[place] for place in places])
            extracted: list[ExtractedImage | SkippedImage] = []
            try:
                extracted.extend(extract(source, chunk.records, load(source, chunk.records), progress))
            except (KeyboardInterrupt, ImageError):
                # Better a codec that fewer images chose than nothing kept; `compact` chooses again.
                self._seal_first(chunk, extracted, accept)
                raise
            self._seal_first(chunk, extracted, accept)
            left = np.setdiff1d(np.arange(len(to_extract)), places)
            to_extract = [to_extract[place] for place in left]
        return to_extract

    def _seal_first(
        self,
        chunk: Chunk,
        extracted: Sequence[ExtractedImage | SkippedImage],
        accept: Callable[[SealedChunk], object],
    ) -> None:
        """Choose the codec on the first images, and store them."""
        readable = [item.features for item in extracted if isinstance(item, ExtractedImage)]
        if readable:
            self._save_codec_for(readable)
            seal_chunk(self.segments_folder, chunk, extracted, self.snapshot.require_codec(), publish=accept)
        elif extracted:
            skipped = tuple(item for item in extracted if isinstance(item, SkippedImage))
            accept(SealedChunk(None, frozenset(), skipped, chunk.next_id))

    def _save_codec_for(self, sample: Sequence[Features]) -> None:
        """Choose and fit the codec on some images."""
        maps = torch.stack([features.local_map.cpu() for features in sample])
        descriptors = torch.stack([features.global_descriptor.cpu() for features in sample])
        self._save_codec(self._choose_codec(self.manifest.settings.codec, maps, descriptors), len(maps))

    def _choose_codec(
        self,
        name: str,
        maps: Float[Tensor, "maps cells dimension"],
        descriptors: Float[Tensor, "maps descriptor_dimension"],
        stored: LocalMapCodec | None = None,
    ) -> CodecChoice:
        if name == AUTO:
            return choose_codec(maps, descriptors, self.manifest.spec, stored)
        return CodecChoice(fit_codec(name, maps))

    def _save_codec(self, choice: CodecChoice, images: int) -> None:
        self.publish(replace(self.manifest, codec=save_codec(self.snapshot.folder / STATE, choice, images)))

    @property
    def codec_needs_remeasuring(self) -> bool:
        """Whether `auto` chose the codec on few images, and there are many more now."""
        codec, count = self.manifest.codec, self.manifest.count
        automatic = self.manifest.settings.codec == AUTO
        return automatic and codec is not None and 2 * codec.images <= min(count, CODEC_SAMPLE)

    def _no_maps(self) -> Float[Tensor, "0 cells dimension"]:
        spec = self.manifest.spec
        return torch.empty(0, spec.grid.rows * spec.grid.columns, spec.local_dimension)

    def remove(self, ids: Int64[np.ndarray, " ids"]) -> None:
        """Remove images from search; a compaction frees their space.

        Raises:
            BadInputError: if one of the ids is unknown; nothing is removed then.
        """
        unknown = np.setdiff1d(ids, self.snapshot.ids)
        if len(unknown):
            raise BadInputError(
                f"index {self.snapshot.folder} holds no image of id {unknown[0]}: it was removed, or never added"
            )
        self._publish_without(ids, self.manifest)

    def _publish_without(self, ids: Int64[np.ndarray, " ids"], manifest: Manifest) -> None:
        """Publish a manifest with more images removed, and drop what verifiers have cached of them."""
        cache = self.snapshot.verifier_cache
        present = np.setdiff1d(ids, self.snapshot.removed) if cache.is_present else ids[:0]
        contents = [self.snapshot.stamp(int(id)).content for id in present]
        self.publish(self._with_removed(manifest, np.union1d(self.snapshot.removed, ids)))
        cache.drop(contents)

    def update(self, changes: Changes) -> None:
        """Store the new records of images, and the new times of their files; features and ids stay."""
        ids = changes.updated.keys() | changes.touched.keys()
        if not ids:
            return
        for segment in self.snapshot.segments:
            if not ids.isdisjoint(segment.ids.tolist()):
                # Removed rows stay, so that FAISS files over the segment still serve.
                self._replace([segment], amend(self.segments_folder, segment, changes), self.snapshot.removed)

    def merge(self, other: Snapshot, progress: Progress) -> MergeReport:
        """Add the images of another index with their features, in one step; see `PlaceIndex.merge`."""
        require_mergeable(self.manifest, other.manifest, self.snapshot.folder, other.folder)
        folders, recoding = joined_folders(self.snapshot, other), self._recoding(other)
        merge = Merge(self.snapshot, other, folders, recoding)
        manifest = with_rules_of(self.manifest, other.manifest)
        for segment in merge.segments(self.segments_folder, progress):
            manifest = self._with_terms(manifest.with_segment(segment), segment, join=False)
        before = self.manifest.folders.merged
        if not merge.added:
            return MergeReport(0, merge.known, ())
        manifest = manifest.with_folders(folders).with_skipped(merge.skipped, readable=frozenset())
        self.publish(replace(manifest, next_id=merge.next_id))
        return MergeReport(merge.added, merge.known, folders.merged[len(before) :], recoding is not None)

    def _recoding(self, other: Snapshot) -> Recoding | None:
        """Conversion of the local maps of another index; None where records are the same. Takes over a first codec."""
        theirs, stored = other.require_codec(), other.manifest.codec
        if self.snapshot.codec is None and stored is not None:
            info = save_codec(self.snapshot.folder / STATE, CodecChoice(theirs, stored.trials), stored.images)
            self.publish(replace(self.manifest, codec=replace(info, agreement=stored.agreement)))
        own = self.snapshot.require_codec()
        same = all(np.array_equal(value, theirs.parameters[name]) for name, value in own.parameters.items())
        return None if same else Recoding(theirs, own)

    def merge_tail(self, below: int | None = None) -> None:
        """Merge the newest segments if there are many small ones.

        If chunks are still to come, `below` is their first id, and only segments before it are merged.
        """
        covered = {name for file in self.manifest.vector_files for name in file.segments}
        while True:
            settled = [part for part in self.snapshot.segments if below is None or part.info.first_id < below]
            # Segments in a FAISS file are not merged, because it would have to be rebuilt.
            settled = list(reversed([*takewhile(lambda part: part.name not in covered, reversed(settled))]))
            length = mergeable_tail([len(part.ids) for part in settled])
            if not length:
                return
            self._rewrite(settled[-length:])

    def recode(self, name: str) -> None:
        """Convert all local maps to another codec, fitted and, for `auto`, chosen on images spread over all.

        A manifest names one codec, so the result is published in one step at the end. `auto` chooses no larger codec,
        which would restore nothing. If the same codec is chosen again, local maps stay as they are, because encoding
        them again would lose a little more.
        """
        before, ids = self.snapshot.require_codec(), self.snapshot.ids
        sample = ids[evenly_spread(len(ids), CODEC_SAMPLE)]
        maps, descriptors = self.snapshot.local_maps(sample), self.snapshot.descriptors(sample)
        choice = self._choose_codec(name, maps, descriptors, stored=before)
        manifest = replace(self.manifest, settings=replace(self.manifest.settings, codec=name))
        if manifest.codec and manifest.codec.name == choice.codec.name:
            updated = replace(manifest.codec, images=len(sample), agreement={}, trials=choice.trials)
            self.publish(replace(manifest, codec=updated))
            return
        manifest = replace(manifest, codec=save_codec(self.snapshot.folder / STATE, choice, len(sample)))
        recoding = Recoding(before, choice.codec)
        for segment in self.snapshot.segments:
            info = rewrite(self.segments_folder, [segment], self.snapshot.removed, recoding=recoding)
            manifest = manifest.with_rewritten([segment.name], info)
        self.publish(replace(manifest, removed=None))

    def compact(self) -> None:
        """Merge small segments, and free the space of removed images."""
        for group in groups_to_rewrite(self.snapshot.segments, self.snapshot.removed):
            self._rewrite(group)
        if self.manifest.adaptation and self.manifest.adaptation.terms:
            info = with_joined_terms(self.snapshot, self.manifest.adaptation, always=True)
            self.publish(replace(self.manifest, adaptation=info))
        # That of images whose removal another process did not know of while it cached them.
        if self.snapshot.verifier_cache.is_present:
            self.snapshot.verifier_cache.retain(self.snapshot.content_digests())

    def _rewrite(self, segments: Sequence[Segment]) -> None:
        """Replace segments by one without removed images."""
        removed = self.snapshot.removed
        info = rewrite(self.segments_folder, segments, removed)
        self._replace(segments, info, np.setdiff1d(removed, np.concatenate([segment.ids for segment in segments])))

    def _replace(
        self, segments: Sequence[Segment], info: SegmentInfo | None, removed: Int64[np.ndarray, " removed"]
    ) -> None:
        """Publish one segment, or none, instead of others; readers that have opened those can still read them."""
        manifest = self.manifest.with_rewritten([segment.name for segment in segments], info)
        self.publish(self._with_removed(manifest, removed))
        for segment in segments:
            shutil.rmtree(self.segments_folder / segment.name, ignore_errors=True)

    def _with_removed(self, manifest: Manifest, removed: Int64[np.ndarray, " removed"]) -> Manifest:
        """Copy of a manifest with exactly these ids removed."""
        if np.array_equal(removed, self.snapshot.removed):
            return manifest
        return with_removed(self.snapshot.folder / STATE, manifest, removed)

    def adapt(self, fit: Fit, vectors: MapVectors, images: MapImages, announce: Announce) -> None:
        """Publish a fitted adaptation with the terms of all images, and FAISS files over adapted vectors, in one step.

        `vectors` and `images` are those of the current state, from which it was fitted.
        """
        info = save_adaptation(self.snapshot, vectors, images, fit)
        self._publish_adaptation(info, announce)

    def unadapt(self, announce: Announce) -> None:
        """Search vectors as extracted again."""
        self._publish_adaptation(None, announce)

    def _publish_adaptation(self, info: AdaptationInfo | None, announce: Announce) -> None:
        self.publish(with_vector_files(self.snapshot, replace(self.manifest, adaptation=info), announce))

    def _with_terms(self, manifest: Manifest, added: SegmentInfo, *, join: bool = True) -> Manifest:
        """Copy of a manifest with the adaptation extended to a new segment.

        Joining many files of terms would drop those of segments that are not published yet.
        """
        info, opened = manifest.adaptation, self.snapshot.adaptation
        if info is None or opened is None:
            return manifest
        if self._extender is None or not self._extender.serves(info):
            self._extender = AdaptationExtender(self.snapshot, info, opened.parameters)
        record_bytes = self.snapshot.require_codec().record_bytes
        segment = Segment(self.segments_folder, added, manifest.spec, record_bytes)
        info = with_joined_terms(self.snapshot, info) if join else info
        return replace(manifest, adaptation=self._extender.extended(info, segment))

    def build_vector_files(self, announce: Announce) -> None:
        """Build FAISS files of the index type if too many vectors are not in one."""
        manifest = with_vector_files(self.snapshot, self.manifest, announce)
        if manifest != self.manifest:
            self.publish(manifest)

    def collect_garbage(self) -> None:
        """Delete files that the manifest does not name: leftovers of interrupted runs, and replaced ones."""
        manifest, folder = self.manifest, self.snapshot.folder
        collect_garbage(self.segments_folder, [info.name for info in manifest.segments])
        collect_garbage(folder / VECTOR_FILES, [file.file.name for file in manifest.vector_files])
        self._collect_state()

    def _collect_state(self) -> None:
        """Delete replaced lists of removed images and terms; each sealed chunk may leave some."""
        collect_garbage(self.snapshot.folder / STATE, [file.name for file in self.manifest.state])
