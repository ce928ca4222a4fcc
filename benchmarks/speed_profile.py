"""Where the time of a routing call goes: the arithmetic that it takes, and what every operation adds to it.

    python -m benchmarks.speed_profile --exports FOLDER

FOLDER is the router with its graphs, as `zooter convert ROUTER FOLDER --to onnx-int8 --queries FILE` makes it. What
the machine can multiply is measured by products of square matrices, in torch and in 8-bit integers. Operations are
those that torch's and ONNX runtime's own profilers name; being watched, they are a little slower than otherwise.
"""

import argparse
import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedConfig
from transformers.utils import logging

from benchmarks.speed import mdeberta_config, seconds_of
from zooter_hf import DEFAULT_ROUTER, ZooterForRouting
from zooter_hf.modeling import RUNTIMES, open_session, session_options


SHAPES = ((1, 64), (32, 96))
SIZE = 1024
# What the operations that profilers name are to a reader; that a name begins so is enough.
KINDS = {
    "addmm": "products with weights",
    "mm": "products with weights",
    "MatMulInteger": "products with weights",
    "scaled_dot_product": "attention",
    "bmm": "attention",
    "MatMul": "attention",
    "FusedMatMul": "attention",
    "Softmax": "attention",
    "gelu": "activation",
    "Gelu": "activation",
    "BiasGelu": "activation",
    "native_layer_norm": "normalisation",
    "LayerNormalization": "normalisation",
    "QuantizeLinear": "to integers",
    "Mul": "to integers",
    "add": "sums",
    "Add": "sums",
    "copy_": "moving",
    "clone": "moving",
    "index_select": "moving",
    "Transpose": "moving",
    "Reshape": "moving",
    "Gather": "moving",
    "Concat": "moving",
}


def multiplications(config: PreTrainedConfig, tokens: int) -> float:
    """Counts the multiply-adds of an encoder for one query, by its products with weights and within attention.

    DeBERTa compares contents with positions both ways, which triples what queries and keys are multiplied with.
    """
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    weights = tokens * (4 * hidden**2 + 2 * hidden * inner)
    comparisons = 3 if config.model_type == "deberta-v2" else 1
    return layers * (weights + (comparisons + 1) * tokens**2 * hidden)


def median_seconds(run: Callable[[], object], rounds: int) -> float:
    """Times a call after some rounds of warming up."""
    return statistics.median([seconds_of(run) for _ in range(rounds + 5)][5:])


