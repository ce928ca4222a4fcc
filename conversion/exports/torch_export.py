"""A graph of `torch.export` (`model.pt2`), for programs that have torch and nothing else.

The file is an archive of JSON and raw tensors. It is no safetensors file: read it with `torch.export.load`, and from
people whom you trust.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zooter_hf.conversion.exports.checks import (
    EXAMPLES,
    ExportCheck,
    compare,
    logits_of,
    make_batches,
    router_logits,
)
from zooter_hf.conversion.exports.graph import RouterGraph, example_inputs, plain_copy
from zooter_hf.modeling import ZooterForRouting


PRODUCES = ("model.pt2",)
WHOLE = False
TOLERANCE = 1e-4


def write(router: ZooterForRouting, folder: Path, queries: Sequence[Any] | None) -> ExportCheck:
    """Writes `model.pt2`: `(input_ids, attention_mask)` to `(logits, query_embedding)`, with any batch and length."""
    inputs, shapes = example_inputs(router)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(RouterGraph(plain_copy(router)).eval(), inputs, dynamic_shapes=shapes)
        torch.export.save(program, folder / "model.pt2")
        loaded = torch.export.load(folder / "model.pt2").module()
    batches = make_batches(router, EXAMPLES if queries is None else queries)
    ours = logits_of(router_logits(router), batches)
    theirs = logits_of(lambda *tokens: loaded(*tokens)[0], batches)
    return compare("torch-export", router.probabilities(ours), router.probabilities(theirs)).require(1.0, TOLERANCE)
