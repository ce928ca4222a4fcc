"""What can go wrong between an endpoint and us, and what it means for the query and for those after it."""

import asyncio
import json
import re
from dataclasses import dataclass

from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled, TextGenerationError

from zooter_hf.experts.base import Answer
from zooter_hf.experts.chat_client import Refusal
from zooter_hf.experts.retry import MAX_RETRY_AFTER, parse_retry_after


MALFORMED_RETRIES = 2
# Of the key, the account, the address or the model, and so of every query.
REFUSED_TO_ALL = (401, 402, 403, 404, 405, 410)
# The server, or what stands before it, is overloaded or gone: the query is not to blame.
UNAVAILABLE = (429, 502, 503, 504)
_BEARER = re.compile(r"(?i)bearer\s+[^\s\"',;]+")
_LENGTH = 300


@dataclass(frozen=True)
class Failure:
    """A request that brought no answer.

    Args:
        reason: Why, without anything secret.
        status: Of the HTTP response, if it is the reason.
        again: Whether it is worth sending again.
        most_retries: How many times at most, whatever the options say.
        retry_after: Seconds that the server wants to be left alone.
        of_all: Whether the query is not to blame, and others can be expected to fail as well.
        stops: Whether others need not be tried: it would be the same.
        unreachable: Whether there was no connection.
    """

    reason: str
    status: int | None = None
    again: bool = False
    most_retries: int | None = None
    retry_after: float | None = None
    of_all: bool = False
    stops: bool = False
    unreachable: bool = False

    @property
    def expert_failed(self) -> bool:
        """Whether the expert is to blame, not the query."""
        return self.again or self.of_all

    def as_answer(self) -> Answer:
        """Returns it as the answer that a query has instead."""
        return Answer(None, error=self.reason, expert_failed=self.expert_failed)


def scrub(text: str, key: str | None) -> str:
    """Takes the key out of what a server or a library said, and makes it short."""
    if key:
        text = text.replace(key, "***")
    text = " ".join(_BEARER.sub("***", text).split())
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}..."


def malformed(what: str) -> Failure:
    """A reply that is not one of the chat API."""
    return Failure(f"the reply is malformed: {what}", again=True, most_retries=MALFORMED_RETRIES)


def failure_of(
    error: Exception, key: str | None, wall: float, *, to_hub: bool, max_retry_after: float = MAX_RETRY_AFTER
) -> Failure | None:
    """Says what an exception of the client means.

    Args:
        error: The exception.
        key: What must not be repeated.
        wall: The time, in seconds since the epoch.
        to_hub: Whether Inference Providers were asked.
        max_retry_after: Seconds that a server may ask to be left alone; if it asks for more, it is given up.

    Returns:
        The failure; `None` if it is a mistake in a program, to be raised as it is.
    """
    names = {cls.__name__ for cls in type(error).__mro__}
    # huggingface_hub makes one error of all timeouts; whether there was a connection is in its cause.
    names |= {type(error.__cause__).__name__}
    said = scrub(str(error), key) or type(error).__name__
    if isinstance(error, Refusal):
        return _of_refusal(error, key, wall, max_retry_after)
    if isinstance(error, OfflineModeIsEnabled):
        return Failure("HF_HUB_OFFLINE is set. Unset it to ask Inference Providers", of_all=True, stops=True)
    if isinstance(error, HfHubHTTPError):  # the model is looked up before a provider is asked
        return Failure(said, of_all=True, stops=True)
    if isinstance(error, TextGenerationError):  # in the midst of a stream
        return Failure(f"the server broke off: {said}", again=True)
    if names & {"ConnectError", "ConnectTimeout"}:
        return Failure(f"no connection ({said})", again=True, of_all=True, unreachable=True)
    if isinstance(error, TimeoutError | asyncio.TimeoutError) or "TimeoutException" in names:
        return Failure("no answer in time", again=True)
    if "UnsupportedProtocol" in names or "InvalidURL" in names:
        return Failure(said, of_all=True, stops=True)
    if isinstance(error, HTTPError):
        return Failure(f"the connection broke ({said})", again=True, of_all=True)
    if isinstance(error, UnicodeEncodeError):
        return Failure("the query holds characters that cannot be sent as UTF-8")
    if isinstance(error, ValueError):
        # A provider or a model that the client does not know of is a ValueError too, before anything is sent.
        if to_hub and not isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            return Failure(said, of_all=True, stops=True)
        return malformed(said)
    return None


def _of_refusal(refusal: Refusal, key: str | None, wall: float, max_retry_after: float) -> Failure:
    status = refusal.status
    said = scrub(_message(refusal.text), key)
    reason = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    if status in REFUSED_TO_ALL:
        return Failure(reason, status, of_all=True, stops=True)
    if status == 408 or status == 429 or status >= 500:
        wait = parse_retry_after(refusal.retry_after, wall)
        if wait is not None and wait > max_retry_after:
            reason += f". The server asks to wait {wait:.0f} s; at most {max_retry_after:.0f} s are waited. Come later"
            return Failure(reason, status, of_all=True, stops=True)
        return Failure(reason, status, again=True, retry_after=wait, of_all=status in UNAVAILABLE)
    return Failure(reason, status)


def _message(text: str) -> str:
    """Finds what is for people in the body of an error: servers differ."""
    try:
        body = json.loads(text)
    except ValueError:
        return text
    for _ in range(2):
        for name in ("error", "message", "detail"):
            if isinstance(body, dict) and body.get(name):
                body = body[name]
                break
    return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
