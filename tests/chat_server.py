"""A server on localhost that speaks the OpenAI chat API: real clients ask it, and it can be told to fail.

    with ChatServer(models={"small": lambda messages: "four"}) as server:
        server.inject(429, headers={"Retry-After": "1"})  # the next request
        server.inject("drop", times=None, where="poison")  # every request that holds this word
        ...  # ask server.base_url
        assert server.requests[0].body["max_tokens"] == 16
        assert server.max_concurrency <= 8

It answers `POST /v1/chat/completions`, as JSON and as a stream with the usage at its end, and `GET /v1/models`. Tokens
are words: `max_tokens` cuts an answer, and `usage` counts them.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal

from tests.local_server import LocalServer


def echo(messages: list[dict[str, Any]]) -> str:
    """Says again what was said last."""
    return str(messages[-1]["content"])


def count_tokens(text: Any) -> int:
    """Counts words."""
    return len(str(text).split())


@dataclass
class Request:
    """A line of the server's log.

    Attributes:
        method: Of HTTP.
        path: As sent.
        headers: Lower-case names.
        body: The JSON, or None.
        began: When it was there, in seconds of `time.monotonic`.
        status: What was answered; None for a connection that was dropped.
        complete: Whether all of the answer was sent; False if the client left.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    began: float
    status: int | None = None
    complete: bool = False

    @property
    def query(self) -> str:
        """The content of the last message."""
        return str(self.body["messages"][-1]["content"])


@dataclass
class Fault:
    """A failure to inject: see [`ChatServer.inject`]."""

    kind: int | Literal["drop", "cut", "slow"]
    times: int | None
    where: str | None
    headers: Mapping[str, str]
    body: Any
    seconds: float


