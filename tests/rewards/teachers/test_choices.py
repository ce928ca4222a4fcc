"""Letters are read from answers."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zooter_hf.rewards.teachers.choices import read_choice


CLEAR = [
    "{x}", "{x}.", "({x})", "[[{x}]]", "**{x}**", "{x})", "$\\boxed{{{x}}}$", "\\boxed{{\\text{{{x}}}}}", "{x}. Paris",
    "{x}) Paris", "The answer is {x}", "The answer is ({x}).", "the answer is: **{x}**", "Answer: {x}",
    "**Answer:** {x}", "**Final Answer**: **({x})**", "The correct option is {x} because it is.",
    "The answer is\n\n{x}",
    "The correct answer is option {x}.", "**{x}. Paris**", "Answer: $\\textbf{{({x})}}$", "I would say {x}.",
    "A) red\nB) blue\nC) green\nThe answer is {x}.", "Vitamin C helps, but the answer is {x}", "A good one is ({x}).",
]  # fmt: skip
UNCLEAR = [
    "", "None of them", "A or B", "A and B", "The answer is A or B.", "The answer is (A) or (B).", "(A) or (C)",
    "A. Paris\nB. London", "The answer is A. No, the answer is B.", "Not B", "B is wrong", "The answer isn't B",
    "A good idea", "I do not know", "The answer is a bit complicated", "It's 5", "ABC", "A-level", "The answer is Zoe",
]  # fmt: skip
SMALL = ["{x}", "{x}.", "{x})", "({x})", "**{x}**", "The answer is {x}.", "answer: {x}", "\\boxed{{{x}}}"]


@pytest.mark.parametrize("template", CLEAR)
@pytest.mark.parametrize("letter", "ABDI")
def test_clear_answers(template, letter):
    if (template, letter) == ("I would say {x}.", "I"):
        pytest.skip("a pronoun")
    assert read_choice(template.format(x=letter)) == letter


@pytest.mark.parametrize("template", SMALL)
@pytest.mark.parametrize("letter", "abd")
def test_small_letters(template, letter):
    assert read_choice(template.format(x=letter)) == letter.upper()


@pytest.mark.parametrize("text", UNCLEAR)
def test_unclear_answers(text):
    assert read_choice(text) is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A, not B", "A"),
        ("Option A is wrong, so it must be B.", "B"),
        ("A is correct because B is wrong", "A"),
        ("The incorrect answer is A, so B", "B"),
        ("B is better than A", "B"),
        ("(a) is what (b) would be, but the answer is C", "C"),
    ],
)
def test_rejected_letters(text, letter):
    assert read_choice(text) == letter


def test_only_the_given_letters():
    assert read_choice("E", "ABCD") is None
    assert read_choice("Z", "XYZ") == "Z"


@given(st.text(st.sampled_from("ABCDabcd()[]*{}.:\\ \nanswerisboxed'or"), max_size=80) | st.text())
def test_any_text_is_read(text):
    assert read_choice(text) in {None, *"ABCDEFGHIJ"}


@pytest.mark.parametrize(
    "piece", ["answer" + "*" * 50, "answer" + " " * 50, "[[", "\\boxed{", "A ", "**", "(A", "is a "]
)
def test_repetitions_take_no_quadratic_time(piece):
    start = time.perf_counter()
    read_choice(piece * 20_000)
    assert time.perf_counter() - start < 5