def machine_speed(folder: Path) -> dict[str, float]:
    """Measures multiply-adds a second of large products: in torch, and in 8-bit integers in ONNX runtime."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    floats = torch.randn(SIZE, SIZE)
    weight = np.random.default_rng(0).integers(-127, 127, (SIZE, SIZE)).astype(np.int8)
    constants = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.array(1, np.float32), "step"),
        numpy_helper.from_array(np.ones(SIZE, np.float32), "scale"),
        numpy_helper.from_array(np.array(0, np.uint8), "zero"),
    ]
    product = helper.make_node(
        "MatMulIntegerToFloat", ["x", "weight", "step", "scale", "zero"], ["y"], domain="com.microsoft"
    )
    graph = helper.make_graph(
        [product],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [SIZE, SIZE])],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "product.onnx")
    session = open_session(folder / "product.onnx")
    inputs = {"x": np.full((SIZE, SIZE), 3, np.uint8)}
    return {
        "float32": SIZE**3 / median_seconds(lambda: floats @ floats, 30),
        "int8": SIZE**3 / median_seconds(lambda: session.run(None, inputs), 30),
    }


def inputs_of(shape: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Makes a batch without padding."""
    ids = torch.randint(10, 1000, shape, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def profile_torch(router: ZooterForRouting, inputs: dict[str, torch.Tensor], rounds: int) -> Counter:
    """Returns milliseconds a call by the operations that torch's profiler names."""
    with torch.inference_mode():
        for _ in range(5):
            router(**inputs)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            for _ in range(rounds):
                router(**inputs)
    return Counter(
        {
            event.key.removeprefix("aten::").removeprefix("_"): event.self_cpu_time_total / 1000 / rounds
            for event in profiler.key_averages()
        }
    )


def call_of(session, inputs: dict[str, torch.Tensor]) -> Callable:
    """Returns a call of a graph for what a router asks of it."""
    names = [output.name for output in session.get_outputs() if output.name != "centroids"]
    values = {name: value.numpy() for name, value in inputs.items()}
    return lambda: session.run(names, values)


def profile_onnx(path: Path, inputs: dict[str, torch.Tensor], rounds: int, folder: Path) -> Counter:
    """Returns milliseconds a call by the operations that ONNX runtime's profiler names."""
    options = session_options()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = open_session(path, options)
    run = call_of(session, inputs)
    for _ in range(rounds):
        run()
    totals: Counter = Counter()
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            totals[event["args"]["op_name"]] += event["dur"] / 1000 / rounds
    return totals


def calls(router: ZooterForRouting, graphs: dict[str, Path], inputs: dict[str, torch.Tensor]) -> list[Callable]:
    """Returns calls of the router and of its graphs, close calls left as they are."""

    def on_torch():
        with torch.inference_mode():
            router(**inputs)

    return [on_torch, *(call_of(open_session(path), inputs) for path in graphs.values())]


def kind_of(name: str, runtime: str) -> str:
    """Tells what an operation is for."""
    if name == "MatMul" and runtime == "onnx":
        return KINDS["mm"]  # 24 of its 28 are products with weights
    # Of two names that fit, the longer one: "addmm" is no sum.
    return KINDS.get(max((each for each in KINDS if name.startswith(each)), key=len, default=""), "other")


def by_kind(operations: Counter, runtime: str) -> Counter:
    """Sums milliseconds by name up to milliseconds by kind."""
    sums: Counter = Counter()
    for name, milliseconds in operations.items():
        sums[kind_of(name, runtime)] += milliseconds
    return sums


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--router", default=DEFAULT_ROUTER, help="default: the embedded one")
    parser.add_argument("--exports", required=True, help="folder with its graphs")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    router = ZooterForRouting.from_pretrained(arguments.router).eval()
    config = router.config.encoder_config
    graphs = {runtime: Path(arguments.exports, RUNTIMES[runtime]) for runtime in RUNTIMES}

    with tempfile.TemporaryDirectory() as folder:
        speed = machine_speed(Path(folder))
        gigas = ", ".join(f"{each / 1e9:.0f} in {name}" for name, each in speed.items())
        print(f"{arguments.threads} threads. Billions of multiply-adds a second, {SIZE} x {SIZE}: {gigas}\n")
        print("| one query | millions of multiply-adds | ms at this speed, float32 | int8 |\n|---|---:|---:|---:|")
        counts = {
            "router, 64 tokens": multiplications(config, 64),
            "router, 256 tokens": multiplications(config, 256),
            "mDeBERTa, padded to 512": multiplications(mdeberta_config(), 512),
        }
        for name, count in counts.items():
            floors = " | ".join(f"{1000 * count / each:.2f}" for each in speed.values())
            print(f"| {name} | {count / 1e6:,.0f} | {floors} |")
        times = counts["mDeBERTa, padded to 512"] / counts["router, 64 tokens"]
        print(f"\nPadded mDeBERTa over the router at 64 tokens: {times:.0f} times the arithmetic.\n")

        for shape in SHAPES:
            inputs = inputs_of(shape)
            columns = {"torch": by_kind(profile_torch(router, inputs, arguments.rounds), "torch")}
            for runtime, path in graphs.items():
                operations = profile_onnx(path, inputs, arguments.rounds, Path(folder))
                columns[runtime] = by_kind(operations, runtime)
            print(f"| ms of {shape[0]} x {shape[1]} tokens | {' | '.join(columns)} |\n|---|" + "---:|" * len(columns))
            for kind in [*dict.fromkeys(KINDS.values()), "other"]:
                print(f"| {kind} | {' | '.join(f'{each[kind]:.2f}' for each in columns.values())} |")
            unwatched = [median_seconds(run, arguments.rounds) for run in calls(router, graphs, inputs)]
            print(f"| all | {' | '.join(f'{sum(each.values()):.2f}' for each in columns.values())} |")
            print(f"| all, not watched | {' | '.join(f'{1000 * each:.2f}' for each in unwatched)} |\n", flush=True)


if __name__ == "__main__":
    main()
