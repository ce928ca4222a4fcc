"""What travels with every checkpoint: the router's configuration, its model and its pipeline."""

from .configuration_zooter import ROUTING_TASK, ExpertSpec, ZooterConfig
from .modeling_zooter import RoutingOutput, ZooterForRouting, routing_loss
from .pipeline_zooter import ZooterRoutingPipeline, is_one_query, read_query, unwrap_query
from .runtime_zooter import RUNTIMES, OnnxRouter, decision_margin, open_session, session_options


__all__ = [
    "ROUTING_TASK",
    "RUNTIMES",
    "ExpertSpec",
    "OnnxRouter",
    "RoutingOutput",
    "ZooterConfig",
    "ZooterForRouting",
    "ZooterRoutingPipeline",
    "decision_margin",
    "is_one_query",
    "open_session",
    "session_options",
    "read_query",
    "unwrap_query",
    "routing_loss",
]
