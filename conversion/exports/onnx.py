"""An ONNX graph in single precision, `onnx/model.onnx`: runs without torch, and wherever ONNX runtime does."""

import logging as python_logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from zooter_hf.conversion.exports.checks import (
    EXAMPLES,
    ExportCheck,
    compare,
    logits_of,
    make_batches,
    router_logits,
)
from zooter_hf.conversion.exports.graph import HeadGraph, RouterGraph, example_inputs, output_names, plain_copy
from zooter_hf.modeling import ZooterForRouting, open_session


if TYPE_CHECKING:
    import onnxruntime

PRODUCES = ("onnx/model.onnx", "onnx/head.onnx")
WHOLE = False
TOLERANCE = 1e-4
# A protobuf ends at 2 GB; weights beyond that lie in a file of their own.
MAX_INLINE_BYTES = 1_800_000_000


def write(router: ZooterForRouting, folder: Path, queries: Sequence[Any] | None) -> ExportCheck:
    """Writes `onnx/model.onnx`: `input_ids` and `attention_mask` of any batch and length to `logits`,
    `query_embedding`, and perhaps `predicted_rewards` and `centroids`.

    Raises:
        ImportError: If onnx, onnxscript or onnxruntime is missing.
    """  # noqa: D205
    need_onnx()
    path = folder / PRODUCES[0]
    path.parent.mkdir(exist_ok=True)
    write_graphs(router, path)
    batches = make_batches(router, EXAMPLES if queries is None else queries)
    return check_graph("onnx", router, path, batches).require(1.0, TOLERANCE)


def need_onnx():
    """Raises an `ImportError` that says what to install."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f'Exporting to ONNX needs {error.name}: pip install "zooter-hf[onnx]"') from error


def write_graphs(router: ZooterForRouting, path: Path):
    """Writes the graph of a router, and beside it `head.onnx`: that of its heads, for embeddings that are known."""
    router = plain_copy(router)
    inputs, shapes = example_inputs(router)
    _write_graph(RouterGraph(router).eval(), inputs, shapes, output_names(router), path)
    inputs, shapes = (torch.zeros(2, router.config.hidden_size),), {"query_embedding": {0: torch.export.Dim("batch")}}
    names = [name for name in output_names(router) if name in ("logits", "predicted_rewards")]
    _write_graph(HeadGraph(router).eval(), inputs, shapes, names, path.with_name("head.onnx"))


def _write_graph(graph: torch.nn.Module, inputs: tuple, shapes: dict, names: list[str], path: Path):
    """Writes a graph, without what it tells of the machine that made it."""
    import onnx

    loggers = [python_logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(python_logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = torch.onnx.export(
                graph,
                inputs,
                dynamo=True,
                verbose=False,
                input_names=list(shapes),
                output_names=names,
                dynamic_shapes=shapes,
            ).model_proto
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    # The exporter writes down the source files of every operation, with their paths on this machine.
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.functions):
        del part.metadata_props[:]
        part.doc_string = ""
    large = model.ByteSize() > MAX_INLINE_BYTES or model.ByteSize() < 0
    onnx.save(model, path, save_as_external_data=large, location=f"{path.name}_data")


def graph_logits(session: "onnxruntime.InferenceSession") -> Callable[..., torch.Tensor]:
    """Returns a graph as [`~checks.logits_of`] takes it."""

    def run(input_ids, attention_mask):
        inputs = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        return torch.from_numpy(session.run(["logits"], inputs)[0])

    return run


def check_graph(format: str, router: ZooterForRouting, path: Path, batches) -> ExportCheck:
    """Compares a graph with its router."""
    ours = logits_of(router_logits(router), batches)
    theirs = logits_of(graph_logits(open_session(path)), batches)
    return compare(format, router.probabilities(ours), router.probabilities(theirs))
