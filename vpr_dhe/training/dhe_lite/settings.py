"""Hyperparameters of `dhe-lite`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DheLiteSettings:
    """Hyperparameters of `dhe-lite`.

    Args:
        warmup_steps: initial steps with known homographies only, rounded up to whole rounds.
        known_share: share of pairs with known homographies in a round after the warm-up; the others are pairs of place
            data sets. With 0, no known homography is used after the warm-up.
        batch_size: pairs, including negatives, per step and process.
        learning_rate: peak learning rate of Adam.
        decay_steps: length of the cosine schedule, after which the learning rate stays at a hundredth.
        pairs_per_round: pairs extracted at a time.
        epochs_per_round: number of epochs per round, with random mirroring and dropping of matches.
        negatives: pairs of images of different places, per pair of a round.
        rei_weight: weight of REI, in units of 20 px; that of the cross-entropy of known pairs is 1.
        distillation_weight: weight of the cross-entropy with inliers of MAGSAC as labels.
        min_inliers: minimum K of a pair with unknown homography; see `DheSettings`.
        max_matches: maximum number of matches of a pair in a batch.
        max_dropped: maximum share of a pair's matches that are dropped at random.
        seed: seed of the head's initial weights, the data, their order and the dropped matches.
        validation_pairs: maximum number of validation pairs.
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
