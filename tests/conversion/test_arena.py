import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zooter_hf.conversion.reward_tables import load
from zooter_hf.conversion.reward_tables.bradley_terry import win_probabilities


def battle(winner="model_a", a="a", b="b", question="Why?", **changes):
    row = {"question": question, "model_a": a, "model_b": b, "winner": winner, **changes}
    return {key: value for key, value in row.items() if value is not ...}


def write(path, rows):
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_wins_draws_and_the_unknown(tmp_path, suffix):
    rows = [battle(), battle("model_b"), battle("tie", "c", "a"), battle("tie (bothbad)", "b", "c")]
    table = load(write(tmp_path / f"battles{suffix}", rows), "arena")
    assert [row["rewards"] for row in table] == [
        {"a": 1.0, "b": 0.0, "c": None},
        {"a": 0.0, "b": 1.0, "c": None},
        {"a": 0.5, "b": None, "c": 0.5},
        {"a": None, "b": 0.5, "c": 0.5},
    ]
    assert table.queries[:] == ["Why?"] * 4 and table.tags == [[]] * 4


def test_winners_in_three_columns_and_prompts_as_text(tmp_path):
    def row(*won, prompt):
        names = ("winner_model_a", "winner_model_b", "winner_tie")
        return {"model_a": "a", "model_b": "b", "prompt": prompt, **dict(zip(names, won, strict=True))}

    rows = [
        row(0, 1, 0, prompt='["Why?"]'),
        row(0, 0, 1, prompt='["Why?", "And then?"]'),
        row(1, 0, 0, prompt="[1, 2, 3]"),
        row(1, 0, 0, prompt="[sic] Why?"),
        row(1, 1, 0, prompt='["Why?"]'),
        row(1, 0, 0, prompt='["Why?", null]'),
    ]
    table = load(write(tmp_path / "train.csv", rows), "arena")
    assert table.rewards.tolist() == [[0, 1], [0.5, 0.5], [1, 0], [1, 0]]
    turns = [{"role": "user", "content": "Why?"}, {"role": "user", "content": "And then?"}]
    assert table.queries[:] == ["Why?", turns, "[1, 2, 3]", "[sic] Why?"]
    assert [problem.where for problem in table.left_out] == ["train.csv, row 5", "train.csv, row 6"]


def test_of_a_conversation_what_the_user_said(tmp_path):
    said = [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "How?"},
    ]
    rows = [
        battle(question=..., conversation_a=said[:2]),
        battle(question=..., conversation_a=said),
        battle(question=..., conversation_a=json.dumps(said)),
    ]
    table = load(write(tmp_path / "x.jsonl", rows), "arena")
    assert table.queries[:] == ["Why?", [said[0], said[2]], [said[0], said[2]]]


def test_malformed_battles_are_left_out_and_named(tmp_path):
    bad = [
        "{",
        "[]",
        battle("model_c"),
        battle(winner=...),
        battle(a=...),
        battle(a="b"),
        battle(a=7),
        battle(a=" a"),
        battle(question=""),
        battle(question=5),
        battle(question=..., conversation_a=[{"role": "assistant", "content": "So."}]),
        battle(question=..., conversation_a=[{"content": "Why?"}]),
        battle(winner={}),
    ]
    table = load(write(tmp_path / "x.jsonl", [battle(), *bad, battle()]), "arena")
    assert len(table) == 2 and table.expert_names == ["a", "b"]
    assert [problem.where for problem in table.left_out] == [f"x.jsonl, row {n}" for n in range(2, 15)]


def test_clusters_are_tags(tmp_path):
    tags = {"math_v0.1": {"math": True}, "if_v0.1": {"if": True, "score": 4}, "code": False}
    rows = [
        battle(c="x", n=3),
        battle(c=["x", "y"], n=4),
        battle(c=tags, n=3),
        battle(c={"code": False}, n=0),
        battle(c=None, n=1),
        battle(c=[], n=1),
        battle(n=1),
    ]
    path = write(tmp_path / "x.jsonl", rows)
    table = load(path, "arena", clusters="c")
    assert table.tags == [["x"], ["x", "y"], ["math", "if"], ["other"]]
    assert ["c" in problem.reason for problem in table.left_out] == [True] * 3
    assert load(path, "arena", clusters="n").tags == [["3"], ["4"], ["3"], ["0"], ["1"], ["1"], ["1"]]


