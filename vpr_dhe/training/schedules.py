"""Schedules of learning rates, as factors of the peak rate."""

from math import cos, pi

WARMUP_STEPS = 50
_MIN_FACTOR = 0.01


def cosine_decay(step: int, decay_steps: int) -> float:
    """Cosine decay from 1 to 0.01 at `decay_steps`, constant afterwards."""
    done = min(1.0, step / decay_steps)
    return _MIN_FACTOR + (1 - _MIN_FACTOR) * (0.5 + 0.5 * cos(pi * done))


def warm_cosine_decay(step: int, decay_steps: int) -> float:
    """Cosine decay, with a linear warm-up over the first 50 steps."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * cosine_decay(step, decay_steps)


def one_cycle(step: int, steps: int, warmup_share: float = 0.05) -> float:
    """Linear warm-up over the first share of the steps, then linear decay to 0.

    Source: Smith and Topin, "Super-Convergence", 2018 (arXiv:1708.07120); linear as in Teed and Deng, "RAFT", ECCV
    2020.
    """
    rising = max(1, round(warmup_share * steps))
    if step < rising:
        return (step + 1) / rising
    return max(0.0, (steps - step) / max(1, steps - rising))
