"""Several teachers in one score."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from zooter_hf.rewards.teachers import CallableTeacher, CombinedTeacher


NAN = float("nan")


def combination(*weights):
    return CombinedTeacher([(CallableTeacher(len, name=f"part {i}"), w) for i, w in enumerate(weights)])


def test_by_hand():
    # Mean 2 and deviation 1 (1, 3, 1, 3); mean 10 and deviation 10 over the two known (0, 20).
    first, second = np.array([[1.0, 3.0], [1.0, 3.0]]), np.array([[0.0, NAN], [20.0, NAN]])
    combined = combination(3, 1).combine([first, second])
    np.testing.assert_allclose(combined, [[(-3 - 1) / 4, 1.0], [(-3 + 1) / 4, 1.0]])


def test_a_constant_part_counts_as_zero():
    # 0.1 is no binary number: rounding leaves a deviation of 1e-17.
    combined = combination(1, 1).combine([np.full((2, 3), 0.1), np.arange(6.0).reshape(2, 3)])
    alone = combination(1).combine([np.arange(6.0).reshape(2, 3)])
    np.testing.assert_allclose(combined, alone / 2)


def test_what_no_part_knows():
    combined = combination(1, 2).combine([np.array([[NAN, 1.0]]), np.array([[NAN, NAN]])])
    np.testing.assert_array_equal(combined, [[NAN, 0.0]])


@given(arrays(np.float64, (4, 3), elements=st.floats(-100, 100)), st.floats(0.1, 50), st.floats(-50, 50))
def test_the_scale_of_a_part_does_not_matter(scores, factor, shift):
    if np.ptp(scores) < 1e-3:
        return
    other = np.arange(12.0).reshape(4, 3) ** 2
    np.testing.assert_allclose(
        combination(1, 2).combine([scores * factor + shift, other]),
        combination(1, 2).combine([scores, other]),
        atol=1e-6,
    )


def test_errors():
    with pytest.raises(ValueError, match="at least one teacher"):
        CombinedTeacher([])
    for weight in (0, -1, NAN, float("inf")):
        with pytest.raises(ValueError, match="must be a positive finite number"):
            combination(weight)
    with pytest.raises(ValueError, match="There are 2 parts, but the scores of 1"):
        combination(1, 1).combine([np.ones((2, 2))])
    with pytest.raises(ValueError, match=r"same shape .* \(2, 2\), \(2, 3\)"):
        combination(1, 1).combine([np.ones((2, 2)), np.ones((2, 3))])
    with pytest.raises(ValueError, match="finite or NaN"):
        combination(1).combine([np.array([[np.inf]])])


def test_settings_hold_parts_and_weights():
    settings = combination(1, 2).settings
    assert [part["weight"] for part in settings["parts"]] == [1.0, 2.0]
    assert settings["parts"][1]["teacher"]["name"] == "part 1"
