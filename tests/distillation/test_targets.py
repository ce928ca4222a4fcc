"""Targets against the formulas of the paper, worked row by row."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zooter_hf.distillation import hard_labels, soft_targets, standardize
from zooter_hf.distillation.enhancement import enhance, find_neighbours


NAN = float("nan")
AVERAGES = st.sampled_from(["probabilities", "rewards"])


def softmax(row, tau):
    """Softmax over the known rewards of one row."""
    weights = [0.0 if math.isnan(r) else math.exp(r / tau) for r in row]
    total = sum(weights)
    return [w / total if total else 0.0 for w in weights]


def reference(rewards, tags, tau, beta, average, leave_one_out=False, shrinkage=0.0, min_support=1):
    """Plain Python: `q_i = beta p_i + (1 - beta) mean_t p_t`, or the same on rewards before the softmax."""
    values = [softmax(row, tau) for row in rewards] if average == "probabilities" else rewards
    experts = range(len(rewards[0]))
    everyone = range(len(rewards))

    def mean(numbers):
        return sum(numbers) / len(numbers) if numbers else 0.0

    def tag_mean(i, tag, j):
        """The mean of a tag for an expert, as query i hears it; None where the tag says nothing."""
        members = [k for k in everyone if tag in tags[k] and not (leave_one_out and k == i)]
        known = [values[k][j] for k in members if not math.isnan(rewards[k][j])]
        if not known:
            return None
        general = mean([values[k][j] for k in everyone if not math.isnan(rewards[k][j])])
        return (sum(known) + shrinkage * general) / (len(known) + shrinkage)

    targets = []
    for i, row in enumerate(rewards):
        own = [tag for tag in sorted(set(tags[i])) if sum(tag in tags[k] for k in everyone) >= min_support]
        mixed = []
        for j in experts:
            if math.isnan(row[j]):
                mixed.append(NAN)
                continue
            heard = [m for m in (tag_mean(i, tag, j) for tag in own) if m is not None]
            mixed.append(beta * values[i][j] + (1 - beta) * mean(heard) if heard else values[i][j])
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
    AVERAGES,
    st.booleans(),
    st.sampled_from([0.0, 2.5]),
    st.sampled_from([1, 2]),
)
def test_targets_equal_the_formula(table, tau, beta, average, leave_one_out, shrinkage, min_support):
    rewards, tags = table
    options = {"leave_one_out": leave_one_out, "shrinkage": shrinkage, "min_support": min_support}
    rewards_tensor = torch.tensor(rewards, dtype=torch.float64)
    targets = soft_targets(rewards_tensor, tags, tau=tau, beta=beta, average=average, **options)
    expected = torch.tensor(reference(rewards, tags, tau, beta, average, **options), dtype=torch.float64)
    torch.testing.assert_close(targets, expected)


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
        ({"shrinkage": -1.0}, "shrinkage"),
        ({"min_support": 0}, "min_support"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        soft_targets(torch.zeros(2, 2), **arguments)
    with pytest.raises(ValueError, match="shape"):
        soft_targets(torch.zeros(2))


@settings(deadline=None, max_examples=50)
@given(tables(), AVERAGES)
def test_left_out_a_query_does_not_vote_in_its_own_tags(table, average):
    """With the tags alone (beta = 0), and others that carry them, a query's own rewards do not move its target."""
    rewards, tags = table
    rewards, tags = torch.tensor([*rewards, rewards[0], rewards[0]]), [*tags, ["x"], ["x"]]
    known = ~rewards[-1].isnan()
    settings = {"beta": 0.0, "average": average, "leave_one_out": True}
    before = soft_targets(rewards, tags, **settings)[-1]
    rewards[-1, known] += torch.randn(int(known.sum()))
    torch.testing.assert_close(soft_targets(rewards, tags, **settings)[-1], before)


def test_strong_shrinkage_gives_rare_tags_the_general_mean():
    rewards = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    tags = [["rare"], ["common"], ["common"], ["common"]]
    targets = soft_targets(rewards, tags, beta=0.0, average="rewards", shrinkage=1e9)
    torch.testing.assert_close(targets, torch.softmax(rewards.mean(0), dim=-1).expand(4, 2))


def test_hard_labels():
    rewards = torch.tensor([[0.1, 0.5, NAN], [NAN, NAN, NAN], [0.3, 0.3, 0.0], [-2.0, NAN, -1.0]])
    expected = [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    assert hard_labels(rewards).tolist() == expected


def test_standardised_rewards_have_unit_scale_whatever_the_teacher():
    rewards = torch.randn(50, 4, dtype=torch.float64)
    rewards[0, 1] = NAN
    standard = standardize(rewards)
    known = standard[~rewards.isnan()]
    assert known.mean().item() == pytest.approx(0.0, abs=1e-12)
    assert known.std(correction=0).item() == pytest.approx(1.0)
    torch.testing.assert_close(standardize(37.0 * rewards - 5.0), standard, equal_nan=True)
    assert standardize(torch.full((3, 2), 0.7)).tolist() == [[0.0, 0.0]] * 3


def test_neighbours_are_sought_among_those_that_share_a_tag():
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0], [1.0, 0.04]])
    tags = [["a"], ["b"], ["a", "b"], ["a"], []]
    found = find_neighbours(embeddings, tags, 3)
    assert found[0].tolist() == [2, 3, -1]
    assert found[1].tolist() == [2, -1, -1]
    assert found[2].tolist() == [1, 0, 3]
    assert found[4].tolist() == [0, 1, 2]  # of a query without tags among all
    assert find_neighbours(embeddings, None, 1).flatten().tolist() == [4, 4, 1, 2, 0]


def test_neighbours_join_the_tags_worked_by_hand():
    rewards = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0], [NAN, 2.0]])
    tags = [["a"], ["a"], [], []]
    neighbours = torch.tensor([[1, 2], [-1, -1], [3, -1], [-1, -1]])
    mixed = enhance(rewards, tags, beta=0.5, neighbours=neighbours, neighbour_weight=0.25)
    expected = [
        [0.5 * 1 + 0.5 * (0.75 * 0.5 + 0.25 * 0.0), 0.5 * 0 + 0.5 * (0.75 * 0.5 + 0.25 * 2.0)],
        [0.5 * 0 + 0.5 * 0.5, 0.5 * 1 + 0.5 * 0.5],  # no neighbours: the tag alone
        [0.0, 0.5 * 3 + 0.5 * 2],  # no tag: the neighbour alone, and nothing where it knows nothing
        [NAN, 2.0],  # nobody says anything
    ]
    torch.testing.assert_close(mixed, torch.tensor(expected), equal_nan=True)
    targets = soft_targets(rewards, tags, beta=0.5, average="rewards", neighbours=neighbours, neighbour_weight=0.25)
    torch.testing.assert_close(targets[0], torch.softmax(torch.tensor(expected[0]), dim=0))
