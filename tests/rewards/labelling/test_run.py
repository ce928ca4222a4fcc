"""The labelling run: what comes out, what is repeated, what fails."""

import json
import os

import pytest
import torch

from tests.rewards.labelling.fakes import Echo, FirstWord, Judge, length_of_answer
from zooter_hf import RewardTable
from zooter_hf.experts import ExpertError, GenerationSettings
from zooter_hf.rewards.labelling import collect_rewards, label
from zooter_hf.rewards.teachers import CallableTeacher, CombinedTeacher, Verifier


def asked(*experts):
    return sum(len(expert.asked) for expert in experts)


def test_the_table(tmp_path, queries, experts, teacher):
    table = collect_rewards(queries, experts, teacher, output=tmp_path / "t", tagger=FirstWord())
    expected = [[len(f"{name}, seed 0: {q['query']}") for name in ("loud", "calm")] for q in queries]
    torch.testing.assert_close(table.rewards, torch.tensor(expected, dtype=torch.float64))
    assert list(table.queries) == [q["query"] for q in queries] and table.subsets == [q["subset"] for q in queries]
    assert table.tags == [["how"], ["why"], [], ["name"], ["sort"]]
    assert table[1]["responses"] == {"loud": "loud, seed 0: Why?", "calm": "calm, seed 0: Why?"}
    assert table.costs is None and table.spreads is None
    assert list(RewardTable.load(tmp_path / "t")) == list(table)
    assert [expert.most_loaded for expert in experts] == [1, 1], "one model in memory at a time"
    assert not Echo.loaded


def test_tags_of_the_queries_are_kept_without_a_tagger(tmp_path, experts, teacher):
    table = collect_rewards([{"query": "x", "tags": ("a", "b")}, "y"], experts, teacher, output=tmp_path / "t")
    assert table.tags == [["a", "b"], []]


@pytest.mark.parametrize("done", range(0, 11, 2))
def test_stopped_anywhere_it_goes_on_and_repeats_nothing(tmp_path, queries, teacher, done):
    undisturbed = collect_rewards(
        queries, [Echo("loud"), Echo("calm")], teacher, output=tmp_path / "u", tagger=FirstWord(), chunk_size=2
    )
    first = [Echo("loud", stops_after=done), Echo("calm", stops_after=max(done - 5, 0))]
    arguments = {"output": tmp_path / "t", "chunk_size": 2}
    if done < 10:
        with pytest.raises(KeyboardInterrupt):
            collect_rewards(queries, first, teacher, tagger=FirstWord(), **arguments)
        assert not (tmp_path / "t").exists() and not Echo.loaded
    second = [Echo("loud"), Echo("calm")]
    table = collect_rewards(queries, second, teacher, tagger=FirstWord(), **arguments)
    assert list(table) == list(undisturbed)
    # Of the first run at most the answers of the chunk that was stopped are lost.
    kept = 10 - asked(*second)
    assert asked(*first) - 1 <= kept <= asked(*first)
    third, tagger = [Echo("loud"), Echo("calm")], FirstWord()
    assert list(collect_rewards(queries, third, teacher, tagger=tagger, **arguments)) == list(undisturbed)
    assert asked(*third) == 0 and not tagger.asked
    assert not any(expert.most_loaded for expert in third), "nothing to do, nothing loaded"


def test_a_changed_setting_never_mixes_with_old_results(tmp_path, queries, experts, teacher):
    arguments = {"output": tmp_path / "t"}
    collect_rewards(queries, experts, teacher, tagger=FirstWord(), **arguments)
    settings = GenerationSettings(temperature=0.5, seed=3)
    again, tagger = Echo("loud"), FirstWord("other")
    table = collect_rewards(queries, [again], teacher, tagger=tagger, settings=settings, **arguments)
    assert len(again.asked) == 5 and len(tagger.asked) == 5
    assert table.expert_names == ["loud"] and "seed 3" in table[0]["responses"]["loud"]
    shorter = CallableTeacher(lambda query, answer: -len(answer), name="shorter")
    back = Echo("loud")
    table = collect_rewards(queries, [back], shorter, **arguments)
    assert not back.asked and (table.rewards < 0).all()


def test_a_corrected_reference_is_scored_anew(tmp_path, experts):
    teacher = Verifier("exact")
    for reference, rewards in (("loud, seed 0: x", [1.0, 0.0]), ("calm, seed 0: x", [0.0, 1.0])):
        items = [{"query": "x", "reference": reference}]
        assert collect_rewards(items, experts, teacher, output=tmp_path / "t").rewards.tolist() == [rewards]
    assert asked(*experts) == 2


