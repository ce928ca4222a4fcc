"""An expert behind the OpenAI chat API: a server of one's own, a hosted one, or Hugging Face Inference Providers."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from zooter_hf.experts.background import BackgroundLoop, Closed
from zooter_hf.experts.base import (
    Answer,
    Capabilities,
    Expert,
    ExpertError,
    GenerationSettings,
    Query,
    Usage,
    to_messages,
)
from zooter_hf.experts.endpoint_options import EndpointOptions
from zooter_hf.experts.retry import Clock, retry_delay
from zooter_hf.modeling import ExpertSpec


if TYPE_CHECKING:
    from zooter_hf.experts.chat_client import ChatClient
    from zooter_hf.experts.failures import Failure

logger = logging.get_logger(__name__)


class EndpointExpert(Expert):
    """Asks a server that speaks the OpenAI chat API: vLLM, TGI, SGLang, Ollama, llama.cpp, or a hosted one.

    The spec needs `model`, the name that the server knows. With `base_url` that server is asked, and gets no key but
    the one that `options.api_key_env` names; without it, Hugging Face Inference Providers are. All options:
    [`EndpointOptions`].

    A request that failed for the moment (429, 5xx, no connection, no answer in time) is sent again after a random,
    growing while, and not before the server's `Retry-After`, for which all requests of the expert wait; a server that
    asks for more than `max_retry_after` is given up. A wrong key or model (401, 402, 403, 404) concerns all queries;
    any other refusal (400 for a query that is too long) the one query. A malformed reply is asked for again twice.
    Replies whose content is null are malformed, unless a reasoning model used up all its tokens before it came to its
    answer; then the query has an error that says so. What a model reasoned is not part of its answer.

    Connections stay open from the first answer, or `load`, to `close`. Threads may share an expert, and it may be
    called from within a running event loop.

    Args:
        spec: What the expert is.
        clock: Time and chance of the retries.

    Raises:
        ValueError: If the spec lacks `model`, or has a field or an option that cannot be right.
    """

    def __init__(self, spec: ExpertSpec, *, clock: Clock | None = None):
        super().__init__(spec)
        self._options = EndpointOptions.of(spec)
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._quiet_until = 0.0

    @property
    def capabilities(self) -> Capabilities:
        """What the expert can do; asks nobody."""
        return Capabilities(
            chat=True, batches=True, streaming=True, local=False, context_length=self.spec.context_length
        )

    @property
    def memory_key(self) -> None:
        """Nothing that counts is held here."""
        return None

    def load(self):
        """Finds the key and makes ready to connect; no request is sent.

        Raises:
            ExpertError: If the key is not there.
        """
        self._key()
        self._open()

    def close(self):
        """Closes the connections; answers that are under way are given up."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def answer(self, queries: Sequence[Query], settings: GenerationSettings | None = None) -> list[Answer]:
        """Answers queries, several at a time, in their order.

        Args:
            queries: Strings or chats.
            settings: How to generate.

        Returns:
            Answers. Their seconds are those of the request that succeeded, without waiting and failed attempts.

        Raises:
            ExpertError: If no query was answered and the queries are not to blame (no key or a wrong one, no such
                model, no server).
        """
        if not queries:
            return []
        settings = settings or GenerationSettings()
        messages = [to_messages(query, settings) for query in queries]
        key = self._key()
        connection = self._open()
        try:
            outcomes = connection.run(self._answer_all(connection, messages, settings, key))
        except Closed:
            raise self._closed() from None
        failures = [outcome for outcome in outcomes if not isinstance(outcome, Answer)]
        if len(failures) == len(outcomes) and all(failure.of_all for failure in failures):
            raise self._error(failures[0])
        return [each if isinstance(each, Answer) else each.as_answer() for each in outcomes]

    def stream(self, query: Query, settings: GenerationSettings | None = None) -> Iterator[str | Usage]:
        """Yields an answer in pieces as they come, and at last its usage.

        Closing the iterator closes the connection. Failures are retried up to the first piece. Streams do not count
        towards `concurrency`.

        Raises:
            ExpertError: If the query cannot be answered, or the answer breaks off.
        """
        settings = settings or GenerationSettings()
        messages = to_messages(query, settings)
        key = self._key()
        connection = self._open()
        pieces = self._pieces(connection, messages, settings, key)
        try:
            while (piece := connection.run(_next(pieces))) is not None:
                yield piece
        except Closed:
            raise self._closed() from None
        finally:
            with suppress(Closed):
                connection.run(_close(pieces))

    def _key(self) -> str | None:
        variable = self._options.api_key_env
        if variable is None and self.spec.base_url is not None:
            return None
        if variable is None:
            from huggingface_hub import get_token

            key = get_token()
            if key is None:
                raise ExpertError(
                    f"Expert {self.spec.name!r} has no `base_url`, so Hugging Face Inference Providers are asked, and "
                    "there is no Hugging Face token. Log in with `hf auth login`, or set HF_TOKEN."
                )
            return key
        key = os.environ.get(variable, "").strip()
        if not key:
            raise ExpertError(
                f"Expert {self.spec.name!r}: the environment variable {variable}, named by `options.api_key_env`, is "
                "not set. Set it to the key."
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ExpertError(
                f"Expert {self.spec.name!r}: the environment variable {variable}, named by `options.api_key_env`, "
                "holds characters that a key cannot have (spaces, line breaks, or beyond ASCII). Set it anew."
            )
        return key

    def _open(self) -> "_Connection":
        with self._lock:
            if self._connection is None:
                self._connection = _Connection(self.spec, self._options)
            return self._connection

    def _body(self, settings: GenerationSettings) -> dict[str, Any]:
        """The fields of a request besides its messages."""
        return {
            "model": self.spec.model,
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p if settings.temperature > 0 else None,
            "seed": settings.seed,
            "stop": list(settings.stop) or None,
            "extra_body": dict(self._options.extra_body),
        }

    async def _answer_all(
        self, connection: "_Connection", chats: list[list[dict]], settings: GenerationSettings, key: str | None
    ) -> "list[Answer | Failure]":
        progress = _Progress()

        async def ask(messages: list[dict]) -> "Answer | Failure":
            async with connection.slots:
                return await self._answer_one(connection.client(key), messages, settings, key, progress)

        tasks = [asyncio.ensure_future(ask(messages)) for messages in chats]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _answer_one(
        self,
        client: "ChatClient",
        messages: list[dict],
        settings: GenerationSettings,
        key: str | None,
        progress: "_Progress",
    ) -> "Answer | Failure":
        failures = 0
        began = self._clock.now()
        while True:
            await self._wait_for_quiet()
            if progress.stopped is not None:
                return progress.stopped
            outcome = await self._attempt(client, messages, settings, key)
            if isinstance(outcome, Answer):
                progress.answered = True
                progress.heard = self._clock.now()
                return outcome
            if not outcome.unreachable:
                progress.heard = self._clock.now()
            if self._is_last(outcome, failures):
                break
            await self._wait_to_retry(outcome, failures)
            failures += 1
        gone = outcome.unreachable and (progress.heard is None or progress.heard < began)
        # Some servers refuse with a 403 what they moderate. In the midst of answers, it is this query's own.
        moderated = outcome.status == 403 and progress.answered
        if gone or (outcome.stops and not moderated):
            progress.stopped = outcome
        return outcome

    async def _attempt(
        self, client: "ChatClient", messages: list[dict], settings: GenerationSettings, key: str | None
    ) -> "Answer | Failure":
        from zooter_hf.experts.failures import malformed

        began = self._clock.now()
        try:
            # The client's own timeout starts anew with every byte.
            reply = await asyncio.wait_for(
                client.chat_completion(messages, **self._body(settings)), self._options.timeout
            )
        except Exception as error:
            failure = self._failure_of(error, key)
            if failure is None:
                raise
            return failure
        choice = _first(getattr(reply, "choices", None))
        message = getattr(choice, "message", None)
        text = getattr(message, "content", None)
        if not text and getattr(choice, "finish_reason", None) == "length" and _reasoning(message):
            return _only_reasoned(settings)
        if not isinstance(text, str):
            return malformed("it has no choices" if message is None else "its content is not a text")
        return Answer(text, self._usage(getattr(reply, "usage", None), began))

    async def _pieces(
        self, connection: "_Connection", messages: list[dict], settings: GenerationSettings, key: str | None
    ) -> AsyncIterator[str | Usage]:
        from zooter_hf.experts.failures import malformed

        failures = 0
        while True:
            await self._wait_for_quiet()
            began = self._clock.now()
            started = finished = reasoned = False
            failure = usage = None
            async with connection.client(key) as client:
                try:
                    chunks = await client.chat_completion(
                        messages, **self._body(settings), stream=True, stream_options={"include_usage": True}
                    )
                    # The client's own timeout starts anew with every byte, also of lines that hold no piece.
                    while (chunk := await asyncio.wait_for(anext(chunks, None), self._options.timeout)) is not None:
                        usage = getattr(chunk, "usage", None) or usage
                        choice = _first(getattr(chunk, "choices", None))
                        delta = getattr(choice, "delta", None)
                        text = getattr(delta, "content", None)
                        reasoned = reasoned or _reasoning(delta)
                        finished = getattr(choice, "finish_reason", None) or finished
                        if text and isinstance(text, str):
                            started = True
                            yield text
                except Exception as error:
                    failure = self._failure_of(error, key)
                    if failure is None:
                        raise
            if failure is None and not finished:
                failure = malformed("the stream ended before the answer did")
            if failure is None and not started and finished == "length" and reasoned:
                failure = _only_reasoned(settings)
            if failure is None:
                yield self._usage(usage, began)
                return
            # Outside of the handler: what the client raised, which knows the key, is not to be chained.
            if started or self._is_last(failure, failures):
                raise self._error(failure)
            await self._wait_to_retry(failure, failures)
            failures += 1

    def _failure_of(self, error: Exception, key: str | None) -> "Failure | None":
        from zooter_hf.experts.failures import failure_of

        to_hub, most = self.spec.base_url is None, self._options.max_retry_after
        return failure_of(error, key, self._clock.wall(), to_hub=to_hub, max_retry_after=most)

    def _is_last(self, failure: "Failure", failures: int) -> bool:
        most = self._options.retries
        if failure.most_retries is not None:
            most = min(most, failure.most_retries)
        return not failure.again or failures >= most

    async def _wait_to_retry(self, failure: "Failure", failures: int):
        delay = retry_delay(failures, failure.retry_after, self._clock.random)
        if failure.retry_after:
            logger.warning(f"Expert {self.spec.name}: {failure.reason}; waiting {failure.retry_after:.0f} s.")
            self._quiet_until = max(self._quiet_until, self._clock.now() + failure.retry_after)
        else:
            logger.info(f"Expert {self.spec.name}: {failure.reason}; again in {delay:.1f} s.")
        await self._clock.sleep(delay)

    async def _wait_for_quiet(self):
        """A server that asks one request to wait means all."""
        while (wait := self._quiet_until - self._clock.now()) > 0:
            await self._clock.sleep(wait)

    def _usage(self, usage: Any, began: float) -> Usage:
        counts = (_count(getattr(usage, name, None)) for name in ("prompt_tokens", "completion_tokens"))
        return Usage.of(self.spec, *counts, self._clock.now() - began)

    def _closed(self) -> ExpertError:
        return ExpertError(f"Expert {self.spec.name!r} was closed while it answered.")

    def _error(self, failure: "Failure") -> ExpertError:
        where = self.spec.base_url or f"Inference Providers ({self._options.provider or 'auto'})"
        key = self._options.api_key_env
        if failure.unreachable:
            remedy = "Is the server running? Check `base_url`."
        elif failure.status in (401, 403):
            if key is not None:
                remedy = f"Check the key in the environment variable {key}, and what it is allowed."
            elif self.spec.base_url is not None:
                remedy = "No key was sent: name the environment variable that holds it as `options.api_key_env`."
            else:
                remedy = "Check your Hugging Face token (`hf auth whoami`), and that it may call Inference Providers."
        elif failure.status in (404, 405, 410):
            remedy = "Check `model` and `base_url`."
        else:
            remedy = ""
        return ExpertError(
            f"Expert {self.spec.name!r}, {self.spec.model} at {where}: {failure.reason}. {remedy}".rstrip(),
            expert_failed=failure.expert_failed,
        )


@dataclass
class _Progress:
    """How the queries of one call fare.

    Args:
        answered: Whether one was answered.
        heard: When the server was last heard of, on the clock of the expert.
        stopped: Why no further requests are sent.
    """

    answered: bool = False
    heard: float | None = None
    stopped: "Failure | None" = None


class _Connection:
    """What is open from load to close: the loop, the HTTP session on it, and the slots for requests."""

    def __init__(self, spec: ExpertSpec, options: EndpointOptions):
        from zooter_hf.experts.chat_client import open_session

        self._spec = spec
        self._options = options
        self._session = open_session(to_hub=spec.base_url is None)
        self._loop = BackgroundLoop(f"expert {spec.name}")
        self.run = self._loop.run
        self.slots = asyncio.Semaphore(options.concurrency)

    def client(self, key: str | None) -> "ChatClient":
        from zooter_hf.experts.chat_client import ChatClient

        if self._spec.base_url is None:
            return ChatClient(
                self._session, provider=self._options.provider, api_key=key, timeout=self._options.timeout
            )
        # Without a key, the client would send the user's Hugging Face token to whatever server this is. A header of
        # None is one that is not sent.
        return ChatClient(
            self._session,
            base_url=self._spec.base_url,
            api_key=key or "-",
            headers=None if key else {"authorization": None},
            timeout=self._options.timeout,
        )

    def close(self):
        self._loop.close(self._session.aclose())


async def _next(pieces: AsyncIterator[Any]) -> Any:
    return await anext(pieces, None)


async def _close(pieces: Any):
    await pieces.aclose()


def _first(choices: Any) -> Any:
    return choices[0] if isinstance(choices, list) and choices else None


def _reasoning(message: Any) -> bool:
    return any(getattr(message, name, None) for name in ("reasoning", "reasoning_content"))


def _only_reasoned(settings: GenerationSettings) -> "Failure":
    from zooter_hf.experts.failures import Failure

    return Failure(
        f"all of the {settings.max_new_tokens} tokens went into reasoning, and none into the answer: raise "
        "`max_new_tokens`"
    )


def _count(tokens: Any) -> int | None:
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else None
