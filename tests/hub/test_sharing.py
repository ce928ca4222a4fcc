"""Pushing and loading over HTTP, in processes whose only Hub is a local server."""

import json
import subprocess
import sys
import textwrap

import pytest
from transformers import pipeline

from tests.conftest import QUERIES
from tests.hub_server import hub_environment


PRELUDE = """
import json, os, sys
from types import SimpleNamespace
import huggingface_hub.utils._http as http
http.time = SimpleNamespace(sleep=lambda seconds: None, time=http.time.time)  # no waiting between retries
import zooter_hf
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline
folder, repo, queries = sys.argv[1], "you/router", json.loads(sys.argv[2])
"""


@pytest.fixture
def client(hub, tmp_path, saved_router):
    """Runs code as a user of the local Hub; returns what it printed as JSON, or the failed process."""

    def run(code, token=None, fails=False, command=None):
        process = subprocess.run(
            command or [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(saved_router), json.dumps(QUERIES)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=hub_environment(hub, tmp_path / "home", token),
        )
        if fails:
            assert process.returncode != 0, process.stdout
            assert hub.token not in process.stderr
            assert token is None or token not in process.stderr
            return process
        assert process.returncode == 0, process.stderr[-3000:]
        return json.loads(process.stdout.strip().splitlines()[-1]) if command is None else process

    return run


PUSH = "print(json.dumps(AutoModel.from_pretrained(folder).push_to_hub(repo).oid))"


def test_push_then_load_by_name_and_by_revision(hub, client, saved_router):
    first = client(PUSH)
    files = hub.files("you/router")
    assert set(files) >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "configuration_zooter.py",
        "modeling_zooter.py",
        "pipeline_zooter.py",
    }
    assert b'model="you/router"' in files["README.md"]
    second = client(
        """
        router = AutoModel.from_pretrained(repo)
        router.config.temperature = 3.0
        print(json.dumps(router.push_to_hub(repo, commit_message="Calibrate").oid))
        """
    )
    assert first != second
    seen = client(
        f"""
        results = {{
            revision: pipeline("zooter-routing", model=repo, revision=revision)(queries)
            for revision in ("main", "{first}", "{second}")
        }}
        router = AutoModelForSequenceClassification.from_pretrained(repo, revision="{first}")
        results["temperature"] = router.config.temperature
        results["revision"] = router.revision
        AutoTokenizer.from_pretrained(repo)
        print(json.dumps(results))
        """
    )
    here = pipeline("zooter-routing", model=str(saved_router))(QUERIES)
    assert [r[0]["label"] for r in seen[first]] == [r[0]["label"] for r in here]
    assert [r[0]["score"] for r in seen[first]] == pytest.approx([r[0]["score"] for r in here])
    assert seen["main"] == seen[second] != seen[first]
    assert seen["temperature"] == 1.0
    assert seen["revision"] == first
    assert not any(hub.token in request.path for request in hub.requests)


def test_the_pipeline_pushes_and_saving_may_push(hub, client, tmp_path):
    client('print(json.dumps(pipeline("zooter-routing", model=folder).push_to_hub(repo, private=True).oid))')
    assert "tokenizer.json" in hub.files("you/router")
    client(
        """
        router = AutoModel.from_pretrained(folder)
        router.save_pretrained("here", push_to_hub=True, repo_id="you/other", commit_message="From here")
        print(json.dumps(os.listdir("here")))
        """
    )
    assert hub.files("you/other")["config.json"] == (tmp_path / "here" / "config.json").read_bytes()
    assert b'model="you/other"' in hub.files("you/other")["README.md"]


def test_a_branch(hub, client):
    client(PUSH)
    client('print(json.dumps(AutoModel.from_pretrained(folder).push_to_hub(repo, revision="dev").oid))')
    assert "model.safetensors" in hub.files("you/router", "dev")
    assert client('print(json.dumps(AutoModel.from_pretrained(repo, revision="dev").num_labels))') == 3


def test_a_card_that_a_person_wrote_on_the_hub_stays(hub, client):
    client(PUSH)
    hub.commit("you/router", {"README.md": b"---\nlicense: mit\n---\n# Ours\n"})
    client(PUSH)
    assert hub.files("you/router")["README.md"] == b"---\nlicense: mit\n---\n# Ours\n"


