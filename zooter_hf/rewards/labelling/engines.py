"""Where the work of a stage is done: in this process, in every process of `accelerate launch`, or by actors of Ray."""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from zooter_hf.experts import Loadable


Results = Sequence[Any]


class Engine:
    """Runs the worker of a stage over its units: override `run`.

    `rank` and `world_size` say which process this is, of how many: each takes its share of the units.
    """

    rank: int = 0
    world_size: int = 1

    def run(
        self, worker: Loadable, units: Sequence[Any], payload: Callable[[Any], Any], chunk_size: int
    ) -> Iterator[tuple[Sequence[Any], Results]]:
        """Yields units and their results, as they are done.

        Args:
            worker: Called with a list of payloads, returns one result each.
            units: What is to be done.
            payload: Makes what the worker needs of a unit.
            chunk_size: How many units the worker is given at once.

        Raises:
            Exception: What the worker raises.
        """
        raise NotImplementedError

    def share(self, units: Sequence[Any]) -> Sequence[Any]:
        """Returns the units of this process."""
        return units[self.rank :: self.world_size]

    def wait(self):
        """Waits for the other processes; by default there are none."""


class LocalEngine(Engine):
    """Runs in this process; under `accelerate launch`, each process takes its share, on its own device."""

    def __init__(self):
        self._state = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            import torch
            from accelerate import PartialState

            self._state = PartialState(cpu=not torch.accelerator.is_available())
            self.rank, self.world_size = self._state.process_index, self._state.num_processes

    def run(self, worker, units, payload, chunk_size):
        """See [`Engine`]."""
        if not units:
            return
        with worker:
            for start in range(0, len(units), chunk_size):
                chunk = units[start : start + chunk_size]
                yield chunk, worker([payload(unit) for unit in chunk])

    def wait(self):
        """See [`Engine`]."""
        if self._state is not None:
            self._state.wait_for_everyone()


class RayEngine(Engine):
    """Runs in a pool of actors of Ray Data, on this machine or on the cluster that Ray is connected to.

    Args:
        actors: How many actors; by default one a GPU, or one a CPU where there is none.
        gpus_per_actor: GPUs that an actor has to itself; by default one where there are any.

    Raises:
        ImportError: If Ray is not installed.
    """

    # Units are handed over in blocks, so that a large set is not held in memory twice.
    block_size = 10_000

    def __init__(self, actors: int | None = None, gpus_per_actor: float | None = None):
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise ImportError('The engine "ray" needs Ray: pip install "zooter-hf[ray]"') from error
        if actors is not None and actors < 1:
            raise ValueError(f"`actors` must be positive, got {actors}.")
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR")
        resources = ray.cluster_resources()
        gpus = resources.get("GPU", 0)
        self.gpus_per_actor = (1 if gpus else 0) if gpus_per_actor is None else gpus_per_actor
        self.actors = actors or int(gpus if self.gpus_per_actor else resources.get("CPU", 1)) or 1
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False

    def run(self, worker, units, payload, chunk_size):
        """See [`Engine`]."""
        import ray

        for start in range(0, len(units), self.block_size):
            block = units[start : start + self.block_size]
            rows = [{"unit": row, "payload": pickle.dumps(payload(unit))} for row, unit in enumerate(block)]
            results = ray.data.from_items(rows).map_batches(
                _Actor,
                fn_constructor_args=(pickle.dumps(worker),),
                batch_size=chunk_size,
                compute=ray.data.ActorPoolStrategy(size=min(self.actors, -(-len(block) // chunk_size))),
                num_gpus=self.gpus_per_actor,
            )
            for batch in results.iter_batches(batch_size=None, batch_format="numpy"):
                done = [pickle.loads(result) for result in batch["result"]]
                for result in done:
                    if isinstance(result, _Failure):
                        raise result.error
                yield [block[row] for row in batch["unit"]], done


class _Failure:
    """What the worker of an actor raised; Ray itself would wrap it beyond recognition."""

    def __init__(self, error: Exception):
        self.error = error


class _Actor:
    """A worker in an actor; made with the first batch, as Ray would start an actor that fails over and over."""

    def __init__(self, worker: bytes):
        self.pickled = worker
        self.worker = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        try:
            if self.worker is None:
                self.worker = pickle.loads(self.pickled)
            results = self.worker([pickle.loads(payload) for payload in batch["payload"]])
        except Exception as error:
            results = [_Failure(_portable(error))] * len(batch["payload"])
        return {"unit": batch["unit"], "result": [pickle.dumps(result) for result in results]}


def _portable(error: Exception) -> Exception:
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def make_engine(engine: "str | Engine") -> Engine:
    """Makes the engine of a name, `"local"` or `"ray"`.

    Raises:
        ValueError: If there is no such engine.
        ImportError: If Ray is not installed.
    """
    if isinstance(engine, Engine):
        return engine
    if engine == "local":
        return LocalEngine()
    if engine == "ray":
        return RayEngine()
    raise ValueError(f"`engine` must be 'local' or 'ray', got {engine!r}.")
