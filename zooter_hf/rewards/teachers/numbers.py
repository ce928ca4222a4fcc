"""Which number an answer gives."""

import re
from dataclasses import dataclass
from fractions import Fraction

from zooter_hf.rewards.teachers.boxes import last_box


# Numbers beyond are a model that repeats itself, and slow to compare exactly.
_MAX_DIGITS = 400

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_ARGUMENT = rf"(?:\{{-?(?:{_UNSIGNED})\}}|\d)"  # \frac{3}{4}, \frac34
_NUMBER = re.compile(
    rf"""
    (?<![A-Za-z\d_])(?<!\d\.)                           # not within a word or another number
    (?P<sign>(?<![\d)\]}}])(?<![\d)\]}}]\s)[+-])?       # behind a number it is a subtraction, or a range
    \$?(?P<inner>-)?                                    # a currency
    (?:
        (?:(?P<whole>\d+)\s+|(?P<stuck>\d+)(?=\\))?     # the whole part of a mixed number
        (?:\\[dt]?frac(?P<top>{_ARGUMENT})(?P<bottom>{_ARGUMENT})
          |(?P<over>\d+)\s?/\s?(?P<under>\d+)(?![\d/]))
      | (?:(?P<factor>{_UNSIGNED})\s?(?:x|X|\*|\u00d7|\u00b7|\\times|\\cdot)\s?)?
        (?P<base>\d+)\^\{{?(?P<power>[+-]?\d+)\}}?
      | (?P<plain>{_UNSIGNED})(?:[eE](?P<exponent>[+-]?\d+)(?!\w))?
    )
    \s?(?P<percent>\\?%)?
    """,
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True)
class Number:
    """A number as it was written.

    Args:
        value: Before the percent sign.
        percent: Whether it has one.
    """

    value: Fraction
    percent: bool = False

    def matches(self, reference: "Number", tolerance: float) -> bool:
        """Compares two numbers.

        Whole numbers must be the same; of others the difference may be `tolerance` times the reference. If only one
        has a percent sign, both readings count: 50% matches 0.5, and also 50, whose unit was left out.

        Args:
            reference: The right number.
            tolerance: Relative; absolute where the reference is 0.
        """
        if self.percent == reference.percent:
            return _close(self.value, reference.value, tolerance)
        if self.percent:
            return any(_close(value, reference.value, tolerance) for value in (self.value, self.value / 100))
        return any(_close(self.value, value, tolerance) for value in (reference.value, reference.value / 100))


def read_number(text: str) -> Number | None:
    r"""Reads the number that an answer ends with.

    Reads `1,234.5`, `-$3`, `25%`, `3/4`, `1 1/2`, `1.5e-3`, `2 \times 10^{5}`, `\frac{3}{4}`, with or without a unit.

    Args:
        text: The answer. Only the last `\boxed{...}` is read, if there is one.

    Returns:
        The last number; `None` if there is none, or it is no finite one.
    """
    box = last_box(text)
    text = text if box is None else box
    # LaTeX's thousands separators and spaces, and the minus sign of typesetting.
    text = text.replace("{,}", ",").replace("\\!", "").replace("\\$", "$").replace("\u2212", "-")
    text = re.sub(r"(?<=\d)(?:\\,|\u202f|\u00a0)(?=\d{3}(?!\d))", ",", text)
    last = None
    for match in _NUMBER.finditer(text):
        last = match
    return None if last is None else _value(last)


def _value(match: re.Match) -> Number | None:
    if sum(character.isdigit() for character in match[0]) > _MAX_DIGITS:
        return None
    parts = match.groupdict()
    try:
        if parts["plain"] is not None:
            value = _fraction(parts["plain"]) * _power("10", parts["exponent"] or "0")
        elif parts["base"] is not None:
            value = _fraction(parts["factor"] or "1") * _power(parts["base"], parts["power"])
        else:
            top, bottom = parts["top"] or parts["over"], parts["bottom"] or parts["under"]
            value = int(parts["whole"] or parts["stuck"] or 0) + _fraction(top) / _fraction(bottom)
    except (ZeroDivisionError, OverflowError):
        return None
    negative = (parts["sign"] or "").startswith("-") != bool(parts["inner"])
    return Number(-value if negative else value, bool(parts["percent"]))


def _fraction(text: str) -> Fraction:
    return Fraction(text.strip("{}").replace(",", ""))


def _power(base: str, exponent: str) -> Fraction:
    if abs(int(exponent)) * max(len(base) - 1, 1) > _MAX_DIGITS:
        raise OverflowError
    return Fraction(int(base)) ** int(exponent)


def _close(value: Fraction, reference: Fraction, tolerance: float) -> bool:
    if value.denominator == reference.denominator == 1:
        return value == reference
    return abs(value - reference) <= Fraction(tolerance) * (abs(reference) or 1)
