"""An ONNX graph whose matrix products are of 8-bit integers, `onnx/model_int8.onnx`, beside the one of full precision.

Rounding to 8 bits moves a probability by a tenth of a percent or so, which is enough to change the choice where two
experts are nearly equal. Such close calls are known by the distance of the two best, and the runtime asks the graph of
full precision about them. How close a call must be for that is found on the queries, and stored in the graph.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zooter_hf.conversion.exports import onnx
from zooter_hf.conversion.exports.checks import ExportCheck, compare, logits_of, make_batches, router_logits
from zooter_hf.conversion.exports.quantization import calibrate, quantize
from zooter_hf.modeling import ZooterForRouting, decision_margin, open_session
from zooter_hf.modeling.runtime_zooter import RECHECK_KEY


PRODUCES = ("onnx/model_int8.onnx", "onnx/model.onnx", "onnx/head.onnx")
WHOLE = False
MIN_QUERIES = 64
MAX_CALIBRATION_QUERIES = 256
MAX_FITTED_QUERIES = 1_000
MAX_CHECKED_QUERIES = 1_000


def write(
    router: ZooterForRouting,
    folder: Path,
    queries: Sequence[Any] | None,
    minimum_agreement: float = 0.995,
    seed: int = 0,
) -> ExportCheck:
    """Writes both graphs.

    Half of the queries (at most 1,000) calibrate the ranges of the integers and say what a close call is; the other
    half (at most 1,000) is what the check is about.

    Args:
        router: The router.
        folder: Where to.
        queries: At least 64 queries like those that will come.
        minimum_agreement: The share of queries for which the expert must be the same.
        seed: Which queries are in which half.

    Raises:
        ImportError: If onnx, onnxscript or onnxruntime is missing.
        ValueError: If there are too few queries, or the experts agree too rarely.
    """
    onnx.need_onnx()
    queries = list(queries or ())
    if len(queries) < MIN_QUERIES:
        raise ValueError(
            f"The integers are calibrated on queries: at least {MIN_QUERIES} are needed, got {len(queries)}. Some "
            "hundred like those that will come are best."
        )
    random.Random(seed).shuffle(queries)
    half = len(queries) // 2
    fitted, checked = queries[:half][:MAX_FITTED_QUERIES], queries[half:][:MAX_CHECKED_QUERIES]

    full, small = folder / "onnx" / "model.onnx", folder / PRODUCES[0]
    full.parent.mkdir(exist_ok=True)
    onnx.write_graphs(router, full)
    onnx.check_graph("onnx", router, full, make_batches(router, fitted[:MIN_QUERIES])).require(1.0, onnx.TOLERANCE)
    quantize(full, small, calibrate(full, make_batches(router, fitted[:MAX_CALIBRATION_QUERIES])))
    # Half of what may differ, since these queries are not those of the check.
    margin = find_margin(router, *_probabilities(router, small, fitted), agreement=(1 + minimum_agreement) / 2)
    store_margin(small, margin)

    ours, theirs = _probabilities(router, small, checked)
    close = decision_margin(theirs, router.config.temperature) < margin
    theirs = torch.where(close.unsqueeze(1), ours, theirs)
    check = compare("onnx-int8", ours, theirs)
    return ExportCheck(**{**vars(check), "rechecked": close.float().mean().item()}).require(minimum_agreement)


def find_margin(router: ZooterForRouting, ours: torch.Tensor, theirs: torch.Tensor, agreement: float) -> float:
    """Returns the smallest margin that leaves this share of the queries with the same expert."""
    wrong = ours.argmax(dim=-1) != theirs.argmax(dim=-1)
    margins = decision_margin(theirs, router.config.temperature)[wrong].sort(descending=True).values
    allowed = int((1 - agreement) * len(ours))
    # Calls are close below the margin, so that it lies just above the last one that must be caught.
    return margins[allowed].nextafter(torch.tensor(torch.inf)).item() if len(margins) > allowed else 0.0


def store_margin(path: Path, margin: float):
    """Writes the margin into the graph."""
    import onnx as onnx_files

    model = onnx_files.load(path)
    onnx_files.helper.set_model_props(model, {RECHECK_KEY: repr(margin)})
    onnx_files.save(model, path)


def _probabilities(router: ZooterForRouting, path: Path, queries: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    batches = make_batches(router, queries)
    ours = logits_of(router_logits(router), batches)
    theirs = logits_of(onnx.graph_logits(open_session(path)), batches)
    return router.probabilities(ours), router.probabilities(theirs)
