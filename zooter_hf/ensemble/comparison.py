"""What routing is measured against: all experts answer, and one of the answers is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zooter_hf.ensemble.dispatch import Dispatcher, Job
from zooter_hf.experts import Answer, GenerationSettings, Query, Usage
from zooter_hf.routing import voting


if TYPE_CHECKING:
    from zooter_hf.rewards.teachers import Teacher


@dataclass(frozen=True)
class Compared:
    """One of several answers to a query, and the others.

    Args:
        text: The answer that was kept; `None` if no expert gave one.
        expert: Name of the expert that gave it.
        reason: Why it is this one, for a person to read.
        scores: What the answer of every expert is worth: its reward, or the share of the votes for what it says.
            `None` for one that has no answer, or that could not be scored.
        answers: The answers of all experts, by name.
    """

    text: str | None
    expert: str | None
    reason: str
    scores: dict[str, float | None]
    answers: dict[str, Answer]

    @property
    def usage(self) -> Usage:
        """What all answers took together; `None` where one of them is not known."""
        usages = [answer.usage for answer in self.answers.values()]
        return Usage(*(_sum(usages, name) for name in ("input_tokens", "output_tokens", "seconds", "cost")))


def generate_with_all(
    dispatcher: Dispatcher, queries: Sequence[Query], settings: GenerationSettings
) -> list[tuple[Query, dict[str, Answer]]]:
    """Has every expert answer every query.

    Returns:
        Each query with its answers by the names of the experts, in their order.
    """
    jobs = {name: [Job(query, (name,)) for query in queries] for name in dispatcher.pool.experts}
    dispatcher.answer([job for of_expert in jobs.values() for job in of_expert], settings)
    return [
        (query, {name: of_expert[place].outcome for name, of_expert in jobs.items()})
        for place, query in enumerate(queries)
    ]


def rank_by_reward(answered: Sequence[tuple[Query, dict[str, Answer]]], teacher: "Teacher") -> list[Compared]:
    """Keeps the answer of the highest reward; of several, that of the first expert.

    Args:
        answered: Of [`generate_with_all`].
        teacher: Scores the answers.
    """
    from zooter_hf.rewards.teachers import Scorable

    scores: list[dict[str, float | None]] = [dict.fromkeys(answers) for _, answers in answered]
    items, places = [], []
    for place, (query, answers) in enumerate(answered):
        names = [name for name, answer in answers.items() if answer.text is not None]
        texts = [answers[name].text for name in names]
        # A teacher that compares sees all answers at once, any other one by one.
        for group in [names] if teacher.compares else [[name] for name in names]:
            if group:
                items.append(Scorable(query, tuple(texts[names.index(name)] for name in group)))
                places.append((place, group))
    for (place, group), rewards in zip(places, teacher.score(items) if items else [], strict=True):
        scores[place].update(zip(group, rewards, strict=True))
    return [
        _keep(answers, of_query, f"highest reward of {_count(of_query)} answers")
        for (_, answers), of_query in zip(answered, scores, strict=True)
    ]


def vote(
    answered: Sequence[tuple[Query, dict[str, Answer]]],
    mode: str,
    weights: Sequence[Mapping[str, float]] | None = None,
) -> list[Compared]:
    """Keeps the answer that most experts give; of several, that of the first expert.

    Args:
        answered: Of [`generate_with_all`].
        mode: What is compared; see [`~zooter_hf.rewards.teachers.Verifier`].
        weights: How much every expert's vote counts, by name, for every query; the same by default.

    Raises:
        ValueError: If there is no such mode.
    """
    from zooter_hf.rewards.teachers import Verifier

    verifier = Verifier(mode)
    compared = []
    for place, (_, answers) in enumerate(answered):
        said = [None if answer.text is None else verifier.read(answer.text) for answer in answers.values()]
        of_query = None if weights is None else [weights[place][name] for name in answers]
        result = voting.vote(said, of_query)
        total = sum(value is not None for value in said)
        reason = (
            f"{round(result.share * total)} of {total} votes"
            if of_query is None
            else f"{result.share:.0%} of the votes"
        )
        kept = None if result.winner is None else list(answers)[result.winner]
        compared.append(_keep(answers, dict(zip(answers, result.shares, strict=True)), reason, kept))
    return compared


def _keep(
    answers: dict[str, Answer], scores: dict[str, float | None], reason: str, expert: str | None = None
) -> Compared:
    scored = {name: score for name, score in scores.items() if score is not None}
    if scored:
        expert = expert or max(scored, key=scored.get)
    else:  # an answer that cannot be scored is better than none
        expert = next((name for name, answer in answers.items() if answer.text is not None), None)
        reason = "no answer could be scored" if expert is not None else "no expert answered"
    return Compared(answers[expert].text if expert is not None else None, expert, reason, scores, answers)


def _count(scores: dict[str, float | None]) -> int:
    return sum(score is not None for score in scores.values())


def _sum(usages: Sequence[Usage], name: str) -> Any:
    values = [getattr(usage, name) for usage in usages]
    return None if None in values else sum(values)
