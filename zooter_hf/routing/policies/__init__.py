"""What makes a decision of a ranking: one file a policy, all of one shape.

A new policy is a new file, and its class in `POLICIES`.
"""

from collections.abc import Mapping
from typing import Any

from zooter_hf.routing.policies.argmax import ArgmaxPolicy
from zooter_hf.routing.policies.base import Choice, QueryFacts, RoutingPolicy
from zooter_hf.routing.policies.conformal_set import SetPolicy
from zooter_hf.routing.policies.cost_aware import CostAwarePolicy
from zooter_hf.routing.policies.threshold import ThresholdPolicy


POLICIES: dict[str, type[RoutingPolicy]] = {
    policy.name: policy for policy in (ArgmaxPolicy, CostAwarePolicy, ThresholdPolicy, SetPolicy)
}


def make_policy(policy: RoutingPolicy | Mapping[str, Any] | str | None, base: Any = None) -> RoutingPolicy:
    """Makes a policy of the ways to name one.

    Args:
        policy: A policy; the name of one; or its settings, `{"name": ..., setting: ...}`, where settings without a
            name change those of `base`. `None` for `base` itself.
        base: What holds by default, in the same form; the paper's policy if it is `None`, too.

    Raises:
        ValueError: If there is no such policy, or a setting is out of its range.
        TypeError: If it is no policy at all, or has no such setting.
    """
    if isinstance(policy, RoutingPolicy):
        return policy
    if policy is None:
        return ArgmaxPolicy() if base is None else make_policy(base)
    if not isinstance(policy, str | Mapping):
        raise TypeError(f"`policy` is a RoutingPolicy, its name or its settings, got {type(policy).__name__}.")
    settings = {"name": policy} if isinstance(policy, str) else dict(policy)
    name = settings.pop("name", None)
    if name is None:
        return make_policy(None, base).changed(settings)
    if name not in POLICIES:
        raise ValueError(f"There is no policy {name!r}. Known are {sorted(POLICIES)}.")
    POLICIES[name].check_settings(settings)
    return POLICIES[name](**settings)


__all__ = [
    "POLICIES",
    "ArgmaxPolicy",
    "Choice",
    "CostAwarePolicy",
    "QueryFacts",
    "RoutingPolicy",
    "SetPolicy",
    "ThresholdPolicy",
    "make_policy",
]
