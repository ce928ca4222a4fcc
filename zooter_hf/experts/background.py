"""An event loop in a thread of its own, so that synchronous code can run coroutines wherever it is called."""

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar


Result = TypeVar("Result")


class Closed(RuntimeError):
    """The loop was closed while, or before, a coroutine ran on it."""


class BackgroundLoop:
    """Runs coroutines for callers that may be in an event loop themselves, as in a notebook, or in several threads.

    Connections belong to one loop. This one lasts from call to call, and they with it.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name=name, daemon=True)
        self._thread.start()
        self._lock = threading.Lock()
        self._closed = False
        # The thread knows the loop alone, so that what is dropped without being closed ends as well.
        self._stop = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Runs a coroutine to its end; cancels it if the caller is interrupted.

        Raises:
            Closed: If the loop is closed, before or meanwhile.
        """
        with self._lock:  # what comes after `close` would wait forever
            if self._closed:
                coroutine.close()
                raise Closed
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise Closed from None
        except BaseException:
            future.cancel()
            raise

    def close(self, last: Coroutine[Any, Any, Any]):
        """Cancels what is running, runs a last coroutine, and ends the thread."""
        with self._lock:
            if self._closed:
                last.close()
                return
            self._closed = True
            future = asyncio.run_coroutine_threadsafe(_after_the_others(last), self._loop)
        try:
            future.result()
        finally:
            self._stop()
            self._thread.join()


async def _after_the_others(last: Coroutine[Any, Any, Any]):
    await _cancel(asyncio.all_tasks() - {asyncio.current_task()})
    await last


async def _cancel(tasks: set[asyncio.Task]):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _run(loop: asyncio.AbstractEventLoop):
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(_cancel(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
