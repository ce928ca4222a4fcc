"""The three stages: answers, rewards, tags. Each does what its store does not hold yet."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from transformers.utils import logging

from zooter_hf.experts import Answer, Expert, GenerationSettings, Usage
from zooter_hf.rewards.labelling.engines import Engine
from zooter_hf.rewards.labelling.store import Store, StoreError, key_of
from zooter_hf.rewards.labelling.workers import AnswerWorker, ScoreWorker, TagWorker, Worker
from zooter_hf.rewards.query_sets import QueryItem
from zooter_hf.rewards.taggers import Tagger
from zooter_hf.rewards.teachers import Scorable, Teacher


logger = logging.get_logger(__name__)


def _do(
    engine: Engine,
    worker: Worker,
    store: Store,
    units: Sequence[tuple[str, Any]],
    payload: Callable[[Any], Any],
    to_value: Callable[[Any], Any],
    description: str,
    unit: str,
    chunk_size: int,
):
    """Runs a worker over units that the store does not hold; a unit is a key and what its payload is made of.

    `to_value` makes JSON of a result, or `None` if it is not to be kept.
    """
    # Shared before it is looked at what is done: another process may be at work already, and have done some.
    share = engine.share(list(dict(units).items()))
    todo = [each for each in share if each[0] not in store]
    done = len(share) - len(todo)
    with logging.tqdm(total=done + len(todo), initial=done, desc=description, unit=unit) as progress:
        for chunk, results in engine.run(worker, todo, lambda each: payload(each[1]), chunk_size):
            values = ((key, to_value(result)) for (key, _), result in zip(chunk, results, strict=True))
            store.append((key, value) for key, value in values if value is not None)
            progress.update(len(chunk))


class Answers:
    """The first stage: every expert answers every query, `samples` times.

    Args:
        items: The query set.
        experts: The experts.
        settings: How they generate.
        samples: How many answers an expert gives to a query.
        store: Where answers are kept.
    """

    def __init__(
        self,
        items: Sequence[QueryItem],
        experts: Sequence[Expert],
        settings: GenerationSettings,
        samples: int,
        store: Store,
    ):
        self.items, self.experts, self.settings, self.samples, self.store = items, experts, settings, samples, store
        self.failures: dict[str, str] = {}  # the last error of every expert that had one
        self._keys = [self._keys_of(expert) for expert in experts]

    def _keys_of(self, expert: Expert) -> list[list[str]]:
        settings = self.settings.to_dict()
        return [
            [key_of("answer", expert.identity, settings, sample, item.query) for sample in range(self.samples)]
            for item in self.items
        ]

    def run(self, engine: Engine, chunk_size: int):
        """Has every expert answer what it has not answered yet, one expert after the other.

        An expert that cannot answer at all is passed over; why is in `failures`.
        """
        # Like lengths together, so that batches have little padding wherever the run was stopped.
        order = sorted(range(len(self.items)), key=lambda row: len(self.items[row].text))
        for expert, keys in zip(self.experts, self._keys, strict=True):
            units = [(keys[row][sample], (row, sample)) for sample in range(self.samples) for row in order]
            try:
                _do(
                    engine,
                    AnswerWorker(expert, self.settings),
                    self.store,
                    units,
                    lambda unit: (self.items[unit[0]].query, unit[1]),
                    lambda answer, name=expert.spec.name: self._keep(name, answer),
                    f"Answers of {expert.spec.name}",
                    "answer",
                    chunk_size,
                )
            except StoreError:
                raise  # no fault of the expert
            except Exception as error:
                self.failures[expert.spec.name] = f"{error}" or type(error).__name__
                logger.warning(f"{expert.spec.name} stopped answering: {self.failures[expert.spec.name]}")
            engine.wait()
            self.store.refresh()

    def _keep(self, name: str, answer: Answer) -> dict[str, Any] | None:
        if answer.error is not None:
            self.failures[name] = answer.error
            return None  # asked for again by the next run
        usage = asdict(answer.usage)
        usage.pop("cost")  # prices may change
        return {"text": answer.text, **usage}

    def has(self, row: int, expert: int, sample: int) -> bool:
        """Whether there is an answer."""
        return self._keys[expert][row][sample] in self.store

    def get(self, row: int, expert: int, sample: int) -> dict[str, Any] | None:
        """Returns an answer, with what it took; `None` if there is none."""
        return self.store.get(self._keys[expert][row][sample])

    def usage(self, expert: int, answer: dict[str, Any]) -> Usage:
        """Returns what an answer took, at today's prices."""
        spec = self.experts[expert].spec
        return Usage.of(spec, answer["input_tokens"], answer["output_tokens"], answer["seconds"])


