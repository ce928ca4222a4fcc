"""Reward models score what the library itself scores, whatever stands beside it in the batch."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from tests.conftest import QUERIES
from zooter_hf.rewards.teachers import RewardModel, Scorable


ANSWERS = [
    "Why?",
    "Because the moon is blue in the evening, and red by day.",
    "Who wrote this function?",
    "list",
    "a b",
]
ITEMS = [Scorable(query, (answer,)) for query, answer in zip(QUERIES, ANSWERS, strict=True)]


@torch.no_grad()
def by_hand(folder, **inputs):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return model(**inputs).logits.item()


def single(scores):
    assert all(len(each) == 1 for each in scores)
    return [score for (score,) in scores]


def test_pairs_without_a_chat_template(bert_folder):
    tokenizer = AutoTokenizer.from_pretrained(bert_folder)
    expected = [
        by_hand(bert_folder, **tokenizer(query, answer, return_tensors="pt"))
        for query, answer in zip(QUERIES, ANSWERS, strict=True)
    ]
    scores = single(RewardModel(bert_folder, batch_size=3).score(ITEMS))
    assert scores == pytest.approx(expected, abs=1e-4)
    assert len({round(score, 4) for score in scores}) == len(scores)


def test_conversations_with_a_chat_template(llama_folder):
    tokenizer = AutoTokenizer.from_pretrained(llama_folder)
    expected = []
    for query, answer in zip(QUERIES, ANSWERS, strict=True):
        # Written out rather than rendered: one beginning of text, an end after every turn.
        text = f"[CLS]user : {query}[SEP]assistant : {answer}[SEP]"
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        assert (ids == tokenizer.bos_token_id).sum() == 1
        expected.append(by_hand(llama_folder, input_ids=ids))  # alone, the score is that of the last token
    scores = single(RewardModel(llama_folder, batch_size=5).score(ITEMS))
    assert scores == pytest.approx(expected, abs=1e-4)
    assert len({round(score, 4) for score in scores}) == len(scores)


@pytest.mark.parametrize("pad_token_id", [None, -1, 0, 3])
def test_the_batch_does_not_matter(make_llama, pad_token_id):
    # 3 is the end of text, which every conversation here ends with.
    folder = make_llama(pad_token_id=pad_token_id)
    one_by_one = single(RewardModel(folder, batch_size=1).score(ITEMS))
    together = single(RewardModel(folder, batch_size=5).score(ITEMS))
    assert together == pytest.approx(one_by_one, abs=1e-4)
    reverse = single(RewardModel(folder, batch_size=2).score(ITEMS[::-1]))
    assert reverse[::-1] == pytest.approx(one_by_one, abs=1e-4)


def test_several_answers_and_none(bert_folder):
    teacher = RewardModel(bert_folder)
    alone = single(teacher.score([Scorable(QUERIES[0], (answer,)) for answer in ANSWERS]))
    assert teacher.score([Scorable(QUERIES[0], tuple(ANSWERS)), Scorable("Why?", ())]) == [
        pytest.approx(alone, abs=1e-5),
        [],
    ]
    assert teacher.score([]) == []


def test_chats(llama_folder):
    tokenizer = AutoTokenizer.from_pretrained(llama_folder)
    chat = [
        {"role": "system", "content": "Explain."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "list"},
        {"role": "user", "content": "Who?"},
    ]
    text = "[CLS]system : Explain.[SEP]user : Why?[SEP]assistant : list[SEP]user : Who?[SEP]assistant : day[SEP]"
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    ((score,),) = RewardModel(llama_folder).score([Scorable(chat, ("day",))])
    assert score == pytest.approx(by_hand(llama_folder, input_ids=ids), abs=1e-5)


def test_a_chat_that_the_template_refuses(llama_folder):
    teacher = RewardModel(llama_folder)
    chat = [{"role": "user", "content": "Why?"}, {"role": "tool", "content": "red"}]
    refused, scored = single(teacher.score([Scorable(chat, ("a",)), ITEMS[3]]))
    assert refused is None and scored is not None
    assert teacher.skipped == {"not rendered": 1}


@pytest.mark.parametrize("kind", ["bert_folder", "llama_folder"])
def test_long_conversations(kind, request):
    folder = request.getfixturevalue(kind)
    long_query, long_answer = Scorable("why " * 80, ("red moon",)), Scorable("Why?", ("moon " * 80,))
    teacher = RewardModel(folder)
    assert single(teacher.score([long_query, ITEMS[3], long_answer]))[::2] == [None, None]
    assert teacher.skipped == {"too long": 2}

    teacher = RewardModel(folder, truncation="left", max_length=20)
    cut, whole, not_cut = single(teacher.score([long_query, ITEMS[3], long_answer]))
    assert not_cut is None and teacher.skipped == {"too long": 1}
    assert whole == pytest.approx(single(RewardModel(folder).score([ITEMS[3]]))[0], abs=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if kind == "bert_folder":  # the query alone is cut: [CLS], [SEP], [SEP] and the answer are kept
        room = 20 - 3 - len(tokenizer.tokenize("red moon"))
        words = tokenizer.tokenize("why " * 80)[-room:]
        inputs = tokenizer(tokenizer.convert_tokens_to_string(words), "red moon", return_tensors="pt")
        assert inputs["input_ids"].shape[1] == 20
    else:
        ids = tokenizer("user : " + "why " * 80 + "[SEP]assistant : red moon[SEP]", add_special_tokens=False)
        inputs = {"input_ids": torch.tensor([[tokenizer.bos_token_id, *ids["input_ids"][-19:]]])}
    assert cut == pytest.approx(by_hand(folder, **inputs), abs=1e-5)


def test_answers_are_never_cut(llama_folder):
    teacher = RewardModel(llama_folder, truncation="left", max_length=20)
    # With the beginning of text and the end of the turn, 18 tokens of an answer fit.
    fits, too_long = single(teacher.score([Scorable("Why?", ("moon " * n,)) for n in (18, 19)]))
    assert fits is not None and too_long is None


def test_the_first_case_is_logged(bert_folder, caplog):
    import logging

    from transformers.utils import logging as library

    library.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING):
            RewardModel(bert_folder).score([Scorable("why " * 80, ("a",))] * 3)
    finally:
        library.disable_propagation()
    (record,) = [record for record in caplog.records if "too long" in record.message]
    assert "of at most 64" in record.message and "truncation='left'" in record.message


def test_scores_that_are_not_finite(make_llama):
    folder = make_llama()
    model = LlamaForSequenceClassification.from_pretrained(folder)
    model.score.weight.data.fill_(float("nan"))
    model.save_pretrained(folder)
    teacher = RewardModel(folder)
    assert teacher.score(ITEMS[:2]) == [[None], [None]]
    assert teacher.skipped == {"not finite": 2}


def test_what_is_no_reward_model(make_llama, tmp_path, bert_folder):
    with pytest.raises(ValueError, match="num_labels = 3, but a reward model has one output"):
        RewardModel(make_llama(num_labels=3)).load()
    with pytest.raises(ValueError, match="takes at most 64 tokens"):
        RewardModel(bert_folder, max_length=65).load()
    # A language model whose config says one label: the head would be random.
    folder = make_llama()
    LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks the weights \['score.weight'\]"):
        RewardModel(tmp_path).score(ITEMS)


def test_pickled_weights_are_refused(make_llama):
    folder = make_llama()
    model = LlamaForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        RewardModel(folder).load()


def test_wrong_arguments():
    with pytest.raises(ValueError, match="`batch_size` must be positive"):
        RewardModel("x", batch_size=0)
    with pytest.raises(ValueError, match="`truncation` must be 'left' or None"):
        RewardModel("x", truncation="right")
    with pytest.raises(ValueError, match="`max_length` must be at least"):
        RewardModel("x", max_length=0)


def test_loads_late_and_again(bert_folder):
    with RewardModel(bert_folder, dtype=torch.float32) as teacher:
        assert teacher._model is None
        first = teacher.score(ITEMS)
    assert teacher._model is None
    assert teacher.score(ITEMS) == first
    assert teacher.settings == {
        "type": "RewardModel",
        "model": str(bert_folder),
        "revision": None,
        "dtype": "float32",
        "max_length": None,
        "truncation": None,
    }
