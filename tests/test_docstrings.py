"""The examples in docstrings give what they say."""

import doctest

import pytest

from zooter_hf.modeling import configuration_zooter, modeling_zooter, pipeline_zooter


@pytest.mark.parametrize("module", [configuration_zooter, modeling_zooter, pipeline_zooter])
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
