"""Numbers are read from answers."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zooter_hf.rewards.teachers.numbers import Number, read_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42), ("-42.", -42), ("$1,234.50", "1234.5"), ("-$5", -5), ("$-5$", -5), ("1.5e-3.", "0.0015"),
        ("2 \\times 10^{5}", 200_000), ("3 \\cdot 10^{-2}", "0.03"), ("2 x 10^5", 200_000), ("2^{10}", 1024),
        ("10^5", 100_000), ("3/4", "3/4"), ("-3/4", "-3/4"), ("1 1/2 cups", "3/2"), ("\\frac{3}{4}", "3/4"),
        ("-\\dfrac{3}{4}", "-3/4"), ("1\\frac12", "3/2"), ("\\frac{-1}{2}", "-1/2"), (".5", "1/2"), ("-.5", "-1/2"),
        ("1{,}234", 1234), ("12\\,345", 12_345), ("\\$7", 7), ("x = \u22123", -3), ("so 5 kg.", 5), ("5kg", 5),
        ("#### 72", 72), ("5 - 3", 3), ("5-3", 3), ("10-20", 20), ("- 5 apples", 5), ("1,2,3", 3), ("(1, -2)", -2),
        ("\\boxed{7} and 8", 7), ("\\boxed{1}, no, $\\boxed{x=\\frac{1}{2}}$", "1/2"), ("2^3 = 8", 8),
        ("I have 3 apples and 4 pears", 4), ("Done.42", 42), ("1,234,567", 1_234_567), ("007", 7),
    ],
)  # fmt: skip
def test_numbers(text, value):
    assert read_number(text) == Number(Fraction(value))


@pytest.mark.parametrize("text", ["50%", "50 %", "50\\%", "= 50.0%"])
def test_percent(text):
    assert read_number(text) == Number(Fraction(50), percent=True)


@pytest.mark.parametrize("text", ["", "none", "H2O", "v1", "1/0", "1e9999", "9^9999", "9" * 5000, "\\frac{1}{0}"])
def test_no_number(text):
    assert read_number(text) is None


@given(
    st.integers(-(10**15), 10**15), st.sampled_from(["{}", "{:,}", "The answer is {}.", "**{:,}**", "\\boxed{{{}}}"])
)
def test_integers_are_read_back(number, template):
    assert read_number(template.format(number)) == Number(Fraction(number))


@given(st.floats(-1e12, 1e12, allow_nan=False))
def test_floats_are_read_back(number):
    assert float(read_number(f"about {number!r} m").value) == number


@given(st.integers(-999, 999), st.integers(1, 999))
def test_fractions_are_read_back(top, bottom):
    assert read_number(f"{top}/{bottom}").value == Fraction(top, bottom)
    assert read_number(f"$\\frac{{{top}}}{{{bottom}}}$").value == Fraction(top, bottom)


@given(st.text(st.sampled_from("0123456789.,-+e^/%$\\frac{}x* "), max_size=60) | st.text())
def test_any_text_is_read(text):
    assert read_number(text) is None or isinstance(read_number(text).value, Fraction)


@pytest.mark.parametrize("piece", ["1", "1,", "1 ", " ", "1/", "-", "\\frac{1", "10^", "{", "1" + " " * 50])
def test_repetitions_take_no_quadratic_time(piece):
    start = time.perf_counter()
    read_number(piece * 20_000)
    assert time.perf_counter() - start < 5


def matches(given, right, tolerance=1e-6):
    return read_number(given).matches(read_number(right), tolerance)


def test_comparison():
    assert matches("5.0", "5") and matches("0.5", "1/2") and not matches("5", "6")
    # Whole numbers are not compared with a tolerance, however large.
    assert not matches("1234568", "1234567", tolerance=0.01)
    assert matches("0.3333333", "1/3") and not matches("0.333", "1/3")
    assert matches("0.333", "1/3", tolerance=0.01) and not matches("0.34", "1/3", tolerance=0.01)
    assert matches("0.0000001", "0") and not matches("0.1", "0")


def test_percent_signs():
    assert matches("50%", "50%") and matches("50%", "50") and matches("50%", "0.5")
    assert matches("50", "50%") and matches("0.5", "50%")
    assert not matches("50%", "0.5%") and not matches("0.5%", "50") and not matches("5", "50%")


@given(st.floats(-1e9, 1e9), st.booleans())
def test_a_number_matches_itself(number, percent):
    it = Number(Fraction(number), percent)
    assert it.matches(it, 0.0)
