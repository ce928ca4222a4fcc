"""Trains the router that ships with the package, or writes its model card anew.

    python -m recipes.default_router train --data LLMROUTER_FOLDER --encoder MINILM_FOLDER
    python -m recipes.default_router card

The encoder is made smaller and stays frozen; the head learns the tag-enhanced rewards. Frozen features are computed
once, so training takes minutes on two cores.
"""

import argparse
import copy
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, set_seed
from transformers.utils import logging

from recipes.shrinking import keep_layers, keep_tokens
from zooter_hf import (
    DEFAULT_ROUTER,
    DistillationArguments,
    EvaluationReport,
    RewardTable,
    ZooterForRouting,
    ZooterTrainer,
)
from zooter_hf.calibration import fit_calibration, store_centroids
from zooter_hf.conversion.reward_tables import load
from zooter_hf.distillation import cross_validate, fit_rewards
from zooter_hf.distillation.describe import describe_training
from zooter_hf.evaluation import evaluate_probabilities
from zooter_hf.hub.card import model_card
from zooter_hf.routing import predict


logger = logging.get_logger(__name__)

BASE_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
CARD = Path(__file__).parent.parent / "model_card.md"
MAX_MEGABYTES = 25
SCRIPT = "python -m recipes.default_router train"


@dataclass(frozen=True)
class Recipe:
    """The settings of the shipped router; training has the package's defaults for a frozen encoder."""

    layers: tuple[int, ...] | None = (0, 1, 2, 3)
    tokens: int | None = 12_000
    head_hidden_size: int = 256
    head_dropout: float = 0.2
    max_query_tokens: int = 256
    folds: int = 5
    seed: int = 0

    def arguments(self) -> DistillationArguments:
        """Returns the arguments of the trainer."""
        return DistillationArguments(
            "unused",
            freeze_encoder=True,
            seed=self.seed,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )


