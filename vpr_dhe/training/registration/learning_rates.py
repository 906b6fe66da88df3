"""Learning rate schedules."""


def one_cycle(step: int, steps: int, warmup_share: float = 0.05) -> float:
    """Linear warm-up over the first share of the steps, then linear decay to 0.

    Source: Smith and Topin, "Super-Convergence", 2018 (arXiv:1708.07120); linear as in Teed and Deng, "RAFT", ECCV
    2020.
    """
    rising = max(1, round(warmup_share * steps))
    if step < rising:
        return (step + 1) / rising
    return max(0.0, (steps - step) / max(1, steps - rising))
