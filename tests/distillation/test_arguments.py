import pytest
from transformers import HfArgumentParser

from zooter_hf import DistillationArguments


def test_what_is_trained_decides_how_fast(tmp_path):
    frozen = DistillationArguments(tmp_path, freeze_encoder=True, use_cpu=True)
    full = DistillationArguments(tmp_path, use_cpu=True)
    assert (frozen.mode, full.mode) == ("frozen", "full")
    assert frozen.learning_rate > full.learning_rate
    assert full.head_learning_rate > full.learning_rate
    given = DistillationArguments(tmp_path, freeze_encoder=True, learning_rate=0.5, num_train_epochs=1, use_cpu=True)
    assert (given.learning_rate, given.num_train_epochs) == (0.5, 1)
    assert DistillationArguments(tmp_path, learning_rate=0.5, use_cpu=True).head_learning_rate is None


def test_the_papers_settings(tmp_path):
    args = DistillationArguments.paper(tmp_path, use_cpu=True)
    assert (args.learning_rate, args.num_train_epochs, args.weight_decay) == (1e-5, 5, 5e-7)
    assert (args.tau, args.beta, args.average, args.standardize) == (1.0, 0.3, "probabilities", False)
    assert args.head_learning_rate is None
    assert DistillationArguments.paper(tmp_path, beta=0.5, use_cpu=True).beta == 0.5


def test_early_stopping_watches_regret(tmp_path):
    args = DistillationArguments(tmp_path, early_stopping_patience=2, use_cpu=True)
    assert args.load_best_model_at_end and args.metric_for_best_model == "regret" and not args.greater_is_better
    assert args.eval_strategy == args.save_strategy == "epoch"


def test_they_are_parsed_like_the_librarys(tmp_path):
    (args,) = HfArgumentParser(DistillationArguments).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--tau", "0.5", "--lora_r", "4", "--use_cpu"]
    )
    assert (args.tau, args.mode) == (0.5, "lora")
    assert DistillationArguments(tmp_path, tau="auto", use_cpu=True).tau == "auto"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": 0}, "tau"),
        ({"tau": "warm"}, "tau.*'warm'"),
        ({"beta": 2}, "beta"),
        ({"average": "logits"}, "average"),
        ({"shrinkage": -1}, "shrinkage"),
        ({"min_support": 0}, "min_support"),
        ({"objective": "hinge"}, "objective.*hinge"),
        ({"freeze_encoder": True, "lora_r": 4}, "one of them"),
        ({"lora_r": 0}, "lora_r"),
        ({"early_stopping_patience": 0}, "patience"),
    ],
)
def test_bad_values(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        DistillationArguments(tmp_path, use_cpu=True, **arguments)
