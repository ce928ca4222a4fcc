"""A head that predicts rewards: trained together with the distribution, or afterwards."""

import pytest
import torch

from tests.distillation.test_new_expert import NAMES, table_of
from zooter_hf import DistillationArguments, ZooterTrainer
from zooter_hf.distillation import fit_rewards
from zooter_hf.routing import predict_embedded


@pytest.fixture
def data(make_router):
    """Embeddings, and rewards in a unit of their own that follow from them."""
    torch.manual_seed(0)
    embeddings = torch.randn(400, make_router().config.hidden_size)
    rewards = 50.0 + 10.0 * embeddings[:, :3].double()
    rewards[:40, 2] = torch.nan
    return embeddings, table_of(rewards, NAMES)


def error(router, embeddings, table):
    return (predict_embedded(router, embeddings).predicted_rewards - table.rewards).square().nanmean().sqrt().item()


def test_fitted_afterwards_all_else_stays(make_router, data):
    embeddings, table = data
    router = make_router(head="mlp")
    before = {name: value.clone() for name, value in router.state_dict().items()}
    fit_rewards(router, table, embeddings=embeddings, beta=1.0, num_train_epochs=80, disable_tqdm=True)
    assert error(router, embeddings, table) < 5.0, "in the units of the table, whose deviation is 10"
    for name, value in router.state_dict().items():
        assert name.startswith("reward_head.") or torch.equal(value, before[name]), name
    assert all(parameter.requires_grad for parameter in router.parameters())


def test_trained_together(make_router, data, tmp_path):
    embeddings, table = data
    usual = {"freeze_encoder": True, "beta": 1.0, "num_train_epochs": 60, "disable_tqdm": True, "save_strategy": "no"}
    router = make_router(head="mlp")
    untouched = make_router(head="mlp")
    for each, weight in ((router, 1.0), (untouched, 0.0)):
        args = DistillationArguments(str(tmp_path), reward_weight=weight, **usual)
        trainer = ZooterTrainer(each, args, table, embeddings=embeddings)
        trainer.train()
        trainer.finish()
    assert error(router, embeddings, table) < 5.0
    assert not untouched.config.predict_rewards
    best = table.rewards.nan_to_num(-1e9).argmax(1)
    agreement = (predict_embedded(router, embeddings).probabilities.argmax(1) == best).float().mean()
    assert agreement > 0.7, "the distribution is learnt as well"


def test_a_whole_encoder_and_adapters_train_both_heads(make_router, data, tmp_path):
    _, table = data
    for mode in ({}, {"lora_r": 2}):
        router = make_router(head="mlp")
        args = DistillationArguments(
            str(tmp_path), reward_weight=0.5, max_steps=2, disable_tqdm=True, save_strategy="no", **mode
        )
        router.add_reward_head()
        before = router.reward_head.out_proj.weight.clone()
        trainer = ZooterTrainer(router, args, table.select(range(64)))
        trainer.train()
        finished = trainer.finish()
        assert not torch.equal(finished.reward_head.out_proj.weight, before)


def test_mistakes():
    with pytest.raises(ValueError, match="reward_weight"):
        DistillationArguments(reward_weight=-1.0)
