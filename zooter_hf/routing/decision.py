"""The decision: what a router chose, what it passed over, and why."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from zooter_hf.modeling import ExpertSpec
from zooter_hf.routing.policies import QueryFacts, RoutingPolicy, make_policy


@dataclass(frozen=True)
class RankedExpert:
    """One expert's place in a ranking.

    Args:
        name: The expert's name.
        probability: The router's probability, after calibration.
        reward: What its answer should be worth, if the router predicts rewards.
        input_price: US dollars per million input tokens, if known.
        output_price: US dollars per million output tokens, if known.
        price: Estimated US dollars for this query and its answer, if prices are known.
        out: Why it may not answer this query; `None` if it may.
    """

    name: str
    probability: float
    reward: float | None = None
    input_price: float | None = None
    output_price: float | None = None
    price: float | None = None
    out: str | None = None


@dataclass(frozen=True)
class Fallback:
    """An expert that was to answer, and did not.

    Args:
        expert: Its name.
        reason: What went wrong, or why it was not asked.
        asked: Whether it was asked at all.
    """

    expert: str
    reason: str
    asked: bool = True


@dataclass(frozen=True)
class Decision:
    """A routing decision, with nothing hidden.

    Args:
        expert: Name of the chosen expert.
        ranking: All experts, the most probable first.
        margin: Probability of the chosen expert minus that of the most probable other; negative if the policy chose
            one that is not the most probable, 1 for a router of one expert.
        policy: Name of the policy that chose.
        reason: The reason, for a person to read.
        router: Name or folder of the router.
        revision: Revision of the router, if it came from the Hub.
        alternatives: The experts that would take its place, best first.
        members: The experts that are asked together, for a policy that chooses a set; the chosen one first. Empty for
            a policy that chooses one.
        aggregation: How one answer is made of those of the members.
        compare: What of their answers is compared in a vote.
        weights: How much the answer of each member counts in a vote; `None` if all count the same.
        abstained: Whether the policy found that no expert can be relied on.
        refused: Whether nobody is to answer for that reason; `expert` is then the one that seemed best.
        distance: How far the query is from the router's training queries, from 0 to 2, if it knows them.
        near: The tags of the training queries nearest to it.
        fallbacks: The experts that were to answer and did not, in their order; empty for a decision that has not been
            carried out.
    """

    expert: str
    ranking: tuple[RankedExpert, ...]
    margin: float
    policy: str
    reason: str
    router: str
    revision: str | None = None
    alternatives: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    aggregation: str | None = None
    compare: str | None = None
    weights: Mapping[str, float] | None = None
    abstained: bool = False
    refused: bool = False
    distance: float | None = None
    near: tuple[str, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()

    @classmethod
    def from_ranking(
        cls,
        ranking: Sequence[dict[str, Any]],
        experts: Sequence[ExpertSpec],
        *,
        router: str,
        revision: str | None = None,
        policy: RoutingPolicy | Mapping[str, Any] | str | None = None,
        available: Collection[str] | None = None,
        query: QueryFacts | None = None,
    ) -> "Decision":
        """Chooses an expert of a ranking.

        Args:
            ranking: What the routing pipeline returns for one query, with all experts.
            experts: The experts of the router, for their prices.
            router: Name or folder of the router.
            revision: Revision of the router, if it came from the Hub.
            policy: How to choose; the most probable, as the paper does, by default. See [`make_policy`].
            available: Names of those that can be asked at all; all by default.
            query: What is known of the query.

        Raises:
            ValueError: If the ranking is empty or names an expert that is not among `experts`, none is available, or
                the policy finds none.
        """
        if not ranking:
            raise ValueError("A decision needs a ranking of at least one expert, got an empty one.")
        specs = {expert.name: expert for expert in experts}
        if unknown := [entry["label"] for entry in ranking if entry["label"] not in specs]:
            raise ValueError(f"The ranking names {unknown}, which are not among the experts {sorted(specs)}.")
        policy, query = make_policy(policy), query or QueryFacts()
        ranked = tuple(
            RankedExpert(
                name=entry["label"],
                probability=entry["score"],
                reward=entry.get("reward"),
                input_price=specs[entry["label"]].input_price,
                output_price=specs[entry["label"]].output_price,
                price=estimate_price(specs[entry["label"]], query.tokens, policy.answer_length(entry["label"])),
                out="cannot answer here"
                if available is not None and entry["label"] not in available
                else policy.rule_out(specs[entry["label"]], query),
            )
            for entry in ranking
        )
        candidates = tuple(expert for expert in ranked if available is None or expert.name in available)
        if not candidates:
            raise ValueError(f"None of the experts {sorted(specs)} of the router is available.")
        choice = policy.choose(candidates, query)
        out = len(ranked) - len(candidates)
        return cls(
            expert=choice.order[0],
            ranking=ranked,
            margin=_margin(ranked, choice.order[0]),
            policy=policy.name,
            reason=choice.reason + (f"; {out} of the router's {len(ranked)} cannot answer here" if out else ""),
            router=router,
            revision=revision,
            alternatives=choice.order[1:],
            members=choice.members,
            aggregation=choice.aggregation,
            compare=choice.compare,
            weights=choice.weights,
            abstained=choice.abstained,
            refused=choice.refused,
            distance=query.distance,
            near=query.near,
        )

    @property
    def asks_several(self) -> bool:
        """Whether several experts answer together, of which one answer is made."""
        return len(self.members) > 1 and self.aggregation != "first"

    def choosing(self, expert: str, reason: str, *, policy: str | None = None) -> "Decision":
        """Returns the decision with another expert, which changes places with the chosen one.

        Args:
            expert: Its name.
            reason: Why it is this one.
            policy: What chose it; the policy of this decision by default.
        """
        others = tuple(name for name in (self.expert, *self.alternatives) if name != expert)
        return replace(
            self,
            expert=expert,
            alternatives=others,
            margin=_margin(self.ranking, expert),
            reason=reason,
            policy=policy or self.policy,
            members=(),
            aggregation=None,
            compare=None,
            weights=None,
            abstained=False,
            refused=False,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the decision as JSON values."""
        return asdict(self) | {
            "ranking": [asdict(expert) for expert in self.ranking],
            "alternatives": list(self.alternatives),
            "members": list(self.members),
            "near": list(self.near),
            "fallbacks": [asdict(fallback) for fallback in self.fallbacks],
        }


def estimate_price(expert: ExpertSpec, query_tokens: int | None, answer_tokens: int | None) -> float | None:
    """Estimates what one query costs, in US dollars; `None` if a price or a length is not known.

    Token counts are those of the router's tokenizer, which differs from the expert's own: an estimate.
    """
    if None in (expert.input_price, expert.output_price, query_tokens, answer_tokens):
        return None
    return (expert.input_price * query_tokens + expert.output_price * answer_tokens) / 1_000_000


def _margin(ranking: Sequence[RankedExpert], expert: str) -> float:
    """An expert that the router does not know has a probability of 0."""
    own = next((each.probability for each in ranking if each.name == expert), 0.0)
    return own - max((each.probability for each in ranking if each.name != expert), default=0.0)