class ApiError(Exception):
    """A refusal, as the body that the API has for it."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "invalid_request_error", "code": status}}


class ChatServer(LocalServer):
    """The server, running as long as the context lasts; its log stays readable afterwards.

    Args:
        models: What each model answers to a chat; by default one, "echo", that says the last message again.
        api_key: The one key that is accepted; None to accept requests without one.
        latency: Seconds before each answer.
        piece_seconds: Seconds between the pieces of a stream.

    Attributes:
        base_url: Address to give to the client.
        requests: Every request received, in order.
        max_concurrency: The most chats that were answered at one time.
    """

    def __init__(
        self,
        models: Mapping[str, Callable[[list[dict[str, Any]]], str]] | None = None,
        api_key: str | None = None,
        latency: float = 0.0,
        piece_seconds: float = 0.0,
    ):
        self.models = {"echo": echo} if models is None else dict(models)
        self.api_key = api_key
        self.latency = latency
        self.piece_seconds = piece_seconds
        self.requests: list[Request] = []
        self.max_concurrency = 0
        self.concurrency = 0
        self.faults: list[Fault] = []
        super().__init__(type("Handler", (_Handler,), {"server_state": self}), threading.Lock())
        self.base_url = f"{self.address}/v1"

    def inject(
        self,
        kind: int | Literal["drop", "cut", "slow"],
        times: int | None = 1,
        *,
        where: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        seconds: float = 0.0,
    ) -> None:
        """Makes the next chats fail, the earliest fault first.

        Args:
            kind: A status, answered with `headers` and `body`; also 200, with a body that no server should send.
                "drop" closes the connection without an answer, "cut" in the midst of it, and "slow" answers well
                after `seconds`.
            times: How many chats; None for all of them.
            where: Only chats whose last message holds this text.
            headers: Of the answer.
            body: JSON values, or text to be sent as it is. By default an error as the API has it.
            seconds: To wait before, whatever the kind.
        """
        with self.lock:
            self.faults.append(Fault(kind, times, where, headers or {}, body, seconds))

    def heal(self) -> None:
        """Forgets the faults that are left."""
        with self.lock:
            self.faults.clear()

    def take_fault(self, query: str) -> Fault | None:
        """Uses up the first fault that matches a chat, if any."""
        with self.lock:
            for fault in self.faults:
                if (fault.where is None or fault.where in query) and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None


@dataclass
class _Completion:
    """An answer, in both shapes."""

    model: str
    text: str
    finish_reason: str
    usage: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, body: dict[str, Any], answer: Callable[[list[dict[str, Any]]], str]) -> "_Completion":
        text, finish_reason = answer(body["messages"]), "stop"
        for stop in body.get("stop") or ():
            text = text.split(stop)[0]
        words = re.findall(r"\s*\S+", text)
        if body.get("max_tokens") is not None and len(words) > body["max_tokens"]:
            text, finish_reason = "".join(words[: body["max_tokens"]]), "length"
        read = sum(count_tokens(message["content"]) for message in body["messages"])
        written = count_tokens(text)
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        return cls(body["model"], text, finish_reason, usage)

    def _frame(self, kind: str, choices: list[dict], **more: Any) -> dict[str, Any]:
        return {"id": "chatcmpl-0", "object": kind, "created": 0, "model": self.model, "choices": choices, **more}

    def whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason, "logprobs": None}
        return self._frame("chat.completion", [choice], usage=self.usage)

    def chunks(self, with_usage: bool) -> list[dict[str, Any]]:
        pieces = [{"role": "assistant", "content": ""}]
        pieces += [{"content": piece} for piece in re.findall(r"\s*\S+|\s+$", self.text)]
        chunks = [[{"index": 0, "delta": piece, "finish_reason": None}] for piece in pieces]
        chunks.append([{"index": 0, "delta": {}, "finish_reason": self.finish_reason}])
        frames = [self._frame("chat.completion.chunk", choices) for choices in chunks]
        if with_usage:
            frames.append(self._frame("chat.completion.chunk", [], usage=self.usage))
        return frames


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server_state: ChatServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        with self.server_state.lock:
            self.server_state.connections.add(self.connection)

    def finish(self) -> None:
        with self.server_state.lock:
            self.server_state.connections.discard(self.connection)
        with suppress(OSError):  # the client left
            super().finish()

    def log_message(self, *_: object) -> None:
        """Keeps standard error for the tests."""

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client left
            super().handle()

    def do_GET(self) -> None:
        request = self._receive()
        try:
            self._check_key()
            if self.path != "/v1/models":
                raise ApiError(404, f"No such route: GET {self.path}")
            models = [{"id": name, "object": "model", "created": 0, "owned_by": "tests"} for name in self._models]
            self._send(request, 200, {"object": "list", "data": models})
        except ApiError as error:
            self._send(request, error.status, error.body)

    def do_POST(self) -> None:
        request, state = self._receive(), self.server_state
        with state.lock:
            state.concurrency += 1
            state.max_concurrency = max(state.max_concurrency, state.concurrency)
        counted = True
        try:
            fault = state.take_fault(request.query if self._is_chat(request) else "")
            time.sleep(state.latency + (fault.seconds if fault else 0.0))
            if fault is not None and fault.kind == "drop":
                self.close_connection = True
                return
            if fault is not None and isinstance(fault.kind, int):
                body = ApiError(fault.kind, "Injected failure").body if fault.body is None else fault.body
                self._leave()
                counted = False
                self._send(request, fault.kind, body, fault.headers)
                return
            cut = fault is not None and fault.kind == "cut"
            completion = self._complete(request)
            if request.body.get("stream"):
                with_usage = (request.body.get("stream_options") or {}).get("include_usage", False)
                self._stream(request, completion.chunks(with_usage), cut)
            else:
                # Before the client can have the answer, and send its next request.
                self._leave()
                counted = False
                self._send(request, 200, completion.whole(), cut=cut)
        except ApiError as error:
            self._send(request, error.status, error.body)
        finally:
            if counted:
                self._leave()

    def _leave(self) -> None:
        with self.server_state.lock:
            self.server_state.concurrency -= 1

    @property
    def _models(self) -> Mapping[str, Callable]:
        return self.server_state.models

    def _receive(self) -> Request:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = None
        with suppress(ValueError):
            body = json.loads(content) if content else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body, time.monotonic())
        with self.server_state.lock:
            self.server_state.requests.append(request)
        return request

    def _is_chat(self, request: Request) -> bool:
        messages = request.body.get("messages") if isinstance(request.body, dict) else None
        return (
            isinstance(messages, list)
            and bool(messages)
            and all(isinstance(each, dict) and {"role", "content"} <= set(each) for each in messages)
        )

    def _check_key(self) -> None:
        key = self.server_state.api_key
        given = self.headers.get("Authorization")
        if key is not None and given != f"Bearer {key}":
            # Servers do repeat what they were given.
            raise ApiError(401, f"Incorrect API key provided: {given}")

    def _complete(self, request: Request) -> _Completion:
        self._check_key()
        if self.path != "/v1/chat/completions":
            raise ApiError(404, f"No such route: POST {self.path}")
        if not self._is_chat(request):
            raise ApiError(400, "`messages` must be a list of messages with a role and a content")
        model = request.body.get("model")
        if model not in self._models:
            raise ApiError(404, f"The model `{model}` does not exist.")
        return _Completion.of(request.body, self._models[model])

    def _send(
        self, request: Request, status: int, body: Any, headers: Mapping[str, str] | None = None, cut: bool = False
    ) -> None:
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        request.status = status
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if cut:
            self.close_connection = True
            content = content[: len(content) // 2]
        self.wfile.write(content)
        request.complete = not cut

    def _stream(self, request: Request, chunks: list[dict[str, Any]], cut: bool) -> None:
        request.status = 200
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        events = [*(json.dumps(chunk) for chunk in chunks), "[DONE]"]
        if cut:
            self.close_connection = True
            events = events[: len(events) // 2]
        for number, event in enumerate(events):
            if number:
                time.sleep(self.server_state.piece_seconds)
            data = f"data: {event}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if not cut:
            self.wfile.write(b"0\r\n\r\n")
            request.complete = True
