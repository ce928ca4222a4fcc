"""Other engines do the same work, and come to the same table."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rewards.labelling.fakes import Echo, FirstWord, length_of_answer
from zooter_hf import RewardTable
from zooter_hf.experts import ExpertError, GenerationSettings
from zooter_hf.rewards.labelling import collect_rewards, label
from zooter_hf.rewards.labelling.engines import LocalEngine, _Actor
from zooter_hf.rewards.labelling.workers import AnswerWorker


ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def ray():
    """A Ray of this test's own on two cores, stopped at the end."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def test_ray_comes_to_the_same_table(tmp_path, queries, ray):
    """Every stage starts actors of its own, which takes seconds: there is one expert here and no tagger."""
    arguments = {"chunk_size": 2}
    expert = Echo("calm", fails_on=["Why?"])
    expected = label(queries, [expert], length_of_answer, output=tmp_path / "local", **arguments)
    labelling = label(queries, [expert], length_of_answer, output=tmp_path / "ray", engine="ray", **arguments)
    assert list(labelling.table) == list(expected.table) and len(expected.table) == 4
    assert labelling.summary == expected.summary
    # What one engine has done the other does not do again.
    again = Echo("calm")
    collect_rewards(queries, [again], length_of_answer, output=tmp_path / "ray", **arguments)
    assert [text for text, _ in again.asked] == ["Why?"]


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(one)


@pytest.mark.parametrize("error", [ExpertError("loud: no server"), Unpicklable("loud: no server", 2)])
def test_what_fails_in_an_actor_is_told(error):
    actor = _Actor(pickle.dumps(AnswerWorker(Echo("loud"), GenerationSettings())))
    batch = {"unit": [3, 4], "payload": [pickle.dumps(("Why?", 0))] * 2}
    results = actor(batch)
    assert results["unit"] == [3, 4]
    assert [pickle.loads(result).text for result in results["result"]] == ["loud, seed 0: Why?"] * 2
    actor.worker.held.error = error
    failures = [pickle.loads(result) for result in actor(batch)["result"]]
    assert all("loud: no server" in str(failure.error) for failure in failures)


SCRIPT = """
import sys
from tests.rewards.labelling.conftest import QUERIES
from tests.rewards.labelling.fakes import Echo, FirstWord, length_of_answer
from zooter_hf.rewards.labelling import collect_rewards

experts = [Echo("loud"), Echo("calm")]
table = collect_rewards(
    [{"query": query} for query in QUERIES], experts, length_of_answer, output=sys.argv[1], tagger=FirstWord()
)
# In one piece: both processes write to one stream.
sys.stdout.write(f"asked {sum(len(expert.asked) for expert in experts)} rows {len(table)}\\n")
"""


def test_processes_of_accelerate_share_the_queries(tmp_path, queries, experts):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    # What `accelerate launch` starts where there are several GPUs.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    result = subprocess.run(
        [*command, str(script), str(tmp_path / "t")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    counts = [int(count) for count in re.findall(r"asked (\d+)", result.stdout)]
    assert sorted(counts) == [4, 6] and result.stdout.count("rows 5") == 2
    plain = [{"query": query["query"]} for query in queries]
    expected = collect_rewards(plain, experts, length_of_answer, output=tmp_path / "u", tagger=FirstWord())
    assert list(RewardTable.load(tmp_path / "t")) == list(expected)


def test_a_process_takes_its_share():
    engine = LocalEngine()
    engine.rank, engine.world_size = 1, 3
    assert engine.share([0, 1, 2, 3, 4]) == [1, 4]
