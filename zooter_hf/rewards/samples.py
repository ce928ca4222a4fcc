"""Several answers of an expert to one query, drawn at random, in one number."""

import warnings

import numpy as np


def average_samples(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Averages the scores of several answers to the same query.

    Args:
        scores: Shape `(queries, experts, samples)`, NaN where a score is missing.

    Returns:
        Two arrays of shape `(queries, experts)`: the mean of the known scores, NaN where none is known; and their
        sample standard deviation (with `n - 1`), NaN where fewer than two are known.

    Raises:
        ValueError: If the scores have another shape.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 3:
        raise ValueError(f"`scores` must have the shape (queries, experts, samples), got {scores.shape}.")
    with warnings.catch_warnings():
        # What numpy warns of, too few scores, is what the NaN says.
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(scores, axis=2), np.nanstd(scores, axis=2, ddof=1)
