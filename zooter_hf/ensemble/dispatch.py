"""Decisions carried out: queries go to their experts, and to the next best where one fails."""

import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

from transformers.utils import logging

from zooter_hf.ensemble.breaker import CircuitBreaker
from zooter_hf.ensemble.pool import ExpertPool
from zooter_hf.experts import Answer, Expert, ExpertError, GenerationSettings, Query
from zooter_hf.routing import Fallback


logger = logging.get_logger(__name__)


@dataclass
class Job:
    """A query on its way to an answer.

    Args:
        query: The query.
        order: The experts that may answer it, best first.
        max_fallbacks: How many may be asked after the first has failed.
        tried: The experts that did not answer.
        expert: The expert that answered.
        answer: What it said.
        began: When it set out, in seconds of `time.perf_counter`.
        ended: When the last expert was done with it.
    """

    query: Query
    order: tuple[str, ...]
    max_fallbacks: int = 0
    tried: list[Fallback] = field(default_factory=list)
    expert: str | None = None
    answer: Answer | None = None
    began: float = field(default_factory=time.perf_counter)
    ended: float = 0.0

    @property
    def candidates(self) -> list[str]:
        """The experts that have not been asked yet, best first."""
        asked = {fallback.expert for fallback in self.tried if fallback.asked}
        return [name for name in self.order if name not in asked]

    @property
    def asked(self) -> int:
        """How many experts were asked."""
        return sum(fallback.asked for fallback in self.tried)

    @property
    def outcome(self) -> Answer:
        """The answer, or why there is none."""
        return self.answer or Answer(None, error=self.describe_failure())

    def finish(self, expert: str, answer: Answer):
        """An expert has answered."""
        self.expert, self.answer, self.ended = expert, answer, time.perf_counter()

    def fail(self, expert: str, reason: str):
        """An expert did not answer."""
        self.tried.append(Fallback(expert, reason))
        self.ended = time.perf_counter()

    def pass_over(self, expert: str, reason: str):
        """An expert is not asked."""
        if all(fallback.expert != expert for fallback in self.tried):
            self.tried.append(Fallback(expert, reason, asked=False))

    def describe_failure(self) -> str:
        """Says why there is no answer, for a person to read."""
        if len(self.order) == 1 and self.tried:
            return self.tried[0].reason
        return describe_failures(self.tried)


def describe_failures(tried: Sequence[Fallback]) -> str:
    """Says which experts did not answer and why, for a person to read."""
    said = (
        each.reason if each.reason.startswith(f"Expert {each.expert!r}") else f"{each.expert}: {each.reason}"
        for each in tried
    )
    return "\n  ".join(["No expert answered.", *said])


