"""Which of several answers most experts agree on."""

import math
import re
import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


# Signs of numbers, "%" and "#" belong to an answer, as does a dot before a digit.
_AROUND = " \"'`*_()[]{}:\u2018\u2019\u201c\u201d\u00ab\u00bb"
_AFTER = _AROUND + ".,;!?\u2026\u3002"


@dataclass(frozen=True)
class Vote:
    """What a vote came to.

    Args:
        winner: Place of the answer to keep among those given: of the voters for the winning one that of the greatest
            weight, the first of several. `None` if there was no answer.
        share: Share of the weight behind it, from 0 to 1.
        shares: The share behind every answer given, `None` for what is no answer.
    """

    winner: int | None
    share: float
    shares: tuple[float | None, ...]


def normalise_answer(text: str) -> str:
    """Removes what two short answers may differ in and still say the same.

    Args:
        text: An answer.

    Returns:
        Without case, repeated spaces, Unicode's variants of a character, punctuation around it, and an article before
        it; an article alone stays, since "A" may be a choice.
    """
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    text = text.lstrip(_AROUND).rstrip(_AFTER)
    return re.sub(r"^(?:an?|the)\s+(?=\S)", "", text)


def vote(answers: Sequence[Hashable | None], weights: Sequence[float] | None = None) -> Vote:
    """Finds the answer that has most weight behind it.

    Args:
        answers: What was read of the answers: a letter, a number, or a short text, which is compared after
            [`normalise_answer`]. `None`, and a text in which nothing is left, is no answer.
        weights: How much every one counts, 0 or more; the same by default, and where those of all answers are 0. Of
            answers with the same weight behind them that with the greatest single weight wins, then the first.

    Raises:
        ValueError: If the weights are not as many as the answers, negative, or not finite.
    """
    values = [normalise_answer(value) or None if isinstance(value, str) else value for value in answers]
    if weights is None:
        weights = [1.0] * len(values)
    if len(weights) != len(values):
        raise ValueError(f"{len(values)} answers need as many weights, got {len(weights)}.")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"Weights must be finite and not negative, got {list(weights)}.")
    voters: dict[Hashable, list[int]] = {}
    for place, value in enumerate(values):
        if value is not None:
            voters.setdefault(value, []).append(place)
    if not voters:
        return Vote(None, 0.0, (None,) * len(values))
    if not any(weights[place] for places in voters.values() for place in places):
        weights = [1.0] * len(values)
    total = math.fsum(weights[place] for places in voters.values() for place in places)
    shares = {value: math.fsum(weights[place] for place in places) / total for value, places in voters.items()}

    def strength(value: Hashable) -> tuple[float, float, int]:
        # 0.1 + 0.2 is a tie with 0.3.
        return round(shares[value], 12), max(weights[place] for place in voters[value]), -voters[value][0]

    best = max(voters, key=strength)
    winner = max(voters[best], key=lambda place: (weights[place], -place))
    return Vote(winner, shares[best], tuple(None if value is None else shares[value] for value in values))
