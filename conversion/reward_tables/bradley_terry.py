"""Strengths of models from battles between pairs of them (Bradley and Terry, 1952)."""

from collections import defaultdict
from collections.abc import Iterable


def win_probabilities(battles: Iterable[tuple[str, str, float]], penalty: float = 1.0) -> dict[str, float]:
    """Estimates how often every model wins against another of them, drawn at random.

    The strengths `s` make `sum over battles of log sigmoid(s_winner - s_loser) - penalty / 2 * |s|^2` as large as it
    gets; a draw is half a win for each. It is a logistic regression on which models fight.

    Args:
        battles: Two models, and 1 if the first one won, 0 if the other did, 0.5 for a draw.
        penalty: Weight of the L2 penalty. Without one a model that never loses would be infinitely strong.

    Returns:
        For every model the mean of `sigmoid(s - s_other)` over the others, in `[0, 1]`.

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If the penalty is not positive.
    """
    import numpy as np

    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError('Bradley-Terry scores need scikit-learn: pip install "zooter-hf[evaluation]".') from error
    if not penalty > 0:
        raise ValueError(f"`penalty` must be positive, got {penalty}.")
    wins: dict[tuple[str, str], float] = defaultdict(float)
    for first, second, score in battles:
        wins[first, second] += score
        wins[second, first] += 1 - score
    names = sorted({name for pair in wins for name in pair})
    index = {name: column for column, name in enumerate(names)}
    pairs = [(pair, weight) for pair, weight in wins.items() if weight > 0]
    difference = np.zeros((len(pairs), len(names)))
    for row, ((winner, loser), _) in enumerate(pairs):
        difference[row, index[winner]], difference[row, index[loser]] = 1, -1
    weights = np.array([weight for _, weight in pairs]) / 2
    # Every win is half a win of the first and half a loss of the second, which is the same likelihood: the regression
    # needs both outcomes, also where the first model always wins.
    model = LogisticRegression(fit_intercept=False, C=1 / penalty, tol=1e-8, max_iter=1000)
    model.fit(
        np.concatenate([difference, -difference]),
        np.repeat([1, 0], len(pairs)),
        sample_weight=np.concatenate([weights, weights]),
    )
    strengths = model.coef_[0]
    chances = 1 / (1 + np.exp(strengths[None] - strengths[:, None]))
    np.fill_diagonal(chances, 0)
    return dict(zip(names, (chances.sum(axis=1) / (len(names) - 1)).tolist(), strict=True))
