import numpy as np
import pytest
import torch
from transformers import EvalPrediction, TrainerCallback

from tests.distillation.conftest import make_rows
from zooter_hf import DistillationArguments, RewardTable, ZooterTrainer
from zooter_hf.distillation import PAPER_SETTINGS, soft_targets, standardize
from zooter_hf.distillation.sampling import BalancedSampler
from zooter_hf.distillation.trainer import routing_metrics
from zooter_hf.routing import predict


def arguments(folder, **changes):
    settings = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 8,
        "learning_rate": 3e-3,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_strategy": "no",
        **changes,
    }
    return DistillationArguments(str(folder), **settings)


def weights(router):
    return {name: value.clone() for name, value in router.state_dict().items()}


def assert_equal_weights(left, right):
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


@pytest.mark.parametrize(
    "changes",
    [
        {"num_train_epochs": 20},
        {"freeze_encoder": True, "num_train_epochs": 100, "learning_rate": 0.02},
        {"lora_r": 2, "num_train_epochs": 20, "learning_rate": 0.02},
        {"objective": "cross_entropy", "num_train_epochs": 20},
        {"objective": "bce", "num_train_epochs": 20},
        {"objective": "mse", "num_train_epochs": 20},
        {"balance_subsets": True, "num_train_epochs": 20},
        {"tau": "auto", "num_train_epochs": 20},
        {"neighbours": 3, "beta": 0.0, "num_train_epochs": 20},
    ],
    ids=lambda changes: ",".join(f"{name}={value}" for name, value in changes.items() if name != "num_train_epochs"),
)
def test_every_way_of_training_learns_who_is_good_at_what(changes, make_router, table, tmp_path):
    trainer = ZooterTrainer(make_router(head="mlp"), arguments(tmp_path, **changes), table, table)
    assert trainer.evaluate()["eval_top1"] < 0.9
    trainer.train()
    assert trainer.evaluate()["eval_top1"] == 1.0
    router = trainer.finish()
    assert not router.training
    chosen = predict(router, table.queries).probabilities.argmax(dim=1)
    assert chosen.tolist() == table.rewards.argmax(dim=1).tolist()
    router.save_pretrained(tmp_path / "router")
    assert (tmp_path / "router" / "model.safetensors").exists()


@pytest.mark.parametrize("changes", [{}, {"freeze_encoder": True}, {"balance_subsets": True}])
def test_same_seed_same_weights(changes, make_router, table, tmp_path):
    def train(seed):
        trainer = ZooterTrainer(make_router(head="mlp"), arguments(tmp_path, seed=seed, **changes), table)
        trainer.train()
        return weights(trainer.finish())

    first = train(1)
    assert_equal_weights(first, train(1))
    other = train(2)
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("changes", [{}, {"freeze_encoder": True}, {"balance_subsets": True}, {"lora_r": 2}])
def test_a_resumed_run_ends_where_an_undisturbed_one_does(changes, make_router, table, tmp_path):
    def trainer(name, callbacks=None):
        settings = {"save_strategy": "steps", "save_steps": 5, "seed": 3, **changes}
        torch.manual_seed(0)  # for the adapters' first weights
        return ZooterTrainer(
            make_router(head="mlp"), arguments(tmp_path / name, **settings), table, callbacks=callbacks
        )

    undisturbed = trainer("a")
    undisturbed.train()
    with pytest.raises(KeyboardInterrupt):
        trainer("b", [StopAt(8)]).train()
    resumed = trainer("b")
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(weights(resumed.finish()), weights(undisturbed.finish()))


def test_a_frozen_encoder_does_not_move_and_is_run_once_a_query(make_router, table, tmp_path):
    router = make_router(head="mlp")
    before = weights(router.encoder)
    trainer = ZooterTrainer(router, arguments(tmp_path, freeze_encoder=True), table)
    router.encoder.forward = None  # from here on nothing may call it
    assert not any(parameter.requires_grad for parameter in router.encoder.parameters())
    trainer.train()
    assert_equal_weights(weights(trainer.finish().encoder), before)


def test_lora_trains_adapters_and_head_only(make_router, table, tmp_path):
    trainer = ZooterTrainer(make_router(), arguments(tmp_path, lora_r=2), table)
    trained = [name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name or "classifier" in name for name in trained)
    assert any("classifier" in name for name in trained)
    trainer.train()
    assert not any("lora" in name for name in trainer.finish().state_dict())


