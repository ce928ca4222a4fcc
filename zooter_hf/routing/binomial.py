"""How far a risk can be told from a count of what went wrong."""

import math

import torch


def clopper_pearson(misses: int, queries: int, confidence: float) -> float:
    """Bounds a risk from above by how often something went wrong.

    Args:
        misses: How often it did.
        queries: Of how many times.
        confidence: How often such a bound holds, at least.

    Returns:
        The largest risk at which so few misses still have a probability of `1 - confidence`.

    Raises:
        ValueError: If the numbers are none of a count, or `confidence` does not lie between 0 and 1.
    """
    if not 0 <= misses <= queries or queries < 1:
        raise ValueError(f"Of {queries} queries {misses} cannot be misses.")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1, got {confidence}.")
    if misses == queries:
        return 1.0
    low, high, level = 0.0, 1.0, math.log1p(-confidence)
    for _ in range(60):
        middle = (low + high) / 2
        if log_binomial_cdf(queries, middle, misses)[-1] > level:
            low = middle
        else:
            high = middle
    return high


def log_binomial_cdf(trials: int, chance: float, most: int | None = None) -> torch.Tensor:
    """Computes logarithms of the probabilities of at most 0, 1, ... `most` successes.

    Args:
        trials: How many there are.
        chance: That of a success, between 0 and 1.
        most: Up to which number; that of the trials by default.

    Returns:
        `torch.Tensor` of shape `(most + 1,)`, float64.
    """
    successes = torch.arange((trials if most is None else most) + 1, dtype=torch.float64)
    failures = trials - successes
    pmf = (
        math.lgamma(trials + 1)
        - torch.lgamma(successes + 1)
        - torch.lgamma(failures + 1)
        + successes * math.log(chance)
        + failures * math.log1p(-chance)
    )
    return pmf.logcumsumexp(dim=0)
