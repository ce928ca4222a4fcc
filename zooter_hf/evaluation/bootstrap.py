"""How much of a score is chance: resampling the queries."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from zooter_hf.evaluation.metrics import average_over


CHUNK = 2**22  # numbers drawn at once: 32 MB


@dataclass(frozen=True)
class Comparison:
    """A routing against another on the same queries.

    Args:
        baseline: The kind of the row that the router is compared with.
        name: What that row is called.
        difference: Score of the router minus that of the baseline, on the queries where both are known.
        low: Lower end of the bootstrap interval of the difference.
        high: Upper end.
        p_value: Of the two-sided paired sign-flip test: the chance of so large a difference between two routings that
            are equally good.
        queries: How many queries were compared.
    """

    baseline: str
    name: str
    difference: float
    low: float
    high: float
    p_value: float
    queries: int


def bootstrap_means(
    values: torch.Tensor, groups: Sequence[torch.Tensor] | None = None, *, samples: int = 2000, seed: int = 0
) -> np.ndarray:
    """Draws the queries anew, with replacement, and averages; all columns see the same draws.

    Args:
        values: Shape `(queries, columns)`, NaN where a value is not known: means are those of the known ones.
        groups: The rows of every group, each resampled by itself; the means of the groups are averaged. By default
            one group of all queries.
        samples: How often.
        seed: Which draws.

    Returns:
        `numpy.ndarray` of shape `(samples, columns)`.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros((samples, values.shape[1]))
    counted = np.zeros_like(total)
    for rows in _groups(values, groups):
        of_group = values[rows].double().numpy()
        known = (~np.isnan(of_group)).astype(np.float64)
        filled = np.nan_to_num(of_group)
        size = len(of_group)
        for part in _chunks(samples, size):
            drawn = part.stop - part.start
            # How often each query is drawn; with that a mean is a matrix product.
            places = rng.integers(size, size=(drawn, size)) + size * np.arange(drawn)[:, None]
            counts = np.bincount(places.ravel(), minlength=drawn * size).reshape(drawn, size).astype(np.float64)
            weight = counts @ known
            total[part] += np.divide(counts @ filled, weight, out=np.zeros_like(weight), where=weight > 0)
            counted[part] += weight > 0
    return np.divide(total, counted, out=np.full_like(total, np.nan), where=counted > 0)


def percentile_intervals(means: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Takes the middle of resampled means, `(samples, columns)`: lower and upper ends, each of shape `(columns,)`."""
    tail = (1 - confidence) / 2
    ends = np.full((2, means.shape[1]), np.nan)
    for column in np.flatnonzero(~np.isnan(means).all(axis=0)):
        ends[:, column] = np.nanquantile(means[:, column], [tail, 1 - tail])
    return ends[0], ends[1]


def sign_flip_test(
    differences: torch.Tensor, groups: Sequence[torch.Tensor] | None = None, *, samples: int = 2000, seed: int = 0
) -> np.ndarray:
    """Tests whether paired differences average to 0: two-sided, by flipping their signs at random.

    Between two routings that are equally good, the difference of a query might as well have the other sign. The p
    value is the share of the flips whose average is at least as far from 0 as the observed one, which counts among
    them.

    Args:
        differences: Shape `(queries, columns)`, NaN where a difference is not known.
        groups: The rows of every group, where the average is one of groups. By default one group of all queries.
        samples: How many flips.
        seed: Which flips.

    Returns:
        P values of shape `(columns,)`, NaN for a column without a known difference.
    """
    groups = _groups(differences, groups)
    weighted = []
    for rows in groups:
        of_group = differences[rows].double().numpy()
        weighted.append(np.nan_to_num(of_group) / np.maximum((~np.isnan(of_group)).sum(axis=0), 1))
    terms = np.concatenate(weighted)
    # Sums of the same numbers in another order differ by rounding: such a flip is as extreme as the observed one.
    observed = np.abs(terms.sum(axis=0)) - 1e-9 * np.abs(terms).sum(axis=0)
    rng = np.random.default_rng(seed)
    extreme = np.ones(terms.shape[1])
    for part in _chunks(samples, len(terms)):
        signs = rng.integers(2, size=(part.stop - part.start, len(terms)), dtype=np.int8).astype(np.float64) * 2 - 1
        extreme += (np.abs(signs @ terms) >= observed).sum(axis=0)
    unknown = torch.stack([differences[rows].isnan().all(dim=0) for rows in groups]).all(dim=0).numpy()
    return np.where(unknown, np.nan, extreme / (samples + 1))


def compare(
    first: torch.Tensor,
    second: torch.Tensor,
    groups: Sequence[torch.Tensor] | None = None,
    *,
    confidence: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
    baseline: str = "baseline",
    name: str = "baseline",
) -> Comparison:
    """Compares two routings of the same queries.

    Args:
        first: The rewards of one, shape `(queries,)`, NaN where not known.
        second: The rewards of the other.
        groups: The rows of every group, where the score is an average over groups. By default one group of all.
        confidence: Share of the resampled differences that the interval holds.
        samples: How many resamples and sign flips.
        seed: Which ones.
        baseline: The kind of the second.
        name: What the second is called.

    Raises:
        ValueError: If the two have not the same length, or no query has both rewards.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"Two routings of the same queries have rewards of the same shape (queries,), got {tuple(first.shape)} "
            f"and {tuple(second.shape)}."
        )
    difference = (first - second).double().unsqueeze(1)
    known = int((~difference.isnan()).sum())
    if not known:
        raise ValueError(f"There is no query on which the rewards of both the router and the {name} are known.")
    means = bootstrap_means(difference, groups, samples=samples, seed=seed)
    low, high = percentile_intervals(means, confidence)
    return Comparison(
        baseline=baseline,
        name=name,
        difference=average_over(difference, _groups(difference, groups)).item(),
        low=float(low[0]),
        high=float(high[0]),
        p_value=float(sign_flip_test(difference, groups, samples=samples, seed=seed)[0]),
        queries=known,
    )


def _groups(values: torch.Tensor, groups: Sequence[torch.Tensor] | None) -> Sequence[torch.Tensor]:
    return [torch.arange(len(values))] if groups is None else groups


def _chunks(samples: int, size: int) -> Iterator[slice]:
    """Cuts samples into parts that are small enough to be drawn at once."""
    step = max(1, CHUNK // size)
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))
