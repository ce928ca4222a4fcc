"""Trains the router that ships with the package, or writes its model card anew.

    python -m recipes.default_router train --data LLMROUTER_FOLDER --encoder MINILM_FOLDER
    python -m recipes.default_router card

The encoder is made smaller and stays frozen; the head learns the tag-enhanced rewards. Frozen features are computed
once, so training takes minutes on two cores.
"""

import argparse
import copy
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from recipes.shrinking import keep_layers, keep_tokens
from zooter_hf import DEFAULT_ROUTER, ZooterForRouting, ZooterRoutingPipeline
from zooter_hf.conversion.reward_tables import llmrouter
from zooter_hf.distillation import soft_targets
from zooter_hf.hub.card import model_card
from zooter_hf.modeling import routing_loss


logger = logging.get_logger(__name__)

BASE_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
CARD = Path(__file__).parent.parent / "model_card.md"
MAX_MEGABYTES = 25


@dataclass(frozen=True)
class Recipe:
    """The settings of the shipped router."""

    layers: tuple[int, ...] | None = (0, 1, 2, 3)
    tokens: int | None = 12_000
    head_hidden_size: int = 256
    head_dropout: float = 0.2
    max_query_tokens: int = 256
    beta: float = 0.1
    tau: float = 0.1
    average: str = "rewards"
    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 6e-3
    weight_decay: float = 0.01
    folds: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Data:
    """A reward table. Rewards have the shape `(queries, experts)`, folds `(queries,)`."""

    queries: list[str]
    subsets: list[str]
    rewards: torch.Tensor
    folds: torch.Tensor


def load_data(folder: str, expert_names: list[str], folds: int, seed: int) -> Data:
    """Reads the table and deals the queries of every subset over folds.

    Queries that differ in nothing but numbers and punctuation stay together.
    """
    rows = [row for _, row in llmrouter.read(folder)]
    rewards = torch.tensor(
        [[float("nan") if (r := row["rewards"].get(name)) is None else r for name in expert_names] for row in rows]
    )
    groups: dict[tuple[str, str], list[int]] = {}
    for index, row in enumerate(rows):
        key = (row["subset"], " ".join(re.findall(r"[a-z]+", row["query"].lower())))
        groups.setdefault(key, []).append(index)
    generator = torch.Generator().manual_seed(seed)
    fold_of = torch.empty(len(rows), dtype=torch.long)
    for subset in sorted({subset for subset, _ in groups}):
        members = [indices for (name, _), indices in groups.items() if name == subset]
        for place, position in enumerate(torch.randperm(len(members), generator=generator).tolist()):
            fold_of[members[position]] = place % folds
    return Data(
        queries=[row["query"] for row in rows],
        subsets=[row["subset"] for row in rows],
        rewards=rewards,
        folds=fold_of,
    )


