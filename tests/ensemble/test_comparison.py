"""All experts answer, and one answer is kept: what the ensemble is measured against."""

import pytest

from tests.ensemble.conftest import NAMES
from tests.ensemble.experts import said
from zooter_hf.experts import Answer, ExpertError, Usage
from zooter_hf.rewards.teachers import CallableTeacher, Teacher


def script(played, answers):
    """Has experts give certain answers, one for each query."""
    for name, texts in answers.items():

        def answer(queries, settings=None, texts=texts):
            return [
                Answer(texts[said(query)], Usage(1, 2, 0.5, 0.25)) if texts[said(query)] else Answer(None, error="no")
                for query in queries
            ]

        played[name].answer = answer


class Judge(Teacher):
    """Likes the longest of several answers."""

    compares = True
    settings = {"type": "Judge"}

    def __init__(self):
        self.items = []

    def score(self, items):
        self.items += items
        return [[float(len(answer)) for answer in item.answers] for item in items]


def test_the_answer_with_the_highest_reward_is_kept(make_ensemble, played):
    script(
        played,
        {
            "alpha": {"Why?": "aa", "Who?": "aaaa", "What?": "a"},
            "beta": {"Why?": "bbb", "Who?": None, "What?": "b"},
            "gamma": {"Why?": "c", "Who?": "cc", "What?": "c"},
        },
    )
    ensemble = make_ensemble()
    teacher = CallableTeacher(lambda query, answer: float(len(answer)), name="length")
    for judge in (teacher, Judge()):
        best = ensemble.reward_model_ranking(["Why?", "Who?", "What?"], judge)
        assert [(each.expert, each.text) for each in best] == [("beta", "bbb"), ("alpha", "aaaa"), ("alpha", "a")]
        assert best[0].scores == {"alpha": 2.0, "beta": 3.0, "gamma": 1.0}
        assert best[1].scores == {"alpha": 4.0, "beta": None, "gamma": 2.0}
        assert best[1].answers["beta"].error == "no"
        assert "3 answers" in best[0].reason and "2 answers" in best[1].reason
    assert best[0].usage == Usage(3, 6, 1.5, 0.75)
    assert best[1].usage.cost is None  # of the one that failed it is not known
    one = ensemble.reward_model_ranking([{"role": "user", "content": "Why?"}], teacher)
    assert one.expert == "beta"


def test_voting(make_ensemble, played):
    script(
        played,
        {
            "alpha": {"sum": "It is 3.", "letter": "A", "word": "Paris"},
            "beta": {"sum": "So the answer is 4.0", "letter": "I choose (B).", "word": "paris."},
            "gamma": {"sum": "4", "letter": "none of them", "word": "London"},
        },
    )
    ensemble = make_ensemble()
    kept = ensemble.voting("sum", "numeric")
    assert kept.expert == "beta" and kept.text == "So the answer is 4.0" and kept.reason == "2 of 3 votes"
    assert kept.scores == {"alpha": pytest.approx(1 / 3), "beta": pytest.approx(2 / 3), "gamma": pytest.approx(2 / 3)}
    assert ensemble.voting("word").text == "Paris"
    tie = ensemble.voting("letter", "choice")
    assert tie.expert == "alpha" and tie.scores["gamma"] is None and tie.reason == "1 of 2 votes"
    with pytest.raises(ValueError, match="mode"):
        ensemble.voting("sum", "loudest")


def test_experts_that_fail(make_ensemble, played):
    for name in NAMES:
        played[name].fault = ExpertError(f"{name} is gone")
    ensemble = make_ensemble()
    for kept in (ensemble.voting("Why?"), ensemble.reward_model_ranking("Why?", Judge())):
        assert kept.text is None and kept.expert is None and kept.reason == "no expert answered"
        assert kept.answers["beta"].error == "beta is gone"
    played["beta"].fault = None
    assert ensemble.voting("Why?").expert == "beta"
    unscored = ensemble.reward_model_ranking("Why?", CallableTeacher(lambda query, answer: None, name="none"))
    assert unscored.text == "beta: Why?" and "could be scored" in unscored.reason