def make_router(recipe: Recipe, encoder_folder: str, experts: list, texts: list[str]) -> ZooterForRouting:
    """Makes the untrained router: the encoder as small as the recipe says, and a new head."""
    set_seed(recipe.seed)
    encoder = AutoModel.from_pretrained(encoder_folder, use_safetensors=True, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
    if recipe.layers is not None:
        encoder = keep_layers(encoder, recipe.layers)
    if recipe.tokens is not None:
        encoder, tokenizer = keep_tokens(encoder, tokenizer, texts, recipe.tokens)
    return ZooterForRouting.from_encoder(
        encoder,
        experts=experts,
        tokenizer=tokenizer,
        base_encoder=BASE_ENCODER,
        pooling="mean",
        head="mlp",
        head_hidden_size=recipe.head_hidden_size,
        head_dropout=recipe.head_dropout,
        max_query_tokens=recipe.max_query_tokens,
    )


@torch.no_grad()
def round_to_half(module: nn.Module):
    """Rounds weights as storing them in half precision will."""
    for parameter in module.parameters():
        parameter.copy_(parameter.half())


def embed(router: ZooterForRouting, table: RewardTable) -> torch.Tensor:
    """Computes query embeddings of shape `(queries, hidden_size)`."""
    return predict(router, table.queries, description="Embedding").embeddings


def evaluate(
    router: ZooterForRouting, table: RewardTable, embeddings: torch.Tensor, recipe: Recipe
) -> tuple[EvaluationReport, torch.Tensor]:
    """Cross-validates the head of a router; returns the report, and the probabilities behind it."""
    probabilities = cross_validate(
        table, lambda: copy.deepcopy(router), recipe.arguments(), folds=recipe.folds, embeddings=embeddings
    )
    report = evaluate_probabilities(
        probabilities, table, name="router", dataset="LLMRouter training scores, five-fold cross-validation"
    )
    return report, probabilities


def train(recipe: Recipe, data_folder: str, encoder_folder: str) -> tuple[ZooterForRouting, EvaluationReport]:
    """Runs the recipe; returns the router and its evaluation.

    The evaluation is a cross-validation of the head; the head that ships has seen every query.
    """
    table = load(data_folder, "llmrouter")
    router = make_router(recipe, encoder_folder, table.experts, table.texts())
    round_to_half(router.encoder)
    embeddings = embed(router, table)
    report, probabilities = evaluate(router, table, embeddings, recipe)
    args = recipe.arguments()
    trainer = ZooterTrainer(router, args, table, embeddings=embeddings)
    trainer.train()
    router = trainer.finish()
    complete(router, table, embeddings, recipe)
    calibration = fit_calibration(probabilities.log(), table, method="temperature", seed=recipe.seed)
    logger.warning(
        f"Temperature {calibration.temperature:.3f}: calibration error {calibration.ece_before:.4f} before, "
        f"{calibration.ece_after:.4f} after."
    )
    router.config.temperature = round(calibration.temperature, 3)
    router.config.training = describe(recipe, table, trainer, report)
    return router, report


def complete(router: ZooterForRouting, table: RewardTable, embeddings: torch.Tensor, recipe: Recipe):
    """Adds what policies need besides the distribution: predicted rewards, and what the training was like."""
    fit_rewards(router, table, embeddings=embeddings, seed=recipe.seed, disable_tqdm=True)
    store_centroids(router, table, embeddings=embeddings, seed=recipe.seed)


def describe(recipe: Recipe, table: RewardTable, trainer: ZooterTrainer, report: EvaluationReport) -> dict:
    """Writes down where the router comes from."""
    training = describe_training(
        table,
        trainer.args,
        tau=trainer.tau,
        tags="the benchmark tasks",
        name="zooter-minilm-llmrouter",
        datasets=[
            {
                "name": "LLMRouter",
                "url": "https://github.com/ulab-uiuc/LLMRouter",
                "license": "MIT",
                "queries": len(table),
            }
        ],
        report=report,
    )
    training["method"] += (
        " The encoder is all-MiniLM-L6-v2 cut down to its first layers and most useful wordpieces, stored in half "
        "precision. The figures below are a cross-validation of the head; the head that ships was trained on all "
        "queries."
    )
    training["hyperparameters"] |= {
        "encoder layers kept": ", ".join(map(str, recipe.layers)) if recipe.layers else "all",
        "wordpieces kept": recipe.tokens or "all",
        "head": f"MLP of width {recipe.head_hidden_size}, dropout {recipe.head_dropout}",
    }
    training["evaluation"]["script"] = SCRIPT
    return training | {
        "language": "en",
        "license": "apache-2.0",
        "limitations": [
            "It is an example. Its nine experts are models of 2024 with 7 to 70 billion parameters, and it knows no "
            "others: train a router on your own experts before you rely on one.",
            "Queries were English, from 14 benchmark tasks (mathematics, code, question answering, common sense). "
            "Other languages, long documents and conversations of several turns were not in the data.",
            "The scores are those of the benchmarks (correct or not, or overlap with a reference), not human "
            "preferences; style, safety and latency are not in them.",
            "Most of what it knows is which task a query belongs to. Expect no gain over the best single model on "
            "tasks unlike those above.",
            "Prices are list prices as the data gives them, in US dollars per million tokens; they age.",
        ],
    }


def save(router: ZooterForRouting, folder: str):
    """Saves the router with weights in half precision, to be loaded in single precision."""
    target = Path(folder)
    if target.exists():
        shutil.rmtree(target)
    router.save_pretrained(target, state_dict={name: value.half() for name, value in router.state_dict().items()})
    # The card is that of the embedded router, and the code is the package's own.
    for code in target.glob("*.py"):
        code.unlink()
    (target / "model.safetensors").chmod(0o644)
    write_card(folder)
    megabytes = sum(file.stat().st_size for file in target.iterdir()) / 1e6
    if megabytes > MAX_MEGABYTES:
        raise RuntimeError(f"The router takes {megabytes:.1f} MB, more than the {MAX_MEGABYTES} that may ship.")
    logger.warning(f"Saved in {target}: {megabytes:.1f} MB.")


def write_card(folder: str = DEFAULT_ROUTER):
    """Writes the card of the embedded router, in its folder and at the root of the repository."""
    text = default_card(folder)
    for path in (Path(folder, "README.md"), CARD):
        path.write_text(text, encoding="utf-8")


def default_card(folder: str = DEFAULT_ROUTER) -> str:
    """Makes the card of the embedded router."""
    router = AutoModel.from_pretrained(folder)
    return str(model_card(router.config, parameters=router.num_parameters(), embedded=True))


def main():
    """Runs the command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train the embedded router")
    training.add_argument("--data", required=True, help="folder of the LLMRouter table")
    training.add_argument("--encoder", required=True, help="folder of all-MiniLM-L6-v2")
    training.add_argument("--output", default=DEFAULT_ROUTER, help="where to write the router")
    commands.add_parser("card", help="write the model card anew")
    arguments = parser.parse_args()
    if arguments.command == "card":
        write_card()
        return
    for folder in (arguments.data, arguments.encoder):
        if not Path(folder).is_dir():
            parser.error(f"{folder} is not a folder")
    router, report = train(Recipe(), arguments.data, arguments.encoder)
    save(router, arguments.output)
    logger.warning(f"{report}\n{report.comparison('best_single')}")


if __name__ == "__main__":
    main()
