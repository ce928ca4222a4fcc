"""Budgets are met on the queries they were fitted to, and no weight is larger than it must be."""

import pytest

from zooter_hf import ExpertSpec, RewardTable, ZooterRoutingPipeline, fit_cost_weight, fit_threshold
from zooter_hf.calibration import mean_costs
from zooter_hf.routing import CostAwarePolicy, decide


QUERIES = [f"Why is the {colour} {thing} so {kind}?" for colour in "abcde" for thing in "fghij" for kind in "klmn"]
PRICED = [
    ExpertSpec("cheap", input_price=1.0, output_price=1.0),
    ExpertSpec("fair", input_price=5.0, output_price=5.0),
    ExpertSpec("dear", input_price=20.0, output_price=20.0),
]


@pytest.fixture(scope="module")
def router(make_router):
    """A router that likes every expert about as often."""
    from zooter_hf.routing import predict

    router = make_router(experts=PRICED)
    router.classifier.out_proj.bias.data -= predict(router, QUERIES).probabilities.log().mean(0)
    return router


def spent(router, policy):
    prices, names = [], []
    for each in decide(ZooterRoutingPipeline(model=router), QUERIES, policy=policy):
        names.append(each.decision.expert)
        prices.append({expert.name: policy.price(expert) for expert in each.decision.ranking}[names[-1]])
    return sum(prices) / len(prices), names


def test_a_mean_price_is_met(router):
    free, _ = spent(router, CostAwarePolicy())
    for budget in (0.9 * free, 0.5 * free, 0.3 * free):
        policy = fit_cost_weight(router, QUERIES, mean_price=budget)
        assert spent(router, policy)[0] <= budget
        less = policy.changed({"cost_weight": policy.cost_weight * 0.999})
        assert spent(router, less)[0] > budget, "the weight is the least that meets it"
    assert fit_cost_weight(router, QUERIES, mean_price=2 * free).cost_weight == 0


def test_a_share_of_calls_is_met(router):
    policy = fit_cost_weight(router, QUERIES, max_share=0.1)
    names = spent(router, policy)[1]
    assert 0 < names.count("dear") <= 0.1 * len(QUERIES)
    both = fit_cost_weight(router, QUERIES, max_share=0.25, expensive=["dear", "fair"])
    names = spent(router, both)[1]
    assert names.count("dear") + names.count("fair") <= 0.25 * len(QUERIES)


def test_other_settings_are_kept(router):
    policy = fit_cost_weight(router, QUERIES, mean_price=0.001, policy=CostAwarePolicy(exclude=("dear",)))
    assert policy.exclude == ("dear",) and spent(router, policy)[0] <= 0.001


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"mean_price": 1e-9}, "already take"),
        ({}, "one budget"),
        ({"mean_price": 1.0, "max_share": 0.1}, "one budget"),
        ({"max_share": 2}, "between 0 and 1"),
        ({"mean_price": -1.0}, "at least 0"),
        ({"max_share": 0.1, "expensive": ["giant"]}, "giant"),
        ({"max_share": 0.1, "policy": CostAwarePolicy(tolerance=0.1)}, "tolerance"),
        ({"max_share": 0.1, "queries": []}, "no queries"),
    ],
)
def test_budgets_that_cannot_be(router, budget, message):
    with pytest.raises(ValueError, match=message):
        fit_cost_weight(router, **{"queries": QUERIES, **budget})


def test_prices_are_needed(make_router):
    with pytest.raises(ValueError, match="prices of all experts"):
        fit_cost_weight(make_router(), QUERIES, mean_price=1.0)


def test_costs_of_a_table():
    rows = [
        {"query": "Why?", "rewards": {"a": 1, "b": 0}, "costs": {"a": 0.1, "b": None}},
        {"query": "Who?", "rewards": {"a": 1, "b": 0}, "costs": {"a": 0.3, "b": 0.5}},
    ]
    assert mean_costs(RewardTable.from_rows(rows)) == pytest.approx({"a": 0.2, "b": 0.5})
    with pytest.raises(ValueError, match=r"\['b'\]"):
        mean_costs(RewardTable.from_rows(rows[:1]))
    with pytest.raises(ValueError, match="no costs"):
        mean_costs(RewardTable.from_rows([{"query": "Why?", "rewards": {"a": 1, "b": 0}}]))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_share_of_strong_calls_is_met(router, share):
    policy = fit_threshold(router, QUERIES, "dear", "cheap", strong_share=share)
    chosen = [each.decision.expert for each in decide(ZooterRoutingPipeline(model=router), QUERIES, policy=policy)]
    assert chosen.count("dear") == share * len(QUERIES)
    assert set(chosen) <= {"dear", "cheap"}


def test_mistakes_with_thresholds(router):
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit_threshold(router, QUERIES, "dear", "cheap", strong_share=1.5)
    with pytest.raises(ValueError, match="giant"):
        fit_threshold(router, QUERIES, "giant", "cheap", strong_share=0.5)
