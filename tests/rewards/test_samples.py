"""Several answers to one query."""

import warnings

import numpy as np
import pytest

from zooter_hf.rewards.samples import average_samples


NAN = float("nan")


def test_mean_and_spread():
    scores = np.array([[[1.0, 2.0, 3.0], [1.0, NAN, 2.0]], [[5.0, NAN, NAN], [NAN, NAN, NAN]]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, spread = average_samples(scores)
    np.testing.assert_allclose(mean, [[2.0, 1.5], [5.0, NAN]])
    np.testing.assert_allclose(spread, [[1.0, np.sqrt(0.5)], [NAN, NAN]])
    mean, spread = average_samples(np.ones((2, 3, 1)))
    assert (mean == 1).all() and np.isnan(spread).all()


def test_wrong_shape():
    with pytest.raises(ValueError, match=r"\(queries, experts, samples\), got \(2, 3\)"):
        average_samples(np.ones((2, 3)))
