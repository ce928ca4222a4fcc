import json

import pytest

from zooter_hf.conversion.reward_tables import load, mixinstruct


def candidate(model, **scores):
    return {"decoding_method": "top_p_sampling", "model": model, "text": f"{model} says", "scores": scores}


def row(**changes):
    candidates = [candidate("a-7b", bartscore=-2.5, bertscore=0.75), candidate("b-13b", bartscore="-3", bertscore=0.5)]
    base = {"id": "unified_chip2/69962", "instruction": "", "input": "Why?", "output": "So.", "candidates": candidates}
    return {key: value for key, value in {**base, **changes}.items() if value is not ...}


def table(tmp_path, *lines):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (tmp_path / "val_data_prepared.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


def test_rows(tmp_path):
    folder = table(tmp_path, row(), "", row(id="dolly_15k/1", instruction="Translate.", input="Où?"), row(id=4))
    where, first = next(mixinstruct.read(folder))
    assert where == "val_data_prepared.jsonl, line 1"
    assert first == {
        "query": "Why?",
        "rewards": {"a-7b": -2.5, "b-13b": -3.0},
        "responses": {"a-7b": "a-7b says", "b-13b": "b-13b says"},
        "tags": ["unified_chip2"],
        "subset": "unified_chip2",
    }
    loaded = load(folder, "mixinstruct")
    assert loaded.queries[:] == ["Why?", "Translate.\nOù?", "Why?"]
    assert loaded.subsets == ["unified_chip2", "dolly_15k", None]
    assert load(folder, "mixinstruct", metric="bertscore").rewards.tolist() == [[0.75, 0.5]] * 3


def test_malformed_rows_are_left_out_and_named(tmp_path):
    a, b = row()["candidates"]
    bad = [
        "{",
        "[]",
        row(candidates=...),
        row(instruction=...),
        row(input=""),  # nothing is asked
        row(candidates=[a]),
        row(candidates=[a, b, candidate("c", bartscore=-1)]),
        row(candidates=[a, b, a]),
        row(candidates=[a, candidate("b-13b", bertscore=0.5)]),
        row(candidates=[a, candidate("b-13b", bartscore="high")]),
        row(candidates=[a, candidate("b-13b", bartscore=True)]),
        row(candidates=[a, {"model": "b-13b", "scores": {"bartscore": 1}}]),
        row(candidates=[a, candidate("b-13b", bartscore=float("nan"))]),
    ]
    loaded = load(table(tmp_path, row(), *bad, row()), "mixinstruct")
    assert len(loaded) == 2
    places = [problem.where for problem in loaded.left_out]
    assert places == [f"val_data_prepared.jsonl, line {n}" for n in range(2, 15)]
    reasons = [problem.reason for problem in loaded.left_out]
    assert "two answers of 'a-7b'" in reasons[7] and "no score 'bartscore', but ['bertscore']" in reasons[8]


def test_a_metric_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no score 'bleurt', but \['bartscore', 'bertscore'\]"):
        load(table(tmp_path, row()), "mixinstruct", metric="bleurt")
    with pytest.raises(OSError, match=r"is not there: a MixInstruct table needs a \*\.jsonl"):
        load(tmp_path / "nowhere", "mixinstruct")
