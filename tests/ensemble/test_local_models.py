"""Real (tiny) models behind a router: adapters on one base, memory, threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.ensemble.conftest import rank
from tests.experts.tiny_models import TEXTS, save_adapter, save_model
from zooter_hf import ExpertSpec
from zooter_hf.ensemble import EnsembleError
from zooter_hf.experts import GenerationSettings, make_expert
from zooter_hf.experts import shared as shared_models
from zooter_hf.experts.shared import SharedModel
from zooter_hf.routing import Choice, RoutingPolicy


LOCAL = ["base", "math", "code", "other"]
SPREAD = (0.4, 0.3, 0.2, 0.1)


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    base = save_model(root / "base")
    save_model(root / "other", seed=7)
    adapters = [save_adapter(root / name, base, seed=seed) for seed, name in enumerate(("math", "code"), start=1)]
    return {
        "base": ExpertSpec("base", backend="transformers", model=str(base)),
        "math": ExpertSpec("math", backend="adapter", model=str(adapters[0])),
        "code": ExpertSpec("code", backend="adapter", model=str(adapters[1])),
        "other": ExpertSpec("other", backend="transformers", model=str(root / "other")),
    }


@pytest.fixture(scope="module")
def references(specs):
    """What every expert says by itself."""
    texts = {}
    for name, spec in specs.items():
        with make_expert(spec) as expert:
            for query, answer in zip(TEXTS, expert.answer(TEXTS, GenerationSettings(max_new_tokens=32)), strict=True):
                texts[name, query] = answer.text
    assert len(set(texts.values())) == len(texts)
    return texts


@pytest.fixture
def local(make_ensemble, specs):
    def make(**arguments):
        return make_ensemble(specs, names=LOCAL, prefer=LOCAL, probabilities=SPREAD, **arguments)

    yield make


class Turns(RoutingPolicy):
    """Every query goes to the next expert."""

    name = "turns"

    def __init__(self, names):
        super().__init__()
        object.__setattr__(self, "names", list(names))  # policies are values; this one is not

    def choose_between(self, candidates, query):
        first = self.names.pop(0)
        return Choice((first, *(each.name for each in candidates if each.name != first)), "its turn")


def test_a_batch_over_a_base_and_its_adapters(local, references, monkeypatch):
    used = []
    using = SharedModel.using
    monkeypatch.setattr(SharedModel, "using", lambda self, adapters: used.append(adapters) or using(self, adapters))
    names = ["math", "code", "base", "math", "other"]
    queries = [*TEXTS, TEXTS[0]]
    ensemble = local()
    replies = ensemble.generate(queries, policy=Turns(names), max_new_tokens=32)
    assert [reply.expert for reply in replies] == names
    assert len(used) == 2 and {len(adapters) for adapters in used} == {4, 1}  # one mixed batch, and the other model
    assert [reply.text for reply in replies] == [references[each] for each in zip(names, queries, strict=True)]


def test_memory(local):
    ensemble = local(max_loaded=1)
    ensemble.generate("Why?", max_new_tokens=2, expert="math")
    ensemble.generate("Why?", max_new_tokens=2, expert="code")
    assert ensemble.loaded == ["code", "math"]  # on one base, which counts once
    (shared,) = shared_models._held.values()
    assert len(shared.adapters) == 2
    ensemble.generate("Why?", max_new_tokens=2, expert="other")
    assert ensemble.loaded == ["other"] and len(shared_models._held) == 1
    ensemble.close()
    assert not shared_models._held and ensemble.loaded == []


def test_the_estimate_is_what_is_loaded(specs):
    for name in ("base", "other"):
        expert = make_expert(specs[name])
        estimate = expert.memory_bytes
        assert not shared_models._held
        with expert:
            expert.load()
            assert estimate == expert.memory_bytes > 10_000
    adapter, base = make_expert(specs["math"]), make_expert(specs["base"])
    assert adapter.memory_key == base.memory_key != make_expert(specs["other"]).memory_key
    estimate = adapter.memory_bytes
    with adapter:
        adapter.load()
        assert adapter.memory_bytes == pytest.approx(estimate, rel=0.05) and estimate > base.memory_bytes
    half = make_expert(
        ExpertSpec("half", backend="transformers", model=specs["base"].model, options={"dtype": "float16"})
    )
    assert half.memory_bytes == pytest.approx(base.memory_bytes / 2, rel=0.05)


def test_a_byte_budget(local, specs):
    size = make_expert(specs["base"]).memory_bytes
    ensemble = local(max_bytes=int(size * 1.5))
    for name in ("base", "math", "other"):
        ensemble.generate("Why?", max_new_tokens=2, expert=name)
    assert ensemble.loaded == ["other"]
    ensemble = local(max_bytes=size // 2, max_fallbacks=5)
    with pytest.raises(EnsembleError, match=r"(?s)Expert 'base' takes .*max_bytes.*Expert 'other' takes"):
        ensemble.generate("Why?")


@pytest.mark.parametrize("max_loaded", [None, 1])
def test_threads_do_not_corrupt_the_adapters(local, references, max_loaded):
    ensemble = local(max_loaded=max_loaded)
    work = [(name, query) for name in LOCAL for query in TEXTS] * 2

    def answer(item):
        name, query = item
        if len(query) % 2:
            return ensemble.generate(query, expert=name, max_new_tokens=24).text
        return "".join(ensemble.stream(query, expert=name, max_new_tokens=24))

    with ThreadPoolExecutor(8) as threads:
        texts = list(threads.map(answer, work))
    for text, item in zip(texts, work, strict=True):
        # The last token may be a part of a character.
        assert references[item].startswith(text.rstrip("\ufffd")) and bool(text) == bool(references[item])


def test_a_query_that_does_not_fit_goes_to_one_that_takes_it(make_ensemble, specs, tmp_path):
    long = ExpertSpec(
        "other",
        backend="transformers",
        model=str(save_model(tmp_path / "long", seed=7, max_position_embeddings=512)),
    )
    names = ["base", "other"]
    ensemble = make_ensemble({**specs, "other": long}, names=names, prefer=names, probabilities=(0.6, 0.4))
    query = "Prove it. " * 30
    reply = ensemble.generate(query, max_new_tokens=8)
    assert reply.expert == "other" and "more than the context of 128" in reply.decision.fallbacks[0].reason
    assert ensemble.stream(query, max_new_tokens=8).decision.expert == "base"
    # Which is no reason to leave the first one alone.
    for _ in range(5):
        ensemble.generate(query, max_new_tokens=2)
    assert ensemble.generate("Why?", max_new_tokens=2).expert == "base"


def test_images_go_to_one_that_can_see(make_ensemble, specs, played):
    played["gamma"].local = False
    names = ["base", "gamma"]
    ensemble = make_ensemble({"base": specs["base"], "gamma": played["gamma"]}, names=names)
    rank(ensemble.router, names, (0.6, 0.4))
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "x.png"}}]
    chat = [{"role": "user", "content": parts}]
    reply = ensemble.generate(chat)
    assert reply.expert == "gamma" and played["gamma"].asked == [[chat]]
    assert "not text" in reply.decision.fallbacks[0].reason


def test_a_loading_error_names_expert_and_reason(make_ensemble, specs, tmp_path):
    gone = ExpertSpec("other", backend="transformers", model=str(tmp_path / "gone"))
    names = ["base", "other"]
    ensemble = make_ensemble({**specs, "other": gone}, names=names)
    with pytest.raises(EnsembleError, match=r"'other'.*no such folder"):
        ensemble.generate("Why?", expert="other")
    with pytest.raises(RuntimeError, match="'other'"):
        ensemble.preload(names)