class Dispatcher:
    """Hands queries to experts.

    Args:
        pool: Lends the experts.
        breaker: Says which are left alone for a while.
    """

    def __init__(self, pool: ExpertPool, breaker: CircuitBreaker):
        self.pool = pool
        self.breaker = breaker

    def answer(self, jobs: Sequence[Job], settings: GenerationSettings):
        """Answers a batch; a job that no expert answers ends without an answer.

        Queries go to their experts in groups, adapters on one base in a common one. Local experts work one after the
        other, endpoints at the same time.
        """
        while True:
            admitted: dict[str, bool] = {}
            groups: dict[str, list[Job]] = {}
            for job in jobs:
                if job.answer is None and (name := self.next_expert(job, admitted)) is not None:
                    groups.setdefault(name, []).append(job)
            if not groups:
                return
            try:
                self._run(groups, settings)
            except BaseException:  # interrupted: those on trial are still to be tried
                for name in groups:
                    self.breaker.undecided(name)
                raise

    def next_expert(self, job: Job, admitted: dict[str, bool]) -> str | None:
        """Finds the expert that is to be asked next.

        If all that may be asked are left alone by the breaker, and none has been asked yet, the best of them is asked
        nevertheless: failing is no worse than not trying.

        Args:
            job: The job.
            admitted: What the breaker has said in this round. A trial is one group of queries, not one query.

        Returns:
            Its name; `None` if there is none left.
        """
        candidates = job.candidates
        if not candidates or job.asked > job.max_fallbacks:
            return None
        for name in candidates:
            if name not in admitted:
                admitted[name] = self.breaker.admit(name)
            if admitted[name]:
                return name
            seconds = self.breaker.waits(name) or 0.0
            job.pass_over(name, f"failed again and again, and is left alone for {seconds:.0f} s more")
        if job.asked:
            return None
        job.tried = [fallback for fallback in job.tried if fallback.expert != candidates[0]]
        return candidates[0]

    def failed(self, name: str, jobs: Sequence[Job], error: Exception):
        """Takes note of an expert that could not answer."""
        if isinstance(error, ExpertError):
            reason, expert_failed = str(error), error.expert_failed
        else:
            reason, expert_failed = f"{type(error).__name__}: {error}", True
            logger.warning(f"Expert {name!r} raised what no expert should.", exc_info=error)
        if expert_failed:
            self.breaker.failed(name)
        else:
            self.breaker.undecided(name)
        for job in jobs:
            job.fail(name, reason)
        logger.info(f"Expert {name!r} did not answer: {reason}")

    def _run(self, groups: "Groups", settings: GenerationSettings):
        """Lets local experts answer one after the other, and endpoints meanwhile."""
        local: dict[Hashable, Groups] = {}
        remote: list[Groups] = []
        for name, jobs in groups.items():
            try:
                key = self.pool.memory_key(name)
            except ExpertError as error:
                self.failed(name, jobs, error)
                continue
            if key is None:
                remote.append({name: jobs})
            else:
                local.setdefault(key, {})[name] = jobs
        if not local and len(remote) == 1:  # the most common case needs no thread
            return self._run_together(remote[0], settings)
        with ThreadPoolExecutor(max(len(remote), 1), thread_name_prefix="endpoint") as threads:
            futures = [threads.submit(self._run_together, each, settings) for each in remote]
            for together in local.values():
                self._run_together(together, settings)
            for future in futures:
                future.result()

    def _run_together(self, groups: "Groups", settings: GenerationSettings):
        """Answers the queries of one expert, or of several that share a model."""
        with ExitStack() as leases:
            experts: dict[str, Expert] = {}
            for name, jobs in groups.items():
                try:
                    experts[name] = leases.enter_context(self.pool.lease(name))
                except ExpertError as error:
                    self.failed(name, jobs, error)
            rows = [(name, job) for name in experts for job in groups[name]]
            if not rows:
                return
            try:
                answers = _answer([experts[name] for name, _ in rows], [job.query for _, job in rows], settings)
            except Exception as error:
                for name in experts:
                    self.failed(name, groups[name], error)
                return
        for name in experts:
            own = [(job, answer) for (of, job), answer in zip(rows, answers, strict=True) if of == name]
            self._take(name, own)

    def _take(self, name: str, answers: Sequence[tuple[Job, Answer]]):
        """Hands the answers of one expert to their jobs."""
        if any(answer.text is not None for _, answer in answers):
            self.breaker.succeeded(name)
        elif any(answer.expert_failed for _, answer in answers):
            self.breaker.failed(name)
        else:
            self.breaker.undecided(name)
        for job, answer in answers:
            if answer.text is not None:
                job.finish(name, answer)
            else:
                job.fail(name, answer.error)


Groups = dict[str, list[Job]]


def _answer(experts: Sequence[Expert], queries: Sequence[Query], settings: GenerationSettings) -> list[Answer]:
    first = experts[0]
    if all(expert is first for expert in experts):
        answers = first.answer(queries, settings)
    else:
        from zooter_hf.experts import answer_mixed

        answers = answer_mixed(experts, queries, settings)
    if len(answers) != len(queries):
        raise ValueError(f"it gave {len(answers)} answers to {len(queries)} queries")
    return answers
