"""Replies that come in pieces."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import replace

from zooter_hf.ensemble.dispatch import Dispatcher, Job
from zooter_hf.ensemble.reply import EnsembleError, Reply
from zooter_hf.experts import Answer, Expert, GenerationSettings, Usage
from zooter_hf.routing import Decision


_END = object()


class ReplyStream(Iterator[str]):
    """The pieces of a reply, as they come. A context manager; leaving it, or closing it, stops the generation.

    An expert that fails before its first piece is replaced by the next best. A stream that breaks off later ends with
    an [`EnsembleError`].

    Args:
        job: The query.
        decision: Which expert is to answer it.
        dispatcher: Hands it to experts.
        settings: How to generate.
        make_reply: Makes the reply, once the job is answered.
    """

    def __init__(
        self,
        job: Job,
        decision: Decision,
        dispatcher: Dispatcher,
        settings: GenerationSettings,
        make_reply: Callable[[], Reply],
    ):
        self._job = job
        self._decision = decision
        self._dispatcher = dispatcher
        self._make_reply = make_reply
        self._pieces = self._run(settings)
        self._reply: Reply | None = None
        #: What has come so far.
        self.text = ""
        #: Name of the expert that answers; `None` until its first piece has come.
        self.expert: str | None = None

    @property
    def decision(self) -> Decision:
        """The decision, with the experts that have failed so far."""
        return replace(self._decision, fallbacks=tuple(self._job.tried))

    @property
    def reply(self) -> Reply:
        """The whole reply, once the stream has ended.

        Raises:
            ValueError: If it has not ended, or broke off.
        """
        if self._reply is None:
            raise ValueError("The stream has not come to its end. Read all of it first.")
        return self._reply

    def __next__(self) -> str:
        return next(self._pieces)

    def __enter__(self) -> "ReplyStream":
        return self

    def __exit__(self, *_: object):
        self.close()

    def close(self):
        """Stops the generation; what has come so far stays in `text`."""
        self._pieces.close()

    def _run(self, settings: GenerationSettings) -> Iterator[str]:
        job, dispatcher = self._job, self._dispatcher
        while (name := dispatcher.next_expert(job, {})) is not None:
            try:
                with dispatcher.pool.lease(name) as expert:
                    yield from self._stream(name, expert, settings)
            except GeneratorExit:
                dispatcher.breaker.undecided(name)
                raise
            except Exception as error:
                dispatcher.failed(name, [job], error)
                if self.text:
                    reason = job.tried[-1].reason
                    raise EnsembleError(
                        f"The answer of {name!r} broke off after {len(self.text)} characters. {reason}",
                        self.decision,
                        self.text,
                    ) from error
            except BaseException:  # interrupted
                dispatcher.breaker.undecided(name)
                raise
            else:
                dispatcher.breaker.succeeded(name)
                self._reply = self._make_reply()
                return
        raise EnsembleError(job.describe_failure(), self.decision)

    def _stream(self, name: str, expert: Expert, settings: GenerationSettings) -> Iterator[str]:
        usage = Usage()
        with closing(expert.stream(self._job.query, settings)) as pieces:
            for piece in pieces:
                if isinstance(piece, Usage):
                    usage = piece
                elif piece:
                    self.expert = name
                    self.text += piece
                    yield piece
        self.expert = name
        self._job.finish(name, Answer(self.text, usage))


class CompleteReplyStream(ReplyStream):
    """A reply that comes in one piece: several experts answer together, or nobody.

    Args:
        decision: Which experts are to answer.
        answer: Has them answer.
    """

    def __init__(self, decision: Decision, answer: Callable[[], Reply]):
        self._decision = decision
        self._answer = answer
        self._pieces = self._run()
        self._reply: Reply | None = None
        self.text = ""
        self.expert: str | None = None

    @property
    def decision(self) -> Decision:
        """The decision, with the experts that have failed."""
        return self._decision if self._reply is None else self._reply.decision

    def _run(self) -> Iterator[str]:
        reply = self._answer()
        if reply.error is not None:
            raise EnsembleError(reply.error, reply.decision)
        self._reply, self.text, self.expert = reply, reply.text, reply.expert
        if reply.text:
            yield reply.text


class AsyncReplyStream(AsyncIterator[str]):
    """A [`ReplyStream`] for asyncio: `async for`, and `async with` to stop it early.

    Args:
        start: Routes the query and opens the stream; called with the first piece that is asked for.
        executor: Threads to wait in.
    """

    def __init__(self, start: Callable[[], ReplyStream], executor: Executor):
        self._start = start
        self._executor = executor
        self._stream: ReplyStream | None = None
        # A task that is cancelled leaves its thread waiting for a piece.
        self._lock = threading.Lock()

    @property
    def text(self) -> str:
        """What has come so far."""
        return "" if self._stream is None else self._stream.text

    @property
    def expert(self) -> str | None:
        """Name of the expert that answers; `None` until its first piece has come."""
        return None if self._stream is None else self._stream.expert

    @property
    def decision(self) -> Decision | None:
        """The decision, with the experts that have failed so far; `None` until the first piece is asked for."""
        return None if self._stream is None else self._stream.decision

    @property
    def reply(self) -> Reply:
        """The whole reply, once the stream has ended; see [`ReplyStream.reply`]."""
        if self._stream is None:
            raise ValueError("The stream has not begun. Read all of it first.")
        return self._stream.reply

    def __aiter__(self) -> "AsyncReplyStream":
        return self

    async def __anext__(self) -> str:
        piece = await asyncio.get_running_loop().run_in_executor(self._executor, self._step)
        if piece is _END:  # which cannot be said by an exception: a future holds no StopIteration
            raise StopAsyncIteration
        return piece

    async def __aenter__(self) -> "AsyncReplyStream":
        return self

    async def __aexit__(self, *_: object):
        await self.aclose()

    async def aclose(self):
        """Stops the generation; what has come so far stays in `text`."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._close)

    def _step(self):
        with self._lock:
            if self._stream is None:
                self._stream = self._start()
            return next(self._stream, _END)

    def _close(self):
        with self._lock:
            if self._stream is not None:
                self._stream.close()
