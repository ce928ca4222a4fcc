"""Speed of a router side by side with others, tokenising included, in one run.

    python -m benchmarks.speed --data LLMROUTER_TRAIN [--exports FOLDER] [--plot FILE]

- *router*: the pipeline `zooter-routing` on torch, on ONNX in full precision, and on ONNX in 8-bit integers, which
  leave close calls to full precision, or answer these too;
- *bare encoder*: the router's encoder alone, on batches that are perfectly sorted by length;
- *stock pipeline*: the same encoder as a BERT classifier in the `text-classification` pipeline of transformers;
- *padded mDeBERTa*: a classifier of the shape of mDeBERTa-v3-base on queries padded to 512 tokens, as published code
  of routers does; *XLM-R*: one of the shape of XLM-RoBERTa-base, not padded. Both have random weights, and the
  router's tokenizer in place of their own.

Ways are taken in turn, so that whatever else the machine does befalls all; figures are medians. Slow ways get fewer
queries, and their time is extrapolated from the time per query; the tables say of how many. Start-up and memory are
those of processes of their own.
"""

import argparse
import copy
import itertools
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    TextClassificationPipeline,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    pipeline,
)
from transformers.utils import logging

from zooter_hf import DEFAULT_ROUTER, ZooterForRouting
from zooter_hf.conversion.exports import export
from zooter_hf.conversion.reward_tables import load


LENGTHS = (16, 64, 256, 1024)
RUNTIMES = {"router, torch": "torch", "router, ONNX": "onnx", "router, ONNX int8": "onnx-int8"}
UNCHECKED = "router, ONNX int8, close calls too"
SLOW = ("padded mDeBERTa", "XLM-R")
BARE_IMPORT = "import torch; from transformers import AutoModel, Pipeline"


def mdeberta_config() -> DebertaV2Config:
    """Returns a config of the shape of mDeBERTa-v3-base."""
    return DebertaV2Config(
        vocab_size=251_000,
        hidden_size=768,  # the defaults are those of a model four times as large
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
    )


def make_baseline(name: str, tokenizer) -> Callable[[list[str]], None]:
    """Makes a classifier of a published router's size; a call classifies a batch."""
    if name == "padded mDeBERTa":
        model, padding = DebertaV2ForSequenceClassification(mdeberta_config()), "max_length"
    else:
        config = XLMRobertaConfig(vocab_size=250_002, max_position_embeddings=514, type_vocab_size=1)
        model, padding = XLMRobertaForSequenceClassification(config), True
    model = model.eval()

    def classify(queries: list[str]):
        inputs = tokenizer(
            queries,
            padding=padding,
            truncation=True,
            max_length=512,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        with torch.inference_mode():
            model(**inputs).logits.softmax(dim=-1).tolist()

    return classify


def make_stock(router: ZooterForRouting) -> TextClassificationPipeline:
    """Puts the router's encoder into the stock pipeline."""
    config = copy.deepcopy(router.config.encoder_config)
    config.num_labels = len(router.expert_names)
    model = BertForSequenceClassification(config).eval()
    model.bert.load_state_dict(router.encoder.state_dict(), strict=False)
    return TextClassificationPipeline(model=model, tokenizer=router.tokenizer, device="cpu", top_k=None)


def cut_to(length: int, texts: list[str], tokenizer, count: int) -> list[str]:
    """Makes queries of a number of tokens, special ones included, of texts, strung together where one is too short."""
    queries, start = [], 0
    while len(queries) < count:
        text, characters = "", 0
        while not characters:
            text, start = f"{text} {texts[start % len(texts)]}".strip(), start + 1
            offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
            characters = offsets[length - 3][1] if len(offsets) >= length - 2 else 0
        queries.append(text[:characters])
    return queries


def seconds_of(run: Callable[[], object]) -> float:
    """Times one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_turn(ways: dict[str, Callable[[str], object]], queries: list[str], slow_rounds: int = 2) -> dict[str, float]:
    """Takes the ways in turn, with one query after the other; returns the median seconds of each.

    The first query warms them up. Every way then answers twice and the second time counts: a server that routes has
    its weights at hand, which another way's weights would have driven out of the cache.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn, query in enumerate(queries):
        for name, run in ways.items():
            if name in SLOW and turn > slow_rounds:
                continue
            if name not in SLOW:
                run(query)
            seconds[name].append(seconds_of(lambda run=run, query=query: run(query)))
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def ratio(first: float, second: float) -> str:
    """Writes how many times the second is in the first."""
    return f"{first / second:.2f}"


def measure_single(routes: dict, stock, slow: dict, texts: list[str], rounds: int) -> dict[str, dict[int, float]]:
    """Measures one query at a time; returns milliseconds by way and length."""
    router = routes["router, torch"].model
    limit = router.config.max_query_tokens
    table: dict[str, dict[int, float]] = {}

    def bare(query: str):
        inputs = router.tokenizer(
            query, truncation=True, max_length=limit, return_tensors="pt", return_token_type_ids=False
        )
        with torch.inference_mode():
            router.encoder(**inputs)

    for length in LENGTHS:
        ways = {**routes, "bare encoder": bare}
        ways["stock pipeline"] = lambda query: stock(query, truncation=True, max_length=limit)
        # What is padded takes as long for any length.
        once = {"padded mDeBERTa"} if length != 64 else set()
        ways |= {name: lambda query, run=run: run([query]) for name, run in slow.items() if name not in once}
        queries = cut_to(length, texts, router.tokenizer, rounds + 1)
        for name, median in in_turn(ways, queries).items():
            table.setdefault(name, {})[length] = 1000 * median
    if padded := table.get("padded mDeBERTa"):
        table["padded mDeBERTa"] = dict.fromkeys(LENGTHS, padded[64])
    return table


def measure_many(routes: dict, stock, slow: dict, queries: list[str], sample: int) -> dict[str, tuple[float, int]]:
    """Measures many queries of mixed lengths; returns seconds a query by way, and of how many queries."""
    route = routes["router, torch"]
    router, limit = route.model, route.model.config.max_query_tokens

    def bare(texts: list[str]):
        ids = router.tokenizer(texts, truncation=True, max_length=limit, return_token_type_ids=False)["input_ids"]
        ids.sort(key=len)
        with torch.inference_mode():
            for start in range(0, len(ids), 32):
                batch = router.tokenizer.pad({"input_ids": ids[start : start + 32]}, return_tensors="pt")
                router.encoder(**batch)

    some = queries[:sample]
    ways = {name: lambda each=each: each(some, batch_size=32) for name, each in routes.items()}
    ways["stock pipeline"] = lambda: stock(some, batch_size=32, truncation=True, max_length=limit)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3):
        for name, run in ways.items():
            seconds[name].append(seconds_of(run) / len(some))
    results = {name: (statistics.median(times), len(some)) for name, times in seconds.items()}
    for name, run in slow.items():
        few = queries[: 4 if name == "padded mDeBERTa" else 64]
        results[name] = (seconds_of(lambda run=run, few=few: run(few)) / len(few), len(few))
    # All of them, sorted across all: in halves in turn, so that a change of the machine's mood befalls both.
    whole: dict[str, float] = {"bare encoder": 0.0, "router, torch, all": 0.0}
    for half in (queries[::2], queries[1::2]):
        whole["bare encoder"] += seconds_of(lambda half=half: bare(half))
        whole["router, torch, all"] += seconds_of(lambda half=half: route(half, batch_size=32))
    return results | {name: (total / len(queries), len(queries)) for name, total in whole.items()}


