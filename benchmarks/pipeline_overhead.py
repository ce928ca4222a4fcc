"""Time of the routing pipeline against the bare encoder forward on the same tokens, tokenising counted on both sides.

    python -m benchmarks.pipeline_overhead [--router FOLDER] [--rounds N] [--threads N]

The two are timed in turn, so that whatever else the machine does befalls both; ratios are of medians. Targets: at most
1.15 at batch 1 and 1.05 at batch 64.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import pipeline
from transformers.utils import logging

import zooter_hf


TEXT = "how many people lived in the old town when the new bridge over the river was opened to the public"


def query_of(tokens: int) -> str:
    """Makes a query of so many tokens, special tokens included; the words are single tokens."""
    words = TEXT.split()
    return " ".join(words[index % len(words)] for index in range(tokens - 2))


def in_turn(functions: list[Callable], rounds: int) -> list[list[float]]:
    """Times functions in turn; seconds of every round, after three rounds of warming up."""
    seconds: list[list[float]] = [[] for _ in functions]
    for turn in range(rounds + 3):
        for function, times in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            if turn >= 3:
                times.append(time.perf_counter() - start)
    return seconds


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--router", default=zooter_hf.DEFAULT_ROUTER)
    parser.add_argument("--rounds", type=int, default=200, help="rounds at batch 1; a tenth of them at batch 64")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    route = pipeline("zooter-routing", model=arguments.router, device="cpu")
    encoder, tokenizer = route.model.encoder, route.tokenizer

    parameters = route.model.num_parameters() / 1e6
    print(f"{arguments.threads} threads, torch {torch.__version__}, {parameters:.1f}M parameters\n")
    print("| batch | tokens | encoder, ms per query | pipeline, ms per query | ratio |")
    print("|---:|---:|---:|---:|---:|")
    for batch, lengths in ((1, (16, 64, 256)), (64, (16, 64, 256))):
        for tokens in lengths:
            queries = [query_of(tokens)] * batch
            assert len(tokenizer(queries[0])["input_ids"]) == tokens

            def bare(queries=queries):
                inputs = tokenizer(queries, padding=True, return_tensors="pt", return_token_type_ids=False)
                with torch.inference_mode():
                    encoder(**inputs)

            def routed(queries=queries, batch=batch):
                route(queries[0]) if batch == 1 else route(queries, batch_size=batch)

            rounds = arguments.rounds if batch == 1 else max(10, arguments.rounds // 10)
            medians = [statistics.median(times) * 1000 / batch for times in in_turn([bare, routed], rounds)]
            print(
                f"| {batch} | {tokens} | {medians[0]:.2f} | {medians[1]:.2f} | {medians[1] / medians[0]:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
