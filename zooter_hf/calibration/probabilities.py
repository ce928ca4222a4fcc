"""Makes a router's probabilities say how often it is right."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from transformers.utils import logging

from zooter_hf.evaluation.metrics import (
    ReliabilityBin,
    best_experts,
    choose_known,
    expected_calibration_error,
    reliability,
)
from zooter_hf.modeling import ZooterForRouting
from zooter_hf.rewards import RewardTable
from zooter_hf.rewards.checks import check_experts
from zooter_hf.rewards.scores import routed_rewards
from zooter_hf.routing import predict, predict_embedded


logger = logging.get_logger(__name__)

Method = Literal["auto", "temperature", "vector"]
METHODS = get_args(Method)
# Vectors are pulled towards none with the weight of so many queries: a rare expert must not be scaled by chance.
_PRIOR_QUERIES = 10.0
REMEDY = "`table.select_experts(router.expert_names)`"


@dataclass(frozen=True)
class Calibration:
    """What a calibration found. Figures after it are of queries that were held out, fold by fold.

    Args:
        method: `"temperature"` or `"vector"`.
        temperature: The temperature that is stored.
        scale: What each expert's logit is multiplied by; `None` for a temperature alone.
        bias: What is added to each expert's logit.
        queries: How many queries there were.
        ece_before: Expected calibration error of the uncalibrated router.
        ece_after: That of the calibrated one.
        nll_before: Mean negative log-likelihood of the best expert (ties shared), in nats.
        nll_after: That after calibration.
        reward_before: Mean reward of the routed expert. A temperature does not change it.
        reward_after: That after calibration.
        before: The reliability diagram before.
        after: The reliability diagram after.
        tried: The negative log-likelihood of every method that was tried.
    """

    method: str
    temperature: float
    scale: tuple[float, ...] | None
    bias: tuple[float, ...] | None
    queries: int
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float
    reward_before: float
    reward_after: float
    before: tuple[ReliabilityBin, ...]
    after: tuple[ReliabilityBin, ...]
    tried: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns the calibration as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Vectors:
    scale: torch.Tensor
    bias: torch.Tensor

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        return logits * self.scale + self.bias


def calibrate(
    router: ZooterForRouting,
    table: RewardTable,
    *,
    method: Method = "temperature",
    folds: int = 5,
    seed: int = 0,
    batch_size: int = 32,
    embeddings: torch.Tensor | None = None,
) -> Calibration:
    """Calibrates a router: its config gets the temperature, or vectors, with which its probabilities are honest.

    The probability of an expert is to be the chance that it is the best one, ties shared. Temperature scaling (Guo et
    al., 2017) changes no decision; vector scaling may. `"auto"` takes vectors only if they are better than a
    temperature on queries held out: by more than two standard errors in likelihood (a proper score, unlike the binned
    calibration error, which chance moves by a point), and no worse in reward.

    What was calibrated before is replaced.

    Args:
        router: The router, with its tokenizer.
        table: Rewards of its experts, on queries that it was not trained on.
        method: `"auto"`, `"temperature"` or `"vector"`.
        folds: In how many parts the queries are held out, for the figures.
        seed: Which queries they hold.
        batch_size: Queries in one forward pass.
        embeddings: The query embeddings, shape `(queries, hidden_size)`, if they are known.

    Raises:
        ValueError: If the table has other experts, fewer queries than folds, or nothing to learn from.
    """
    check_experts("The router", router.expert_names, "the table", table.expert_names, REMEDY)
    _check(table, method, folds)
    if embeddings is None:
        logits = predict(router, table.queries, batch_size=batch_size, description="Calibrating").logits
    else:
        logits = predict_embedded(router, embeddings).logits
    found = fit_calibration(logits, table, method=method, folds=folds, seed=seed, experts=router.config.kept_experts)
    config = router.config
    config.temperature = found.temperature
    config.calibration_scale = None if found.scale is None else list(found.scale)
    config.calibration_bias = None if found.bias is None else list(found.bias)
    return found


def fit_calibration(
    logits: torch.Tensor,
    table: RewardTable,
    *,
    method: Method = "temperature",
    folds: int = 5,
    seed: int = 0,
    experts: Sequence[int] | None = None,
) -> Calibration:
    """Finds a calibration of logits, however they were made: those of a cross-validation, for example.

    Args:
        logits: Shape `(queries, experts)`; logarithms of probabilities will do.
        table: The rewards.
        method: See [`calibrate`].
        folds: The same.
        seed: The same.
        experts: Indices of the experts that can be chosen; all by default.

    Raises:
        ValueError: As [`calibrate`] does.
    """
    _check(table, method, folds)
    fold_of = table.folds(folds, seed)
    rewards, targets = table.rewards, _targets(table.rewards)
    logits = logits.double()
    known = ~rewards.isnan()
    if experts is not None:
        gone = torch.ones(known.shape[1], dtype=torch.bool)
        gone[list(experts)] = False
        known[:, gone] = False

    held_out = {"none": logits}
    for name in ("temperature", "vector"):
        held_out[name] = torch.empty_like(logits)
        for fold in range(folds):
            inside, rest = (torch.from_numpy(np.flatnonzero(mask)) for mask in (fold_of == fold, fold_of != fold))
            held_out[name][inside] = _fit(name, logits[rest], targets[rest], known[rest])(logits[inside])
    losses = {name: _losses(scores, targets, known) for name, scores in held_out.items()}
    earned = {name: _earned(scores, rewards, known) for name, scores in held_out.items()}
    chosen = method if method != "auto" else "vector" if _is_better(losses, earned) else "temperature"
    vectors = _fit(chosen, logits, targets, known)
    masked = rewards.masked_fill(~known, torch.nan)
    before, after = (_reliability(held_out[name], masked, known) for name in ("none", chosen))
    scale, bias = (tuple(each.tolist()) if chosen == "vector" else None for each in (vectors.scale, vectors.bias))
    return Calibration(
        method=chosen,
        temperature=1.0 if chosen == "vector" else 1 / vectors.scale[0].item(),
        scale=scale,
        bias=bias,
        queries=len(table),
        ece_before=expected_calibration_error(before),
        ece_after=expected_calibration_error(after),
        nll_before=losses["none"].mean().item(),
        nll_after=losses[chosen].mean().item(),
        reward_before=earned["none"].nanmean().item(),
        reward_after=earned[chosen].nanmean().item(),
        before=before,
        after=after,
        tried={name: each.mean().item() for name, each in losses.items()},
    )


def _check(table: RewardTable, method: str, folds: int):
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {METHODS}, got {method!r}.")
    table.folds(folds)  # for its error
    targets = _targets(table.rewards)
    if bool((targets - targets.mean(dim=0)).abs().max() == 0):
        raise ValueError("The same experts are best on all queries: there is nothing to calibrate on.")


def _targets(rewards: torch.Tensor) -> torch.Tensor:
    """Shares each query among its best known experts: `(queries, experts)`, rows of 0 where none is known."""
    best = best_experts(rewards).double()
    return best / best.sum(dim=1, keepdim=True).clamp(min=1)


def _fit(method: str, logits: torch.Tensor, targets: torch.Tensor, known: torch.Tensor) -> Callable:
    """Fits one scale for all, or a scale and a bias for each expert, by L-BFGS; both problems are smooth and small."""
    experts = logits.shape[1]
    log_scale = torch.zeros(1 if method == "temperature" else experts, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(experts, dtype=torch.float64, requires_grad=method == "vector")
    parameters = [parameter for parameter in (log_scale, bias) if parameter.requires_grad]
    optimizer = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")
    prior = _PRIOR_QUERIES / len(logits)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = _losses(logits * log_scale.exp() + bias, targets, known).mean()
        if method == "vector":  # towards one temperature for all, which itself is free
            loss = loss + prior * ((log_scale - log_scale.mean()).square().mean() + bias.square().mean())
        loss.backward()
        return loss

    optimizer.step(closure)
    return _Vectors(log_scale.detach().exp().expand(experts).clone(), bias.detach())


def _losses(scores: torch.Tensor, targets: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Computes the cross-entropy of every query, `(queries,)`: 0 where nothing is known."""
    takes_part = known.any(dim=1, keepdim=True)
    log_probabilities = scores.masked_fill(~known & takes_part, -torch.inf).log_softmax(dim=1)
    return -(targets * log_probabilities.masked_fill(~known, 0.0)).sum(dim=1)


def _earned(scores: torch.Tensor, rewards: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return routed_rewards(rewards, choose_known(scores, rewards.masked_fill(~known, torch.nan)))


def _is_better(losses: dict[str, torch.Tensor], earned: dict[str, torch.Tensor]) -> bool:
    gain = losses["temperature"] - losses["vector"]
    lost = (earned["temperature"] - earned["vector"]).nan_to_num()
    size = len(gain) ** 0.5
    return bool(gain.mean() > 2 * gain.std() / size and lost.mean() <= 0)


def _reliability(scores: torch.Tensor, rewards: torch.Tensor, known: torch.Tensor) -> tuple[ReliabilityBin, ...]:
    probabilities = torch.softmax(scores.masked_fill(~known & known.any(dim=1, keepdim=True), -torch.inf), dim=1)
    return reliability(probabilities, rewards, choose_known(probabilities, rewards))
