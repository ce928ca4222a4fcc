"""Experts that are removed, restored and added; calibration, predicted rewards and centroids of a router."""

import pytest
import torch
from transformers import AutoModel

from tests.conftest import EXPERTS, QUERIES
from zooter_hf import ExpertSpec, ZooterConfig, ZooterForRouting, ZooterRoutingPipeline
from zooter_hf.routing import predict


HEADS = [{"head": "linear"}, {"head": "mlp"}, {"head": "cosine"}]


def test_removing_renormalises_and_restoring_undoes_it(make_router, tmp_path):
    router = make_router(head="mlp")
    before = predict(router, QUERIES).probabilities
    router.remove_expert("code-9b")
    router.save_pretrained(tmp_path / "router")
    loaded = ZooterForRouting.from_pretrained(tmp_path / "router")
    after = predict(loaded, QUERIES).probabilities
    assert (after[:, 1] == 0).all()
    torch.testing.assert_close(after[:, [0, 2]], before[:, [0, 2]] / before[:, [0, 2]].sum(1, keepdim=True))
    ranking = ZooterRoutingPipeline(model=loaded)(QUERIES[0])
    assert {each["label"] for each in ranking} == {"math-7b", "chat-70b"}
    assert sum(each["score"] for each in ranking) == pytest.approx(1)
    loaded.restore_expert("code-9b")
    torch.testing.assert_close(predict(loaded, QUERIES).probabilities, before)
    assert loaded.config.removed_experts is None


def test_what_cannot_be_removed(make_router):
    router = make_router()
    with pytest.raises(ValueError, match="giant.*math-7b"):
        router.remove_expert("giant")
    with pytest.raises(ValueError, match="not removed"):
        router.restore_expert("math-7b")
    router.remove_expert("math-7b")
    router.remove_expert("code-9b")
    with pytest.raises(ValueError, match="last expert"):
        router.remove_expert("chat-70b")
    with pytest.raises(ValueError, match="giant"):
        ZooterConfig(experts=["a"], removed_experts=["giant"])


@pytest.mark.parametrize(
    "fields", [*HEADS, {"head": "mlp", "predict_rewards": True}, {"outputs_per_expert": [2, 1, 1]}]
)
def test_an_appended_expert_leaves_the_others_as_they_are(make_router, tmp_path, fields):
    router = make_router(**fields)
    before = predict(router, QUERIES)
    row = router.classifier.rows[1].detach()
    rewards = router.reward_head.rows[1].detach() if router.config.predict_rewards else None
    router.append_expert(ExpertSpec("new", input_price=1.0), row, rewards)
    router.save_pretrained(tmp_path / "router")
    loaded = AutoModel.from_pretrained(tmp_path / "router")
    after = predict(loaded, QUERIES)
    torch.testing.assert_close(after.logits[:, :3], before.logits, rtol=1e-4, atol=1e-5)
    if fields.get("outputs_per_expert") is None:
        torch.testing.assert_close(after.logits[:, 3], before.logits[:, 1], rtol=1e-4, atol=1e-5)
    assert loaded.expert_names == [*(each.name for each in EXPERTS), "new"] and loaded.num_labels == 4
    assert loaded.config.label2id["new"] == 3
    if rewards is not None:
        torch.testing.assert_close(after.predicted_rewards[:, 3], after.predicted_rewards[:, 1])
    with pytest.raises(ValueError, match="already"):
        loaded.append_expert(ExpertSpec("new"), row, rewards)


def test_vectors_of_calibration(make_router, tmp_path):
    router = make_router(temperature=2.0, calibration_scale=[1.0, 2.0, 0.5], calibration_bias=[0.0, -1.0, 3.0])
    logits = torch.tensor([[1.0, 2.0, -1.0]])
    expected = torch.softmax(torch.tensor([[1.0, 3.0, 2.5]]) / 2, dim=1)  # by hand
    torch.testing.assert_close(router.probabilities(logits), expected)
    router.save_pretrained(tmp_path / "router")
    torch.testing.assert_close(ZooterForRouting.from_pretrained(tmp_path / "router").probabilities(logits), expected)
    with pytest.raises(ValueError, match="calibration_scale.*3 experts"):
        make_router(calibration_scale=[1.0])
    with pytest.raises(ValueError, match="calibration_bias"):
        make_router(calibration_bias=[1.0, float("inf"), 0.0])


@pytest.mark.parametrize("fields", HEADS)
def test_predicted_rewards_come_with_the_ranking(make_router, tmp_path, fields):
    router = make_router(predict_rewards=True, **fields)
    router.save_pretrained(tmp_path / "router")
    loaded = AutoModel.from_pretrained(tmp_path / "router")
    predictions = predict(loaded, QUERIES)
    assert predictions.predicted_rewards.shape == (len(QUERIES), 3)
    torch.testing.assert_close(predictions.predicted_rewards, predict(router, QUERIES).predicted_rewards)
    loaded.remove_expert("math-7b")
    for index, ranking in enumerate(ZooterRoutingPipeline(model=loaded)(QUERIES)):
        for entry in ranking:
            place = loaded.expert_names.index(entry["label"])
            assert entry["reward"] == pytest.approx(predictions.predicted_rewards[index, place].item(), abs=1e-5)
    assert make_router(**fields)(torch.tensor([[2, 5, 3]])).predicted_rewards is None


def test_a_head_for_rewards_can_be_added(make_router):
    router = make_router(head="mlp")
    before = predict(router, QUERIES).probabilities
    router.add_reward_head()
    head = router.reward_head
    router.add_reward_head()
    assert router.reward_head is head
    assert torch.equal(predict(router, QUERIES).probabilities, before)


def test_the_nearest_centroid(make_router, tmp_path):
    described = [{"tags": ["x"], "queries": 3}, {"tags": ["y"], "queries": 2}]
    router = make_router(centroids=described)
    embeddings = predict(make_router(), QUERIES).embeddings
    router.centroids = torch.stack([2 * embeddings[0], -embeddings[0]])
    router.save_pretrained(tmp_path / "router")
    loaded = AutoModel.from_pretrained(tmp_path / "router")
    distance, index = loaded.nearest_centroids(embeddings)
    cosine = torch.nn.functional.cosine_similarity(embeddings, embeddings[:1])
    torch.testing.assert_close(distance, 1 - cosine.abs(), atol=1e-5, rtol=0)
    assert index.tolist() == [int(value < 0) for value in cosine]
    result = ZooterRoutingPipeline(model=loaded)(QUERIES[0], return_truncation=True)
    assert result["distance"] == pytest.approx(0, abs=1e-5) and result["near"] == ["x"]
    with pytest.raises(ValueError, match="store_centroids"):
        make_router().nearest_centroids(embeddings)
