"""Sets that are calibrated on rewards keep their promise through the policy."""

import pytest
import torch

from zooter_hf import ZooterRoutingPipeline, calibrate_sets
from zooter_hf.routing import decide


@pytest.mark.parametrize("kind", ["complement", "gap"])
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
