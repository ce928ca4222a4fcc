"""What the answers of a set of experts come to by a vote, where it is known which of them are right."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from zooter_hf.routing import SetPolicy
from zooter_hf.routing.voting import normalise_answer


@dataclass(frozen=True)
class Ballots:
    """Who would vote with whom, experts in the order of their probabilities.

    Args:
        order: Which expert stands in which place, shape `(queries, experts)`.
        right: Whether the answer in a place is right, of the same shape.
        weights: The weight of a place, of the same shape, descending; 0 where there is no answer.
        says: Numbers of the same shape, the same where answers are the same: in the worst and in the best case, or
            twice the same where the answers are known.
    """

    order: torch.Tensor
    right: torch.Tensor
    weights: torch.Tensor
    says: tuple[torch.Tensor, torch.Tensor]

    def count(self, sets: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Holds a vote of each set, by the rules of [`~zooter_hf.routing.voting.vote`].

        Args:
            sets: Booleans of shape `(rows, experts)`, experts in their own order.
            rows: Of which queries, shape `(rows,)`.

        Returns:
            Whether the winning answer is right, in the worst and in the best case, each of shape `(rows,)`. An empty
            set has none that is.
        """
        weights = self.weights[rows] * sets.gather(1, self.order[rows])
        places = torch.arange(weights.shape[1])
        results = []
        for says in self.says:
            said = says[rows]
            behind = weights.new_zeros(len(rows), len(places) + 1).scatter_add(1, said, weights).gather(1, said)
            # Of answers with the same weight behind them that with the weightiest voter wins: it stands first.
            tied = (weights > 0) & (behind >= behind.amax(dim=1, keepdim=True) * (1 - 1e-12))
            winner = torch.where(tied, places, len(places)).amin(dim=1, keepdim=True)
            won = self.right[rows].gather(1, winner.clamp(max=len(places) - 1))
            results.append((won & (winner < len(places))).squeeze(1))
        return results[0], results[1]


def make_ballots(
    probabilities: torch.Tensor,
    good: torch.Tensor,
    answers: Sequence[Sequence[Hashable | None]] | None = None,
    sharpness: float = SetPolicy.sharpness,
) -> Ballots:
    """Prepares votes that count by the probabilities.

    Args:
        probabilities: Shape `(queries, experts)`.
        good: Which answers are right, of the same shape.
        answers: What was read of every answer, as [`~zooter_hf.routing.voting.vote`] takes it. Without them two cases
            bound what a vote can come to, right answers being alike in both: all wrong answers are the same (the worst
            case, a majority of the weight must be right), or no two of them are (the best).
        sharpness: The weight of an expert is its probability to this power: 0 for equal votes.
    """
    probabilities = probabilities.double()
    order = probabilities.argsort(dim=1, descending=True, stable=True)
    right = good.gather(1, order)
    # A probability of 0 is better than no vote at all.
    weights = probabilities.gather(1, order).clamp(min=1e-9) ** sharpness
    if answers is None:
        places = torch.arange(right.shape[1]).expand_as(order)
        first_right = places.masked_fill(~right, right.shape[1] - 1).amin(dim=1, keepdim=True)
        return Ballots(order, right, weights, ((~right).long(), torch.where(right, first_right, places)))
    said = _numbers(answers).gather(1, order)
    return Ballots(order, right, weights.masked_fill(said < 0, 0.0), (said.clamp(min=0), said.clamp(min=0)))


def spread_calls(calls: float, queries: int, generator: torch.Generator) -> torch.Tensor:
    """Draws whole numbers of calls whose mean is `calls`, as near to it as can be: shape `(queries,)`."""
    more = torch.rand(queries, generator=generator) < calls - int(calls)
    return int(calls) + more.long()


def _numbers(answers: Sequence[Sequence[Hashable | None]]) -> torch.Tensor:
    """Numbers the different answers to every query; -1 for none."""
    rows = []
    for of_query in answers:
        numbers: dict[Hashable, int] = {}
        values = [normalise_answer(value) or None if isinstance(value, str) else value for value in of_query]
        rows.append([-1 if value is None else numbers.setdefault(value, len(numbers)) for value in values])
    return torch.tensor(rows)
