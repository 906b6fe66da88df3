"""Localize one image: retrieve by global descriptor, re-rank by homography, fuse positions, add a probability."""

from collections.abc import Iterable
from dataclasses import replace

from vpr_dhe.errors import BadInputError, IndexDamagedError
from vpr_dhe.features.base import Extractor
from vpr_dhe.images.loading import ImageLike, load_for_input
from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.place_index import PlaceIndex, require_same_features
from vpr_dhe.localization.calibration.probability import Calibration
from vpr_dhe.localization.calibration.selection import SelectedCalibration, select_calibration
from vpr_dhe.localization.candidate_maps import QueryImage
from vpr_dhe.localization.database import Database, PinnedDatabase, VerifiedIndex
from vpr_dhe.localization.early_stop import require_margin
from vpr_dhe.localization.loading import load_setup
from vpr_dhe.localization.position_fusion import fuse_positions
from vpr_dhe.localization.ranking import ranked_matches, require_rerank, rerank
from vpr_dhe.localization.retrieval import retrieve
from vpr_dhe.records import (
    CalibrationSource,
    Cameras,
    Features,
    Frame,
    GreyLevels,
    Localization,
    Near,
    StrPath,
    Timing,
)
from vpr_dhe.runtime.choices import (
    AUTO,
    FP32,
    MAX_PIXELS,
    Adapt,
    Precision,
    RankBy,
    RankByChoice,
    Runtime,
    require_choice,
)
from vpr_dhe.runtime.stopwatch import Stopwatch
from vpr_dhe.verification.names import DEFAULT_VERIFIER


