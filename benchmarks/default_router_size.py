"""What making the embedded router small costs: size against accuracy, for fewer layers, wordpieces and bits.

    python -m benchmarks.default_router_size --data LLMROUTER_FOLDER --encoder MINILM_FOLDER

Every variant is trained by the recipe of the embedded router and cross-validated on the same five folds; differences
are paired over the queries, with a 95 % bootstrap interval.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

from transformers.utils import logging

from recipes.default_router import Recipe, embed, evaluate, make_router, round_to_half
from zooter_hf.conversion.reward_tables import load
from zooter_hf.evaluation.bootstrap import compare
from zooter_hf.rewards.scores import routed_rewards


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


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the LLMRouter table")
    parser.add_argument("--encoder", required=True, help="folder of all-MiniLM-L6-v2")
    arguments = parser.parse_args()
    logging.disable_progress_bar()

    base = Recipe()
    table = load(arguments.data, "llmrouter")
    full = None
    print("| encoder | MB | score | against the full encoder | over the best single model |")
    print("|---|---:|---:|---:|---:|")
    for name, (layers, tokens, half) in VARIANTS.items():
        recipe = dataclasses.replace(base, layers=layers, tokens=tokens)
        router = make_router(recipe, arguments.encoder, table.experts, table.texts())
        size = megabytes(router, half)
        if half:
            round_to_half(router.encoder)
        report, probabilities = evaluate(router, table, embed(router, table), recipe)
        scores = routed_rewards(table.rewards, probabilities.argmax(dim=1))
        full = scores if full is None else full
        against = compare(scores, full)
        gain = report.comparison("best_single").difference
        print(
            f"| {name} | {size:.1f} | {100 * report.score:.1f} | {100 * against.difference:+.1f} "
            f"({100 * against.low:+.1f} to {100 * against.high:+.1f}) | {100 * gain:+.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
