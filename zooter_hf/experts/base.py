"""What every expert is: something that answers queries, and says what that took."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zooter_hf.modeling import ExpertSpec


Message = Mapping[str, Any]
Query = str | Sequence[Message]


@dataclass(frozen=True)
class GenerationSettings:
    """How experts generate; the same for all of them, so that their answers can be compared.

    Args:
        max_new_tokens: The most tokens of an answer.
        temperature: 0 for the most likely answer, otherwise sampled.
        top_p: Nucleus of the sampling; counts with a temperature only.
        seed: Of the sampling.
        stop: Texts that end an answer, and are not part of it.
        system_prompt: The system message of queries that have none.

    Raises:
        ValueError: If a value is out of its range.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    system_prompt: str | None = None

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise ValueError(f"`max_new_tokens` must be positive, got {self.max_new_tokens}.")
        if not self.temperature >= 0:
            raise ValueError(f"`temperature` must not be negative, got {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` must lie between 0 and 1, got {self.top_p}.")
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise ValueError(f"`stop` must be a sequence of strings that are not empty, got {self.stop!r}.")
        object.__setattr__(self, "stop", tuple(self.stop))

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as JSON values."""
        return {**asdict(self), "stop": list(self.stop)}


@dataclass(frozen=True)
class Usage:
    """What an answer took.

    Args:
        input_tokens: Tokens that were read; `None` if the back end does not say.
        output_tokens: Tokens that were written; `None` if the back end does not say.
        seconds: From the request to its end. In a batch, the share of one answer.
        cost: US dollars at the prices of the spec; `None` if tokens or prices are not known.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float | None = None
    cost: float | None = None

    @classmethod
    def of(
        cls, spec: ExpertSpec, input_tokens: int | None, output_tokens: int | None, seconds: float | None
    ) -> "Usage":
        """Works out the cost at the prices of a spec, which are in US dollars per million tokens."""
        known = None not in (input_tokens, output_tokens, spec.input_price, spec.output_price)
        cost = (input_tokens * spec.input_price + output_tokens * spec.output_price) / 1e6 if known else None
        return cls(input_tokens, output_tokens, seconds, cost)


@dataclass(frozen=True)
class Answer:
    """What an expert said to a query, or why it did not.

    Args:
        text: The answer; `None` if there is none.
        usage: What it took.
        error: Why there is no answer, without anything secret.
        expert_failed: Of an error: whether the expert is to blame (it broke, it was too slow), rather than the query
            (too long, refused). Other queries can be expected to fail as well, and this one may be sent again.
    """

    text: str | None
    usage: Usage = Usage()
    error: str | None = None
    expert_failed: bool = False

    def __post_init__(self):
        if (self.text is None) == (self.error is None):
            raise ValueError("An answer has either a text or an error.")


@dataclass(frozen=True)
class Capabilities:
    """What an expert can do.

    Args:
        chat: Whether chats are rendered with a chat template; otherwise their contents are joined.
        batches: Whether several queries are answered faster together than one by one.
        streaming: Whether an answer can be had in pieces.
        local: Whether the model runs in this process.
        context_length: The most tokens, query and answer together; `None` if not known.
    """

    chat: bool
    batches: bool
    streaming: bool
    local: bool
    context_length: int | None = None


class ExpertError(RuntimeError):
    """An expert that cannot answer: names it, and says what to do. Holds nothing secret.

    Args:
        message: What to say.
        expert_failed: As in [`Answer`]; `False` if only this query cannot be answered.
    """

    def __init__(self, message: str, *, expert_failed: bool = True):
        super().__init__(message)
        self.expert_failed = expert_failed


class Loadable:
    """Holds a model or a connection from its first use, or `load`, to `close`.

    A context manager: leaving it closes. What is closed may be used again, and loads again.
    """

    def load(self):
        """Makes ready; nothing by default."""

    def close(self):
        """Frees what is held; nothing by default."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# Of a spec, what answers do not depend on: prices may change, and an expert be renamed, without new answers.
_NOT_IN_ANSWERS = ("name", "input_price", "output_price", "metadata", "options")
# Of its options, what changes how answers are come by, and not what they say.
_NOT_IN_ANSWERS_OPTIONS = (
    "api_key_env",
    "concurrency",
    "timeout",
    "retries",
    "max_retry_after",
    "device_map",
    "batch_size",
)


class Expert(Loadable, ABC):
    """Answers queries. Nothing is loaded and no server is called before the first answer, or `load`.

    Args:
        spec: What the expert is.

    Raises:
        ValueError: If the spec lacks a field that the back end needs, or has one that it does not know.
    """

    def __init__(self, spec: ExpertSpec):
        self.spec = spec

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers depend on, as JSON values: experts of the same identity give the same answers."""
        identity = {key: value for key, value in self.spec.to_dict().items() if key not in _NOT_IN_ANSWERS}
        if options := {k: v for k, v in self.spec.options.items() if k not in _NOT_IN_ANSWERS_OPTIONS}:
            identity["options"] = options
        return identity if self.spec.model is not None else {"name": self.spec.name, **identity}

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What the expert can do; may load the model."""

    @property
    def memory_key(self) -> Hashable | None:
        """What it holds in memory once loaded: experts of the same key hold it together. `None` for nothing.

        Raises:
            ExpertError: If what it needs is not there.
        """
        return ("expert", id(self))

    @property
    def memory_bytes(self) -> int | None:
        """The memory of what it holds, with all who hold it too; an estimate before it is loaded, if there is one."""
        return None

    @abstractmethod
    def answer(self, queries: Sequence[Query], settings: GenerationSettings | None = None) -> list[Answer]:
        """Answers queries, in their order.

        A query that fails has an answer with an error; the others are answered.

        Args:
            queries: Strings or chats.
            settings: How to generate.

        Raises:
            ExpertError: If no query at all can be answered (no such model, wrong key, no server).
        """

    @abstractmethod
    def stream(self, query: Query, settings: GenerationSettings | None = None) -> Iterator[str | Usage]:
        """Yields an answer in pieces as they come, and at last its usage.

        Raises:
            ExpertError: If the query cannot be answered.
        """


def to_messages(query: Query, settings: GenerationSettings | None = None) -> list[dict[str, Any]]:
    """Returns a query as chat messages, with the system prompt of the settings if it has none of its own."""
    messages = [{"role": "user", "content": query}] if isinstance(query, str) else [dict(each) for each in query]
    if settings is not None and settings.system_prompt and all(each["role"] != "system" for each in messages):
        messages.insert(0, {"role": "system", "content": settings.system_prompt})
    return messages
