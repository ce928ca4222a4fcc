"""Several experts answer together, of which one answer is made."""

import pytest

from tests.ensemble.conftest import NAMES
from tests.ensemble.test_comparison import script
from zooter_hf import ZooterEnsemble
from zooter_hf.ensemble import EnsembleError
from zooter_hf.experts import ExpertError
from zooter_hf.rewards.teachers import CallableTeacher
from zooter_hf.routing import SetPolicy


BOTH = SetPolicy(
    threshold=0.75, kind="complement", aggregation="weighted", compare="exact"
)  # alpha 0.5 and beta 0.3, not gamma 0.2
ALL = BOTH.changed({"threshold": 0.9})
WORDS = {"alpha": {"Who?": "Ann"}, "beta": {"Who?": "bob."}, "gamma": {"Who?": "Bob"}}


def ensemble_of(make_ensemble, **arguments):
    return make_ensemble(prefer=NAMES, probabilities=(0.5, 0.3, 0.2), **arguments)


@pytest.mark.parametrize(
    ("policy", "text", "expert"),
    [
        (BOTH, "Ann", "alpha"),  # 0.5 against 0.3
        (ALL.changed({"aggregation": "majority"}), "bob.", "beta"),  # two of three
        (ALL, "Ann", "alpha"),  # 1 against 0.6^5 + 0.4^5
        (ALL.changed({"sharpness": 1.0}), "Ann", "alpha"),  # 0.5 against 0.3 + 0.2: a tie goes to the greatest weight
        (ALL.changed({"sharpness": 0.5}), "bob.", "beta"),  # 1 against 0.77 + 0.63
        (ALL.changed({"sharpness": 0.0}), "bob.", "beta"),  # as a majority
        (ALL.changed({"aggregation": "reward_model"}), "bob.", "beta"),
        (ALL.changed({"aggregation": "first"}), "Ann", "alpha"),
    ],
)
def test_aggregation(make_ensemble, played, policy, text, expert):
    script(played, WORDS)
    longest = CallableTeacher(lambda query, answer: float(len(answer)), name="length")
    ensemble = ensemble_of(make_ensemble, policy=policy, reward_model=longest)
    reply = ensemble.generate("Who?")
    assert (reply.text, reply.expert) == (text, expert)
    assert reply.decision.policy == "set" and reply.decision.members[0] == "alpha"
    if policy.aggregation == "first":
        assert reply.answers is None and reply.usage.cost == 0.25
        assert "".join(ensemble.stream("Who?")) == "alpha: Who?", "one expert streams as ever"
    else:
        assert list(reply.answers) == list(reply.decision.members)
        assert reply.usage.cost == 0.25 * len(reply.answers), "all that were asked are paid"
        assert "".join(ensemble.stream("Who?")) == text


def test_a_conversation_does_not_break_up_a_set(make_ensemble, played):
    ensemble = ensemble_of(make_ensemble, policy=BOTH, sticky=True)
    ensemble.generate("Why?", expert="gamma", conversation="one")
    reply = ensemble.generate("Why?", conversation="one")
    assert reply.decision.members == ("alpha", "beta")
    with pytest.raises(EnsembleError, match="Nobody was asked"):
        ensemble.generate("Why?", conversation="one", policy={"threshold": 0.1, "abstain": "refuse"})


def test_members_that_fail(make_ensemble, played):
    script(played, WORDS)
    played["alpha"].answer = lambda queries, settings=None: (_ for _ in ()).throw(ExpertError("alpha is gone"))
    ensemble = ensemble_of(make_ensemble, policy=BOTH)
    reply = ensemble.generate(["Who?"])[0]
    assert (reply.text, reply.expert) == ("bob.", "beta")
    assert [each.expert for each in reply.decision.fallbacks] == ["alpha"]
    played["beta"].answer = lambda queries, settings=None: (_ for _ in ()).throw(ExpertError("beta is gone"))
    assert ensemble.generate("Who?").expert == "gamma", "one outside of the set, where none of it answers"
    with pytest.raises(EnsembleError, match="alpha is gone\n.*beta is gone"):
        ensemble.generate("Who?", fallback="none")


def test_abstentions(make_ensemble, played):
    ensemble = ensemble_of(make_ensemble, policy=BOTH.changed({"threshold": 0.1}))
    assert ensemble.generate("Why?").expert == "alpha"
    with pytest.raises(EnsembleError, match="Nobody was asked: no expert seems good"):
        ensemble.generate("Why?", policy={"abstain": "refuse"})
    with pytest.raises(EnsembleError, match="Nobody was asked"):
        next(ensemble.stream("Why?", policy={"abstain": "refuse"}))
    assert played["alpha"].asked == [["Why?"]]
    replies = ensemble.generate(["Why?", "Who?"], policy={"abstain": "all", "aggregation": "majority"})
    assert [len(reply.answers) for reply in replies] == [3, 3]


def test_a_reward_model_is_missed_before_anything_is_asked(make_ensemble, played):
    with pytest.raises(ValueError, match="reward_model"):
        ensemble_of(make_ensemble, policy=ALL.changed({"aggregation": "reward_model"}))


def test_the_policy_is_saved(make_ensemble, played, tmp_path):
    ensemble_of(make_ensemble, policy=BOTH).save_pretrained(tmp_path / "saved")
    loaded = ZooterEnsemble.from_pretrained(tmp_path / "saved", played)
    assert loaded.generate("Why?").decision.members == ("alpha", "beta")


def test_the_policy_of_the_router_holds(make_router, played):
    router = make_router(experts=NAMES)
    router.config.policy = {"name": "argmax", "include": ["gamma"]}
    ensemble = ZooterEnsemble(router, played)
    assert ensemble.generate("Why?").expert == "gamma"
    assert ensemble.generate("Why?", policy={"include": ["beta"]}).expert == "beta"
    assert ZooterEnsemble(router, played, policy={"include": ["alpha"]}).generate("Why?").expert == "alpha"
    with pytest.raises(ValueError, match="giant"):
        ZooterEnsemble(router, played, policy={"exclude": ["giant"]})
