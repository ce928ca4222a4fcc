"""Many queries, one decision each."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from zooter_hf.modeling import ZooterRoutingPipeline
from zooter_hf.routing.decision import Decision
from zooter_hf.routing.policy import RoutingPolicy


@dataclass(frozen=True)
class Routed:
    """A decision, and what it was made of.

    Args:
        decision: The decision.
        query_tokens: Tokens of the query.
        read_tokens: Tokens that the router read of them.
    """

    decision: Decision
    query_tokens: int
    read_tokens: int

    @property
    def truncated(self) -> bool:
        """Whether a part of the query was not read."""
        return self.read_tokens < self.query_tokens


def decide(
    routing: ZooterRoutingPipeline,
    queries: Iterable[Any],
    *,
    router: str | None = None,
    policy: RoutingPolicy | str | None = None,
    available: Collection[str] | None = None,
    answer_tokens: int | None = None,
    **routing_options: Any,
) -> Iterator[Routed]:
    """Decides about queries as they come, in batches of the pipeline's size.

    Args:
        routing: The pipeline of the router.
        queries: Strings or chats, in a list or a stream.
        router: Name of the router in the decisions; where it was loaded from by default.
        policy: How to choose; see [`Decision.from_ranking`].
        available: Names of the experts that may be chosen; all by default.
        answer_tokens: Expected length of an answer, to estimate prices.
        **routing_options: Passed on to the pipeline: `batch_size`, `max_query_tokens`.

    Raises:
        ValueError: If a query is empty; see [`ZooterRoutingPipeline`].
        TypeError: If a query is no text and no chat.
    """
    model = routing.model
    for result in routing(queries, return_truncation=True, **routing_options):
        decision = Decision.from_ranking(
            result["ranking"],
            model.config.experts,
            router=router or model.config.name_or_path or "unsaved router",
            revision=model.revision,
            policy=policy,
            available=available,
            query_tokens=result["query_tokens"],
            answer_tokens=answer_tokens,
        )
        yield Routed(decision, result["query_tokens"], result["read_tokens"])
