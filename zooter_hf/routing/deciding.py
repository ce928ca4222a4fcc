"""Many queries, one decision each."""

import json
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from zooter_hf.modeling import ZooterRoutingPipeline, unwrap_query
from zooter_hf.routing.decision import Decision
from zooter_hf.routing.policies import QueryFacts, RoutingPolicy, make_policy


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
    policy: RoutingPolicy | Mapping[str, Any] | str | None = None,
    available: Collection[str] | None = None,
    **routing_options: Any,
) -> Iterator[Routed]:
    """Decides about queries as they come, in batches of the pipeline's size.

    Args:
        routing: The pipeline of the router.
        queries: Strings or chats, in a list or a stream.
        router: Name of the router in the decisions; where it was loaded from by default.
        policy: How to choose: a policy, its name, or settings; settings without a name change those of the policy in
            the router's config, which holds by default. See [`make_policy`].
        available: Names of the experts that can be asked at all; all by default.
        **routing_options: Passed on to the pipeline: `batch_size`, `max_query_tokens`.

    Raises:
        ValueError: If the policy does not fit the router, before it runs; if a query is empty (see
            [`ZooterRoutingPipeline`]), or the policy finds no expert for one.
        TypeError: If a query is no text and no chat, or the policy is none.
    """
    model = routing.model
    policy = make_policy(policy, model.config.policy)
    policy.check(model.config.experts)
    return _decide(routing, queries, router, policy, available, routing_options)


def _decide(
    routing: ZooterRoutingPipeline,
    queries: Iterable[Any],
    router: str | None,
    policy: RoutingPolicy,
    available: Collection[str] | None,
    routing_options: dict[str, Any],
) -> Iterator[Routed]:
    model = routing.model
    keys: deque[str] = deque()  # of the queries that were read and not decided about yet

    def remember(query: Any) -> Any:
        keys.append(query_key(query))
        return query

    # A list is checked as a whole before the first forward pass; a stream must stay one.
    inputs = [remember(query) for query in queries] if isinstance(queries, list | tuple) else map(remember, queries)
    for result in routing(inputs, return_truncation=True, **routing_options):
        decision = Decision.from_ranking(
            result["ranking"],
            model.config.experts,
            router=router or model.config.name_or_path or "unsaved router",
            revision=model.revision,
            policy=policy,
            available=available,
            query=QueryFacts(
                tokens=result["query_tokens"],
                distance=result.get("distance"),
                near=tuple(result.get("near", ())),
                key=keys.popleft(),
            ),
        )
        yield Routed(decision, result["query_tokens"], result["read_tokens"])


def query_key(query: Any) -> str:
    """Returns a text that tells a query from others: itself, or of a chat its messages."""
    try:
        query = unwrap_query(query)
    except TypeError:  # the pipeline says it better, with the query's place
        return ""
    return query if isinstance(query, str) else json.dumps(query, sort_keys=True, ensure_ascii=False, default=str)
