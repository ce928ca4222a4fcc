"""Any function as a teacher."""

import functools

import numpy as np
import pytest
import torch

from zooter_hf.rewards.teachers import CallableTeacher, Scorable


def length(query, answer):
    return len(answer)


def overlap(query, answer, reference):
    return None if reference is None else float(answer == reference)


def test_scores():
    teacher = CallableTeacher(length)
    assert teacher.score([Scorable("q", ("a", "bb")), Scorable("q", ())]) == [[1.0, 2.0], []]
    teacher = CallableTeacher(overlap, with_reference=True)
    assert teacher.score([Scorable("q", ("a",)), Scorable("q", ("a",), "a")]) == [[None], [1.0]]


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.array(2), torch.tensor(2.0)])
def test_all_kinds_of_numbers(value):
    ((score,),) = CallableTeacher(lambda *_: value, name="n").score([Scorable("q", ("a",))])
    assert score == 2.0 and type(score) is float


@pytest.mark.parametrize("value", ["2", b"2", [1], {}, np.array([1, 2]), torch.ones(2)])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match="`n` at item 0 of the batch .* returned .* Return a number, or None"):
        CallableTeacher(lambda *_: value, name="n").score([Scorable("q", ("a",))])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(value):
    with pytest.raises(ValueError, match="Return a finite number"):
        CallableTeacher(lambda *_: value, name="n").score([Scorable("q", ("a",))])


def test_exceptions_say_where():
    def fail(query, answer):
        return {"a": 1}[answer]

    items = [Scorable("first", ("a",)), Scorable("second", ("b",))]
    with pytest.raises(RuntimeError, match=r"`n` at item 1 of the batch \(query 'second'\) raised KeyError") as caught:
        CallableTeacher(fail, name="n").score(items)
    assert isinstance(caught.value.__cause__, KeyError)


def test_names():
    assert CallableTeacher(length).settings == {
        "type": "CallableTeacher",
        "name": "tests.rewards.teachers.test_callable.length",
        "with_reference": False,
    }

    def inner(query, answer):
        return 0

    for nameless in (inner, lambda *_: 0, functools.partial(length), [].count):
        with pytest.raises(ValueError, match="pass `name="):
            CallableTeacher(nameless)
    assert CallableTeacher(inner, name="mine").settings["name"] == "mine"
