"""Comparisons become win rates."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rewards.scripted import ScriptedExpert
from zooter_hf.rewards.teachers import CallablePairwise, PairwiseJudge, Scorable


def longer(query, first, second):
    return float(len(first) > len(second))


# P(first beats second), not symmetric: the first answer is preferred by 0.1.
TABLE = {("x", "y"): 0.4, ("y", "x"): 0.8, ("x", "z"): 0.1, ("z", "x"): 1.0, ("y", "z"): 0.3, ("z", "y"): 0.9}


def by_table(query, first, second):
    return TABLE[first, second]


def test_win_rates_by_hand():
    # x beats y with (0.4 + 0.2) / 2 = 0.3, x beats z with 0.05, y beats z with (0.3 + 0.1) / 2 = 0.2.
    (scores,) = CallablePairwise(by_table).score([Scorable("q", ("x", "y", "z"))])
    assert scores == pytest.approx([(0.3 + 0.05) / 2, (0.7 + 0.2) / 2, (0.95 + 0.8) / 2])


def test_preferring_the_first_cancels_out():
    teacher = CallablePairwise(lambda query, first, second: 1.0, name="first")
    assert teacher.score([Scorable("q", ("x", "y", "z"))]) == [[0.5, 0.5, 0.5]]


def test_equal_texts_tie_without_being_asked():
    asked = []

    def prefer(query, first, second):
        asked.append((query, first, second))
        return longer(query, first, second)

    teacher = CallablePairwise(prefer, name="longer")
    scores = teacher.score([Scorable("q", ("a", "bb", "a")), Scorable("r", ("a", "a")), Scorable("s", ("a",))])
    # "a" loses against "bb" and ties with itself.
    assert scores == [[0.25, 1.0, 0.25], [0.5, 0.5], [None]]
    assert asked == [("q", "a", "bb"), ("q", "bb", "a")]
    assert teacher.score([Scorable("q", ())]) == [[]]


def test_pairs_without_a_verdict_are_left_out():
    def prefer(query, first, second):
        return None if (first, second) == ("a", "bb") else longer(query, first, second)

    teacher = CallablePairwise(prefer, name="n")
    assert teacher.score([Scorable("q", ("a", "bb", "ccc")), Scorable("q", ("a", "bb"))]) == [
        [0.0, 0.0, 1.0],
        [None, None],
    ]


@given(st.lists(st.sampled_from("wxyz"), min_size=2, max_size=5), st.floats(0, 1), st.integers(0, 1000))
def test_probabilities_are_shared_out(answers, bias, seed):
    def prefer(query, first, second):
        return min(1.0, max(0.0, zlib.crc32(f"{first}{second}{seed}".encode()) % 101 / 100 * (1 - bias) + bias))

    (scores,) = CallablePairwise(prefer, name="any").score([Scorable("q", tuple(answers))])
    assert all(0 <= score <= 1 for score in scores)
    assert sum(scores) == pytest.approx(len(answers) / 2)


def test_batched_functions():
    sizes = []

    def prefer(comparisons):
        sizes.append(len(comparisons))
        return [TABLE[each.first, each.second] for each in comparisons]

    items = [Scorable("q", ("x", "y", "z")), Scorable("r", ("y", "z"))]
    batched = CallablePairwise(prefer, name="n", batched=True).score(items)
    assert batched == CallablePairwise(by_table).score(items)
    assert sizes == [8]
    with pytest.raises(ValueError, match="returned 1 values for 2 comparisons"):
        CallablePairwise(lambda comparisons: [0.5], name="n", batched=True).score([Scorable("q", ("x", "y"))])
    with pytest.raises(RuntimeError, match="raised ZeroDivisionError at a batch of 2"):
        CallablePairwise(lambda comparisons: 1 / 0, name="n", batched=True).score([Scorable("q", ("x", "y"))])


def test_functions_that_go_wrong():
    item = Scorable("What now?", ("x", "y"))
    with pytest.raises(ValueError, match=r"query 'What now\?'.* returned 1.5.* 0 to 1"):
        CallablePairwise(lambda *_: 1.5, name="n").score([item])
    with pytest.raises(RuntimeError, match=r"`n` at the query 'What now\?' raised KeyError"):
        CallablePairwise(lambda *_: {}["x"], name="n").score([item])
    with pytest.raises(ValueError, match="pass `name="):
        CallablePairwise(lambda *_: 0.5)
    assert CallablePairwise(by_table).settings["name"].endswith("test_pairwise.by_table")


def judge(prompt):
    """Prefers the longer answer, by the text between the prompt's headings."""
    first = prompt.split("[Answer A]\n")[1].split("\n\n[Answer B]")[0]
    second = prompt.split("[Answer B]\n")[1].split("\n\nReply")[0]
    return "**A**" if len(first) > len(second) else "The answer is B."


def test_a_judge():
    expert = ScriptedExpert(judge)
    with PairwiseJudge(expert) as teacher:
        assert expert.loaded == 0
        scores = teacher.score([Scorable("q", ("a", "bb", "ccc")), Scorable("r", ("a",))])
    assert scores == [[0.0, 0.5, 1.0], [None]]
    assert len(expert.asked) == 6 and expert.settings.temperature == 0
    assert teacher.compares and not teacher.skipped
    assert teacher.settings["expert"] == {"name": "scripted"}


def test_answers_that_look_like_placeholders():
    expert = ScriptedExpert(lambda prompt: "A")
    PairwiseJudge(expert, prompt="{query}|{a}|{b}").score([Scorable("{a}", ("{b}", "{query}"))])
    assert expert.asked == ["{a}|{b}|{query}", "{a}|{query}|{b}"]


def test_verdicts_that_are_none():
    replies = iter(["Both are good.", "B", "A", None, "A or B", "B"])
    teacher = PairwiseJudge(ScriptedExpert(lambda prompt: next(replies)))
    items = [Scorable("q", ("x", "y"))] * 3
    assert teacher.score(items) == [[None, None]] * 3
    assert teacher.skipped == {"malformed": 2, "failed": 1}
    with pytest.raises(ValueError, match=r"must contain \{a\}, \{b\}"):
        PairwiseJudge(ScriptedExpert(str), prompt="{query}")


def test_a_judge_that_always_says_a():
    teacher = PairwiseJudge(ScriptedExpert(lambda prompt: "A"))
    assert teacher.score([Scorable("q", ("x", "yy"))]) == [[0.5, 0.5]]
