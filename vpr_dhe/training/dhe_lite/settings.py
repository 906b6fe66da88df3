"""What decides how a dhe-lite head comes out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DheLiteSettings:
    """What decides how a head comes out, besides its data.

    Args:
        warmup_steps: steps on known homographies alone; the round in which they end is finished first.
        known_share: of a round after the warm-up; the rest are pairs of place data sets. With 0, what comes after the
            warm-up knows no homography at all, not even where the data do.
        batch_size: pairs, negatives among them, per step and process.
        learning_rate: of Adam, at its height.
        decay_steps: steps after which the rate has sunk, along a cosine, to a hundredth, where it stays.
        pairs_per_round: pairs that are described before they are learned from.
        epochs_per_round: how often a round is learned from, each time mirrored and thinned out anew.
        negatives: pairs of images of different places, per pair of a round.
        rei_weight: of REI, in units of 20 px; the cross-entropy of known pairs weighs 1.
        distillation_weight: of the cross-entropy towards the matches that MAGSAC keeps.
        min_inliers: least K of a pair of unknown homography; see `DheSettings`.
        max_matches: of a pair in a batch. Street views have about a hundred; more cost time, and look easier.
        max_dropped: up to which share of a pair's matches is left out of a batch at random.
        seed: of the head's initial weights, the data, their order and what is left out.
        validation_pairs: how many pairs are validated with, at most.
    """

    warmup_steps: int = 5000
    known_share: float = 0.5
    batch_size: int = 32
    learning_rate: float = 2e-3
    decay_steps: int = 10_000
    pairs_per_round: int = 1024
    epochs_per_round: int = 8
    negatives: float = 0.6
    rei_weight: float = 1.0
    distillation_weight: float = 1.0
    min_inliers: int = 16
    max_matches: int = 100
    max_dropped: float = 0.3
    seed: int = 0
    validation_pairs: int = 200
