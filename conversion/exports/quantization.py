"""Matrix products in 8-bit integers, with a range for every channel of their inputs.

Dynamic quantisation takes one range for a whole batch: the result for a query depends on the queries beside it, and a
few channels of large values leave the others a handful of steps. Here each channel is brought to a common range by a
scale and a shift that are found beforehand on real queries (as in SmoothQuant, arXiv 2211.10438, section 4); the scale
goes into the weights, and the shift, with the mean of what rounding the weights loses, into the bias.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    import numpy as np
    import onnx

# How much of a channel's range goes into the weights; found on the embedded router (0.7 and 1 are worse).
MIGRATION = 0.85
MAX_INLINE_BYTES = 1_800_000_000


@dataclass
class ChannelRanges:
    """What the values of a tensor's channels were on the calibration queries, padding left out.

    Args:
        low: The least, shape `(channels,)`.
        high: The largest.
        total: The sum.
        count: The number of tokens.
    """

    low: "np.ndarray"
    high: "np.ndarray"
    total: "np.ndarray"
    count: int

    def merge(self, other: "ChannelRanges") -> "ChannelRanges":
        """Returns the ranges of both."""
        import numpy as np

        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return ChannelRanges(low, high, self.total + other.total, self.count + other.count)


def weight_products(model: "onnx.ModelProto") -> list[tuple["onnx.NodeProto", "np.ndarray"]]:
    """Finds the products of something with a weight matrix, of shape `(inputs, outputs)`; heads are none of them."""
    from onnx import numpy_helper

    constants = {constant.name: constant for constant in model.graph.initializer}
    return [
        (node, numpy_helper.to_array(constants[node.input[1]]))
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in constants and len(constants[node.input[1]].dims) == 2
    ]


def calibrate(path: Path, batches: Sequence[dict[str, torch.Tensor]]) -> dict[str, ChannelRanges]:
    """Runs a graph over queries; returns the channel ranges of every input of a matrix product, by its name."""
    import numpy as np
    import onnx
    import onnxruntime

    model = onnx.load(path)
    names = list(dict.fromkeys(node.input[0] for node, _ in weight_products(model)))
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Optimised away, a value could not be looked at.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        watched = Path(folder, "watched.onnx")
        onnx.save(model, watched, save_as_external_data=True, location="weights")
        session = onnxruntime.InferenceSession(watched, options, providers=["CPUExecutionProvider"])
        ranges: dict[str, ChannelRanges] = {}
        for batch in batches:
            tokens = batch["attention_mask"].numpy().astype(bool)
            inputs = {name: value.numpy() for name, value in batch.items()}
            for name, values in zip(names, session.run(names, inputs), strict=True):
                values = values[tokens]
                seen = ChannelRanges(
                    values.min(axis=0), values.max(axis=0), values.sum(axis=0, dtype=np.float64), len(values)
                )
                ranges[name] = ranges[name].merge(seen) if name in ranges else seen
    return ranges


def quantize(source: Path, target: Path, ranges: dict[str, ChannelRanges]):
    """Writes a graph with its weight products in 8-bit integers: unsigned inputs, signed weights, a scale a column."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    graph = model.graph
    constants = {constant.name: constant for constant in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    by_input: dict[str, list] = {}
    for node, weight in weight_products(model):
        by_input.setdefault(node.input[0], []).append((node, weight))

    replaced: dict[str, list[onnx.NodeProto]] = {}
    absorbed: set[str] = set()

    def constant(name: str, values: "np.ndarray") -> str:
        graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    for name, products in by_input.items():
        scale, middle, mean = _channel_scales(ranges[name], [weight for _, weight in products])
        before = _quantize_input(name, scale, middle, constant)
        for node, weight in products:
            integers, column_scale, bias = _quantize_weight(weight, scale, middle, mean)
            output = node.output[0]
            # The bias that follows, if one does, goes into ours.
            if len(readers[output]) == 1 and readers[output][0].op_type == "Add":
                follower = readers[output][0]
                other = next(each for each in follower.input if each != output)
                if other in constants and len(constants[other].dims) == 1:
                    bias = bias + numpy_helper.to_array(constants[other])
                    absorbed.add(follower.output[0])
                    output = follower.output[0]
            product = onnx.helper.make_node(
                "MatMulIntegerToFloat",
                [
                    f"{name}/int8",
                    constant(f"{node.name}/weight", integers),
                    f"{name}/step",
                    constant(f"{node.name}/scale", column_scale.astype("float32")),
                    f"{name}/zero",
                    "",
                    constant(f"{node.name}/bias", bias.astype("float32")),
                ],
                [output],
                name=f"{node.name}/int8",
                domain="com.microsoft",
            )
            replaced[node.output[0]] = [*before, product]
            before = []
    nodes = [
        new for node in graph.node if node.output[0] not in absorbed for new in replaced.get(node.output[0], [node])
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    large = sum(each.ByteSize() for each in kept) > MAX_INLINE_BYTES
    onnx.save(model, target, save_as_external_data=large, location=f"{target.name}_data")


def _channel_scales(ranges: ChannelRanges, weights) -> tuple["np.ndarray", "np.ndarray", "np.ndarray"]:
    """Returns step, middle and mean of every channel, so that `(x - middle) / step` lies between -127.5 and 127.5."""
    import numpy as np

    middle = (ranges.low + ranges.high) / 2
    half = np.maximum((ranges.high - ranges.low) / 2, 1e-4)
    largest = np.maximum(np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0), 1e-6)
    scale = half**MIGRATION / largest ** (1 - MIGRATION)
    return scale * (half / scale).max() / 127.5, middle, ranges.total / ranges.count


def _quantize_input(name: str, scale, middle, constant) -> list["onnx.NodeProto"]:
    """Makes the operations that turn floats of shape `(..., channels)` into integers from 0 to 255."""
    import numpy as np
    from onnx.helper import make_node

    factor = constant(f"{name}/factor", (1 / scale).astype("float32"))
    shift = constant(f"{name}/shift", (127.5 - middle / scale).astype("float32"))
    step, zero = constant(f"{name}/step", np.array(1, np.float32)), constant(f"{name}/zero", np.array(0, np.uint8))
    return [
        make_node("Mul", [name, factor], [f"{name}/scaled"], name=f"{name}/scaled"),
        make_node("Add", [f"{name}/scaled", shift], [f"{name}/shifted"], name=f"{name}/shifted"),
        make_node("QuantizeLinear", [f"{name}/shifted", step, zero], [f"{name}/int8"], name=f"{name}/int8"),
    ]


def _quantize_weight(weight, scale, middle, mean) -> tuple["np.ndarray", "np.ndarray", "np.ndarray"]:
    """Returns integers of shape `(inputs, outputs)`, their scale and the bias, of shape `(outputs,)` each."""
    import numpy as np

    scaled = weight * scale[:, None]
    column_scale = np.maximum(np.abs(scaled).max(axis=0), 1e-12) / 127
    integers = np.clip(np.round(scaled / column_scale), -127, 127).astype(np.int8)
    rounded = integers * column_scale
    bias = middle @ weight - 127.5 * rounded.sum(axis=0) + ((mean - middle) / scale) @ (scaled - rounded)
    return integers, column_scale, bias
