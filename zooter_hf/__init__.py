"""zooter-hf: pretrained routers that send a query to the expert LLM that will answer it best.

Importing the package registers the model type `zooter` and the pipeline task `zooter-routing` with transformers.
"""

from pkgutil import extend_path


# From inside a clone the bare `zooter_hf/` folder shadows the installed package, whose `modeling` and `conversion`
# lie elsewhere; the path covers both.
__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"

from zooter_hf.hub import DEFAULT_ROUTER, register
from zooter_hf.modeling import (
    ROUTING_TASK,
    ExpertSpec,
    RoutingOutput,
    ZooterConfig,
    ZooterForRouting,
    ZooterRoutingPipeline,
)
from zooter_hf.routing import Decision, RoutingPolicy, make_policy


# What training and evaluation need is loaded when it is first asked for: routing alone does without.
_LOADED_ON_USE = {
    "DistillationArguments": "zooter_hf.distillation",
    "EvaluationReport": "zooter_hf.evaluation",
    "RewardTable": "zooter_hf.rewards",
    "ZooterTrainer": "zooter_hf.distillation",
    "calibrate": "zooter_hf.calibration",
    "calibrate_sets": "zooter_hf.calibration",
    "collect_rewards": "zooter_hf.rewards.labelling",
    "fit_cost_weight": "zooter_hf.calibration",
    "fit_threshold": "zooter_hf.calibration",
    "store_centroids": "zooter_hf.calibration",
    "Reply": "zooter_hf.ensemble",
    "ZooterEnsemble": "zooter_hf.ensemble",
    "evaluate": "zooter_hf.evaluation",
}


def __getattr__(name: str):
    if name not in _LOADED_ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LOADED_ON_USE[name]), name)


def __dir__():
    return sorted({*globals(), *_LOADED_ON_USE})


def _fit_expert(*args, **settings):
    """Fits a new expert; see [`zooter_hf.distillation.fit_expert`], which is loaded when it is needed."""
    from zooter_hf.distillation import fit_expert

    return fit_expert(*args, **settings)


register()
ZooterForRouting.register_expert_fitter(_fit_expert)

__all__ = [
    "DEFAULT_ROUTER",
    "ROUTING_TASK",
    "Decision",
    "DistillationArguments",
    "EvaluationReport",
    "ExpertSpec",
    "Reply",
    "RewardTable",
    "RoutingOutput",
    "RoutingPolicy",
    "ZooterConfig",
    "ZooterEnsemble",
    "ZooterForRouting",
    "ZooterRoutingPipeline",
    "ZooterTrainer",
    "__version__",
    "calibrate",
    "calibrate_sets",
    "collect_rewards",
    "evaluate",
    "fit_cost_weight",
    "fit_threshold",
    "make_policy",
    "store_centroids",
]