def test_an_expert_is_added_without_asking_the_others_again(tmp_path, queries, experts, teacher):
    collect_rewards(queries, experts[:1], teacher, output=tmp_path / "t")
    more = [Echo("loud"), Echo("new")]
    table = collect_rewards([*queries, "One more?"], more, teacher, output=tmp_path / "t")
    assert len(more[0].asked) == 1 and len(more[1].asked) == 6
    assert table.rewards.shape == (6, 2)


def test_prices_change_without_new_answers(tmp_path, queries, teacher):
    cheap = Echo("loud", input_price=1.0, output_price=2.0)
    table = collect_rewards(queries[:1], [cheap, Echo("calm")], teacher, output=tmp_path / "t")
    tokens = len("loud, seed 0: How many legs has a spider?")
    assert table.costs[0, 0].item() == pytest.approx((10 * 1.0 + tokens * 2.0) / 1e6)
    assert table.costs[0, 1].isnan()
    dear = Echo("loud", input_price=10.0, output_price=20.0)
    again = collect_rewards(queries[:1], [dear, Echo("calm")], teacher, output=tmp_path / "t")
    assert not dear.asked
    torch.testing.assert_close(again.costs[:, :1], 10 * table.costs[:, :1])


def test_several_answers_are_averaged_and_their_spread_is_kept(tmp_path, queries, teacher):
    expert = Echo("loud")
    table = collect_rewards(
        queries[:2],
        [expert],
        teacher,
        output=tmp_path / "t",
        settings=GenerationSettings(temperature=1.0),
        samples=3,
    )
    assert sorted(seed for _, seed in expert.asked) == [0, 0, 1, 1, 2, 2]
    base = [len(f"loud, seed 0: {q['query']}") for q in queries[:2]]  # and up to two exclamation marks
    torch.testing.assert_close(table.rewards[:, 0], torch.tensor([b + 1.0 for b in base], dtype=torch.float64))
    torch.testing.assert_close(table.spreads[:, 0], torch.ones(2, dtype=torch.float64))
    assert table[0]["responses"]["loud"].startswith("loud, seed 0")


def test_an_expert_that_fails_on_some_leaves_nulls(tmp_path, queries, teacher):
    broken = Echo("loud", fails_on=["Why?"])
    labelling = label(queries, [broken, Echo("calm")], teacher, output=tmp_path / "t")
    assert labelling.table.rewards.isnan().nonzero().tolist() == [[1, 0]]
    assert labelling.table[1]["responses"]["loud"] is None
    loud, calm = labelling.summary.experts
    assert (loud.answered, loud.failed, loud.error) == (4, 1, "cannot say anything to Why?")
    assert (calm.answered, calm.failed, calm.error) == (5, 0, None)
    assert "loud: 4 answers" in str(labelling.summary) and "1 failed" in str(labelling.summary)
    summary = json.loads((tmp_path / "t.work" / "summary.json").read_text())
    assert summary["experts"][0]["error"] == "cannot say anything to Why?"
    # What failed is asked for again; what did not is not.
    repaired = Echo("loud")
    assert not label(queries, [repaired, Echo("calm")], teacher, output=tmp_path / "t").table.rewards.isnan().any()
    assert [text for text, _ in repaired.asked] == ["Why?"]


def test_an_expert_that_fails_on_all_does_not_stop_the_others(tmp_path, queries, teacher):
    dead = Echo("loud", error=ExpertError("loud: no server at http://localhost:1"))
    labelling = label(queries, [dead, Echo("calm")], teacher, output=tmp_path / "t")
    assert labelling.table.rewards[:, 0].isnan().all() and not labelling.table.rewards[:, 1].isnan().any()
    assert labelling.summary.experts[0].error == "loud: no server at http://localhost:1"
    with pytest.raises(ExpertError, match="(?s)No expert gave any answer.*loud: .*no server"):
        label(queries, [dead], teacher, output=tmp_path / "other")


def test_a_teacher_that_compares_sees_the_answers_together(tmp_path, queries):
    judge = Judge()
    table = collect_rewards(
        queries, [Echo("loud", fails_on=["Why?"]), Echo("very calm")], judge, output=tmp_path / "t"
    )
    assert sorted(map(len, judge.seen)) == [1, 2, 2, 2, 2]
    assert table.rewards[0].tolist() == [0.0, 1.0]
    assert table.rewards[1].isnan().tolist() == [True, False]