def test_the_head_has_its_own_learning_rate(make_router, table, tmp_path):
    args = arguments(tmp_path, learning_rate=1e-3, head_learning_rate=0.0, num_train_epochs=1)
    router = make_router(head="mlp")
    head, encoder = weights(router.classifier), weights(router.encoder)
    trainer = ZooterTrainer(router, args, table)
    trainer.train()
    assert_equal_weights(weights(router.classifier), head)
    assert any(not torch.equal(value, encoder[name]) for name, value in router.encoder.state_dict().items())
    groups = trainer.optimizer.param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(router.parameters()))


def test_early_stopping_keeps_the_best_state(make_router, table, tmp_path):
    args = arguments(
        tmp_path, freeze_encoder=True, early_stopping_patience=2, num_train_epochs=200, learning_rate=0.02
    )
    trainer = ZooterTrainer(make_router(head="mlp"), args, table, table)
    trainer.train()
    assert trainer.state.epoch < 200
    regrets = [entry["eval_regret"] for entry in trainer.state.log_history if "eval_regret" in entry]
    assert trainer.evaluate()["eval_regret"] == pytest.approx(min(regrets))


def test_balanced_sampling_sees_every_subset_as_often():
    sampler = BalancedSampler(["a"] * 900 + ["b"] * 100, seed=0)
    drawn = list(sampler)
    assert 420 < sum(index < 900 for index in drawn) < 580
    assert drawn == list(sampler)
    sampler.set_epoch(1)
    assert drawn != list(sampler)


def test_metrics_worked_by_hand():
    nan = float("nan")
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [5.0, 0.0, 1.0]])
    rewards = np.array([[0.2, 0.8, 0.0], [0.1, 0.5, 0.5], [nan, 0.3, 0.4]])
    metrics = routing_metrics(EvalPrediction(predictions=logits, label_ids=(rewards, rewards)))
    assert metrics == pytest.approx({"reward": (0.2 + 0.5 + 0.4) / 3, "regret": 0.6 / 3, "top1": 2 / 3})


def test_evaluation_does_not_depend_on_the_batch_size(make_router, table, tmp_path):
    results = [
        ZooterTrainer(make_router(), arguments(tmp_path, per_device_eval_batch_size=size), table, table).evaluate()
        for size in (3, 32)
    ]
    for name in ("eval_regret", "eval_reward", "eval_top1"):
        assert results[0][name] == pytest.approx(results[1][name])


def test_targets_do_not_depend_on_the_scale_of_the_teacher(make_router, tmp_path):
    experts = ["math-7b", "code-9b", "chat-70b"]
    labels = [
        ZooterTrainer(
            make_router(), arguments(tmp_path), RewardTable.from_rows(make_rows(experts, scale=scale))
        ).train_dataset.labels
        for scale in (1.0, 40.0)
    ]
    torch.testing.assert_close(*labels)


def constant(table):
    return RewardTable.from_rows([{**row, "rewards": dict.fromkeys(row["rewards"], 0.5)} for row in table])


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (
            lambda table: table.rename_experts({"math-7b": "other"}),
            {},
            "'math-7b'.*the training table has others.*'other'.*train a router",
        ),
        (
            lambda table: table.select_experts(["chat-70b", "code-9b", "math-7b"]),
            {},
            "the training table has in another order.*select_experts",
        ),
        (constant, {}, "constant"),
        (lambda table: table.select(range(3)), {}, "3 queries, fewer than a batch of 4"),
        (
            lambda table: RewardTable.from_rows(make_rows(table.expert_names, scale=9.0)),
            {"objective": "bce"},
            "between 0 and 1",
        ),
        (
            lambda table: RewardTable.from_rows([{**row, "subset": None} for row in table]),
            {"balance_subsets": True},
            "24 of 24 have none",
        ),
        (lambda table: table, {"early_stopping_patience": 1}, "validation table"),
    ],
)
def test_errors_before_training(change, settings, message, make_router, table, tmp_path):
    router = make_router()
    router.encoder.forward = None
    with pytest.raises(ValueError, match=message):
        ZooterTrainer(router, arguments(tmp_path, **settings), change(table))


