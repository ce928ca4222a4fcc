"""What routing gives for its cost, on RouterBench (arXiv 2403.12031): 11 LLMs with a true cost for every query.

    python -m benchmarks.cost_quality --train ROUTERBENCH --encoder MINILM

The encoder is frozen. A method is what it says of quality; a query goes to the expert of highest quality less a weight
times the expected cost, for every weight there is. Expected costs are learned from the training queries like rewards:
by default from the nearest ones, beside their mean and a line in the length of the query. The bars to clear are the
mixture of single models on their hull, which reads no query, and which learned routers of that paper rarely beat; and
the best single model, whose quality good ones are reported to keep at about 0.7 of its cost. The figures of the first
table are read off the curves of the test queries themselves, that is, with the best weight; the last table has what
comes of a weight that is chosen beforehand, by cross-validation on the training queries. Settings were chosen by such
a cross-validation too.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.routing import HELD_OUT, SPLIT_SEED, Recipe, new_router, parse, quiet, spread, train
from zooter_hf import DistillationArguments, RewardTable
from zooter_hf.conversion.reward_tables import load
from zooter_hf.distillation import cross_validate
from zooter_hf.evaluation import CostQualityReport, cost_quality_curve, evaluate_costs
from zooter_hf.evaluation.baselines import knn_scores
from zooter_hf.evaluation.cost_quality import sweep_cost_weights
from zooter_hf.evaluation.cost_report import Estimate, MethodCosts
from zooter_hf.evaluation.metrics import group_by_subset
from zooter_hf.rewards.scores import routed_rewards
from zooter_hf.routing import predict


STRONG, WEAK = "gpt-4-1106-preview", "mistralai/mixtral-8x7b-chat"
PROBABILITIES = Recipe({"freeze_encoder": True})
REWARDS = Recipe({"freeze_encoder": True, "objective": "mse"})
NEIGHBOURS = 50
WANTED = (1.0, 0.99, 0.95, 0.9)  # shares of the quality of the best single model


def head_outputs(
    recipe: Recipe, training: RewardTable, encoder: str, seed: int, embeddings: torch.Tensor, queries: torch.Tensor
) -> torch.Tensor:
    """Trains a head on embeddings; returns its logits for those of other queries."""
    router = train(new_router(training, encoder, recipe, seed), training, recipe, seed, embeddings)
    with torch.inference_mode():
        return router.eval()(query_embedding=queries).logits.double()


def subset_scores(training: RewardTable, test: RewardTable) -> torch.Tensor:
    """Takes the mean training rewards of a query's subset, as if one knew it; of an unknown subset, of all."""
    rewards = training.rewards
    means = {name: rewards[rows].nanmean(dim=0) for name, rows in group_by_subset(training.subsets).items()}
    return torch.stack([means.get(subset, rewards.nanmean(dim=0)) for subset in test.subsets])