def test_several_teachers_are_standardised_and_weighed(tmp_path, queries, experts):
    parts = [
        (CallableTeacher(length_of_answer), 3.0),
        (CallableTeacher(lambda query, answer: 100.0 * answer.startswith("calm"), name="calm"), 1.0),
    ]
    labelling = label(queries, experts, CombinedTeacher(parts), output=tmp_path / "t")
    lengths = torch.tensor([[len(f"{n}, seed 0: {q['query']}") for n in ("loud", "calm")] for q in queries]).double()
    lengths = (lengths - lengths.mean()) / lengths.std(correction=0)
    torch.testing.assert_close(labelling.table.rewards, 0.75 * lengths + 0.25 * torch.tensor([-1.0, 1.0]).double())
    assert len(labelling.summary.unscored) == 2


def test_a_teacher_that_cannot_say_leaves_nulls_and_is_counted(tmp_path, queries, experts):
    picky = CallableTeacher(lambda query, answer: None if "Why" in answer else 1.0, name="picky")
    labelling = label([*queries], experts, picky, output=tmp_path / "t")
    assert labelling.summary.unscored == {"picky": 2}
    assert len(labelling.table) == 4 and len(labelling.table.left_out) == 1


def test_a_few_queries_of_every_tag(tmp_path, experts, teacher):
    queries = [f"{tag} {chr(97 + number)}" for tag in ("sum", "river") for number in range(6)]
    expert, tagger = Echo("loud"), FirstWord()
    table = collect_rewards(queries, [expert], teacher, output=tmp_path / "t", tagger=tagger, per_tag=2)
    assert sorted(tag for tags in table.tags for tag in tags) == ["river", "river", "sum", "sum"]
    assert len(expert.asked) == 4 and len(tagger.asked) == 12
    with pytest.raises(ValueError, match="No query has a tag"):
        collect_rewards(queries, [expert], teacher, output=tmp_path / "u", per_tag=2)


def test_nothing_that_was_there_is_lost(tmp_path, queries, experts, teacher):
    folder = tmp_path / "t"
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"is not empty\. Give another folder"):
        collect_rewards(queries, experts, teacher, output=folder)
    assert asked(*experts) == 0 and (folder / "precious.txt").exists()
    collect_rewards(queries, experts, teacher, output=folder, overwrite=True)
    assert not (folder / "precious.txt").exists()


def test_a_second_run_is_kept_away(tmp_path, queries, experts, teacher):
    from filelock import FileLock

    (tmp_path / "t.work").mkdir()
    with FileLock(tmp_path / "t.work" / "lock"), pytest.raises(OSError, match="Another run is at work"):
        collect_rewards(queries, experts, teacher, output=tmp_path / "t")


def test_a_full_disk_is_no_fault_of_the_expert(tmp_path, queries, experts, teacher, monkeypatch):
    synced = []

    def full(descriptor):
        synced.append(descriptor)
        if len(synced) > 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        collect_rewards(queries, experts, teacher, output=tmp_path / "t", chunk_size=2)
    assert asked(experts[0]) == 4 and not experts[1].asked, "the run ends there"
    monkeypatch.undo()
    again = [Echo("loud"), Echo("calm")]
    assert len(collect_rewards(queries, again, teacher, output=tmp_path / "t")) == 5
    assert asked(*again) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 2}, "2 answers at temperature 0 would all be the same"),
        ({"samples": 0}, "`samples` must be positive"),
        ({"chunk_size": 0}, "`chunk_size` must be positive"),
        ({"engine": "spark"}, "must be 'local' or 'ray', got 'spark'"),
        ({"queries": []}, "There are no queries"),
        ({"queries": ["x", ""]}, "Query 2: its query is empty"),
        ({"experts": []}, "There are no experts"),
        ({"experts": [Echo("a"), Echo("a")]}, r"\['a'\] are named twice"),
    ],
)
def test_errors_before_anything_is_asked(tmp_path, queries, experts, teacher, changes, message):
    arguments = {"queries": queries, "experts": experts, "reward_model": teacher, **changes}
    with pytest.raises(ValueError, match=message):
        collect_rewards(**arguments, output=tmp_path / "t")
    assert asked(*experts) == 0


def test_a_reward_model_of_no_kind(tmp_path, queries, experts):
    with pytest.raises(TypeError, match="got int"):
        collect_rewards(queries, experts, 7, output=tmp_path / "t")