def measure_startup(router: str, exports: str, rounds: int) -> dict[str, float]:
    """Measures whole processes; returns seconds."""
    load_and_answer = (
        "from transformers import pipeline; import zooter_hf; pipeline('zooter-routing', model={!r}{})('Why?')"
    )
    onnx = ", model_kwargs={'runtime': 'onnx-int8'}"
    commands = {
        "import torch and transformers": [sys.executable, "-c", BARE_IMPORT],
        "first answer in Python, torch": [sys.executable, "-c", load_and_answer.format(router, "")],
        "first answer in Python, ONNX int8": [sys.executable, "-c", load_and_answer.format(exports, onnx)],
        "first answer of the command line": [str(Path(sys.executable).with_name("zooter")), "route", "Why?"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            taken = seconds_of(lambda command=command: subprocess.run(command, capture_output=True, check=True))
            if turn > 0:
                seconds[name].append(taken)
    return {name: statistics.median(times) for name, times in seconds.items()}


def measure_import(rounds: int) -> float:
    """Measures what the import of the package adds to those of torch and transformers; returns milliseconds."""
    timed = "import time; start = time.perf_counter(); import zooter_hf; print(time.perf_counter() - start)"
    code = f"{BARE_IMPORT}; {timed}"
    command = [sys.executable, "-c", code]
    seconds = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(rounds)]
    return 1000 * statistics.median(seconds)


def peak_memory(way: str, router: str, exports: str, queries: list[str]) -> float:
    """Returns the most memory of this process, in MiB, after one way of routing."""
    if way in RUNTIMES:
        model = router if RUNTIMES[way] == "torch" else exports
        pipeline("zooter-routing", model=model, device="cpu", model_kwargs={"runtime": RUNTIMES[way]})(queries)
    elif way in SLOW:
        make_baseline(way, ZooterForRouting.from_pretrained(router).tokenizer)(queries[:4])
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def plot(table: dict[str, dict[int, float]], path: str):
    """Draws milliseconds a query over length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, times in table.items():
        axes.plot(list(times), list(times.values()), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="tokens of a query", ylabel="milliseconds a query, one at a time")
    axes.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=150)


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--router", default=DEFAULT_ROUTER, help="a BERT router (default: the embedded one)")
    parser.add_argument("--data", default="../shared/data/llmrouter_train", help="queries (default: %(default)s)")
    parser.add_argument("--exports", help="folder with the router's graphs; made for the run by default")
    parser.add_argument("--queries", type=int, default=10_000, help="how many of mixed length (default: %(default)s)")
    parser.add_argument("--sample", type=int, default=1_000, help="how many of them for all ways but two")
    parser.add_argument("--rounds", type=int, default=40, help="for one query at a time")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--plot", help="a .png or .svg file")
    parser.add_argument("--skip", action="append", default=[], choices=SLOW, help="leave one of the slow ways out")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # for the processes that are started
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    table = load(arguments.data, "llmrouter")
    texts = list(table.queries)
    random.Random(0).shuffle(texts)
    if arguments.memory_of:
        print(peak_memory(arguments.memory_of, arguments.router, arguments.exports, texts[:64]))
        return
    with tempfile.TemporaryDirectory() as folder:
        router = ZooterForRouting.from_pretrained(arguments.router)
        if arguments.exports is None:
            arguments.exports = folder
            print(export(router, folder, "onnx-int8", queries=texts[:2_000], overwrite=True), "\n")
        run(arguments, router, texts)


def run(arguments: argparse.Namespace, router: ZooterForRouting, texts: list[str]):
    """Measures and prints."""
    routes = {
        name: pipeline(
            "zooter-routing",
            model=arguments.router if runtime == "torch" else arguments.exports,
            device="cpu",
            model_kwargs={"runtime": runtime},
        )
        for name, runtime in RUNTIMES.items()
    }
    unchecked = pipeline(
        "zooter-routing", model=arguments.exports, device="cpu", model_kwargs={"runtime": "onnx-int8"}
    )
    unchecked.model.recheck_below = 0.0
    every = {**routes, UNCHECKED: unchecked}
    names = [name for name in SLOW if name not in arguments.skip]
    slow = {name: make_baseline(name, router.tokenizer) for name in names}
    stock = make_stock(router)
    print(f"{arguments.threads} threads, torch {torch.__version__}\n")

    single = measure_single(routes, stock, slow, texts, arguments.rounds)
    reads = router.config.max_query_tokens
    print(f"| one query at a time, ms | {' | '.join(f'{length} tokens' for length in LENGTHS)} |")
    print("|---|" + "---:|" * len(LENGTHS))
    for name, times in single.items():
        print(f"| {name} | {' | '.join(f'{times[length]:.2f}' for length in LENGTHS)} |")
    print(
        f"\nThe router, its encoder and the stock pipeline read at most {reads} tokens, the others 512.\n", flush=True
    )
    if arguments.plot:
        plot(single, arguments.plot)

    queries = list(itertools.islice(itertools.cycle(texts), arguments.queries))
    many = measure_many(every, stock, slow, queries, arguments.sample)
    torch_seconds = many["router, torch"][0]
    chosen = {name: [rank[0]["label"] for rank in route(texts[-1_000:])] for name, route in every.items()}
    print("| the same expert as on torch, of 1,000 queries | |\n|---|---:|")
    for name, labels in chosen.items():
        same = sum(one == other for one, other in zip(labels, chosen["router, torch"], strict=True))
        print(f"| {name} | {same / len(labels):.1%} |")
    print()
    print(f"| queries of mixed length | queries/s | minutes for {len(queries):,} | times the router on torch | of |")
    print("|---|---:|---:|---:|---:|")
    for name, (each, count) in many.items():
        rest = f"{len(queries) * each / 60:.2f} | {ratio(torch_seconds, each)} | {count:,}"
        print(f"| {name} | {1 / each:.1f} | {rest} |", flush=True)

    print("\n| peak memory | MiB |\n|---|---:|")
    for name in ("imports alone", *RUNTIMES, *names):
        command = [sys.executable, "-m", "benchmarks.speed", "--memory-of", name, "--router", arguments.router]
        command += ["--data", arguments.data, "--exports", arguments.exports]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"| {name} | {float(done.stdout.split()[-1]):.0f} |", flush=True)

    startup = measure_startup(arguments.router, arguments.exports, 3)
    bare = startup["import torch and transformers"]
    print("\n| a new process | seconds | times the imports of torch and transformers |\n|---|---:|---:|")
    for name, taken in startup.items():
        print(f"| {name} | {taken:.2f} | {ratio(taken, bare)} |")

    torch_64, int8_64 = single["router, torch"][64], single["router, ONNX int8"][64]
    rows = [
        ("int8 over torch, mixed lengths", torch_seconds / many["router, ONNX int8"][0], ">= 2.5"),
        ("int8, ms at 64 tokens", int8_64, "<= 3"),
        ("router over stock pipeline, mixed lengths", many["stock pipeline"][0] / torch_seconds, ">= 3"),
        ("router under sorted bare encoder", many["router, torch, all"][0] / many["bare encoder"][0], "<= 1.1"),
        ("import of zooter_hf, ms", measure_import(5), "< 50"),
        ("command line over imports", startup["first answer of the command line"] / bare, "< 2"),
    ]
    if padded := single.get("padded mDeBERTa"):
        rows.append(("router over padded mDeBERTa at 64 tokens", padded[64] / torch_64, ">= 200"))
        rows.append(("int8 over padded mDeBERTa at 64 tokens", padded[64] / int8_64, ""))
    print("\n| ratio | measured | target |\n|---|---:|---:|")
    for name, value, target in rows:
        print(f"| {name} | {value:.2f} | {target} |")


if __name__ == "__main__":
    main()
