"""From specs to experts."""

import subprocess
import sys

import pytest

from zooter_hf.experts import BACKENDS, EndpointExpert, make_expert
from zooter_hf.modeling import ExpertSpec, configuration_zooter


URL = "http://localhost:8000/v1"


def test_makes_the_expert_of_a_spec():
    expert = make_expert(ExpertSpec("a", model="m", backend="endpoint", base_url=URL))
    assert isinstance(expert, EndpointExpert)
    assert expert.spec.name == "a"


def test_knows_the_back_ends_that_a_spec_may_have():
    assert set(BACKENDS) == set(configuration_zooter.BACKENDS)


def test_a_spec_without_a_back_end_cannot_answer():
    with pytest.raises(ValueError, match=r"'a' has no `backend`.*transformers.*adapter.*endpoint"):
        make_expert(ExpertSpec("a"))


def test_loads_nothing_that_is_not_asked_for():
    code = f"""
import sys
import zooter_hf
import zooter_hf.experts as experts
expert = experts.make_expert(zooter_hf.ExpertSpec("a", model="m", backend="endpoint", base_url={URL!r}))
loaded = ["zooter_hf.experts.local", "zooter_hf.experts.adapter", "huggingface_hub.inference._client", "peft"]
print([name for name in loaded if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
