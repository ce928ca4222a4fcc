"""A student without attention."""

import pytest
import torch
from transformers import pipeline

from tests.conftest import EXPERTS, QUERIES
from zooter_hf import RewardTable, ZooterForRouting
from zooter_hf.distillation.static import distill_static, make_static, token_vectors, token_weights
from zooter_hf.routing import predict


@pytest.fixture(scope="module")
def teacher(make_router):
    return make_router(head="mlp", seed=1, max_query_tokens=40, temperature=0.2)


@pytest.fixture(scope="module")
def queries():
    halves = [part for query in QUERIES for part in (query[: len(query) // 2], query[len(query) // 2 :])]
    return [f"{one} {other}" for one in halves for other in halves if one != other]


@pytest.fixture(scope="module")
def student(teacher, queries):
    arguments = {"num_train_epochs": 40, "learning_rate": 2e-2, "per_device_train_batch_size": 16}
    return distill_static(teacher, queries, hidden_size=12, **arguments)


def test_the_student_follows_its_teacher(teacher, student, queries):
    ours, theirs = predict(teacher, queries).probabilities, predict(student, queries).probabilities
    divergence = (ours * (ours.log() - theirs.log())).sum(dim=-1)
    constant = (ours * (ours.log() - ours.mean(dim=0).log())).sum(dim=-1)  # of always saying the same
    assert divergence.mean() < 0.6 * constant.mean()


def test_it_is_a_router_like_any_other_and_has_no_attention(student, tmp_path):
    assert student.encoder.config.num_hidden_layers == 0
    assert not any("attention" in name for name, _ in student.named_parameters())
    student.save_pretrained(tmp_path / "student")
    route = pipeline("zooter-routing", model=str(tmp_path / "student"))
    assert route(QUERIES) == pipeline("zooter-routing", model=student)(QUERIES)


def test_the_order_of_the_words_is_lost(student):
    one, other = predict(student, ["sorts a list", "list a sorts"]).probabilities
    torch.testing.assert_close(one, other)
    longer = predict(student, ["Why? " * 30]).probabilities
    assert longer.isfinite().all()


def test_calibration_and_removed_experts_are_the_teachers(make_router, queries):
    teacher = make_router(head="mlp", seed=1, max_query_tokens=40)
    teacher.config.temperature, teacher.config.calibration_bias = 3.0, [0.0, 6.0, 0.0]
    expected = predict(teacher, queries).probabilities
    teacher.remove_expert("chat-70b")
    arguments = {"num_train_epochs": 40, "learning_rate": 2e-2, "per_device_train_batch_size": 16}
    student = distill_static(teacher, queries, hidden_size=12, **arguments)
    assert student.config.removed_experts == ["chat-70b"]
    assert (predict(student, queries).probabilities[:, 2] == 0).all()
    student.restore_expert("chat-70b")
    difference = (predict(student, queries).probabilities.mean(dim=0) - expected.mean(dim=0)).abs()
    assert difference.max() < 0.03


def test_rewards_are_learnt_from_beside_the_teacher(teacher, queries):
    rows = [
        {"query": query, "rewards": {"math-7b": 0.0, "code-9b": 1.0, "chat-70b": 0.0}, "tags": ["any"]}
        for query in queries
    ]
    table = RewardTable.from_rows(rows, EXPERTS)
    student = distill_static(teacher, [], table=table, teacher_weight=0.0, hidden_size=12, num_train_epochs=5)
    assert predict(student, QUERIES).probabilities.argmax(dim=-1).tolist() == [1] * len(QUERIES)


def test_token_vectors_are_what_the_teacher_makes_of_a_token_alone(teacher, tokenizer):
    vectors = token_vectors(teacher, batch_size=7)
    assert vectors.shape == (len(tokenizer), 16)
    for word in ("why", "list"):
        expected = predict(teacher, [word]).embeddings[0]
        torch.testing.assert_close(vectors[tokenizer.convert_tokens_to_ids(word)], expected, atol=1e-4, rtol=1e-4)


def test_frequent_tokens_weigh_less_and_still_do_behind_the_layer_norm(teacher, tokenizer):
    weights = token_weights(teacher, ["why why why why list"])
    why, lst, prove = (tokenizer.convert_tokens_to_ids(word) for word in ("why", "list", "novel"))
    assert weights[why] < weights[lst] < weights[prove] == 1
    assert weights[why] == pytest.approx(1e-3 / (1e-3 + 4 / 7), rel=1e-4)  # of seven tokens, two are special
    student = make_static(teacher, ["why why why why list"], 12)
    with torch.no_grad():
        states = student.encoder(input_ids=torch.tensor([[why, prove]])).last_hidden_state[0]
    assert states.norm(dim=-1).tolist() == pytest.approx([12**0.5] * 2, rel=1e-2)
    content = states[:, :-2].norm(dim=-1)
    assert content[0] < 0.1 * content[1]


def test_mistakes(teacher, make_router):
    with pytest.raises(ValueError, match="nothing to learn on"):
        distill_static(teacher, [])
    with pytest.raises(ValueError, match="between 8 and 16"):
        distill_static(teacher, QUERIES, hidden_size=64)
    table = RewardTable.from_rows([{"query": "Why?", "rewards": {"other": 1.0, "more": 0.0}}])
    with pytest.raises(ValueError, match="select_experts"):
        distill_static(teacher, [], table=table)
    assert isinstance(teacher, ZooterForRouting)
