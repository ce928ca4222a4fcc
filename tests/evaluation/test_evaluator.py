"""Evaluations worked out by hand, and what holds for all of them."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import EXPERTS, QUERIES
from tests.evaluation.conftest import table_of
from zooter_hf import evaluate
from zooter_hf.evaluation import evaluate_probabilities
from zooter_hf.routing import predict


@pytest.fixture(scope="module")
def report(small_table, small_probabilities):
    return evaluate_probabilities(small_probabilities, small_table)


def test_scores_by_hand(report):
    assert report.queries == 6
    assert report.percent
    assert report.score == pytest.approx((1 + 0 + 1 + 1 + 1 + 0.5) / 6)
    assert report.rerouted == 2
    assert [row.name for row in report.expert_rows] == ["a", "b", "c"]
    assert [row.score for row in report.expert_rows] == pytest.approx([2.5 / 5, 3.5 / 6, 2.5 / 5])
    assert report.row("best_single").expert == "b"
    assert report.row("best_single").score == pytest.approx(3.5 / 6)
    assert report.row("random").score == pytest.approx((0.5 + 0.5 + 2 / 3 + 0.5 + 0.5 + 0.5) / 6)
    assert report.row("oracle").score == pytest.approx(5.5 / 6)
    # a on s; c on r, and b where c is missing
    assert report.row("best_per_subset").score == pytest.approx((2 + 1 + 1 + 0.5) / 6)
    assert report.regret == pytest.approx(1 / 6)
    assert report.row("knn") is report.row("training_best_single") is report.row("reward_model_ranking") is None


def test_subsets_by_hand(report):
    assert report.subsets == {"r": 3, "s": 3}
    assert report.router_row.subsets == pytest.approx({"s": 2 / 3, "r": 2.5 / 3})
    assert [row.subsets["r"] for row in report.expert_rows] == pytest.approx([0.25, 0.5, 0.75])
    assert report.mean_task_rank == 1
    assert report.uplift == 1
    # On s it is as good as a, on r it is second.
    assert report.row("best_single").mean_task_rank == 1.5
    assert report.row("best_single").uplift == 0.5
    assert [row.mean_task_rank for row in report.expert_rows] == [2, 1.5, 2]


def test_an_average_over_subsets_by_hand():
    table = table_of([[1, 0], [1, 0], [1, 0], [0, 1]], "ab", subsets=["s", "s", "s", "r"])
    to_b = torch.tensor([[0.1, 0.9]]).expand(4, 2)
    queries = evaluate_probabilities(to_b, table)
    assert (queries.score, queries.row("best_single").score, queries.regret) == (0.25, 0.75, 0.75)
    subsets = evaluate_probabilities(to_b, table, average="subsets")
    assert (subsets.score, subsets.row("best_single").score, subsets.regret) == (0.5, 0.5, 0.5)
    assert subsets.router_row.low == subsets.router_row.high == 0.5


def test_trust_by_hand(report):
    assert report.top1_agreement == pytest.approx(5 / 6)
    assert report.ece == pytest.approx((0.55 + abs(0.62 + 0.64 + 0.64 - 2.5) + 0.22 + 0.15) / 6)
    filled = {round(each.low, 1): each for each in report.reliability if each.queries}
    assert {low: each.queries for low, each in filled.items()} == {0.5: 1, 0.6: 3, 0.7: 1, 0.8: 1}
    assert filled[0.6].confidence == pytest.approx((0.62 + 0.64 + 0.64) / 3)
    assert filled[0.6].accuracy == pytest.approx((1 + 1 + 0.5) / 3)
    assert filled[0.7].accuracy == 0.5
    assert report.routed_share == pytest.approx({"a": 2 / 6, "b": 2 / 6, "c": 2 / 6})
    assert report.best_share == pytest.approx({"a": 1.5 / 6, "b": 3 / 6, "c": 1.5 / 6})
    assert report.kl is None


def test_costs_by_hand(report):
    assert report.router_row.cost == pytest.approx((1 + 1 + 2 + 2 + 3) / 5 / 1000)
    assert [row.cost for row in report.expert_rows] == pytest.approx([0.001, 0.002, 0.003])
    # Of several best experts the cheapest: a on q3, b on q6.
    assert report.row("oracle").cost == pytest.approx((1 + 2 + 1 + 2 + 2) / 5 / 1000)
    assert report.row("best_single").cost == pytest.approx(0.002)


def test_the_comparison_with_the_best_single_model_by_hand(report):
    (comparison,) = report.comparisons
    assert comparison.baseline == "best_single"
    assert comparison.queries == 6
    assert comparison.difference == pytest.approx(1 / 6)
    assert comparison.low < 1 / 6 < comparison.high
    assert comparison.p_value == 1  # of three differences of 1 the sum is never nearer to 0


def test_targets_give_the_divergence(small_table, small_probabilities):
    targets = small_probabilities.masked_fill(small_table.rewards.isnan(), 0)
    targets = targets / targets.sum(dim=1, keepdim=True)
    assert evaluate_probabilities(small_probabilities, small_table, targets=targets).kl == pytest.approx(0, abs=1e-6)
    flat = torch.full((6, 3), 1 / 3)
    assert evaluate_probabilities(small_probabilities, small_table, targets=flat).kl > 0.1


def test_reward_model_ranking_by_hand():
    """The reward model is wrong on q2 and says nothing of q3; q5 has no true rewards."""
    teacher = table_of(
        [[3.0, -1.0], [2.0, 1.0], [None, 1.0], [-2.0, 5.0], [9.0, 0.0]],
        "ab",
        costs=[[0.1, 0.2]] * 5,
        queries=["q1", "q2", "q3", "q4", "q5"],
    )
    true = table_of(
        [[0.0, 1.0], [1.0, None], [1.0, 0.0], [0.0, 1.0]],
        "ab",
        subsets=["s", "s", "r", "r"],
        queries=["q4", "q3", "q1", "q2"],
    )
    router = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6], [0.9, 0.1]])
    report = evaluate_probabilities(router, teacher, true_rewards=true)
    assert report.true_rewards
    assert report.queries == 4
    assert report.score == 1  # q3 is routed to b, whose true reward is not known: a
    assert report.rerouted == 1
    # a on q1: right; a on q2: wrong; b on q4: right; on q3 both have not the same expert: not known.
    ranking = report.row("reward_model_ranking")
    assert ranking.score == pytest.approx(2 / 3)
    assert ranking.cost == pytest.approx(0.3)
    assert report.router_row.cost == pytest.approx((0.1 + 0.2 + 0.1 + 0.2) / 4)
    assert report.subsets == {"r": 2, "s": 2}
    assert ranking.subsets == pytest.approx({"r": 0.5, "s": 1})
    comparison = report.comparison("reward_model_ranking")
    assert comparison.difference == pytest.approx(1 / 3)
    assert comparison.queries == 3


def test_true_rewards_of_queries_that_stand_twice():
    """As long as both tables hold them alike."""
    teacher = table_of([[1, 0], [0, 1]], "ab", queries=["q", "q"])
    true = table_of([[0, 1], [0.5, 0]], "ab", queries=["q", "q"])
    report = evaluate_probabilities(torch.tensor([[0.9, 0.1]] * 2), teacher, true_rewards=true)
    assert report.score == 0.25
    assert report.row("reward_model_ranking").score == 0
    with pytest.raises(ValueError, match="stands twice in the table of true rewards, in rows 1 and 2"):
        evaluate_probabilities(torch.tensor([[0.9, 0.1]]), teacher.select([0]), true_rewards=true)


@pytest.fixture(scope="module")
def two_topics():
    """Queries in two directions; a is right in one and b in the other, but for one of them in training."""
    generator = torch.Generator().manual_seed(0)
    topics = torch.tensor([0, 1] * 10)
    directions = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    # Their lengths must not matter.
    training = (directions[topics] + 0.02 * torch.randn(20, 3, generator=generator)) * torch.linspace(1, 50, 20)[
        :, None
    ]
    rewards = [[1 - topic, topic, None] for topic in topics.tolist()]
    rewards[0] = [0, None, None]
    rewards[3] = [1, 1, None]
    queries = (directions[[0, 1, 1, 1, 0]] + 0.01) * torch.tensor([[1.0], [90.0], [1.0], [0.1], [3.0]])
    table = table_of([[1, 0, 1], [0, 1, 0], [0, 1, 0.5], [0.5, None, 1], [0.25, 0, 0]])
    return table, queries, table_of(rewards, queries=[f"training {index}" for index in range(20)]), training


def test_routing_without_training_finds_the_obvious(two_topics):
    table, queries, training_table, training = two_topics
    always_b = torch.tensor([[0.2, 0.5, 0.3]]).expand(5, 3)
    report = evaluate_probabilities(
        always_b,
        table,
        embeddings=queries,
        training_table=training_table,
        training_embeddings=training,
        neighbours=5,
        clusters=2,
    )
    # a, b, b, then a since b is missing and nothing is known of c, a
    expected = (1 + 1 + 1 + 0.5 + 0.25) / 5
    assert report.row("knn").score == pytest.approx(expected)
    assert report.row("kmeans").score == pytest.approx(expected)
    # In training a is right 10 times of 20, b 10 of 19.
    assert report.row("training_best_single").expert == "b"
    assert {each.baseline for each in report.comparisons} == {"best_single", "training_best_single", "knn", "kmeans"}
    # Always b, but on the fourth query, where c comes next.
    assert report.comparison("knn").difference == pytest.approx((0 + 1 + 1 + 1 + 0) / 5 - expected)


def test_more_neighbours_or_clusters_than_queries(two_topics):
    table, queries, training_table, training = two_topics
    report = evaluate_probabilities(
        torch.full((5, 3), 1 / 3),
        table,
        embeddings=queries,
        training_table=training_table,
        training_embeddings=training,
        neighbours=1000,
        clusters=1000,
    )
    # All neighbours: the best model of training for every query.
    assert report.row("knn").score == pytest.approx((0 + 1 + 1 + 0.5 + 0) / 5)
    assert report.row("kmeans").score is not None


def test_without_embeddings_a_training_table_gives_its_best_model(two_topics):
    table, _, training_table, _ = two_topics
    report = evaluate_probabilities(torch.full((5, 3), 1 / 3), table, training_table=training_table)
    assert report.row("training_best_single").expert == "b"
    assert report.row("knn") is None


def test_the_best_model_of_training_by_the_same_average():
    table = table_of([[0, 1], [1, 0]], "ab", subsets=["s", "r"])
    training = table_of([[1, 0], [1, 0], [1, 0], [0.5, 1], [0.5, 1]], "ab", subsets=["s", "s", "s", "r", "t"])
    even = torch.full((2, 2), 0.5)
    assert evaluate_probabilities(even, table, training_table=training).row("training_best_single").expert == "a"
    over_subsets = evaluate_probabilities(even, table, training_table=training, average="subsets")
    assert over_subsets.row("training_best_single").expert == "a"  # 2/3 and 2/3: the first
    training = table_of([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]], "ab", subsets=["s", "s", "s", "r", "t"])
    over_subsets = evaluate_probabilities(even, table, training_table=training, average="subsets")
    assert over_subsets.row("training_best_single").expert == "b"


@st.composite
def evaluations(draw):
    """Tables of rewards in quarters, with holes, and probabilities."""
    queries, experts = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    rewards = torch.randint(5, (queries, experts), generator=generator).double() / 4
    missing = torch.rand(queries, experts, generator=generator) < draw(st.sampled_from([0.0, 0.3]))
    missing[:, 0] &= ~missing.all(dim=1)
    rewards[missing] = torch.nan
    subsets = [f"s{number}" for number in torch.randint(3, (queries,), generator=generator).tolist()]
    probabilities = torch.randn(queries, experts, generator=generator, dtype=torch.float64).softmax(dim=1)
    return rewards, subsets, probabilities, draw(st.sampled_from(["queries", "subsets"]))


def make_report(rewards, subsets, probabilities, average):
    lists = [[None if value != value else value for value in row] for row in rewards.tolist()]
    table = table_of(lists, "abcd"[: rewards.shape[1]], subsets=subsets)
    return evaluate_probabilities(probabilities, table, average=average, samples=200)


@settings(max_examples=40, deadline=None)
@given(evaluations())
def test_what_holds_for_every_router(evaluation):
    rewards, *_, average = evaluation
    report = make_report(*evaluation)
    worst = rewards.nan_to_num(nan=torch.inf).amin(dim=1)
    oracle = report.row("oracle").score
    if average == "queries":
        assert worst.mean() - 1e-9 <= report.score
    assert report.score <= oracle + 1e-9
    assert report.row("random").score <= oracle + 1e-9
    assert report.row("best_per_subset").score <= oracle + 1e-9
    assert report.regret == pytest.approx(oracle - report.score)
    assert 1 <= report.mean_task_rank <= rewards.shape[1] + 1
    assert 0 <= report.uplift <= 1
    assert 0 <= report.top1_agreement <= 1
    assert 0 <= report.ece <= 1
    assert sum(report.routed_share.values()) == pytest.approx(1)
    assert sum(report.best_share.values()) == pytest.approx(1)
    assert sum(each.queries for each in report.reliability) == report.queries
    for row in report.rows:
        if row.score is not None:
            assert row.low - 1e-9 <= row.score <= row.high + 1e-9
    if not rewards.isnan().any():
        assert report.rerouted == 0
        assert report.row("best_single").score == pytest.approx(max(row.score for row in report.expert_rows))
        assert report.row("best_per_subset").score >= report.row("best_single").score - 1e-9
        best = report.comparison("best_single")
        assert best.difference == pytest.approx(report.score - report.row("best_single").score)


@settings(max_examples=20, deadline=None)
@given(evaluations(), st.randoms(use_true_random=False))
def test_the_order_of_the_queries_does_not_matter(evaluation, random):
    rewards, subsets, probabilities, average = evaluation
    order = list(range(len(subsets)))
    random.shuffle(order)
    one = make_report(*evaluation)
    other = make_report(rewards[order], [subsets[index] for index in order], probabilities[order], average)
    assert one.subsets == other.subsets
    for mine, theirs in zip(one.rows, other.rows, strict=True):
        assert mine.score == pytest.approx(theirs.score)
        assert mine.subsets == pytest.approx(theirs.subsets)
        assert mine.mean_task_rank == pytest.approx(theirs.mean_task_rank)
        assert mine.uplift == pytest.approx(theirs.uplift)
    assert one.ece == pytest.approx(other.ece)
    assert one.top1_agreement == other.top1_agreement
    assert one.routed_share == pytest.approx(other.routed_share)


@pytest.fixture(scope="module")
def queries_table():
    rewards = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0.5, 0.5, 1]]
    return table_of(rewards, [expert.name for expert in EXPERTS], queries=QUERIES, subsets=list("ssrrr"))


def test_a_router_is_evaluated_as_its_probabilities_are(make_router, queries_table):
    router = make_router()
    report = evaluate(router, queries_table, training_table=queries_table, neighbours=1, clusters=2, dataset="five")
    predictions = predict(router, QUERIES)
    same = evaluate_probabilities(
        predictions.probabilities,
        queries_table,
        embeddings=predictions.embeddings,
        training_table=queries_table,
        training_embeddings=predictions.embeddings,
        neighbours=1,
        clusters=2,
        dataset="five",
    )
    assert report == same
    assert report.row("knn").score == report.row("oracle").score  # the nearest query is the query itself
    chosen = [row.index(max(row)) for row in predictions.probabilities.tolist()]
    assert report.score == pytest.approx(queries_table.rewards[range(5), chosen].mean().item())
    assert report.router == "router"


def test_the_report_bears_the_routers_name(make_router, queries_table):
    router = make_router(training={"name": "tiny-router"})
    assert evaluate(router, queries_table).router == "tiny-router"
    assert evaluate(router, queries_table, name="mine").router_row.name == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": "reordered"}, r"in another order: \['code-9b', .*`table.select_experts\(router.expert_names\)`"),
        (
            {"table": "fewer"},
            r"The router has the experts \['math-7b', 'code-9b', 'chat-70b'\], and the table has others",
        ),
        ({"training_table": "fewer"}, r"the training table has others.*training_table.select_experts"),
        ({"true_rewards": "reordered"}, r"the table of true rewards has .*true_rewards.select_experts"),
        ({"true_rewards": "elsewhere"}, "no query in common"),
        ({"targets": torch.full((4, 3), 1 / 3)}, r"`targets` must have the shape \(queries, experts\) = \(5, 3\)"),
        ({"targets": torch.full((5, 3), 0.5)}, "`targets` must be distributions"),
        ({"average": "subsets", "table": "bare"}, "5 of 5 have none"),
        ({"average": "macro"}, "`average` must be 'queries' or 'subsets', got 'macro'"),
        ({"confidence": 95}, "`confidence` must lie between 0 and 1"),
        ({"samples": 0}, "`samples` must be positive"),
        ({"neighbours": 0}, "`neighbours` must be positive"),
    ],
)
def test_bad_input_is_named_before_the_router_runs(make_router, queries_table, monkeypatch, arguments, message):
    names = [expert.name for expert in EXPERTS]
    tables = {
        "reordered": queries_table.select_experts([names[1], names[0], names[2]]),
        "fewer": queries_table.select_experts(names[:2]),
        "elsewhere": table_of([[1, 0, 0]], names, queries=["another"]),
        "bare": table_of(queries_table.rewards.tolist(), names, queries=QUERIES),
    }
    arguments = {
        name: tables.get(value, value) if isinstance(value, str) else value for name, value in arguments.items()
    }

    def refuse(*_, **__):
        raise AssertionError("the router ran")

    monkeypatch.setattr("zooter_hf.evaluation.evaluator.predict", refuse)
    with pytest.raises(ValueError, match=message):
        evaluate(make_router(), **{"table": queries_table, **arguments})


@pytest.mark.parametrize(
    ("probabilities", "arguments", "message"),
    [
        (torch.full((6, 2), 0.5), {}, r"= \(6, 3\), got \(6, 2\)"),
        (torch.ones(6, 3), {}, "row 0 is .* take the softmax first"),
        (torch.tensor([[2.0, -0.5, -0.5]]).expand(6, 3), {}, "take the softmax first"),
        (torch.full((6, 3), torch.nan), {}, "must be distributions"),
        (None, {"embeddings": torch.ones(6, 2)}, "need both"),
        (None, {"embeddings": torch.ones(6, 2), "training_embeddings": torch.ones(5, 2)}, r"shape \(6, hidden_size\)"),
        (None, {"embeddings": torch.ones(6, 2), "training_embeddings": torch.ones(6, 3)}, "widths: 2 and 3"),
    ],
)
def test_bad_tensors_are_named(small_table, small_probabilities, probabilities, arguments, message):
    if probabilities is None:
        probabilities, arguments = small_probabilities, {"training_table": small_table, **arguments}
    with pytest.raises(ValueError, match=message):
        evaluate_probabilities(probabilities, small_table, **arguments)


def test_without_scikit_learn(small_table, small_probabilities, make_router, queries_table, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert evaluate_probabilities(small_probabilities, small_table).score == pytest.approx(0.75)
    with pytest.raises(ImportError, match=r'pip install "zooter-hf\[evaluation\]"'):
        evaluate(make_router(), queries_table, training_table=queries_table)


def test_importing_it_loads_no_heavy_library():
    code = (
        "import sys, zooter_hf, zooter_hf.evaluation; zooter_hf.evaluate; zooter_hf.EvaluationReport; "
        "print([name for name in ('sklearn', 'matplotlib', 'rich') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
