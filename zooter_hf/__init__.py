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
from zooter_hf.routing import Decision


register()

__all__ = [
    "DEFAULT_ROUTER",
    "ROUTING_TASK",
    "Decision",
    "ExpertSpec",
    "RoutingOutput",
    "ZooterConfig",
    "ZooterForRouting",
    "ZooterRoutingPipeline",
    "__version__",
]
