"""Policies that meet a budget, from the queries that are to be expected."""

from collections.abc import Collection, Iterable
from typing import Any

import torch

from zooter_hf.modeling import ZooterForRouting, ZooterRoutingPipeline
from zooter_hf.rewards import RewardTable
from zooter_hf.routing import CostAwarePolicy, Decision, ThresholdPolicy, decide


_STEPS = 60  # of halving, by which a weight is found to the precision of its number


def mean_costs(table: RewardTable) -> dict[str, float]:
    """Averages what answers cost, by expert, in US dollars a query: `costs` for a [`CostAwarePolicy`].

    Raises:
        ValueError: If the table has no costs, or none of an expert.
    """
    if table.costs is None:
        raise ValueError("The table has no costs. Prices of the experts' specs are used without.")
    means = dict(zip(table.expert_names, table.costs.nanmean(dim=0).tolist(), strict=True))
    if missing := [name for name, cost in means.items() if cost != cost]:
        raise ValueError(f"The table has no costs of {missing}. Give prices in their specs, or leave them out.")
    return means


def fit_cost_weight(
    router: ZooterForRouting,
    queries: Iterable[Any],
    *,
    mean_price: float | None = None,
    max_share: float | None = None,
    expensive: Collection[str] | None = None,
    policy: CostAwarePolicy | None = None,
) -> CostAwarePolicy:
    """Finds the least cost weight with which a budget is met on queries like those to come.

    Args:
        router: The router, with its tokenizer. It does not change.
        queries: Strings or chats; a [`~zooter_hf.RewardTable`]'s `queries` will do.
        mean_price: US dollars that a query may cost on average.
        max_share: Instead: the share of the queries, from 0 to 1, that `expensive` experts may answer.
        expensive: Names of those; the dearest expert by default.
        policy: The other settings, such as `costs` and `exclude`.

    Returns:
        [`CostAwarePolicy`]: The policy, with its `cost_weight`.

    Raises:
        ValueError: If not just one budget is given, it cannot be met by any weight, or prices are missing.
    """
    policy = CostAwarePolicy() if policy is None else policy
    if (mean_price is None) == (max_share is None):
        raise ValueError("Give one budget: either `mean_price`, in US dollars a query, or `max_share`.")
    if max_share is not None and not 0 <= max_share <= 1:
        raise ValueError(f"`max_share` must lie between 0 and 1, got {max_share}.")
    if mean_price is not None and not mean_price >= 0:
        raise ValueError(f"`mean_price` must be US dollars of at least 0, got {mean_price}.")
    if policy.tolerance is not None:
        raise ValueError("A budget is met by a `cost_weight`, and the policy has a `tolerance`. Leave it out.")
    decisions = _decide(router, queries, policy)
    names = [spec.name for spec in router.config.experts]
    worth = torch.full((len(decisions), len(names)), -torch.inf, dtype=torch.float64)
    prices = torch.zeros_like(worth)
    for row, decision in enumerate(decisions):
        for expert in decision.ranking:
            if expert.out is None:
                place = names.index(expert.name)
                worth[row, place], prices[row, place] = policy.worth(expert), policy.price(expert)
    dear = _dearest(prices, worth, names, expensive)

    def spent(weight: float) -> float:
        chosen = (worth - weight * prices).argmax(dim=1, keepdim=True)
        used = prices if mean_price is not None else dear.double().expand_as(prices)
        return used.gather(1, chosen).mean().item()

    limit = mean_price if mean_price is not None else max_share
    if spent(0.0) <= limit:
        return policy.changed({"cost_weight": 0.0})
    # With this much weight the smallest difference in price outweighs any in quality.
    differences = (prices.unsqueeze(2) - prices.unsqueeze(1)).abs()
    high = 1e3 * max(1.0, (worth[worth > -torch.inf].max() - worth[worth > -torch.inf].min()).item())
    high /= differences[differences > 0].min().item() if (differences > 0).any() else 1.0
    if (least := spent(high)) > limit:
        what = f"${least:.3g} a query" if mean_price is not None else f"a share of {least:.1%}"
        raise ValueError(
            f"No weight meets the budget: the cheapest experts that qualify already take {what}. Raise the budget to "
            "that, or let cheaper experts answer."
        )
    low = high / 2**_STEPS
    if spent(low) <= limit:
        high = low
    else:
        for _ in range(_STEPS):  # weights differ by orders of magnitude, so that their geometric mean is the middle
            middle = (low * high) ** 0.5
            low, high = (low, middle) if spent(middle) <= limit else (middle, high)
    # A hair more than where two experts are equal, so that rounding does not choose the dearer one.
    return policy.changed({"cost_weight": high * (1 + 1e-9)})


def fit_threshold(
    router: ZooterForRouting, queries: Iterable[Any], strong: str, weak: str, *, strong_share: float, **settings: Any
) -> ThresholdPolicy:
    """Finds the threshold with which the strong expert answers a wanted share of queries like those to come.

    Args:
        router: The router, with its tokenizer. It does not change.
        queries: Strings or chats.
        strong: The expert for hard queries.
        weak: The expert for all others.
        strong_share: Share of the queries, from 0 to 1, that `strong` is to answer.
        settings: Further settings of [`ThresholdPolicy`].

    Raises:
        ValueError: If the share is out of its range, or the router has no such experts.
    """
    if not 0 <= strong_share <= 1:
        raise ValueError(f"`strong_share` must lie between 0 and 1, got {strong_share}.")
    policy = ThresholdPolicy(strong=strong, weak=weak, **settings)
    decisions = _decide(router, queries, policy)
    rates = sorted(
        (
            rate
            for decision in decisions
            if (rate := policy.win_rate([expert for expert in decision.ranking if expert.out is None])) is not None
        ),
        reverse=True,
    )
    if not rates:
        raise ValueError(f"There is no query that both {strong!r} and {weak!r} may answer.")
    count = round(strong_share * len(rates))
    # Between the last that the strong one gets and the first that it does not, so that rounding moves none.
    above = rates[count - 1] if count else 1.0
    below = rates[count] if count < len(rates) else 0.0
    return policy.changed({"threshold": (above + below) / 2})


def _decide(router: ZooterForRouting, queries: Iterable[Any], policy: Any) -> list[Decision]:
    queries = list(queries)
    if not queries:
        raise ValueError("There are no queries.")
    routing = ZooterRoutingPipeline(model=router, tokenizer=router.tokenizer, device=router.device)
    return [each.decision for each in decide(routing, queries, policy=policy)]


def _dearest(
    prices: torch.Tensor, worth: torch.Tensor, names: list[str], expensive: Collection[str] | None
) -> torch.Tensor:
    if expensive is None:
        known = prices.masked_fill(worth == -torch.inf, torch.nan).nanmean(dim=0).nan_to_num(-torch.inf)
        return torch.arange(len(names)) == known.argmax()
    if unknown := sorted(set(expensive) - set(names)):
        raise ValueError(f"`expensive` names {unknown}, which are not among the experts {names}.")
    return torch.tensor([name in expensive for name in names])