def expected_costs(
    training: RewardTable, test: RewardTable, embeddings: torch.Tensor, queries: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Says what every expert will cost on every test query, in three ways."""
    costs = training.costs

    def design(table: RewardTable) -> torch.Tensor:
        characters = torch.tensor([len(text) for text in table.texts()], dtype=torch.float64)
        return torch.stack([torch.ones_like(characters), characters], dim=1)

    line = torch.linalg.lstsq(design(training), costs).solution
    return {
        "nearest neighbours": knn_scores(queries, embeddings, costs, NEIGHBOURS),
        "training mean": costs.mean(dim=0).expand(len(test), -1),
        "line in the length": (design(test) @ line).clamp(min=0.0),
    }


def choose_beforehand(
    training: RewardTable,
    encoder: str,
    seed: int,
    embeddings: torch.Tensor,
    scores: torch.Tensor,
    expected: torch.Tensor,
    test: RewardTable,
) -> dict[float, tuple[float, float]]:
    """Chooses weights on cross-validated training queries; returns the quality that is kept on the test and its cost.

    Both are shares of the best single model of training.
    """
    with tempfile.TemporaryDirectory() as folder:
        args = DistillationArguments(
            folder, seed=seed, logging_strategy="no", save_strategy="no", disable_tqdm=True, **PROBABILITIES.arguments
        )
        held_out = cross_validate(
            training, lambda: new_router(training, encoder, PROBABILITIES, seed), args, embeddings=embeddings
        )
    rewards, costs, test_rewards, test_costs = training.rewards, training.costs, test.rewards, test.costs
    curve = cost_quality_curve(held_out, knn_scores(embeddings, embeddings, costs, NEIGHBOURS), rewards, costs)
    best = int(rewards.nanmean(dim=0).argmax())
    sweep = sweep_cost_weights(scores, expected)
    outcome = {}
    for wanted in WANTED:
        enough = curve.rewards >= wanted * rewards[:, best].nanmean()
        weight = curve.weights[enough].max() if enough.any() else curve.weights[0]
        chosen = sweep.chosen(weight.unsqueeze(0)).squeeze(1)
        outcome[wanted] = tuple(
            (routed_rewards(values, chosen).nanmean() / values[:, best].nanmean()).item()
            for values in (test_rewards, test_costs)
        )
    return outcome


def main():
    """Runs the benchmark."""
    arguments = parse(__doc__, "cost_quality", "../shared/data/routerbench_train")
    quiet()
    training = load(arguments.train, "routerbench")
    if arguments.test is None:
        training, test = training.split(HELD_OUT, seed=SPLIT_SEED)
    else:
        test = load(arguments.test, "routerbench")
    untrained = new_router(training, arguments.encoder, PROBABILITIES, seed=0)
    embeddings = predict(untrained, training.queries, description="Embedding training queries").embeddings
    queries = predict(untrained, test.queries, description="Embedding test queries").embeddings
    expected = expected_costs(training, test, embeddings, queries)
    rewards, costs = test.rewards, test.costs
    reports: dict[str, list[CostQualityReport]] = {name: [] for name in expected}
    beforehand = []
    for seed in range(arguments.seeds):
        heads = (training, arguments.encoder, seed, embeddings, queries)
        methods = {
            "KL probabilities": head_outputs(PROBABILITIES, *heads).softmax(dim=1),
            "predicted rewards": head_outputs(REWARDS, *heads),
            f"nearest neighbours ({NEIGHBOURS})": knn_scores(queries, embeddings, training.rewards, NEIGHBOURS),
            "subset means (subset known)": subset_scores(training, test),
        }
        for name, of_expert in expected.items():
            report = evaluate_costs(
                methods, rewards, costs, of_expert, test.expert_names, strong=STRONG, weak=WEAK, dataset="RouterBench"
            )
            reports[name].append(report)
            report.save(Path(arguments.output, name.replace(" ", "-"), f"seed-{seed}"), overwrite=True)
        scores = methods["KL probabilities"]
        by_neighbours = expected["nearest neighbours"]
        beforehand.append(
            choose_beforehand(training, arguments.encoder, seed, embeddings, scores, by_neighbours, test)
        )
    parts = [
        render(reports["nearest neighbours"]),
        render_expected(reports, expected, costs),
        render_beforehand(beforehand),
    ]
    text = "\n\n".join(parts)
    print(text)
    folder = Path(arguments.output)
    (folder / "summary.md").write_text(text + "\n", encoding="utf-8")
    summary = {name: [report.to_dict() for report in of_name] for name, of_name in reports.items()}
    (folder / "reports.json").write_text(json.dumps(summary), encoding="utf-8")


def over_seeds(reports: Sequence[CostQualityReport], name: str, figure: Callable[[MethodCosts], Estimate]) -> str:
    """Writes a figure of a method in percent: mean and deviation over the seeds, and the interval of the first."""
    found = [figure(report.oracle if name == "oracle" else report.method(name)) for report in reports]
    values = [each.value for each in found]
    if None in values:
        return f"not reached with {values.count(None)} of {len(values)} seeds"

    def percent(value: float | None) -> str:
        return "not reached" if value is None else f"{100 * value:.1f}"

    mean = spread(values, percent).removesuffix(" ± 0.0")
    return f"{mean} ({percent(found[0].low)} to {percent(found[0].high)})"


def render(reports: Sequence[CostQualityReport]) -> str:
    """Makes the Markdown tables of the methods and of the single models."""
    first = reports[0]
    single = first.expert(first.best_single)
    low, high = (f"{1000 * cost:.2f}" for cost in first.cost_range)
    figures: dict[str, Callable[[MethodCosts], Estimate]] = {
        "AIQ": lambda method: method.aiq,
        "gain over the mixture": lambda method: method.aiq_gain,
        "cost at 100 % of the quality": lambda method: method.quality(1.0).cost,
        "at 95 %": lambda method: method.quality(0.95).cost,
        "quality at the cost": lambda method: method.budget(1.0).reward,
        "at half the cost": lambda method: method.budget(0.5).reward,
        "APGR": lambda method: method.strong_weak.apgr,
        "CPT(50 %)": lambda method: method.strong_weak.cpt["0.5"],
        "CPT(80 %)": lambda method: method.strong_weak.cpt["0.8"],
    }
    lines = [
        f"### RouterBench: {first.queries} queries, AIQ from {low} to {high} dollars for 1000 queries, "
        f"{len(reports)} seeds",
        "",
        f"| percent | {' | '.join(figures)} |",
        "|---|" + "---:|" * len(figures),
    ]
    for name in (*(method.name for method in first.methods), "oracle"):
        cells = [over_seeds(reports, name, figure) for figure in figures.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        f"| mixture of experts | {' | '.join(mixture_figures(first))} |",
        "",
        f"The best single model, {single.name}, has {100 * single.reward:.1f} at {1000 * single.cost:.2f} dollars. On "
        "the hull: "
        + ", ".join(f"{point.name} ({100 * point.reward:.1f} at {1000 * point.cost:.2f})" for point in first.hull)
        + ".",
    ]
    return "\n".join(lines)


def mixture_figures(report: CostQualityReport) -> list[str]:
    """Writes the figures of the mixture of experts: it is a line between the corners of their hull."""
    single, aiq = report.expert(report.best_single), report.mixture_aiq
    costs, rewards = [point.cost for point in report.hull], [point.reward for point in report.hull]
    kept = [np.interp(share * single.reward, rewards, costs) / single.cost for share in (1.0, 0.95)]
    within = [np.interp(share * single.cost, costs, rewards) for share in (1.0, 0.5)]
    return [
        f"{100 * aiq.value:.1f} ({100 * aiq.low:.1f} to {100 * aiq.high:.1f})",
        "0",
        *(f"{100 * value:.1f}" for value in (*kept, *within, 0.5, 0.5, 0.8)),
    ]


def render_expected(
    reports: dict[str, list[CostQualityReport]], expected: dict[str, torch.Tensor], costs: torch.Tensor
) -> str:
    """Makes the Markdown table of the ways to expect costs."""
    methods = [method.name for method in next(iter(reports.values()))[0].methods]
    error = (costs - expected["training mean"]).square().nanmean()
    lines = [f"| expected cost | variance explained | {' | '.join(f'AIQ, {name}' for name in methods)} |"]
    lines.append("|---|---:|" + "---:|" * len(methods))
    for name, of_name in reports.items():
        explained = 1 - (costs - expected[name]).square().nanmean() / error
        cells = [over_seeds(of_name, method, lambda each: each.aiq) for method in methods]
        lines.append(f"| {name} | {100 * explained:.0f} % | {' | '.join(cells)} |")
    return "\n".join(lines)


def render_beforehand(outcomes: Sequence[dict[float, tuple[float, float]]]) -> str:
    """Makes the Markdown table of weights that are chosen on training queries."""
    lines = ["| KL probabilities, weight chosen in training for | quality kept | cost |", "|---|---:|---:|"]
    for wanted in WANTED:
        kept, cost = zip(*(outcome[wanted] for outcome in outcomes), strict=True)
        cells = [spread(values, lambda value: f"{100 * value:.1f}") for values in (kept, cost)]
        lines.append(f"| {100 * wanted:g} % of the quality | {' % | '.join(cells)} % |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
