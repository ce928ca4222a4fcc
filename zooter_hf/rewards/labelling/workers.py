"""The work of the stages, in a form that any engine can run: payloads in, one result each out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from zooter_hf.experts import Answer, Expert, GenerationSettings, Loadable, Query
from zooter_hf.rewards.taggers import Tagger
from zooter_hf.rewards.teachers import Scorable, Teacher


class Worker(Loadable, ABC):
    """Calls what it holds.

    Args:
        held: The expert, teacher or tagger.
    """

    def __init__(self, held: Loadable):
        self.held = held

    @abstractmethod
    def __call__(self, payloads: Sequence[Any]) -> list[Any]:
        """Does the work; one result a payload."""

    def load(self):
        """Loads what is held."""
        self.held.load()

    def close(self):
        """Frees what is held."""
        self.held.close()


class AnswerWorker(Worker):
    """An expert answers.

    Args:
        expert: The expert.
        settings: How it generates. The seed of a sampled answer is that of the settings plus its number.
    """

    def __init__(self, expert: Expert, settings: GenerationSettings):
        super().__init__(expert)
        self.settings = settings

    def __call__(self, payloads: Sequence[tuple[Query, int]]) -> list[Answer]:
        """Answers queries; a payload is a query and the number of the sampled answer."""
        answers: list[Answer | None] = [None] * len(payloads)
        for sample in sorted({sample for _, sample in payloads}):
            rows = [row for row, (_, of_row) in enumerate(payloads) if of_row == sample]
            settings = replace(self.settings, seed=self.settings.seed + sample)
            of_sample = self.held.answer([payloads[row][0] for row in rows], settings)
            for row, answer in zip(rows, of_sample, strict=True):
                answers[row] = answer
        return answers


class ScoreWorker(Worker):
    """A teacher scores."""

    held: Teacher

    def __call__(self, payloads: Sequence[Scorable]) -> list[list[float | None]]:
        """Scores answers."""
        return self.held.score(payloads)


class TagWorker(Worker):
    """A tagger tags."""

    held: Tagger

    def __call__(self, payloads: Sequence[Query]) -> list[list[str] | None]:
        """Tags queries."""
        return self.held.tag(payloads)
