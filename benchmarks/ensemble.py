"""What the ensemble costs over the right expert by itself, and saves against asking all of them.

    python -m benchmarks.ensemble --base FOLDER --adapters FOLDER FOLDER [...]

The experts are a causal language model and LoRA adapters on it (`examples.adapters` trains two), and the same adapters
merged into models of their own, all of equal size. The router has the encoder and the head of the embedded one, for
these experts. All ways answer the same queries greedily, one by one unless it says otherwise, with the same number of
tokens, in turn, so that whatever else the machine does befalls all; ratios are of medians. The reward model of the
ranking is free of charge (it counts characters), which is in favour of ranking. Peak memory is that of a process that
does nothing else.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from benchmarks.local_experts import QUESTIONS
from zooter_hf import DEFAULT_ROUTER, ExpertSpec, ZooterEnsemble, ZooterForRouting
from zooter_hf.experts import GenerationSettings, answer_mixed, make_expert
from zooter_hf.rewards.teachers import CallableTeacher


def merge(base: str, adapters: list[str], target: Path) -> dict[str, str]:
    """Merges adapters into models of their own; returns the folders of all full models by name."""
    folders = {"base": base}
    for adapter in adapters:
        name = Path(adapter).name
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload()
        model.save_pretrained(target / name)
        AutoTokenizer.from_pretrained(base).save_pretrained(target / name)
        folders[name] = str(target / name)
    return folders


def specs_of(kind: str, base: str, adapters: list[str], full: dict[str, str]) -> list[ExpertSpec]:
    """Describes the experts as adapters on one base, or as models of their own."""
    if kind == "full":
        return [ExpertSpec(name, model=folder, backend="transformers") for name, folder in full.items()]
    options = {"base_model": base}
    return [
        ExpertSpec("base", model=base, backend="transformers"),
        *(ExpertSpec(Path(each).name, model=each, backend="adapter", options=options) for each in adapters),
    ]


def make_ensemble(specs: list[ExpertSpec], max_loaded: int | None = None) -> ZooterEnsemble:
    """Puts a router of the embedded one's size before the experts."""
    embedded = ZooterForRouting.from_pretrained(DEFAULT_ROUTER)
    config = embedded.config
    torch.manual_seed(0)
    router = ZooterForRouting.from_encoder(
        embedded.encoder,
        specs,
        tokenizer=embedded.tokenizer,
        head=config.head,
        head_hidden_size=config.head_hidden_size,
        pooling=config.pooling,
    )
    return ZooterEnsemble(router, max_loaded=max_loaded)


def measure(ways: dict, rounds: int) -> dict[str, list[float]]:
    """Takes the ways in turn; returns the seconds of each round after one of warming up."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            if turn > 0:
                seconds[way].append(time.perf_counter() - start)
    return seconds


def print_times(title: str, seconds: dict[str, list[float]]):
    """Prints a table; ratios are to its first row."""
    print(f"\n| {title} | seconds, median (least to most) | ratio |\n|:---|---:|---:|")
    first = None
    for way, times in seconds.items():
        median = statistics.median(times)
        first = first or median
        print(f"| {way} | {median:.2f} ({min(times):.2f} to {max(times):.2f}) | {median / first:.3f} |")


def peak_memory(specs: list[ExpertSpec], way: str, queries: list[str], settings: GenerationSettings) -> float:
    """Returns the most memory of this process, in MiB, after one way of answering."""
    if way == "one":
        with make_expert(specs[0]) as expert:
            expert.answer(queries, settings)
    else:
        with make_ensemble(specs, max_loaded=1 if way == "bounded" else None) as ensemble:
            for spec in specs:
                ensemble.generate(queries, expert=spec.name, max_new_tokens=settings.max_new_tokens)
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder of a causal language model")
    parser.add_argument("--adapters", required=True, nargs="+", help="folders of LoRA adapters on it")
    parser.add_argument("--queries", type=int, default=6)
    parser.add_argument("--max-new-tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5, help="after one of warming up")
    parser.add_argument("--memory-of", nargs=2, metavar=("KIND", "WAY"), help=argparse.SUPPRESS)
    parser.add_argument("--merged", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    queries = [QUESTIONS[place % len(QUESTIONS)] for place in range(arguments.queries)]
    settings = GenerationSettings(max_new_tokens=arguments.max_new_tokens)
    if arguments.memory_of:
        kind, way = arguments.memory_of
        specs = specs_of(kind, arguments.base, arguments.adapters, json.loads(arguments.merged))
        print(peak_memory(specs, way, queries[:2], settings))
        return

    with tempfile.TemporaryDirectory() as folder:
        full = merge(arguments.base, arguments.adapters, Path(folder))
        full_specs = specs_of("full", arguments.base, arguments.adapters, full)
        adapter_specs = specs_of("adapter", arguments.base, arguments.adapters, full)
        count = len(full_specs)
        print(
            f"{count} experts; {len(queries)} queries of at most {settings.max_new_tokens} new tokens; "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}"
        )

        with make_ensemble(full_specs) as ensemble:
            ensemble.preload()
            chosen = [reply.decision.expert for reply in ensemble.generate(queries, max_new_tokens=1)]
            experts = ensemble.experts
            teacher = CallableTeacher(lambda query, answer: float(len(answer)), name="length")
            ways = {
                "the right expert, called directly": lambda: [
                    experts[name].answer([query], settings) for name, query in zip(chosen, queries, strict=True)
                ],
                "the ensemble": lambda: [
                    ensemble.generate(query, max_new_tokens=settings.max_new_tokens) for query in queries
                ],
                "reward model ranking over all": lambda: [
                    ensemble.reward_model_ranking(query, teacher, max_new_tokens=settings.max_new_tokens)
                    for query in queries
                ],
            }
            seconds = measure(ways, arguments.rounds)
            print_times("way", seconds)
            _, routed, ranked = (statistics.median(times) for times in seconds.values())
            print(
                f"\nThe ensemble is {ranked / routed:.2f} times as fast as ranking, {ranked / routed / count:.2f} x N."
            )
            reply = ensemble.generate(queries[0], max_new_tokens=1)
            print(f"Routing one query takes {1000 * reply.seconds_routing:.1f} ms.")

        with make_ensemble(adapter_specs) as ensemble:
            ensemble.preload()
            experts = list(ensemble.experts.values())
            for each_has in sorted({1, 2, len(queries)}):
                rows = [(expert, query) for query in queries[:each_has] for expert in experts]

                def in_turn(rows=rows):
                    for expert in experts:
                        expert.answer([query for each, query in rows if each is expert], settings)

                def mixed(rows=rows):
                    answer_mixed([expert for expert, _ in rows], [query for _, query in rows], settings)

                ways = {"one after the other": in_turn, "mixed batches": mixed}
                title = f"{count} experts on one base, {each_has} each, batches of at most {experts[0].batch_size}"
                print_times(title, measure(ways, arguments.rounds))

        print("\n| peak memory | MiB |\n|:---|---:|")
        for kind, way, title in (
            ("full", "one", "one expert by itself"),
            ("full", "all", f"the ensemble, {count} full models"),
            ("full", "bounded", f"the ensemble, {count} full models, `max_loaded=1`"),
            ("adapter", "all", f"the ensemble, {count - 1} adapters and their base"),
        ):
            command = [sys.executable, "-m", "benchmarks.ensemble", "--base", arguments.base]
            command += ["--adapters", *arguments.adapters, "--merged", json.dumps(full), "--memory-of", kind, way]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"| {title} | {float(done.stdout.split()[-1]):.0f} |")


if __name__ == "__main__":
    main()