def test_a_single_expert_is_an_error(make_router, table, tmp_path):
    single = table.select_experts(["math-7b"])
    with pytest.raises(ValueError, match="single expert, 'math-7b'"):
        ZooterTrainer(make_router(experts=single.experts), arguments(tmp_path), single)


def test_a_validation_table_of_other_experts_is_an_error(make_router, table, tmp_path):
    other = table.rename_experts({"math-7b": "other"})
    with pytest.raises(ValueError, match="the validation table has others"):
        ZooterTrainer(make_router(), arguments(tmp_path), table, other)


def test_labels_are_the_targets_that_the_arguments_name(make_router, table, tmp_path):
    def labels(**settings):
        return ZooterTrainer(make_router(), arguments(tmp_path, **settings), table).train_dataset.labels

    rewards, tags = table.rewards, table.tags
    paper = soft_targets(rewards, tags, tau=1.0, beta=0.3, average="probabilities")
    torch.testing.assert_close(labels(**{**PAPER_SETTINGS, "num_train_epochs": 1}), paper.float())
    shrunk = soft_targets(
        standardize(rewards), tags, tau=0.5, beta=0.2, average="rewards", leave_one_out=True, shrinkage=3.0
    )
    ours = labels(tau=0.5, beta=0.2, leave_one_out=True, shrinkage=3.0)
    torch.testing.assert_close(ours, shrunk.float())
    assert labels(objective="cross_entropy").argmax(dim=1).tolist() == rewards.argmax(dim=1).tolist()
    own = labels(objective="bce", beta=1.0)
    torch.testing.assert_close(own, rewards.float())  # not standardised: they are probabilities


def test_missing_rewards_take_no_part(make_router, table, tmp_path):
    rows = [{**row, "rewards": {**row["rewards"], "chat-70b": None}} if n % 3 else row for n, row in enumerate(table)]
    holes = RewardTable.from_rows(rows)
    router = make_router(head_dropout=0.0)
    trainer = ZooterTrainer(router, arguments(tmp_path, beta=1.0), holes, holes)
    loss = trainer.evaluate()["eval_loss"]

    standard = standardize(holes.rewards)
    probabilities = predict(router, holes.queries).probabilities.double()
    expected = []
    for reward, probability in zip(standard, probabilities, strict=True):
        known = ~reward.isnan()
        target = torch.softmax(reward[known] / 0.25, dim=0)
        routed = probability[known] / probability[known].sum()
        expected.append((target * (target / routed).log()).sum().item())
    assert loss == pytest.approx(np.mean(expected), rel=1e-3)


def test_predicted_rewards_become_the_distribution_of_the_targets(make_router, table, tmp_path):
    args = arguments(tmp_path, objective="mse", beta=1.0, num_train_epochs=40, tau=0.5)
    router = ZooterTrainer(make_router(head="mlp", head_dropout=0.0), args, table)
    router.train()
    probabilities = predict(router.finish(), table.queries).probabilities
    expected = torch.softmax(standardize(table.rewards) / 0.5, dim=1)
    torch.testing.assert_close(probabilities.double(), expected, atol=0.15, rtol=0)


def test_validation_is_standardised_as_training_is(make_router, table, tmp_path):
    of_one_topic = range(0, len(table), 3)
    trainer = ZooterTrainer(make_router(), arguments(tmp_path, beta=1.0), table, table.select(of_one_topic))
    torch.testing.assert_close(trainer.eval_dataset.labels, trainer.train_dataset.labels[list(of_one_topic)])


@pytest.mark.parametrize("changes", [{}, {"lora_r": 2}])
def test_two_batches_accumulated_are_one_step(changes, make_router, table, tmp_path):
    def step(size, accumulation):
        settings = {
            "per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1,
            "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "warmup_steps": 0, "lora_dropout": 0.0,
        }  # fmt: skip
        torch.manual_seed(0)
        router = make_router(head_dropout=0.0)
        for module in router.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        trainer = ZooterTrainer(router, arguments(tmp_path, **settings, **changes), table.select(range(8)))
        trainer.train()
        return trainer.finish().classifier.out_proj.weight.detach().clone()

    torch.testing.assert_close(step(4, 2), step(8, 1), atol=1e-5, rtol=1e-4)
