import json

import pytest

from zooter_hf.conversion.reward_tables import load


def annotation(instruction="1+1?", model="a", preference=1.25, reference="gpt", **changes):
    row = {
        "instruction": instruction,
        "dataset": "helpful_base",
        "output_1": f"{reference} on {instruction}",
        "generator_1": reference,
        "output_2": f"{model} on {instruction}",
        "generator_2": model,
        "annotator": "judge",
        "preference": preference,
    }
    return {key: value for key, value in {**row, **changes}.items() if value is not ...}


def write(folder, model, *rows, annotator="judge"):
    path = folder / model / annotator / "annotations.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rows))
    (folder / model / "model_outputs.json").write_text(json.dumps([{"output": "of another kind", "generator": model}]))
    return path


def test_win_rates_of_all_models_stand_in_one_row(tmp_path):
    write(tmp_path, "a", annotation(preference=1.25), annotation("2+2?", preference=2))
    write(tmp_path, "b", annotation("2+2?", "b", 1), annotation("3+3?", "b", 1.5, dataset="vicuna"))
    table = load(tmp_path, "alpacaeval")
    assert table.expert_names == ["a", "b"]
    assert list(table) == [
        {
            "query": "1+1?", "rewards": {"a": 0.25, "b": None}, "tags": ["helpful_base"], "subset": "helpful_base",
            "responses": {"a": "a on 1+1?", "b": None},
        },
        {
            "query": "2+2?", "rewards": {"a": 1.0, "b": 0.0}, "tags": ["helpful_base"], "subset": "helpful_base",
            "responses": {"a": "a on 2+2?", "b": "b on 2+2?"},
        },
        {
            "query": "3+3?", "rewards": {"a": None, "b": 0.5}, "tags": ["vicuna"], "subset": "vicuna",
            "responses": {"a": None, "b": "b on 3+3?"},
        },
    ]  # fmt: skip


def test_the_reference_can_be_an_expert(tmp_path):
    write(tmp_path, "a", annotation(preference=1.25), annotation("2+2?", preference=2))
    write(tmp_path, "gpt", annotation("2+2?", "gpt", 1.4))  # annotated against itself
    table = load(tmp_path, "alpacaeval", reference=True)
    assert table.expert_names == ["a", "gpt"]
    assert table.rewards.tolist() == [[0.25, 0.5], [1.0, pytest.approx(0.4)]]
    assert table[0]["responses"]["gpt"] == "gpt on 1+1?"


def test_draws_nulls_and_missing_answers(tmp_path):
    path = write(
        tmp_path,
        "a",
        annotation("old draw", preference=0),
        annotation("none", preference=None),
        annotation("bare", dataset=..., output_1=..., output_2=...),
    )
    write(tmp_path, "b", annotation("none", "b", 2), annotation("old draw", "b", float("nan")))
    table = load(tmp_path, "alpacaeval")
    rewards = {row["query"]: row["rewards"] for row in table}
    assert rewards == {
        "old draw": {"a": 0.5, "b": None},
        "none": {"a": None, "b": 1.0},
        "bare": {"a": 0.25, "b": None},
    }
    assert not table.left_out
    assert len(load(path, "alpacaeval")) == 2, "of one file alone; a query without any reward teaches nothing"


def test_malformed_rows_are_left_out_and_named(tmp_path):
    bad = [
        3,
        annotation("x", preference="good"),
        annotation("x", preference=2.5),
        annotation("x", preference=0.5),
        annotation("x", preference=True),
        annotation("x", preference=...),
        annotation("x", generator_2=...),
        annotation("x", generator_1=...),
        annotation("x", generator_2=7),
        annotation(...),
        annotation(["x"]),
        annotation("good"),  # once more
    ]
    write(tmp_path, "a", annotation("good"), *bad, annotation("fine"))
    table = load(tmp_path, "alpacaeval")
    assert table.queries[:] == ["good", "fine"]
    places = [problem.where for problem in table.left_out]
    assert places == [f"a/judge/annotations.json, row {n}" for n in range(2, 14)]
    assert "'a' has a row for this query already" in str(table.left_out[-1])


def test_what_cannot_be_compared_is_not_mixed(tmp_path):
    write(tmp_path, "a", annotation())
    write(tmp_path, "a2", annotation(model="a", preference=1.75, annotator="other"), annotator="other")
    with pytest.raises(ValueError, match=r"annotations by \['judge', 'other'\].*`annotator=...`"):
        load(tmp_path, "alpacaeval")
    assert load(tmp_path, "alpacaeval", annotator="other").rewards.tolist() == [[0.75]]
    with pytest.raises(ValueError, match=r"no annotations by 'nobody', but by \['judge', 'other'\]"):
        load(tmp_path, "alpacaeval", annotator="nobody")
    write(tmp_path, "b", annotation(model="b", reference="davinci"))
    with pytest.raises(ValueError, match=r"compares with \['gpt', 'davinci'\]"):
        load(tmp_path, "alpacaeval", annotator="judge")


def test_files_of_other_kinds_are_an_error(tmp_path):
    (tmp_path / "model_outputs.json").write_text("[]")
    with pytest.raises(OSError, match=r"holds none: .* needs a \*annotations\.json file"):
        load(tmp_path, "alpacaeval")
    (tmp_path / "annotations.json").write_text("{}")
    with pytest.raises(ValueError, match=r"annotations\.json is not a list"):
        load(tmp_path, "alpacaeval")
    with pytest.raises(TypeError, match=r"no options \['judge'\]. It has \['annotator', 'reference'\]"):
        load(tmp_path, "alpacaeval", judge="x")