def make_router(recipe: Recipe, encoder_folder: str, experts: list, texts: list[str]) -> ZooterForRouting:
    """Makes the untrained router: the encoder as small as the recipe says, and a new head."""
    torch.manual_seed(recipe.seed)
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
def embed(router: ZooterForRouting, queries: list[str], batch_size: int = 32) -> torch.Tensor:
    """Computes query embeddings of shape `(queries, hidden_size)`, from what the pipeline would read of each."""
    route = ZooterRoutingPipeline(model=router, tokenizer=router.tokenizer, device="cpu")
    embeddings = torch.empty(len(queries), router.config.hidden_size)
    inputs = [route.preprocess(query) for query in logging.tqdm(queries, desc="Tokenising")]
    order = sorted(range(len(queries)), key=lambda index: inputs[index]["read_tokens"])
    for start in logging.tqdm(range(0, len(order), batch_size), desc="Embedding"):
        batch = order[start : start + batch_size]
        padded = route.tokenizer.pad(
            {"input_ids": [inputs[index]["input_ids"][0].tolist() for index in batch]}, return_tensors="pt"
        )
        outputs = router(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"])
        embeddings[batch] = outputs.query_embedding.float()
    return embeddings


def train_head(
    head: nn.Module, embeddings: torch.Tensor, data: Data, index: torch.Tensor, recipe: Recipe
) -> nn.Module:
    """Trains a copy of a head on the cached embeddings of the queries in `index`."""
    rewards = data.rewards[index]
    tags = [[data.subsets[i]] for i in index.tolist()]
    targets = soft_targets(rewards, tags, tau=recipe.tau, beta=recipe.beta, average=recipe.average)
    known = ~rewards.isnan()
    head = copy.deepcopy(head).train()
    torch.manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * -(-len(index) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.1)
    for _ in range(recipe.epochs):
        for batch in torch.randperm(len(index)).split(recipe.batch_size):
            loss = routing_loss(head(embeddings[index[batch]]), targets[batch], known[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    round_to_half(head)  # what is measured is what ships
    return head.eval()


@torch.no_grad()
def round_to_half(module: nn.Module):
    """Rounds weights as storing them in half precision will."""
    for parameter in module.parameters():
        parameter.copy_(parameter.half())


def cross_validate(head: nn.Module, embeddings: torch.Tensor, data: Data, recipe: Recipe) -> tuple[torch.Tensor, ...]:
    """Routes every query with a head that was trained without its fold.

    Returns:
        Indices of shape `(queries,)` of the routed experts, and of the best single model of the same training folds.
    """
    routed = torch.empty(len(data.queries), dtype=torch.long)
    single = torch.empty_like(routed)
    for fold in logging.tqdm(range(recipe.folds), desc="Cross-validation"):
        training, held_out = torch.where(data.folds != fold)[0], torch.where(data.folds == fold)[0]
        trained = train_head(head, embeddings, data, training, recipe)
        with torch.no_grad():
            routed[held_out] = trained(embeddings[held_out]).argmax(dim=-1)
        single[held_out] = data.rewards[training].nanmean(dim=0).argmax()
    return routed, single


def evaluate(names: list[str], data: Data, routed: torch.Tensor, single: torch.Tensor, samples: int = 2000) -> dict:
    """Compares routed experts with the best single model, as the model card shows it."""
    rewards = data.rewards.nan_to_num(0.0)
    rows = torch.arange(len(rewards))
    router, best, oracle = rewards[rows, routed], rewards[rows, single], rewards.max(dim=-1).values
    generator = torch.Generator().manual_seed(0)
    resampled = torch.randint(len(rows), (samples, len(rows)), generator=generator)
    gains = (router - best)[resampled].mean(dim=-1).sort().values

    def of(values: torch.Tensor, subset: str | None = None) -> float:
        chosen = [i for i, name in enumerate(data.subsets) if subset in (None, name)]
        return round(values[chosen].mean().item(), 4)

    def spread(values: torch.Tensor) -> float:
        return round(values[resampled].mean(dim=-1).std().item(), 4)

    return {
        "dataset": "LLMRouter training scores, five-fold cross-validation",
        "queries": len(rows),
        "router": {"score": of(router), "standard_error": spread(router)},
        "best_single_model": {
            "expert": names[single.mode().values.item()],
            "score": of(best),
            "standard_error": spread(best),
        },
        "gain": {
            "score": of(router - best),
            "low": round(gains[int(0.025 * samples)].item(), 4),
            "high": round(gains[int(0.975 * samples)].item(), 4),
        },
        "random": round(rewards.mean().item(), 4),
        "oracle": of(oracle),
        "subsets": {
            subset: {
                "queries": data.subsets.count(subset),
                "router": of(router, subset),
                "best_single_model": of(best, subset),
                "oracle": of(oracle, subset),
            }
            for subset in sorted(set(data.subsets))
        },
        "script": "python -m recipes.default_router train",
    }


def describe(recipe: Recipe, data: Data, evaluation: dict) -> dict:
    """Writes down where the router comes from."""
    return {
        "name": "zooter-minilm-llmrouter",
        "method": (
            "Reward distillation: the router learns the experts' scores on every training query by KL divergence, "
            "with tag-based label enhancement (the tags are the benchmark tasks; rewards are averaged over a tag "
            "before the softmax). The encoder is all-MiniLM-L6-v2 cut down to its first layers and most useful "
            "wordpieces, stored in half precision and kept frozen; the head is trained on its embeddings. The figures "
            "below are a cross-validation of this; the head that ships was trained on all queries."
        ),
        "datasets": [
            {
                "name": "LLMRouter",
                "url": "https://github.com/ulab-uiuc/LLMRouter",
                "license": "MIT",
                "queries": len(data.queries),
            }
        ],
        "language": "en",
        "license": "apache-2.0",
        "beta": recipe.beta,
        "tau": recipe.tau,
        "hyperparameters": {
            "encoder layers kept": ", ".join(map(str, recipe.layers)) if recipe.layers else "all",
            "wordpieces kept": recipe.tokens or "all",
            "head": f"MLP of width {recipe.head_hidden_size}, dropout {recipe.head_dropout}",
            "optimiser": f"AdamW, learning rate {recipe.learning_rate}, weight decay {recipe.weight_decay}, one cycle",
            "epochs": recipe.epochs,
            "batch size": recipe.batch_size,
            "seed": recipe.seed,
        },
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
        "evaluation": evaluation,
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


def train(recipe: Recipe, data_folder: str, encoder_folder: str) -> tuple[ZooterForRouting, Data, dict]:
    """Runs the recipe; returns the router, the data and the evaluation.

    The evaluation is a cross-validation of the head; the head that ships has seen every query.
    """
    experts = llmrouter.experts(data_folder)
    data = load_data(data_folder, [expert.name for expert in experts], recipe.folds, recipe.seed)
    router = make_router(recipe, encoder_folder, experts, data.queries)
    round_to_half(router)
    embeddings = embed(router, data.queries)
    evaluation = evaluate(router.expert_names, data, *cross_validate(router.classifier, embeddings, data, recipe))
    router.classifier = train_head(router.classifier, embeddings, data, torch.arange(len(data.queries)), recipe)
    return router, data, evaluation


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
    recipe = Recipe()
    router, data, evaluation = train(recipe, arguments.data, arguments.encoder)
    router.config.training = describe(recipe, data, evaluation)
    save(router, arguments.output)
    gain, single = evaluation["gain"], evaluation["best_single_model"]
    logger.warning(
        f"Router {evaluation['router']['score']:.1%}, best single model {single['score']:.1%}, "
        f"gain {gain['score']:+.1%} ({gain['low']:+.1%} to {gain['high']:+.1%})."
    )


if __name__ == "__main__":
    main()
