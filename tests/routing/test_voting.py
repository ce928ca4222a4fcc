import pytest
from hypothesis import given
from hypothesis import strategies as st

from zooter_hf.routing.voting import normalise_answer, vote


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        (" The  Eiffel\nTower. ", "eiffel tower"),
        ('"An apple"!', "apple"),
        ("**Paris**", "paris"),
        ("(B).", "b"),
        ("A", "a"),
        ("the", "the"),
        ("theory", "theory"),
        ("vitamin A", "vitamin a"),
        ("-5", "-5"),
        (".5", ".5"),
        ("5%", "5%"),
        ("C#", "c#"),
        ("\uff30\uff41ris", "paris"),
        ("...", ""),
    ],
)
def test_normalised(text, normalised):
    assert normalise_answer(text) == normalised


@given(st.text())
def test_normalising_again_with_spaces_and_case_changes_nothing(text):
    assert normalise_answer(f"  {text}\n") == normalise_answer(text)


def test_the_majority_wins():
    result = vote(["Paris", "London", "paris."])
    assert result.winner == 0
    assert result.share == pytest.approx(2 / 3)
    assert result.shares == pytest.approx((2 / 3, 1 / 3, 2 / 3))


def test_weights_may_outvote_a_majority():
    result = vote(["B", "C", "B"], [0.2, 0.5, 0.2])
    assert result.winner == 1
    assert result.share == pytest.approx(5 / 9)


def test_the_winner_is_the_weightiest_of_those_who_agree():
    assert vote(["B", "C", "B"], [0.2, 0.1, 0.3]).winner == 2
    assert vote(["B", "C", "B"], [0.3, 0.1, 0.3]).winner == 0


def test_ties_go_to_the_greatest_weight_then_to_the_first():
    assert vote(["x", "y"]).winner == 0
    assert vote(["x", "y", "x"], [0.1, 0.3, 0.2]).winner == 1, "0.1 + 0.2 is no more than 0.3"
    assert vote(["y", "x", "x"], [0.3, 0.1, 0.2]).winner == 0


def test_what_is_no_answer_does_not_count():
    result = vote([None, "...", "C", None])
    assert (result.winner, result.share) == (2, 1.0)
    assert result.shares == (None, None, 1.0, None)
    assert vote([None, ""]).winner is None
    assert vote([]).winner is None
    assert vote([None, "C"], [1.0, 0.0]).share == 1.0, "an answer of no weight is better than none"


def test_other_values_than_texts():
    assert vote([3, 4, 4]).winner == 1
    assert vote([(1, 2), (1, 2), None]).share == 1.0


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0], "2 answers need as many weights"), ([1.0, -1.0], "not negative"), ([1.0, float("nan")], "finite")],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        vote(["a", "b"], weights)


@given(st.lists(st.tuples(st.sampled_from([None, "a1", "b1", "c1"]), st.floats(0, 1)), min_size=1))
def test_shares_are_those_of_the_answers(ballots):
    answers, weights = zip(*ballots, strict=True)
    result = vote(answers, weights)
    if result.winner is None:
        assert set(answers) == {None}
        return
    of_answers = {answer: share for answer, share in zip(answers, result.shares, strict=True) if answer is not None}
    assert sum(of_answers.values()) == pytest.approx(1)
    assert result.share == of_answers[answers[result.winner]] >= max(of_answers.values()) - 1e-11
