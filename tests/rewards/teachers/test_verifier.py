"""Answers are checked against the reference."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zooter_hf.rewards.teachers import Scorable, Verifier
from zooter_hf.rewards.teachers.boxes import last_box


def verify(mode, reference, *answers, **settings):
    return Verifier(mode, **settings).score([Scorable("q", answers, reference)])[0]


def test_exact():
    assert verify("exact", "New York", " new  york. ", "**New York**", "'NEW\nYORK'", "York", "in New York", "") == [
        1, 1, 1, 0, 0, 0,
    ]  # fmt: skip
    assert verify("exact", "x^2", "So it is \\boxed{x^2}.", "\\boxed{x^3}") == [1, 0]
    assert verify("exact", "-5", "5", "-5", "5%") == [0, 1, 0]
    assert verify("exact", "\ufb01ne", "fine") == [1]


def test_numeric():
    answers = ("It costs $1,250.00.", "1250", "1251", "about a thousand", "1250 and 3")
    assert verify("numeric", "so 1250 #### 1,250", *answers) == [1, 1, 0, 0, 0]
    assert verify("numeric", "0.25", "25%", "1/4", "\\boxed{\\frac14}", "0.26") == [1, 1, 1, 0]
    assert verify("numeric", "0.25", "0.26", tolerance=0.05) == [1]


def test_choice():
    answers = ("The answer is (B).", "B", "**B**", "b)", "A", "A or B", "", "B is wrong")
    assert verify("choice", "B", *answers) == [1, 1, 1, 1, 0, 0, 0, 0]
    assert verify("choice", "(b)", "B") == [1]


def test_no_reference_no_score():
    verifier = Verifier("numeric")
    assert verifier.score([Scorable("q", ("1", "2")), Scorable("q", ("1",), "one")]) == [[None, None], [None]]
    assert verifier.skipped == {"unreadable reference": 1}
    assert not verifier.compares


def test_wrong_arguments():
    with pytest.raises(ValueError, match="`mode` must be one of"):
        Verifier("fuzzy")
    with pytest.raises(ValueError, match="`tolerance` must lie between"):
        Verifier("numeric", tolerance=-1)
    with pytest.raises(ValueError, match="`letters` must be"):
        Verifier("choice", letters="abc")


def test_settings_hold_what_matters():
    assert Verifier("exact", tolerance=0.1).settings == Verifier("exact").settings
    assert Verifier("numeric", tolerance=0.1).settings != Verifier("numeric").settings
    assert Verifier("choice", letters="ABCD").settings != Verifier("choice").settings


@given(st.sampled_from(["exact", "numeric", "choice"]), st.text(), st.text())
def test_any_text_is_checked(mode, answer, reference):
    (score,) = verify(mode, reference, answer)
    assert score in (None, 0.0, 1.0)
    (same,) = verify(mode, reference, reference)
    assert same in (None, 1.0)


def test_boxes():
    assert last_box("\\boxed{\\frac{1}{2}} rest") == "\\frac{1}{2}"
    assert last_box("\\boxed{1} \\boxed{2}") == "2" and last_box("\\fbox{3}") == "3"
    assert last_box("no") is None and last_box("\\boxed{1") is None
