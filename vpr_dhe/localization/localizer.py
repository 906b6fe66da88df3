"""Localize one image: retrieve by global descriptor, re-rank by homography, calibrate, fuse positions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from vpr_dhe.errors import BadInputError, IndexDamagedError, IndexFormatError
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images import ImageLike, load_for_input
from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.place_index import PlaceIndex, require_same_features
from vpr_dhe.localization.calibration.default import default_calibration
from vpr_dhe.localization.calibration.probability import Calibration, Conditions
from vpr_dhe.localization.calibration.storage import read_calibration
from vpr_dhe.localization.candidate_maps import QueryImage
from vpr_dhe.localization.database import Database, PinnedDatabase, VerifiedIndex
from vpr_dhe.localization.early_stop import require_margin
from vpr_dhe.localization.position_fusion import fuse_positions
from vpr_dhe.localization.ranking import ranked_matches, rerank
from vpr_dhe.localization.retrieval import Candidate, retrieve
from vpr_dhe.models.network_file import load_networks
from vpr_dhe.records import (
    CalibrationSource,
    Cameras,
    Features,
    Frame,
    GreyLevels,
    ImageRecord,
    Localization,
    Near,
    PositionEstimate,
    RankedMatch,
    StrPath,
    Timing,
)
from vpr_dhe.runtime.choices import (
    AUTO,
    Adapt,
    Precision,
    RankBy,
    RankByChoice,
    Runtime,
    features_precision,
    require_choice,
    resolve_rank_by,
)
from vpr_dhe.runtime.image_decoding import MAX_PIXELS
from vpr_dhe.runtime.stopwatch import Stopwatch
from vpr_dhe.verification.build import build_verifier
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.names import DEFAULT_VERIFIER, NO_VERIFIER


class Localizer:
    """Answers "where was this photo taken?" from a database of images.

    A calibration is needed only for `min_probability`. `open` takes the index's own, or the default one for model and
    verifier; `calibration_source` says which. If it finds a calibration that cannot be used, it stores the error in
    `calibration_fault` and works without probabilities.

    Args:
        database: an index with a verifier (`VerifiedIndex`), a sharded index (`ShardedIndex`), or the frames of a
            stream (`FrameMemory`).
        extractor: the extractor that filled the index.
        rerank: number of candidates to verify; at least 1.
        rank_by: order of verified candidates: by `inliers`, or by `evidence`, which is inliers and similarity together.
        stop_early: margin at which the best candidate stands out so far that no more are verified, in standard
            deviations, above 0; None verifies `rerank` candidates. Those that are left follow in the order of
            retrieval. `early_stop.SAFE_MARGIN` loses hardly any recall.
        cameras: intrinsics of query and database images; needed to estimate headings.
        calibration: maps the evidence for the best match to a probability; must have been fitted for this extractor,
            verifier, number of candidates and margin (see `read_calibration`).
        max_pixels: largest number of pixels of a query file that is decoded.

    Raises:
        IndexFormatError: if the index was filled by another extractor.
        BadInputError: if `rerank` is below 1, `stop_early` is not above 0, or the calibration is for another extractor,
            verifier, number of candidates or margin.
    """

    stop_early: float | None = None
    calibration_source: CalibrationSource | None = None

    def __init__(
        self,
        database: Database,
        extractor: Extractor,
        *,
        rerank: int = 100,
        rank_by: RankBy = "inliers",
        stop_early: float | None = None,
        cameras: Cameras | None = None,
        calibration: Calibration | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        require_same_features(database.spec, extractor.spec)
        require_choice(rank_by, RankBy, "rank_by")
        if rerank < 1:
            raise BadInputError(f"rerank is {rerank}; expected at least 1, or the verifier {NO_VERIFIER!r}")
        require_margin(stop_early)
        if calibration is not None:
            calibration.conditions.require(extractor.spec.fingerprint, rerank, rank_by, stop_early)
            _require_same_verification(calibration.conditions, database)
        self.database, self.extractor, self.rerank = database, extractor, rerank
        self.rank_by: RankBy = rank_by
        self.stop_early = stop_early
        self.cameras, self.calibration, self.max_pixels = cameras, calibration, max_pixels
        self.calibration_source = None if calibration is None else "index"
        self.calibration_fault: IndexDamagedError | IndexFormatError | None = None

    @classmethod
    def open(
        cls,
        folder: StrPath,
        *,
        verifier: str = DEFAULT_VERIFIER,
        rerank: int = 100,
        rank_by: RankByChoice = AUTO,
        adapt: Adapt = "auto",
        stop_early: float | None = None,
        device: str = "cpu",
        model: str | None = None,
        weights: Iterable[StrPath] = (),
        runtime: Runtime = AUTO,
        precision: Precision = "fp32",
        cameras: Cameras | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> "Localizer":
        """Open an index together with its model, a verifier by name, and the calibration for both.

        `model` gives the model's new location if it has moved; `weights` are network files, for verifiers with a
        network of their own. `device` is a torch device such as `cuda` (the command line chooses one itself); FAISS
        searches there, too. `runtime` is as for `load_extractor`; the precision `int8` is of the DHE head alone.
        `rank_by` is the order of verified candidates; `auto` is the index's. `adapt` searches vectors adapted to their
        map where the index is, or, with `off`, as extracted.

        Raises:
            IndexFormatError, IndexDamagedError: if the index cannot be read.
            ModelError, VerifierError: if model or verifier are unknown, or do not fit each other.
        """
        index = PlaceIndex.open(folder, gpu=device.startswith("cuda"))
        used = features_precision(precision)
        extractor = load_extractor(model or index.spec.model, device, precision=used, runtime=runtime)
        resources = Resources(extractor, load_networks(weights), device, precision)
        database = VerifiedIndex(index, build_verifier(verifier, resources), adapt=adapt)
        order = resolve_rank_by(rank_by, index.manifest.settings.rank_by)
        conditions = Conditions.of(
            index.manifest, verifier, rerank, resources, order, adapt=adapt, stop_early=stop_early
        )
        own, fault = None, None
        try:
            own = read_calibration(index.folder, conditions)
        except (IndexDamagedError, IndexFormatError) as error:
            fault = error
        localizer = cls(
            database,
            extractor,
            rerank=rerank,
            rank_by=order,
            stop_early=stop_early,
            cameras=cameras,
            max_pixels=max_pixels,
            calibration=own if own or fault else default_calibration(conditions),
        )
        if own is None and localizer.calibration:
            localizer.calibration_source = "default"
        localizer.calibration_fault = fault
        return localizer

    def localize(
        self,
        image: ImageLike | StrPath,
        *,
        top_k: int = 5,
        min_probability: float | None = None,
        near: Near | None = None,
    ) -> Localization:
        """Find the `top_k` database images most likely to show the same place as the query, best first.

        A blank query has no inliers with any of them, and its place is unknown (`Localization.blank`).

        With `min_probability` in [0, 1], a best match that is less probable is rejected: the place counts as unknown,
        and there are no matches.

        With `near`, only images in that circle are searched; those without a position are left out
        (`Localization.nearby`). If there are none, the place is unknown, and there are no matches. Few candidates stand
        out less from one another, so probabilities are rather too low then.

        Raises:
            ImageError: if `image` is a path that cannot be read, or not an image as `require_image` expects it.
            BadInputError: with `min_probability`, if it is out of range, or the index is not calibrated.
            IndexDamagedError: if stored data, or with `min_probability` the calibration, is damaged.
        """
        clock = Stopwatch()
        size = self.extractor.spec.input_size
        loaded = load_for_input(image, size, self.grey_levels, max_pixels=self.max_pixels)
        features = self.extractor.extract([loaded.image])[0]
        features = replace(features, frame=Frame(loaded.original_size, features.frame.input_size))
        return self.localize_features(
            loaded.whole,
            features,
            top_k=top_k,
            min_probability=min_probability,
            near=near,
            extract_ms=clock.lap_ms(),
        )

    def localize_features(
        self,
        image: QueryImage,
        features: Features,
        *,
        top_k: int = 5,
        min_probability: float | None = None,
        near: Near | None = None,
        extract_ms: float = 0.0,
    ) -> Localization:
        """Localize an image from features extracted before, perhaps in a batch with others; see `localize`."""
        database = self.database.pinned()
        if min_probability is not None:
            self._require_probability(min_probability, database)
        clock = Stopwatch()
        database = database if near is None else database.restricted_to(near)
        if database.nearby and not database.nearby.images:
            timing = Timing(extract_ms, clock.lap_ms(), 0.0)
            missing = tuple(sorted(database.missing_shards))
            return Localization((), timing, missing, known=False, blank=features.is_blank, nearby=database.nearby)
        candidates = retrieve(database, features, self._candidate_count(top_k, database))
        search_ms = clock.lap_ms()
        candidates = rerank(
            database, image, features, candidates, self.rerank, self.rank_by, stop_early=self.stop_early
        )
        timing = Timing(extract_ms, search_ms, clock.lap_ms())
        records = database.records([candidate.id for candidate in candidates])
        matches = ranked_matches(candidates, records)
        estimate = self._position(candidates, matches, records) if database.verifies else None
        missing = tuple(sorted(database.missing_shards))
        blank, source = features.is_blank, None
        if self.calibration and not missing and not blank and self._suits(database):
            matches, source = self.calibration.with_probability(matches), self.calibration_source
        localization = Localization(
            tuple(matches[:top_k]),
            timing,
            missing,
            estimate,
            known=False if blank else None,
            blank=blank,
            calibration=source,
            nearby=database.nearby,
        )
        return localization if min_probability is None else _accept_or_reject(localization, min_probability)

    @property
    def grey_levels(self) -> GreyLevels:
        """Grey levels that 16-bit queries are read by, as the images of the index were."""
        return self.database.grey_levels

    def _suits(self, database: PinnedDatabase) -> bool:
        """Whether the calibration is valid for the adaptation of the vectors; the default one is for any."""
        if self.calibration is None:
            return False
        return self.calibration_source == "default" or self.calibration.conditions.suit(database.adaptation)

    def _candidate_count(self, top_k: int, database: PinnedDatabase) -> int:
        return max(top_k, self.rerank if database.verifies or self.calibration else 0)

    def _position(
        self, candidates: Sequence[Candidate], matches: Sequence[RankedMatch], records: Mapping[int, ImageRecord]
    ) -> PositionEstimate | None:
        """Position estimate from the verified candidates, which come first in `matches`."""
        verified = [
            records[candidate.id]
            for candidate in candidates[: self.rerank]
            if candidate.id in records and candidate.verification is not None and candidate.verification.attempted
        ]
        return fuse_positions(matches[: self.rerank], verified, cameras=self.cameras)

    def _require_probability(self, min_probability: float, database: PinnedDatabase) -> None:
        self.require_calibration()
        if not self._suits(database):
            raise BadInputError(
                "a minimum probability was given, but the index was adapted to its map after it was calibrated; run "
                "`vpr-dhe calibrate INDEX` again"
            )
        if not 0 <= min_probability <= 1:
            raise BadInputError(f"min_probability is {min_probability}; expected 0 to 1")

    @property
    def adaptation(self) -> AdaptationReport | None:
        """Report of the adaptation of the vectors; None if they are searched as extracted."""
        info = self.database.pinned().adaptation
        return info and info.report

    def require_calibration(self) -> None:
        """Require a usable calibration for this setup.

        Raises:
            BadInputError: if the index has none for this model, verifier and number of candidates.
            IndexDamagedError: if it is damaged.
        """
        if isinstance(self.calibration_fault, IndexFormatError):
            # The request cannot be met, but the index itself has the right format.
            raise BadInputError(str(self.calibration_fault))
        if self.calibration_fault is not None:
            raise self.calibration_fault.with_traceback(None)
        if self.calibration is None:
            early = "" if self.stop_early is None else f", stopped early at a margin of {self.stop_early:g}"
            raise BadInputError(
                "a minimum probability was given, but the index is not calibrated for this model and verifier with "
                f"rerank {self.rerank}, ranked by {self.rank_by}{early}; run `vpr-dhe calibrate INDEX` with the same "
                "--verifier, --rerank, --stop-early and --rank-by, and again after `compact` with another --codec"
            )


def _require_same_verification(conditions: Conditions, database: Database) -> None:
    """Check that a calibration was fitted with a verifier if and only if the database has one."""
    was_verified = conditions.verifier != NO_VERIFIER
    if was_verified and not database.verifies:
        found = f"with verifier {conditions.verifier!r}, but this localizer has none"
    elif database.verifies and not was_verified:
        found = "without a verifier, but this localizer has one"
    else:
        return
    raise BadInputError(f"the calibration was fitted {found}; use the same, or calibrate again")


def _accept_or_reject(localization: Localization, min_probability: float) -> Localization:
    """The same localization if its best match is probable enough, otherwise one with that match rejected.

    Without a probability, as with missing shards, the match is rejected too.
    """
    best = localization.matches[0] if localization.matches else None
    if best is not None and best.probability is not None and best.probability >= min_probability:
        return replace(localization, known=True)
    return replace(localization, matches=(), rejected=best, estimate=None, known=False)