def test_bradley_terry_scores_of_clusters(tmp_path):
    pytest.importorskip("sklearn")
    rows = [battle("model_a", c="x")] * 3 + [battle("model_b", c="x")]
    rows += [battle("model_b", "a", "c", c="y"), battle(c=["x", "y"], winner="tie")]
    table = load(write(tmp_path / "x.jsonl", rows), "arena", mode="bradley_terry", clusters="c")
    fought = {"x": [("a", "b", 1)] * 3 + [("a", "b", 0), ("a", "b", 0.5)], "y": [("a", "c", 0), ("a", "b", 0.5)]}
    of = {cluster: win_probabilities(battles) for cluster, battles in fought.items()}
    assert [row["rewards"] for row in table] == [
        *[pytest.approx({"a": of["x"]["a"], "b": of["x"]["b"], "c": None})] * 4,
        pytest.approx(of["y"]),
        pytest.approx({
            "a": (of["x"]["a"] + of["y"]["a"]) / 2, "b": (of["x"]["b"] + of["y"]["b"]) / 2, "c": of["y"]["c"],
        }),
    ]  # fmt: skip
    assert table[0]["rewards"]["a"] > 0.5 > table[0]["rewards"]["b"]


def test_two_models_have_a_closed_form():
    # 8 wins of 10. By symmetry a has the strength s / 2 and b -s / 2: the slope is 8 - 10 sigmoid(s) - penalty s / 2.
    for penalty in (1.0, 0.25):
        chance = win_probabilities([("a", "b", 1)] * 7 + [("b", "a", 0)] + [("a", "b", 0)] * 2, penalty)["a"]
        strength = math.log(chance / (1 - chance))
        assert 8 - 10 * chance == pytest.approx(penalty * strength / 2, abs=1e-4)
    assert win_probabilities([("a", "b", 1)] * 8 + [("a", "b", 0)] * 2, 1e-6)["a"] == pytest.approx(0.8, abs=1e-4)


def test_scores_are_where_the_likelihood_is_largest():
    optimize = pytest.importorskip("scipy.optimize")
    random = np.random.default_rng(0)
    names = ["a", "b", "c", "d"]
    battles = []
    for _ in range(60):
        first, second = random.choice(4, size=2, replace=False)
        battles.append((names[first], names[second], random.choice([0, 0.5, 1], p=[0.2, 0.2, 0.6])))

    def loss(strengths):
        total = 0.7 / 2 * (strengths**2).sum()
        for first, second, score in battles:
            gap = strengths[names.index(first)] - strengths[names.index(second)]
            total += score * np.log1p(np.exp(-gap)) + (1 - score) * np.log1p(np.exp(gap))
        return total

    best = optimize.minimize(loss, np.zeros(4), tol=1e-12).x
    chances = 1 / (1 + np.exp(best[None] - best[:, None]))
    expected = (chances.sum(axis=1) - 0.5) / 3
    found = win_probabilities(battles, penalty=0.7)
    assert [found[name] for name in names] == pytest.approx(expected, abs=1e-4)


battles = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd"), st.sampled_from([0, 0.5, 1])).filter(
        lambda battle: battle[0] != battle[1]
    ),
    min_size=1,
    max_size=12,
)


@given(battles)
@settings(max_examples=40, deadline=None)
def test_scores_are_probabilities_that_do_not_depend_on_who_is_named_first(fought):
    scores = win_probabilities(fought)
    assert set(scores) == {name for first, second, _ in fought for name in (first, second)}
    assert all(0 <= score <= 1 for score in scores.values())
    assert sum(scores.values()) / len(scores) == pytest.approx(0.5, abs=1e-6)
    turned = win_probabilities([(second, first, 1 - score) for first, second, score in fought])
    assert turned == pytest.approx(scores, abs=1e-5)


def test_wrong_options_are_named(tmp_path):
    path = write(tmp_path / "x.jsonl", [battle(language="English")])
    with pytest.raises(ValueError, match="`mode` must be one of .'wins', 'bradley_terry'.*'elo'"):
        load(path, "arena", mode="elo")
    with pytest.raises(ValueError, match='for instance `clusters="language"`'):
        load(path, "arena", mode="bradley_terry")
    with pytest.raises(ValueError, match="`penalty` must be positive"):
        load(path, "arena", mode="bradley_terry", clusters="language", penalty=0)
    with pytest.raises(ValueError, match="it has no 'topic'"):
        load(path, "arena", clusters="topic")
    (tmp_path / "y.json").write_text("{}")
    with pytest.raises(ValueError, match=r"y\.json cannot be read: it is not a list"):
        load(tmp_path / "y.json", "arena")
    with pytest.raises(OSError, match=r"needs a \*\.jsonl or \*\.json or \*\.csv or \*\.parquet file"):
        load(tmp_path / "nowhere", "arena")
