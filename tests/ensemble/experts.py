"""Experts that do as they are told."""

import threading
import time

from zooter_hf import ExpertSpec
from zooter_hf.experts import Answer, Capabilities, Expert, ExpertError, GenerationSettings, Usage


class PlayedExpert(Expert):
    """Says its name and the query; can be told to fail, and knows whether it was used in a way that it must not be.

    Args:
        name: Its name.
        bytes: The memory that it says it takes, and takes part in the count of only if `local`.
        seconds: That an answer takes.
        loading: Seconds that it takes to load.
        local: Whether it holds a model in this process.
    """

    def __init__(self, name, *, bytes=None, seconds=0.0, loading=0.0, local=True, **fields):
        super().__init__(ExpertSpec(name, backend="transformers", model=f"org/{name}", **fields))
        self.bytes, self.seconds, self.loading, self.local = bytes, seconds, loading, local
        self.fault = None  # an exception to raise, or a function of the query that returns one or None
        self.asked, self.settings = [], []
        self.loads = 0
        self.loaded = False
        self.wrong = []  # what must not happen, and did
        self._lock = threading.Lock()

    @property
    def memory_key(self):
        return self.spec.name if self.local else None

    @property
    def memory_bytes(self):
        return self.bytes

    @property
    def capabilities(self):
        return Capabilities(chat=True, batches=True, streaming=True, local=self.local)

    def load(self):
        if self.loaded:
            return
        if not self._lock.acquire(blocking=False):
            self.wrong.append("loaded twice at a time")
            return
        try:
            time.sleep(self.loading)
            if isinstance(self.fault, OSError):
                raise self.fault
            self.loads += 1
            self.loaded = True
        finally:
            self._lock.release()

    def close(self):
        self.loaded = False

    def _fault_of(self, query):
        return self.fault(query) if callable(self.fault) else self.fault

    def _check_loaded(self):
        if not self.loaded:
            self.wrong.append("used without being loaded")

    def answer(self, queries, settings=None):
        self.asked.append(list(queries))
        self.settings.append(settings)
        self._check_loaded()
        time.sleep(self.seconds)
        self._check_loaded()
        if isinstance(self.fault, Exception):
            raise self.fault
        return [self._one(query) for query in queries]

    def _one(self, query):
        fault = self._fault_of(query)
        if fault is None:
            return Answer(f"{self.spec.name}: {said(query)}", Usage.of(self.spec, 10, 5, 0.1))
        return Answer(None, error=str(fault), expert_failed=getattr(fault, "expert_failed", True))

    def stream(self, query, settings=None):
        self.asked.append([query])
        self.settings.append(settings or GenerationSettings())
        self._check_loaded()
        if (fault := self._fault_of(query)) is not None:
            raise fault
        for piece in (f"{self.spec.name}:", " ", said(query)):
            time.sleep(self.seconds)
            self._check_loaded()
            if "broken" in said(query) and piece == " ":
                raise ExpertError("the stream broke")
            yield piece
        yield Usage.of(self.spec, 10, 5, 0.1)


def said(query):
    """What was said last."""
    return query if isinstance(query, str) else query[-1]["content"]
