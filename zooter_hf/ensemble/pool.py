"""Experts in memory: loaded on first use, and freed when others need the room."""

import threading
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from transformers.utils import logging

from zooter_hf.experts import Expert, ExpertError, Loadable


logger = logging.get_logger(__name__)


class PoolBusy(ExpertError):
    """All that is in memory was in use for too long."""


@dataclass
class _Slot:
    """What is in memory, with all the experts that hold it.

    Args:
        key: The `memory_key` of the experts.
        loaded: Names of the experts that hold it.
        leases: How many queries it is working on.
        used: When it was last used.
        bytes: Its memory; an estimate until it is loaded.
        closing: Whether it is being freed.
        loading: Held while an expert is loaded, so that no other thread loads it too.
    """

    key: Hashable
    loaded: set[str] = field(default_factory=set)
    leases: int = 0
    used: float = 0.0
    bytes: int = 0
    closing: bool = False
    loading: threading.Lock = field(default_factory=threading.Lock)


class ExpertPool(Loadable):
    """Lends experts, and keeps those in memory that are used.

    Experts that share a model, such as adapters on a base, come and go together and count as one. What is in use is
    never freed; who needs room then waits. Threads may share a pool; whoever holds one expert must not wait for
    another, or two of them could wait for each other.

    Args:
        experts: The experts by their names.
        max_loaded: The most models in memory; all of them by default.
        max_bytes: The most memory that models may take together, in bytes; without limit by default. Before a model is
            loaded it is estimated by its config.
        patience: Seconds to wait for room.

    Raises:
        ValueError: If a limit is out of its range.
    """

    def __init__(
        self,
        experts: Mapping[str, Expert],
        *,
        max_loaded: int | None = None,
        max_bytes: int | None = None,
        patience: float = 600.0,
    ):
        for name, limit in (("max_loaded", max_loaded), ("max_bytes", max_bytes)):
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
                raise ValueError(f"`{name}` must be a positive whole number or None, got {limit!r}.")
        self.experts = dict(experts)
        self.max_loaded = max_loaded
        self.max_bytes = max_bytes
        self.patience = patience
        self._slots: dict[Hashable, _Slot] = {}
        self._changed = threading.Condition()

    @property
    def loaded(self) -> list[str]:
        """Names of the experts in memory, the least recently used first."""
        with self._changed:
            slots = sorted(self._slots.values(), key=lambda slot: slot.used)
            return [name for slot in slots for name in sorted(slot.loaded)]

    @property
    def bytes(self) -> int:
        """The memory of all models, as far as it is known."""
        with self._changed:
            return sum(slot.bytes for slot in self._slots.values())

    def memory_key(self, name: str) -> Hashable | None:
        """Returns the `memory_key` of an expert.

        Raises:
            ExpertError: If what the expert needs is not there.
        """
        return self._named(name, lambda expert: expert.memory_key)

    @contextmanager
    def lease(self, name: str) -> Iterator[Expert]:
        """Lends an expert, loaded, for as long as the context lasts.

        Args:
            name: Its name.

        Raises:
            ExpertError: If it cannot be loaded, or there is no room for it.
        """
        expert = self.experts[name]
        key = self.memory_key(name)
        if key is None:
            self._named(name, lambda expert: expert.load())
            yield expert
            return
        slot = self._enter(name, key)
        try:
            with slot.loading:
                if name not in slot.loaded:
                    self._load(name, slot)
            yield expert
        finally:
            self._leave(slot)

    def preload(self, names: Iterable[str] | None = None):
        """Loads experts before they are needed, all by default.

        Raises:
            ExpertError: If one cannot be loaded.
            ValueError: If there are more of them than there is room for.
        """
        names = list(self.experts if names is None else names)
        keys = {key for name in names if (key := self.memory_key(name)) is not None}
        if self.max_loaded is not None and len(keys) > self.max_loaded:
            raise ValueError(
                f"{len(keys)} models are to be loaded, but `max_loaded` is {self.max_loaded}. Name fewer."
            )
        for name in names:
            with self.lease(name):
                pass
        if missing := [name for name in names if self.memory_key(name) is not None and name not in self.loaded]:
            raise ValueError(
                f"The models do not fit into `max_bytes` of {self.max_bytes} together: {missing} had to go. Name "
                "fewer of them."
            )

    def close(self):
        """Frees all that is not in use, and closes connections."""
        with self._changed:
            idle = [slot for slot in self._slots.values() if not slot.leases and not slot.closing]
            for slot in idle:
                slot.closing = True
        self._free(idle)
        for name, expert in self.experts.items():
            if name not in self.loaded:
                expert.close()

    def _enter(self, name: str, key: Hashable) -> _Slot:
        """Counts one more user of a slot, made if need be, for which others may have to go."""
        estimate = 0
        if self.max_bytes is not None and key not in self._slots:
            estimate = self._named(name, lambda expert: expert.memory_bytes) or 0
            if estimate > self.max_bytes:
                raise self._too_large(name, estimate)
        deadline = time.monotonic() + self.patience
        with self._changed:
            while True:
                slot = self._slots.get(key)
                if slot is not None and not slot.closing:
                    slot.leases += 1
                    return slot
                leaving = None if slot is not None else self._make_room(estimate)
                if leaving is not None:
                    slot = self._slots[key] = _Slot(key, leases=1, bytes=estimate)
                    break
                if not self._changed.wait(deadline - time.monotonic()):
                    raise PoolBusy(
                        f"Expert {name!r} waited {self.patience:.0f} s for room in memory, while all that is loaded "
                        "was in use. Close streams that are not read to their end, or raise `max_loaded` or "
                        "`max_bytes`.",
                        expert_failed=False,
                    )
        self._free(leaving)
        return slot

    def _make_room(self, needed: int) -> list[_Slot] | None:
        """Marks those that must go for one more; `None` if those in use leave no room. Called under the lock."""
        staying = list(self._slots.values())  # also what is being freed: its memory is not free yet
        idle = sorted((slot for slot in staying if not slot.leases and not slot.closing), key=lambda slot: slot.used)
        leaving: list[_Slot] = []

        def too_many() -> bool:
            left = [slot for slot in staying if slot not in leaving]
            return (self.max_loaded is not None and len(left) + 1 > self.max_loaded) or (
                self.max_bytes is not None and sum(slot.bytes for slot in left) + needed > self.max_bytes
            )

        while too_many():
            if not idle:
                return None
            leaving.append(idle.pop(0))
        for slot in leaving:
            slot.closing = True
        return leaving

    def _load(self, name: str, slot: _Slot):
        """Loads an expert into its slot, and frees others if it is larger than was thought."""
        self._named(name, lambda expert: expert.load())
        slot.loaded.add(name)
        needed = self.experts[name].memory_bytes or 0
        if self.max_bytes is None:
            slot.bytes = needed
            return
        if needed > self.max_bytes:
            slot.loaded.discard(name)
            self.experts[name].close()
            raise self._too_large(name, needed)
        with self._changed:
            slot.bytes = needed
            others = [each for each in self._slots.values() if each is not slot and not each.closing]
            leaving = []
            for other in sorted(others, key=lambda each: each.used):
                if sum(each.bytes for each in self._slots.values() if not each.closing) <= self.max_bytes:
                    break
                if not other.leases:
                    other.closing = True
                    leaving.append(other)
        self._free(leaving)

    def _leave(self, slot: _Slot):
        with self._changed:
            slot.leases -= 1
            slot.used = time.monotonic()
            if not slot.leases and not slot.loaded:  # it could not be loaded
                self._slots.pop(slot.key, None)
            self._changed.notify_all()

    def _free(self, slots: Iterable[_Slot]):
        """Closes the experts of slots that are marked; whoever waits for them goes on afterwards."""
        for slot in slots:
            for name in sorted(slot.loaded):
                try:
                    self.experts[name].close()
                except Exception:  # it is let go all the same, and those who wait for the room must not wait forever
                    logger.warning(f"Expert {name!r} could not be closed.", exc_info=True)
            with self._changed:
                self._slots.pop(slot.key, None)
                self._changed.notify_all()

    def _named(self, name: str, ask):
        """Asks something of an expert; whatever goes wrong then names the expert."""
        try:
            return ask(self.experts[name])
        except ExpertError:
            raise
        except Exception as error:
            raise ExpertError(
                f"Expert {name!r} could not be loaded. {type(error).__name__}: {error}".rstrip()
            ) from error

    def _too_large(self, name: str, needed: int) -> ExpertError:
        return ExpertError(
            f"Expert {name!r} takes {needed / 2**30:.2f} GiB of memory, more than `max_bytes` of "
            f"{self.max_bytes / 2**30:.2f} GiB."
        )
