"""What an ensemble says to a query, and how that came about."""

from dataclasses import asdict, dataclass, field
from typing import Any

from zooter_hf.experts import Answer, Usage
from zooter_hf.routing import Decision


@dataclass(frozen=True)
class Reply:
    """An answer, with the decision that led to it.

    Args:
        text: The answer; `None` if no expert could give one.
        expert: Name of the expert that gave it: the chosen one, or that which took its place. `None` without a text.
        decision: Which expert was chosen and why, and in `fallbacks` which were to answer and did not.
        usage: What the answer took of that expert.
        seconds_routing: Seconds of the router's forward pass; in a batch, the share of one query.
        seconds_generating: Seconds from the decision to the answer, failed attempts included; in a batch, until the
            batch that it was in was answered.
        query_tokens: Tokens of the query, as the router counts.
        read_tokens: Tokens that the router read of them.
        answers: Where several experts were asked together, what each of them said, by name; `usage` is that of all.
        error: Why there is no text.
    """

    text: str | None
    expert: str | None
    decision: Decision
    usage: Usage = field(default_factory=Usage)
    seconds_routing: float = 0.0
    seconds_generating: float = 0.0
    query_tokens: int | None = None
    read_tokens: int | None = None
    answers: dict[str, Answer] | None = None
    error: str | None = None

    @property
    def price(self) -> float | None:
        """US dollars for the answer, at the prices of the expert's spec; `None` if tokens or prices are not known."""
        return self.usage.cost

    def to_dict(self) -> dict[str, Any]:
        """Returns the reply as JSON values."""
        return asdict(self) | {"decision": self.decision.to_dict(), "price": self.price}


class EnsembleError(RuntimeError):
    """No expert could answer, or a stream broke off.

    Args:
        message: Which experts were asked, and what they said. Nothing secret.
        decision: The decision, with its fallbacks.
        text: What had been streamed before it broke off; empty if nothing had.
    """

    def __init__(self, message: str, decision: Decision, text: str = ""):
        super().__init__(message)
        self.decision = decision
        self.text = text
