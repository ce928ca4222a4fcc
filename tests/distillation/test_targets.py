"""Targets against the formulas of the paper, worked row by row."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zooter_hf.distillation import soft_targets


NAN = float("nan")
AVERAGES = st.sampled_from(["probabilities", "rewards"])


def softmax(row, tau):
    """Softmax over the known rewards of one row."""
    weights = [0.0 if math.isnan(r) else math.exp(r / tau) for r in row]
    total = sum(weights)
    return [w / total if total else 0.0 for w in weights]


def reference(rewards, tags, tau, beta, average):
    """Plain Python: `q_i = beta p_i + (1 - beta) mean_t p_t`, or the same on rewards before the softmax."""
    values = [softmax(row, tau) for row in rewards] if average == "probabilities" else rewards
    experts = range(len(rewards[0]))

    def tag_mean(tag, j):
        known = [values[k][j] for k in range(len(rewards)) if tag in tags[k] and not math.isnan(rewards[k][j])]
        return sum(known) / len(known) if known else 0.0

    targets = []
    for i, row in enumerate(rewards):
        own = sorted(set(tags[i]))
        mixed = []
        for j in experts:
            if math.isnan(row[j]):
                mixed.append(NAN)
            elif own:
                mixed.append(beta * values[i][j] + (1 - beta) * sum(tag_mean(t, j) for t in own) / len(own))
            else:
                mixed.append(values[i][j])
        if average == "rewards":
            targets.append(softmax(mixed, tau))
        else:
            known = [0.0 if math.isnan(m) else m for m in mixed]
            targets.append([m / sum(known) if sum(known) else 0.0 for m in known])
    return targets


@st.composite
def tables(draw):
    queries, experts = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    reward = st.one_of(st.floats(-3, 3), st.just(NAN))
    rewards = [[draw(reward) for _ in range(experts)] for _ in range(queries)]
    tags = [draw(st.lists(st.sampled_from("abc"), max_size=3)) for _ in range(queries)]
    return rewards, tags


@settings(deadline=None, max_examples=200)
@given(
    tables(),
    st.sampled_from([0.3, 1.0]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from(["probabilities", "rewards"]),
)
def test_targets_equal_the_formula(table, tau, beta, average):
    rewards, tags = table
    targets = soft_targets(torch.tensor(rewards), tags, tau=tau, beta=beta, average=average)
    expected = torch.tensor(reference(rewards, tags, tau, beta, average))
    torch.testing.assert_close(targets, expected, atol=1e-5, rtol=1e-4)


@settings(deadline=None, max_examples=100)
@given(tables(), AVERAGES)
def test_rows_are_distributions_over_the_known_experts(table, average):
    rewards, tags = table
    known = ~torch.tensor(rewards).isnan()
    targets = soft_targets(torch.tensor(rewards), tags, tau=0.5, average=average)
    torch.testing.assert_close(targets.sum(-1), known.any(-1).float())
    assert (targets[~known] == 0).all()
    assert (targets >= 0).all()


def test_without_tags_or_with_beta_one_it_is_the_softmax():
    rewards = torch.randn(4, 3)
    plain = torch.softmax(rewards / 0.7, dim=-1)
    torch.testing.assert_close(soft_targets(rewards, tau=0.7), plain)
    torch.testing.assert_close(soft_targets(rewards, [["a"]] * 4, tau=0.7, beta=1.0), plain)


def test_beta_zero_gives_all_queries_of_a_tag_its_mean():
    rewards = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    targets = soft_targets(rewards, [["a"], ["a"], []], beta=0.0)
    torch.testing.assert_close(targets[:2], torch.full((2, 2), 0.5))
    torch.testing.assert_close(targets[2], torch.softmax(rewards[2], dim=-1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": 0.0}, "tau"),
        ({"beta": 1.1}, "beta"),
        ({"average": "logits"}, "average"),
        ({"tags": [["a"]]}, "2 rows.*1 queries"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        soft_targets(torch.zeros(2, 2), **arguments)
    with pytest.raises(ValueError, match="shape"):
        soft_targets(torch.zeros(2))
