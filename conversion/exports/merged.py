"""A router whose PEFT adapters are merged into plain weights: loads without peft, and as fast as any other."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zooter_hf.conversion.exports.checks import (
    EXAMPLES,
    ExportCheck,
    compare,
    logits_of,
    make_batches,
    router_logits,
)
from zooter_hf.modeling import ZooterForRouting


PRODUCES = ("config.json", "model.safetensors")
WHOLE = True
TOLERANCE = 1e-4


def write(router: ZooterForRouting, folder: Path, queries: Sequence[Any] | None) -> ExportCheck:
    """Writes the merged router.

    Raises:
        ValueError: If the router has no adapters.
    """
    merged = merge(router)
    if merged is None:
        raise ValueError("The router has no adapters to merge: `router.save_pretrained` writes it as it is.")
    merged.save_pretrained(folder)
    written = type(merged).from_pretrained(folder).to(router.device)
    batches = make_batches(written, EXAMPLES if queries is None else queries)
    ours, theirs = (logits_of(router_logits(each.eval()), batches) for each in (router, written))
    return compare("merged", router.probabilities(ours), written.probabilities(theirs)).require(1.0, TOLERANCE)


def merge(router) -> ZooterForRouting | None:
    """Returns a copy of a router with its adapters merged; `None` if there are none.

    Args:
        router: A router in a `PeftModel`, or one that has loaded adapters by itself.
    """
    if hasattr(router, "merge_and_unload"):
        return copy.deepcopy(router).merge_and_unload()
    if not getattr(router, "_hf_peft_config_loaded", False):
        return None
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    router = copy.deepcopy(router)
    for name, module in list(router.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            merged = module.get_base_layer()
        elif isinstance(module, ModulesToSaveWrapper):
            merged = module.modules_to_save[module.active_adapters[0]]
        else:
            continue
        parent, _, attribute = name.rpartition(".")
        setattr(router.get_submodule(parent), attribute, merged)
    # A router that remembers nothing of adapters: those that do rename their weights when they are saved.
    plain = type(router)(copy.deepcopy(router.config)).to(dtype=router.dtype, device=router.device)
    plain.load_state_dict(router.state_dict())
    plain.tokenizer = router.tokenizer
    return plain.eval()
