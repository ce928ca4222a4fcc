"""The decision: what a router chose, what it passed over, and why."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zooter_hf.modeling import ExpertSpec


@dataclass(frozen=True)
class RankedExpert:
    """One expert's place in a ranking.

    Args:
        name: The expert's name.
        probability: The router's probability, after calibration.
        input_price: US dollars per million input tokens, if known.
        output_price: US dollars per million output tokens, if known.
        price: Estimated US dollars for this query and its answer, if prices are known.
    """

    name: str
    probability: float
    input_price: float | None = None
    output_price: float | None = None
    price: float | None = None


@dataclass(frozen=True)
class Decision:
    """A routing decision, with nothing hidden.

    Args:
        expert: Name of the chosen expert.
        ranking: All experts, best first.
        margin: Probability of the chosen expert minus that of the runner-up; 1 for a router of one expert.
        policy: Name of the policy that chose.
        reason: The reason, for a person to read.
        router: Name or folder of the router.
        revision: Revision of the router, if it came from the Hub.
    """

    expert: str
    ranking: tuple[RankedExpert, ...]
    margin: float
    policy: str
    reason: str
    router: str
    revision: str | None = None

    @classmethod
    def from_ranking(
        cls,
        ranking: Sequence[dict[str, Any]],
        experts: Sequence[ExpertSpec],
        *,
        router: str,
        revision: str | None = None,
        query_tokens: int | None = None,
        answer_tokens: int | None = None,
    ) -> "Decision":
        """Takes the most probable expert, as the paper does.

        Args:
            ranking: What the routing pipeline returns for one query, with all experts.
            experts: The experts of the router, for their prices.
            router: Name or folder of the router.
            revision: Revision of the router, if it came from the Hub.
            query_tokens: Length of the query, to estimate its price.
            answer_tokens: Expected length of the answer, to estimate its price.

        Raises:
            ValueError: If the ranking is empty or names an expert that is not among `experts`.
        """
        if not ranking:
            raise ValueError("A decision needs a ranking of at least one expert, got an empty one.")
        specs = {expert.name: expert for expert in experts}
        if unknown := [entry["label"] for entry in ranking if entry["label"] not in specs]:
            raise ValueError(f"The ranking names {unknown}, which are not among the experts {sorted(specs)}.")
        ranked = tuple(
            RankedExpert(
                name=entry["label"],
                probability=entry["score"],
                input_price=specs[entry["label"]].input_price,
                output_price=specs[entry["label"]].output_price,
                price=estimate_price(specs[entry["label"]], query_tokens, answer_tokens),
            )
            for entry in ranking
        )
        best = ranked[0]
        margin = best.probability - (ranked[1].probability if len(ranked) > 1 else 0.0)
        return cls(
            expert=best.name,
            ranking=ranked,
            margin=margin,
            policy="argmax",
            reason=f"most probable of {len(ranked)} experts",
            router=router,
            revision=revision,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the decision as JSON values."""
        return asdict(self) | {"ranking": [asdict(expert) for expert in self.ranking]}


def estimate_price(expert: ExpertSpec, query_tokens: int | None, answer_tokens: int | None) -> float | None:
    """Estimates what one query costs, in US dollars; `None` if a price or a length is not known.

    Token counts are those of the router's tokenizer, which differs from the expert's own: an estimate.
    """
    if None in (expert.input_price, expert.output_price, query_tokens, answer_tokens):
        return None
    return (expert.input_price * query_tokens + expert.output_price * answer_tokens) / 1_000_000
