"""Sets that are calibrated on rewards keep their promise through the policy."""

import pytest
import torch

from tests.calibration.conftest import word_of
from zooter_hf import RewardTable, ZooterRoutingPipeline, calibrate_sets
from zooter_hf.routing import decide, predict


@pytest.mark.parametrize("kind", ["complement", "gap", "gain"])
@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_the_promise_is_kept_on_other_queries(make_world, kind, alpha):
    world = make_world(queries=1200)
    table, rest = world.table.split(0.5, seed=0)
    policy = calibrate_sets(world.router, table, alpha=alpha, kind=kind, aggregation="majority")
    assert (policy.alpha, policy.kind, policy.aggregation) == (alpha, kind, "majority")
    decisions = [
        each.decision for each in decide(ZooterRoutingPipeline(model=world.router), list(rest.queries), policy=policy)
    ]
    names = world.router.expert_names
    missed = 0
    for decision, rewards in zip(decisions, rest.rewards, strict=True):
        good = {name for name, reward in zip(names, rewards.tolist(), strict=True) if reward > 0.5}
        missed += not good & set(decision.members)
        assert good, "there is one for every query here"
    # Queries and their tiny embeddings tell little of the rewards: sets are large, and the risk still what was asked.
    assert missed / len(rest) == pytest.approx(alpha, abs=0.06)


def test_the_risk_on_the_calibration_itself_is_exact(make_world):
    """With k = ceil((n + 1)(1 - alpha)), just n - k of the calibration queries may be missed."""
    world = make_world(queries=99)
    policy = calibrate_sets(world.router, world.table, alpha=0.2)
    routing = ZooterRoutingPipeline(model=world.router)
    missed = 0
    for each, rewards in zip(
        decide(routing, list(world.table.queries), policy=policy), world.table.rewards, strict=True
    ):
        best = world.router.expert_names[int(rewards.argmax())]
        missed += best not in each.decision.members
    assert missed == 99 - 80, "the noise that breaks ties is that of the calibration"


def test_a_promise_for_every_kind(make_world):
    """Of one tag the router knows nothing, of the other everything; together the promise is kept on average alone."""
    router = make_world(queries=10).router
    texts = {"hard": "Write a function that sorts {}.", "easy": "Who wrote this novel, {}?"}
    tags = ["hard" if row % 2 else "easy" for row in range(800)]
    queries = [texts[tag].format(word_of(row)) for row, tag in enumerate(tags)]
    predictions = predict(router, queries)
    best = predictions.probabilities.argmax(1)
    torch.manual_seed(2)
    best = torch.where(torch.tensor([tag == "hard" for tag in tags]), torch.randint(3, (800,)), best)
    names = router.expert_names
    table = RewardTable.from_rows(
        {"query": query, "rewards": {name: float(name == names[index]) for name in names}, "tags": [tag]}
        for query, tag, index in zip(queries, tags, best.tolist(), strict=True)
    )
    # Every query has a centroid of its own, so that its kind is known.
    router.config.centroids = [{"tags": [tag], "queries": 1} for tag in tags]
    router.register_buffer("centroids", predictions.embeddings)
    settings = {"alpha": 0.2, "kind": "complement"}
    together, by_tag = (calibrate_sets(router, table, by_tag=each, **settings) for each in (False, True))
    assert set(by_tag.group_thresholds) == {"easy", "hard"}
    assert by_tag.group_thresholds["easy"] < by_tag.group_thresholds["hard"]

    def risk(policy, tag):
        rows = [row for row, of_query in enumerate(tags) if of_query == tag]
        decided = decide(ZooterRoutingPipeline(model=router), [queries[row] for row in rows], policy=policy)
        good = [names[best[row]] for row in rows]
        return sum(name not in each.decision.members for name, each in zip(good, decided, strict=True)) / len(rows)

    assert risk(by_tag, "hard") <= 0.21 and risk(by_tag, "easy") <= 0.21
    assert risk(together, "hard") > 0.25, "on average over both it is still kept"
    router.config.centroids = None
    with pytest.raises(ValueError, match="store_centroids"):
        calibrate_sets(router, table, alpha=0.2, by_tag=True)


def test_too_few_queries(make_world):
    world = make_world(queries=18)
    with pytest.raises(ValueError, match="18.*0.05.*19"):
        calibrate_sets(world.router, world.table, alpha=0.05)
    with pytest.raises(ValueError, match="alpha"):
        calibrate_sets(world.router, world.table, alpha=1.5)
    with pytest.raises(ValueError, match="abstain"):
        calibrate_sets(world.router, world.table, alpha=0.2, abstain="never")


def test_predicted_rewards_are_what_counts_where_there_are_any(make_world):
    world = make_world(queries=40)
    world.router.add_reward_head()
    torch.nn.init.zeros_(world.router.reward_head.out_proj.weight)
    world.router.reward_head.out_proj.bias.data = torch.tensor([0.9, 0.5, 7.0])
    policy = calibrate_sets(world.router, world.table, alpha=0.5)
    (routed,) = decide(ZooterRoutingPipeline(model=world.router), ["Why?"], policy=policy)
    assert routed.decision.members[0] == world.router.expert_names[2]
