"""Several teachers in one score."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zooter_hf.rewards.teachers.base import Teacher


class CombinedTeacher:
    """Weighs the scores of several teachers, each standardised over the whole run.

    Not a [`Teacher`]: means and deviations are those of all queries and experts, so that nothing can be said before
    every part has scored everything. Each part is run on its own, and `combine` comes last.

    Args:
        parts: Teachers with their weights, which are positive. To count a score against an answer, let the teacher
            return its negative.

    Raises:
        ValueError: If there is no part, or a weight is not a positive finite number.
    """

    def __init__(self, parts: Sequence[tuple[Teacher, float]]):
        self.parts = list(parts)
        if not self.parts:
            raise ValueError("A combination needs at least one teacher with its weight, got none.")
        for teacher, weight in self.parts:
            if not 0 < weight < math.inf:
                raise ValueError(
                    f"The weight of {type(teacher).__name__} must be a positive finite number, got {weight}."
                )

    @property
    def settings(self) -> dict[str, Any]:
        """The settings and the weight of every part."""
        parts = [{"teacher": teacher.settings, "weight": float(weight)} for teacher, weight in self.parts]
        return {"type": "CombinedTeacher", "parts": parts}

    def combine(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """Combines the scores of the parts.

        The known scores of every part get mean 0 and standard deviation 1; a part whose scores are all the same says
        nothing and counts as 0. Then the weighted mean is taken over the parts that know the answer.

        Args:
            scores: For every part, in order, the scores of the run: shape `(queries, experts)`, NaN where missing.

        Returns:
            Shape `(queries, experts)`, NaN where no part has a score.

        Raises:
            ValueError: If there are not as many arrays as parts, their shapes differ, or a score is infinite.
        """
        scores = [np.asarray(each, dtype=np.float64) for each in scores]
        if len(scores) != len(self.parts):
            raise ValueError(f"There are {len(self.parts)} parts, but the scores of {len(scores)}.")
        if any(each.ndim != 2 or each.shape != scores[0].shape for each in scores):
            raise ValueError(
                "The scores of every part must have the same shape (queries, experts), got "
                f"{', '.join(str(each.shape) for each in scores)}."
            )
        total, known_weight = np.zeros(scores[0].shape), np.zeros(scores[0].shape)
        for each, (teacher, weight) in zip(scores, self.parts, strict=True):
            if np.isinf(each).any():
                raise ValueError(f"The scores of {type(teacher).__name__} must be finite or NaN, got an infinite one.")
            known = ~np.isnan(each)
            total[known] += weight * standardise(each[known])
            known_weight[known] += weight
        return np.divide(total, known_weight, out=np.full(total.shape, np.nan), where=known_weight > 0)


def standardise(values: np.ndarray) -> np.ndarray:
    """Gives values, shape `(n,)`, the mean 0 and the standard deviation 1 (with `n`); zeros if all are the same."""
    if not len(values) or values.min() == values.max():  # not by the deviation, which rounding keeps above 0
        return np.zeros_like(values)
    return (values - values.mean()) / values.std()