def test_a_consumer_with_transformers_alone_loads_from_the_hub(hub, client, saved_router):
    commit = client(PUSH)
    seen = client(
        f"""
        # What a stranger has: the repository's own code and nothing of this package.
        for name in [name for name in sys.modules if name.startswith("zooter_hf")]:
            del sys.modules[name]
        from transformers.pipelines import PIPELINE_REGISTRY
        from transformers import AutoConfig
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
        del PIPELINE_REGISTRY.supported_tasks["zooter-routing"]
        del CONFIG_MAPPING._extra_content["zooter"]
        route = pipeline("zooter-routing", model=repo, revision="{commit}", trust_remote_code=True)
        assert type(route.model).__module__.startswith("transformers_modules"), type(route.model)
        print(json.dumps(route(queries)))
        """
    )
    here = pipeline("zooter-routing", model=str(saved_router))(QUERIES)
    assert [r[0]["score"] for r in seen] == pytest.approx([r[0]["score"] for r in here])


def test_refusals_are_the_hubs_own_and_leave_the_revision_intact(hub, client):
    before = client(PUSH)
    change = """
    router = AutoModel.from_pretrained(folder)
    router.classifier.out_proj.weight.data.zero_()
    router.push_to_hub(repo)
    """
    assert "Invalid credentials" in client(change, token="hf_wrong", fails=True).stderr
    hub.fail("PUT", "/lfs-storage/", "drop", times=None)
    assert "model.safetensors" in client(change, fails=True).stderr
    hub.heal()
    hub.fail("POST", "/commit/", 500, times=None)
    assert "500" in client(change, fails=True).stderr
    hub.heal()
    assert "RepositoryNotFoundError" in client('AutoModel.from_pretrained("you/nothing")', fails=True).stderr
    assert "v9" in client('AutoModel.from_pretrained(repo, revision="v9")', fails=True).stderr
    assert hub.repos["model", "you/router"].find("main").sha == before
    assert client(f'print(json.dumps(AutoModel.from_pretrained(repo, revision="{before}").num_labels))') == 3


def test_an_ensemble_is_pushed_whole_and_in_one_commit(hub, client):
    result = client(
        """
        from zooter_hf import ZooterEnsemble, ZooterForRouting
        router = ZooterForRouting.from_pretrained(folder)
        spec = {"backend": "endpoint", "model": "m", "base_url": "http://localhost:9/v1"}
        experts = {name: spec for name in [*router.expert_names, "extra"]}
        pushed = ZooterEnsemble(router, experts, sticky=True)
        commit = pushed.push_to_hub(repo)
        router.push_to_hub("you/alone")
        loaded = ZooterEnsemble.from_pretrained(repo)
        alone = ZooterEnsemble.from_pretrained("you/alone", revision="main")
        print(json.dumps([
            commit.oid, list(loaded.experts), loaded.settings.sticky, loaded.router.expert_names,
            list(alone.experts), alone.settings.sticky,
        ]))
        """,
        token=hub.token,
    )
    _, experts, sticky, known, alone, alone_sticky = result
    assert experts == [*known, "extra"] and sticky
    assert alone == known and not alone_sticky


def test_the_command_line_pushes_and_reads(hub, client, saved_router):
    zooter = [sys.executable, "-c", "from zooter_hf.cli import main; main()"]
    pushed = client("", command=[*zooter, "push", str(saved_router), "you/cli", "--message", "First"])
    assert hub.endpoint in pushed.stdout
    assert "math-7b" in client("", command=[*zooter, "info", "you/cli"]).stdout
    commit = hub.repos["model", "you/cli"].find("main").sha
    routed = client("", command=[*zooter, "route", "-m", "you/cli", "--revision", commit, "--json", QUERIES[0]])
    decision = json.loads(routed.stdout)["decision"]
    assert (decision["router"], decision["revision"]) == ("you/cli", commit)
    refused = client("", command=[*zooter, "push", str(saved_router), "you/cli"], token="hf_wrong", fails=True)
    assert "Traceback" not in refused.stderr


def test_the_embedded_router_asks_no_network(hub, client):
    labels = client('print(json.dumps([r[0]["label"] for r in pipeline("zooter-routing")(queries)]))')
    assert len(labels) == len(QUERIES)
    assert hub.requests == []
