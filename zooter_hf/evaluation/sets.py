"""Evaluates sets of experts: whether the promise is kept, how many calls it takes, and what a vote comes to."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch

from zooter_hf.evaluation.metrics import group_by_subset
from zooter_hf.evaluation.set_report import SetReport, SetRow, Spread, SubsetSets
from zooter_hf.evaluation.set_votes import Ballots, make_ballots, spread_calls
from zooter_hf.routing import SetPolicy
from zooter_hf.routing.conformal import (
    average_threshold,
    first_good,
    good_experts,
    nonconformity,
    queries_needed,
    safe_threshold,
    tie_noise,
    with_null,
)


THRESHOLD = "score threshold"


@dataclass(frozen=True)
class _Source:
    """A way of making sets: what orders the experts, and how its threshold is found."""

    name: str
    conformal: bool
    distances: torch.Tensor
    needed: torch.Tensor
    ballots: Ballots

    def threshold(self, rows: torch.Tensor, alpha: float, delta: float | None) -> float:
        if self.conformal:
            needed = self.needed[rows]
            return average_threshold(needed, alpha) if delta is None else safe_threshold(needed, alpha, delta)
        # As good on the calibration queries themselves, which promises nothing for others.
        allowed = math.floor(len(rows) * alpha + 1e-9)
        return self.needed[rows].sort().values[len(rows) - allowed - 1].item()


def evaluate_sets(
    probabilities: torch.Tensor,
    rewards: torch.Tensor,
    *,
    alphas: Sequence[float] = (0.05, 0.1, 0.2),
    kind: str = "gap",
    margin: float | None = None,
    correct_above: float = 0.5,
    delta: float | None = None,
    subsets: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    others: Mapping[str, torch.Tensor] | None = None,
    answers: Sequence[Sequence[Hashable | None]] | None = None,
    sharpness: float = SetPolicy.sharpness,
    repeats: int = 100,
    calibration_share: float = 0.5,
    seed: int = 0,
    name: str | None = None,
    dataset: str | None = None,
) -> SetReport:
    """Calibrates sets on a random part of the queries and tries them on the rest, again and again.

    Beside the router's sets stand those of other scores, and a plain threshold on the router's scores: without null
    expert and correction, it is set to miss as often on the calibration queries, where queries without a good expert
    are not held against it. Queries without any known reward are left out.

    Args:
        probabilities: The router's, shape `(queries, experts)`: of queries it was not trained on.
        rewards: Of the same shape, NaN where a reward is missing: such an expert counts as wrong.
        alphas: How often a set may hold no good expert.
        kind: See [`~zooter_hf.routing.conformal.nonconformity`].
        margin: What is good; see [`~zooter_hf.routing.conformal.good_experts`].
        correct_above: The same.
        delta: By default the promise is one on average; see [`~zooter_hf.routing.conformal.calibrate_threshold`].
        subsets: The subset of every query, for figures by subset.
        groups: The group of every query, to calibrate each by itself beside all together; as a rule the subsets. The
            queries are then split within groups.
        others: Other scores of the same queries, between 0 and 1, by name: those of nearest neighbours, for example.
        answers: What every expert answered, as [`~zooter_hf.routing.voting.vote`] takes it. Without them the result of
            a vote is bounded from both sides; see [`~zooter_hf.evaluation.set_votes.make_ballots`].
        sharpness: Votes count by the probabilities to this power: 0 for equal votes.
        repeats: How many splits.
        calibration_share: How many of the queries are for calibration.
        seed: Which splits, and what breaks ties.
        name: Name of the router.
        dataset: Name of the table.

    Raises:
        ValueError: If shapes do not fit, a level is out of range, or calibration queries, of a group perhaps, are too
            few for what is to be promised.
    """
    name, others = name or "router", others or {}
    _check(
        {"probabilities": probabilities, **{f"others[{key!r}]": values for key, values in others.items()}},
        rewards,
        {"subsets": subsets, "groups": groups, "answers": answers},
        alphas,
        {"repeats": repeats, "calibration_share": calibration_share, "sharpness": sharpness},
    )
    if taken := {name, THRESHOLD} & set(others) or {name} & {THRESHOLD}:
        raise ValueError(f"{taken.pop()!r} is the name of other rows already. Give these scores another name.")
    known = ~rewards.isnan().all(dim=1)
    kept = torch.where(known)[0]
    rewards = rewards[kept]
    subsets, groups, answers = (
        None if each is None else [each[row] for row in kept.tolist()] for each in (subsets, groups, answers)
    )
    good = with_null(good_experts(rewards, margin, correct_above))
    noise = tie_noise([str(row) for row in range(len(kept))], rewards.shape[1], seed)
    by_group = {"": torch.arange(len(kept))} if groups is None else group_by_subset(groups)
    _check_calibration({group: len(rows) for group, rows in by_group.items()}, calibration_share, alphas, delta)

    def source(label: str, values: torch.Tensor, conformal: bool = True) -> _Source:
        values = values[kept]
        distances = nonconformity(values, kind if conformal else "complement", noise)
        if not conformal:
            distances[:, -1] = -torch.inf
        ballots = make_ballots(values, good[:, :-1], answers, sharpness)
        return _Source(label, conformal, distances, first_good(distances, good), ballots)

    sources = [source(label, values) for label, values in {name: probabilities, **others}.items()]
    sources.append(source(THRESHOLD, probabilities, conformal=False))
    by_subset = group_by_subset(subsets) if subsets else {}
    measured: dict[tuple[str, float, bool], list[dict[str, float]]] = {}
    generator = torch.Generator().manual_seed(seed)
    for _ in range(repeats):
        calibration = [_draw(rows, calibration_share, generator) for rows in by_group.values()]
        test = torch.ones(len(kept), dtype=torch.bool)
        test[torch.cat(calibration)] = False
        for each in sources:
            for alpha in alphas:
                for grouped in (False,) if groups is None else (False, True):
                    thresholds = torch.full((len(kept),), torch.nan, dtype=torch.float64)
                    if grouped:
                        for rows, drawn in zip(by_group.values(), calibration, strict=True):
                            thresholds[rows] = each.threshold(drawn, alpha, delta)
                    else:
                        thresholds[:] = each.threshold(torch.cat(calibration), alpha, delta)
                    sets = each.distances <= thresholds.unsqueeze(1)
                    figures = _measure(sets, good, test, each.ballots, generator)
                    figures |= _measure_subsets(sets, good, test, by_subset)
                    measured.setdefault((each.name, alpha, grouped), []).append(figures)
    return SetReport(
        router=name,
        dataset=dataset or "reward table",
        queries=len(kept),
        experts=rewards.shape[1],
        unanswerable=good[:, -1].double().mean().item(),
        alphas=tuple(alphas),
        kind=kind,
        margin=margin,
        correct_above=correct_above,
        delta=delta,
        answers=answers is not None,
        sharpness=sharpness,
        repeats=repeats,
        calibration_share=calibration_share,
        seed=seed,
        subsets={subset: len(rows) for subset, rows in by_subset.items()},
        rows=tuple(_row(*key, figures, by_subset) for key, figures in measured.items()),
    )


def _measure(
    sets: torch.Tensor, good: torch.Tensor, test: torch.Tensor, ballots: Ballots, generator: torch.Generator
) -> dict[str, float]:
    """Measures the sets of the test queries of a split."""
    rows = torch.where(test)[0]
    sets, good = sets[rows], good[rows]
    experts, none_good = sets[:, :-1], good[:, -1]
    size = experts.sum(dim=1).double()
    abstained = size == 0
    figures = {
        "risk": _mean(~(sets & good).any(dim=1)),
        "missed": _mean(~(experts & good[:, :-1]).any(dim=1) & ~none_good),
        "size": _mean(size),
        "abstained": _mean(abstained),
        "abstained_rightly": _mean(none_good[abstained]),
    }
    answered = rows[~abstained]
    if not len(answered):
        return figures
    first = ballots.right[answered, 0]
    calls = spread_calls(_mean(size[~abstained]), len(answered), generator).unsqueeze(1)
    places = torch.arange(experts.shape[1])
    ranked = torch.zeros(len(answered), len(places), dtype=torch.bool)
    ranked = ranked.scatter(1, ballots.order[answered], places < calls)
    at_random = torch.rand(ranked.shape, generator=generator).argsort(dim=1).argsort(dim=1) < calls
    figures["top1"] = _mean(first)
    for label, asked in (("voted", experts[~abstained]), ("ranked", ranked), ("random", at_random)):
        low, high = ballots.count(asked, answered)
        figures |= {f"{label}_low": _mean(low), f"{label}_high": _mean(high)}
    return figures


def _measure_subsets(
    sets: torch.Tensor, good: torch.Tensor, test: torch.Tensor, by_subset: Mapping[str, torch.Tensor]
) -> dict[str, float]:
    missed = ~(sets & good).any(dim=1)
    size = sets[:, :-1].sum(dim=1)
    figures = {}
    for subset, rows in by_subset.items():
        tested = rows[test[rows]]
        figures |= {f"risk of {subset}": _mean(missed[tested]), f"size of {subset}": _mean(size[tested])}
    return figures


def _row(
    source: str, alpha: float, grouped: bool, splits: Sequence[Mapping[str, float]], subsets: Sequence[str]
) -> SetRow:
    def spread(figure: str) -> Spread:
        values = torch.tensor([split.get(figure, math.nan) for split in splits], dtype=torch.float64)
        values = values[~values.isnan()]
        if not len(values):
            return Spread(None, None)
        return Spread(values.mean().item(), values.std().item() if len(values) > 1 else None)

    return SetRow(
        source=source,
        alpha=alpha,
        grouped=grouped,
        **{figure: spread(figure) for figure in SetRow.FIGURES},
        subsets={subset: SubsetSets(spread(f"risk of {subset}"), spread(f"size of {subset}")) for subset in subsets},
    )


def _draw(rows: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    return rows[torch.randperm(len(rows), generator=generator)[: _calibration_size(len(rows), share)]]


def _calibration_size(queries: int, share: float) -> int:
    return math.floor(queries * share + 0.5)


def _mean(values: torch.Tensor) -> float:
    return values.double().mean().item() if len(values) else math.nan


def _check(
    scores: Mapping[str, torch.Tensor],
    rewards: torch.Tensor,
    of_queries: Mapping[str, Sequence | None],
    alphas: Sequence[float],
    settings: Mapping[str, float],
):
    if rewards.ndim != 2:
        raise ValueError(f"`rewards` must have the shape (queries, experts), got {tuple(rewards.shape)}.")
    for label, values in scores.items():
        if values.shape != rewards.shape:
            raise ValueError(
                f"`{label}` must have the shape of the rewards, {tuple(rewards.shape)}, got {tuple(values.shape)}."
            )
    for label, values in of_queries.items():
        if values is not None and len(values) != len(rewards):
            raise ValueError(f"`{label}` must be as many as the {len(rewards)} queries, got {len(values)}.")
        if values is not None and None in values:
            raise ValueError(f"`{label}` must name one for every query; {list(values).count(None)} have none.")
    if not alphas:
        raise ValueError("`alphas` must name at least one level.")
    if settings["repeats"] < 1:
        raise ValueError(f"`repeats` must be positive, got {settings['repeats']}.")
    if not 0 < settings["calibration_share"] < 1:
        raise ValueError(f"`calibration_share` must lie between 0 and 1, got {settings['calibration_share']}.")
    if not settings["sharpness"] >= 0:
        raise ValueError(f"`sharpness` must be 0 or more, got {settings['sharpness']}.")


def _check_calibration(sizes: Mapping[str, int], share: float, alphas: Sequence[float], delta: float | None):
    needed = max(queries_needed(alpha, delta) for alpha in alphas)
    for group, queries in sizes.items():
        size = _calibration_size(queries, share)
        if size < needed or size == queries:
            of = f"the {queries} queries of group {group!r}" if group else f"{queries} queries"
            raise ValueError(
                f"Of {of} {size} are for calibration: for alpha {min(alphas):g} it takes at least {needed}, and some "
                "must be left to try the sets on. Give more queries, another `calibration_share` or larger `alphas`, "
                "or leave the group out."
            )
