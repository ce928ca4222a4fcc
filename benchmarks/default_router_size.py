"""What making the embedded router small costs: size against accuracy, for fewer layers, wordpieces and bits.

    python -m benchmarks.default_router_size --data LLMROUTER_FOLDER --encoder MINILM_FOLDER

Every variant is trained by the recipe of the embedded router and cross-validated on the same five folds; differences
are paired over the queries, with a 95 % bootstrap interval.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import torch
from transformers.utils import logging

from recipes.default_router import Recipe, cross_validate, embed, load_data, make_router, round_to_half
from zooter_hf.conversion.reward_tables import llmrouter


VARIANTS = {
    "6 layers, 30,522 wordpieces, fp32 (the full encoder)": (None, None, False),
    "6 layers, 30,522 wordpieces, fp16": (None, None, True),
    "6 layers, 12,000 wordpieces, fp16": (None, 12_000, True),
    "4 layers, 30,522 wordpieces, fp16": ((0, 1, 2, 3), None, True),
    "4 layers, 12,000 wordpieces, fp16 (shipped)": ((0, 1, 2, 3), 12_000, True),
}


def megabytes(router, half: bool) -> float:
    """Saves a router and returns the size of its weights and tokenizer on disk."""
    state = {name: value.half() if half else value for name, value in router.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        router.save_pretrained(folder, state_dict=state)
        return sum(file.stat().st_size for file in Path(folder).iterdir() if file.suffix != ".py") / 1e6


def interval(differences: torch.Tensor, samples: int = 2000) -> tuple[float, float]:
    """Bootstraps the 95 % interval of a mean."""
    generator = torch.Generator().manual_seed(0)
    resampled = torch.randint(len(differences), (samples, len(differences)), generator=generator)
    means = differences[resampled].mean(dim=-1).sort().values
    return means[int(0.025 * samples)].item(), means[int(0.975 * samples)].item()


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the LLMRouter table")
    parser.add_argument("--encoder", required=True, help="folder of all-MiniLM-L6-v2")
    arguments = parser.parse_args()
    logging.disable_progress_bar()

    base = Recipe()
    experts = llmrouter.experts(arguments.data)
    data = load_data(arguments.data, [expert.name for expert in experts], base.folds, base.seed)
    rewards, rows = data.rewards.nan_to_num(0.0), torch.arange(len(data.queries))
    full = None
    print("| encoder | MB | score | against the full encoder | over the best single model |")
    print("|---|---:|---:|---:|---:|")
    for name, (layers, tokens, half) in VARIANTS.items():
        recipe = dataclasses.replace(base, layers=layers, tokens=tokens)
        router = make_router(recipe, arguments.encoder, experts, data.queries)
        if half:
            round_to_half(router)
        routed, single = cross_validate(router.classifier, embed(router, data.queries), data, recipe)
        scores = 100 * rewards[rows, routed]
        full = scores if full is None else full
        low, high = interval(scores - full)
        gain = (scores - 100 * rewards[rows, single]).mean().item()
        print(
            f"| {name} | {megabytes(router, half):.1f} | {scores.mean():.1f} "
            f"| {(scores - full).mean():+.1f} ({low:+.1f} to {high:+.1f}) | {gain:+.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
