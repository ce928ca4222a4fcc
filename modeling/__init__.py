"""What travels with every checkpoint: the router's configuration, its model and its pipeline."""

from .configuration_zooter import ROUTING_TASK, ExpertSpec, ZooterConfig
from .modeling_zooter import RoutingOutput, ZooterForRouting, routing_loss
from .pipeline_zooter import ZooterRoutingPipeline, is_one_query, read_query, unwrap_query


__all__ = [
    "ROUTING_TASK",
    "ExpertSpec",
    "RoutingOutput",
    "ZooterConfig",
    "ZooterForRouting",
    "ZooterRoutingPipeline",
    "is_one_query",
    "read_query",
    "unwrap_query",
    "routing_loss",
]
