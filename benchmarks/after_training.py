"""What the benchmarks of what comes after training share: their command line, their data, and where tables go."""

import argparse
from pathlib import Path

import torch

from benchmarks.routing import Recipe, new_router, quiet
from zooter_hf import RewardTable
from zooter_hf.conversion.reward_tables import load
from zooter_hf.routing import predict


NOT_TRAINED_ON = {"routerdc": {"arc_easy"}}
RECIPE = Recipe({"freeze_encoder": True})


def parse(description: str, name: str, data: str, seeds: int = 1) -> argparse.Namespace:
    """Reads the command line of a benchmark."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("llmrouter", "routerdc"), default=data, help="format of the data")
    parser.add_argument("--train", help="file or folder of the data (default: in ../shared/data)")
    parser.add_argument("--encoder", required=True, help="folder or Hub id of the encoder, e.g. all-MiniLM-L6-v2")
    parser.add_argument("--seeds", type=int, default=seeds, help="how many seeds, from 0 (default: %(default)s)")
    parser.add_argument("--output", default=f"benchmarks/results/{name}", help="where the table goes")
    arguments = parser.parse_args()
    arguments.train = arguments.train or f"../shared/data/{arguments.data}_train"
    if not Path(arguments.train).exists():
        parser.error(f"--train: {arguments.train} is not there; name the folder of the data")
    return arguments


def read(arguments: argparse.Namespace, whole: bool = False) -> tuple[RewardTable, torch.Tensor]:
    """Loads the data, without the subsets that are not trained on unless `whole`, and embeds the queries."""
    quiet()
    table = load(arguments.train, arguments.data)
    if not whole:
        table = table.select_subsets(sorted(set(table.subsets) - NOT_TRAINED_ON.get(arguments.data, set())))
    router = new_router(table, arguments.encoder, RECIPE, seed=0)
    return table, predict(router, table.queries, description="Embedding").embeddings


def show(text: str, arguments: argparse.Namespace, name: str):
    """Prints a table and saves it."""
    print(text)
    output = Path(arguments.output, arguments.data)
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.md").write_text(text + "\n", encoding="utf-8")
