"""Which experts are left alone for a while, because they have failed again and again."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _State:
    failures: int = 0
    open_until: float | None = None
    on_trial: bool = False


class CircuitBreaker:
    """Lets no query through to an expert for a while, once it has failed several times in a row.

    When that while is over, one query is let through on trial: if it is answered the expert is back, if it fails the
    expert is left alone for as long again. Threads may share a breaker.

    Args:
        failures: How many failures in a row it takes.
        cooldown: Seconds that an expert is left alone.
        clock: Tells the time, in seconds.
    """

    def __init__(self, failures: int = 3, cooldown: float = 30.0, clock: Callable[[], float] = time.monotonic):
        self.failures = failures
        self.cooldown = cooldown
        self._clock = clock
        self._states: dict[str, _State] = {}
        self._lock = threading.Lock()

    def admit(self, expert: str) -> bool:
        """Asks whether an expert may be tried; if so, one of the three methods below must follow."""
        with self._lock:
            state = self._states.get(expert)
            if state is None or state.open_until is None:
                return True
            if state.on_trial or self._clock() < state.open_until:
                return False
            state.on_trial = True
            return True

    def succeeded(self, expert: str):
        """It answered."""
        with self._lock:
            self._states.pop(expert, None)

    def failed(self, expert: str):
        """It failed, and is to blame."""
        with self._lock:
            state = self._states.setdefault(expert, _State())
            state.failures += 1
            state.on_trial = False
            if state.failures >= self.failures:
                state.open_until = self._clock() + self.cooldown

    def undecided(self, expert: str):
        """It did not answer, and is not to blame; or was not tried after all."""
        with self._lock:
            if expert in self._states:
                self._states[expert].on_trial = False

    def waits(self, expert: str) -> float | None:
        """Returns for how many seconds an expert is still left alone; `None` if it is not."""
        with self._lock:
            state = self._states.get(expert)
            if state is None or state.open_until is None:
                return None
            return max(0.0, state.open_until - self._clock())