class Scores:
    """The second stage: a teacher scores the answers.

    Args:
        items: The query set.
        answers: The first stage, done.
        teacher: The teacher.
        store: Where scores are kept.
    """

    def __init__(self, items: Sequence[QueryItem], answers: Answers, teacher: Teacher, store: Store):
        self.items, self.answers, self.teacher, self.store = items, answers, teacher, store
        # By key: the query, and which answers (expert, sample) are scored together.
        self._units: list[tuple[str, tuple[int, tuple[tuple[int, int], ...]]]] = []
        settings = teacher.settings
        for row, item in enumerate(items):
            for members in self._groups(row):
                texts = [answers.get(row, *member)["text"] for member in members]
                key = key_of("score", settings, item.query, item.reference, texts)
                self._units.append((key, (row, members)))

    def _groups(self, row: int) -> list[tuple[tuple[int, int], ...]]:
        """Which answers to a query are scored together: all of the experts, or each for itself."""
        answers = self.answers
        by_sample = [
            tuple((expert, sample) for expert in range(len(answers.experts)) if answers.has(row, expert, sample))
            for sample in range(answers.samples)
        ]
        if self.teacher.compares:
            return [members for members in by_sample if members]
        return [(member,) for members in by_sample for member in members]

    def run(self, engine: Engine, chunk_size: int):
        """Has the teacher score what it has not scored yet.

        Raises:
            Exception: What the teacher raises: without scores there is no table.
        """
        _do(
            engine,
            ScoreWorker(self.teacher),
            self.store,
            self._units,
            self._scorable,
            lambda scores: scores,
            "Rewards",
            "query" if self.teacher.compares else "answer",
            chunk_size,
        )
        engine.wait()
        self.store.refresh()

    def _scorable(self, unit: tuple[int, tuple[tuple[int, int], ...]]) -> Scorable:
        row, members = unit
        texts = tuple(self.answers.get(row, *member)["text"] for member in members)
        return Scorable(self.items[row].query, texts, self.items[row].reference)

    def array(self) -> np.ndarray:
        """Returns the scores, float64 of shape `(queries, experts, samples)`, NaN where there is none."""
        answers = self.answers
        scores = np.full((len(self.items), len(answers.experts), answers.samples), np.nan)
        for key, (row, members) in self._units:
            for (expert, sample), score in zip(members, self.store[key], strict=True):
                if score is not None:
                    scores[row, expert, sample] = score
        return scores


class Tags:
    """The third stage: a tagger tags the queries.

    Args:
        items: The query set.
        tagger: The tagger.
        store: Where tags are kept.
    """

    def __init__(self, items: Sequence[QueryItem], tagger: Tagger, store: Store):
        self.items, self.tagger, self.store = items, tagger, store
        settings = tagger.settings
        # Where tags depend on the other queries, they are those of this very set.
        of_set = key_of([item.query for item in items]) if tagger.needs_all_queries else None
        self._units = [(key_of("tags", settings, of_set, item.query), row) for row, item in enumerate(items)]

    def run(self, engine: Engine, chunk_size: int):
        """Has the tagger tag what it has not tagged yet.

        Raises:
            Exception: What the tagger raises.
        """
        if self.tagger.needs_all_queries:
            if engine.rank == 0 and any(key not in self.store for key, _ in self._units):
                with self.tagger:
                    tags = self.tagger.tag([item.query for item in self.items])
                self.store.append((key, [of_query]) for (key, _), of_query in zip(self._units, tags, strict=True))
        else:
            _do(
                engine,
                TagWorker(self.tagger),
                self.store,
                self._units,
                lambda row: self.items[row].query,
                lambda tags: [tags],  # wrapped, as failing to tag is a result too
                "Tags",
                "query",
                chunk_size,
            )
        engine.wait()
        self.store.refresh()

    def get(self, row: int) -> list[str] | None:
        """Returns the tags of a query; `None` if the tagger failed on it."""
        return self.store[self._units[row][0]][0]