class Localizer:
    """Answers "where was this photo taken?" from a database of images.

    With a calibration, the best match gets a probability; `min_probability` requires one. `open` takes the index's own,
    or the default one for model and verifier; `calibration_source` says which. If it finds a calibration that cannot be
    used, it stores the error in `calibration_fault` and works without probabilities.

    Args:
        database: an index with a verifier (`VerifiedIndex`), a sharded index (`ShardedIndex`), or the frames of a
            stream (`FrameMemory`).
        extractor: the extractor that filled the index.
        rerank: number of candidates to re-rank, at least 1; most verifiers verify the 16 that a coarse pass selects.
        rank_by: order of verified candidates: by `inliers`, or by `evidence`, which is inliers and similarity together.
            `open` takes that of the index by default.
        stop_early: margin at which the best candidate stands out so far that no more are verified, in standard
            deviations, above 0; None disables the early stop. Unverified candidates follow in the order of retrieval.
            `early_stop.SAFE_MARGIN` loses hardly any recall.
        cameras: intrinsics of query and database images; needed to estimate headings.
        calibration: maps features of the best match to a probability; must have been fitted for this extractor,
            verifier, number of candidates and margin (see `read_calibration`).
        max_pixels: largest number of pixels of a query file that is decoded.

    Raises:
        IndexFormatError: if the index was filled by another extractor.
        BadInputError: if `rerank` is below 1, `stop_early` is not above 0, or the calibration is for another extractor,
            verifier, number of candidates or margin.
    """

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
        require_rerank(rerank)
        require_margin(stop_early)
        if calibration is not None:
            calibration.conditions.require(extractor.spec.fingerprint, rerank, rank_by, stop_early)
            calibration.conditions.require_verification(verifies=database.pinned().verifies)
        self.database, self.extractor, self.rerank, self.stop_early = database, extractor, rerank, stop_early
        self.rank_by: RankBy = rank_by
        self.cameras, self.max_pixels = cameras, max_pixels
        self.selected_calibration = SelectedCalibration(calibration, calibration and "index")

    @classmethod
    def open(
        cls,
        folder: StrPath,
        *,
        verifier: str = DEFAULT_VERIFIER,
        rerank: int = 100,
        rank_by: RankByChoice = AUTO,
        adapt: Adapt = AUTO,
        stop_early: float | None = None,
        device: str = "cpu",
        model: str | None = None,
        weights: Iterable[StrPath] = (),
        runtime: Runtime = AUTO,
        precision: Precision = FP32,
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
        setup = load_setup(
            index,
            verifier=verifier,
            rerank=rerank,
            rank_by=rank_by,
            adapt=adapt,
            stop_early=stop_early,
            device=device,
            model=model,
            weights=weights,
            runtime=runtime,
            precision=precision,
        )
        selected = select_calibration(index.folder, setup.conditions)
        localizer = cls(
            VerifiedIndex(index, setup.verifier, adapt=adapt),
            setup.extractor,
            rerank=rerank,
            rank_by=setup.rank_by,
            stop_early=stop_early,
            cameras=cameras,
            calibration=selected.calibration,
            max_pixels=max_pixels,
        )
        localizer.selected_calibration = selected
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
        (`Localization.nearby`). If there are none, the place is unknown, and there are no matches. With few candidates
        the best one stands out less, so probabilities tend to be too low.

        Raises:
            ImageError: if `image` is a path that cannot be read, or not an image as `require_image` expects it.
            BadInputError: with `min_probability`, if it is out of range, or the index is not calibrated.
            IndexDamagedError: if stored data, or with `min_probability` the calibration, is damaged.
        """
        clock = Stopwatch()
        size = self.extractor.spec.input_size
        loaded = load_for_input(image, size, self.grey_levels, max_pixels=self.max_pixels)
        features = self.extractor.extract([loaded.image])[0]
        features.global_descriptor.cpu()  # waits for a GPU, whose time would count as that of the search
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
        if near is not None:
            database = database.restricted_to(near)
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

        matches = ranked_matches(candidates, database.records([one.id for one in candidates]))
        blank = features.is_blank
        answer = Localization(
            tuple(matches),
            timing,
            tuple(sorted(database.missing_shards)),
            estimate=fuse_positions(matches[: self.rerank], cameras=self.cameras),
            known=False if blank else None,
            blank=blank,
            nearby=database.nearby,
        )
        answer = self.selected_calibration.apply(answer, database.adaptation, database.codec)
        answer = replace(answer, matches=answer.matches[:top_k])
        return answer if min_probability is None else _accept_or_reject(answer, min_probability)

    @property
    def index(self) -> PlaceIndex:
        """Index on this machine that the localizer answers from.

        Raises:
            BadInputError: if the database is a sharded index or the frames of a stream.
        """
        if not isinstance(self.database, VerifiedIndex):
            raise BadInputError(
                f"this localizer answers from a {type(self.database).__name__}; open one over an index on this machine "
                "with Localizer.open"
            )
        return self.database.index

    def _candidate_count(self, top_k: int, database: PinnedDatabase) -> int:
        return max(top_k, self.rerank if database.verifies or self.calibration else 0)

    def _require_probability(self, min_probability: float, database: PinnedDatabase) -> None:
        self.require_calibration()
        self.selected_calibration.require_for(database.adaptation, database.codec)
        if not 0 <= min_probability <= 1:
            raise BadInputError(f"min_probability is {min_probability}; expected 0 to 1")

    def require_calibration(self) -> None:
        """Require a usable calibration for this setup.

        Raises:
            BadInputError: if the index has none for this model, verifier and number of candidates.
            IndexDamagedError: if it is damaged.
        """
        self.selected_calibration.require(self.rerank, self.rank_by, self.stop_early)

    @property
    def calibration(self) -> Calibration | None:
        """Calibration that probabilities are by; None without one."""
        return self.selected_calibration.calibration

    @property
    def calibration_source(self) -> CalibrationSource | None:
        """Origin of the calibration: the index's own, or the default one; None without one."""
        return self.selected_calibration.source

    @property
    def calibration_fault(self) -> BadInputError | IndexDamagedError | None:
        """Error of a calibration of the index that cannot be used."""
        return self.selected_calibration.fault

    @property
    def adaptation(self) -> AdaptationReport | None:
        """Report of the adaptation of the vectors; None if they are searched as extracted."""
        info = self.database.pinned().adaptation
        return info and info.report

    @property
    def grey_levels(self) -> GreyLevels:
        """Grey levels that 16-bit queries are read by, as the images of the index were."""
        return self.database.pinned().grey_levels


def _accept_or_reject(localization: Localization, min_probability: float) -> Localization:
    """The same localization if its best match is probable enough, otherwise one with that match rejected.

    Without a probability, as with missing shards, the match is rejected too.
    """
    best = localization.matches[0] if localization.matches else None
    if best is not None and best.probability is not None and best.probability >= min_probability:
        return replace(localization, known=True)
    return replace(localization, matches=(), rejected=best, estimate=None, known=False)
