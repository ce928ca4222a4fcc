"""Sets of experts with a guarantee: is it kept, how many calls does it take, and what does a vote make of them?

    python -m benchmarks.sets --data llmrouter|routerdc|routerbench --encoder MINILM [--train FOLDER] [--repeats 100]

A router is trained on half of the queries of every subset. Sets are calibrated and tried on the other half, split anew
with every repeat: thresholds are found for all queries together, and for every subset by itself. A good expert is one
whose reward is above 0.5. Beside the router's sets stand those of the mean rewards of the 50 nearest training queries,
and a plain threshold on the router's scores. ARC-easy of RouterDC is not trained on.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.routing import HEAD, Recipe, new_router, quiet, train
from zooter_hf import RewardTable
from zooter_hf.conversion.reward_tables import load
from zooter_hf.evaluation import SetReport, evaluate_sets
from zooter_hf.evaluation.baselines import knn_scores
from zooter_hf.rewards.teachers import Verifier
from zooter_hf.routing import predict, predict_embedded
from zooter_hf.routing.conformal import KINDS


ALPHAS = (0.05, 0.1, 0.2)
NEIGHBOURS = 50
KNN = f"nearest neighbours ({NEIGHBOURS})"
NOT_TRAINED_ON = {"arc_easy"}
CHOICES = {"arc-challenge", "winogrande"}  # subsets of RouterBench whose answers are a letter
# Per-expert chances of being right; whoever is like a query in the training data has a say, as in the baseline.
CHANCES = Recipe({"freeze_encoder": True, "objective": "bce", "neighbours": NEIGHBOURS}, dict(HEAD))
# The package's defaults: a distribution over the experts, and beside it rewards by a head of their own.
DEFAULT = Recipe({"freeze_encoder": True, "reward_weight": 1.0}, dict(HEAD))
LEVERS_REPEATS = 20
SHARPNESS = (0, 1, 3, 5, 8)
# How often two models that are both wrong give the same answer to a multiple choice (Kim et al., ICML 2025).
AGREEMENT = 0.6


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("llmrouter", "routerdc", "routerbench"), required=True, help="which data")
    parser.add_argument("--train", help="file or folder of the data (default: in ../shared/data)")
    parser.add_argument("--encoder", required=True, help="folder or Hub id of the encoder, e.g. all-MiniLM-L6-v2")
    parser.add_argument("--repeats", type=int, default=100, help="how many splits (default: %(default)s)")
    parser.add_argument("--output", default="benchmarks/results/sets", help="where the reports go")
    arguments = parser.parse_args()
    arguments.train = arguments.train or f"../shared/data/{arguments.data}_train"
    if not Path(arguments.train).exists():
        parser.error(f"--train: {arguments.train} is not there; name the folder of the data")
    return arguments


def score(arguments: argparse.Namespace) -> tuple[RewardTable, dict[str, torch.Tensor]]:
    """Trains the routers, and returns the queries that they have not seen with the scores of every method."""
    table = load(arguments.train, arguments.data)
    half = torch.from_numpy(table.folds(2, 0)) == 0
    seen = torch.tensor([subset not in NOT_TRAINED_ON for subset in table.subsets])
    training, held_out = torch.where(half & seen)[0], torch.where(~half)[0]
    untrained = new_router(table, arguments.encoder, DEFAULT, seed=0)
    embeddings = predict(untrained, table.queries, description="Embedding").embeddings
    parts = table.select(training.tolist()), table.select(held_out.tolist())
    outputs = []
    for recipe in (CHANCES, DEFAULT):
        router = train(new_router(table, arguments.encoder, recipe, 0), parts[0], recipe, 0, embeddings[training])
        outputs.append(predict_embedded(router, embeddings[held_out]))
    neighbours = knn_scores(embeddings[held_out], embeddings[training], parts[0].rewards, NEIGHBOURS).clamp(0, 1)
    return parts[1], {
        "router": outputs[0].logits.sigmoid(),
        KNN: neighbours,
        "router, predicted rewards": outputs[1].predicted_rewards.clamp(0, 1),
        "router, distribution": outputs[1].probabilities,
        f"{KNN}, distribution": neighbours / neighbours.sum(dim=1, keepdim=True).clamp(min=1e-9),
    }


def read_answers(table: RewardTable) -> list[list[str | None]] | None:
    """Reads the letters that experts chose, if the table has responses to nothing but multiple choice."""
    rows = table.dataset["responses"] if "responses" in table.dataset.column_names else []
    if not any(rows) or not set(table.subsets) <= CHOICES:
        return None
    read = Verifier("choice").read
    return [
        [None if (text := (row or {}).get(name)) is None else read(text) for name in table.expert_names]
        for row in rows
    ]


def show_levers(table: RewardTable, scores: dict[str, torch.Tensor], settings: dict) -> str:
    """Compares scores and kinds by the calls that they take at the same risk."""
    sources = list(scores)
    header = ["scores", *(f"{kind}, {alpha:g}" for kind in KINDS for alpha in ALPHAS)]
    cells: dict[str, list[str]] = {source: [] for source in sources}
    first, others = sources[0], {source: scores[source] for source in sources[1:]}
    for kind in KINDS:
        report = evaluate_sets(
            scores[first], table.rewards, kind=kind, others=others, repeats=LEVERS_REPEATS, name=first, **settings
        )
        for source in sources:
            for alpha in ALPHAS:
                row = report.row(source, alpha)
                cells[source].append(f"{row.size.mean:.2f} ({100 * row.missed.mean:.1f})")
    return "Calls (and missed queries, percent), calibrated together:\n\n" + markdown(
        header, [[source, *cells[source]] for source in sources]
    )


def imagine_answers(rewards: torch.Tensor, agreement: float) -> list[list[str]]:
    """Draws what experts might have said: right answers are alike, two wrong ones with a probability of `agreement`.

    Whoever is wrong gives the query's common wrong answer with the root of that probability, or else one of its own.
    """
    common = torch.rand(rewards.shape, generator=torch.Generator().manual_seed(0)) < agreement**0.5
    return [
        [
            "right" if reward > 0.5 else "wrong" if shared else f"own {place}"
            for place, (reward, shared) in enumerate(zip(of_query, drawn, strict=True))
        ]
        for of_query, drawn in zip(rewards.tolist(), common.tolist(), strict=True)
    ]


def show_votes(table: RewardTable, scores: dict[str, torch.Tensor], settings: dict, answers: list | None) -> str:
    """Compares weights of votes on the sets of two scores."""
    rows = []
    imagined = imagine_answers(table.rewards, AGREEMENT)
    for source in ("router", "router, distribution"):
        for sharpness in SHARPNESS:
            given = {"sharpness": sharpness, "repeats": LEVERS_REPEATS, "name": source, "kind": "gain", **settings}
            bounds = evaluate_sets(scores[source], table.rewards, answers=answers, **given)
            # Where the answers are known there is nothing to imagine.
            middle = bounds if answers else evaluate_sets(scores[source], table.rewards, answers=imagined, **given)
            for alpha in ALPHAS[:2]:
                row = bounds.row(source, alpha)
                calls = row.size.mean / (1 - row.abstained.mean)
                between = middle.row(source, alpha).voted_low
                figures = [row.top1, row.voted_low, between, row.voted_high, row.random_low, row.random_high]
                rows.append(
                    [source, f"{alpha:g}", f"{sharpness}", f"{calls:.2f}"] + [f"{100 * f.mean:.1f}" for f in figures]
                )
    header = [
        "sets of",
        "alpha",
        "sharpness",
        "calls",
        "first alone",
        "vote, worst",
        f"{AGREEMENT:.0%} of the wrong agree",
    ]
    return "Right answers, votes by the score to a power, percent of the answered queries:\n\n" + markdown(
        [*header, "best", "random, worst", "best"], rows
    )


def show_delta(table: RewardTable, probabilities: torch.Tensor, arguments: argparse.Namespace, settings: dict) -> str:
    """Shows sets whose promise holds in nine of ten calibrations."""
    report = evaluate_sets(
        probabilities, table.rewards, kind="gain", delta=0.1, repeats=arguments.repeats, name="router", **settings
    )
    rows = []
    for alpha in ALPHAS:
        row = report.row("router", alpha)
        rows.append(
            [f"{alpha:g}", f"{100 * row.risk.mean:.1f} ± {100 * row.risk.deviation:.1f}", f"{row.size.mean:.2f}"]
        )
    return "In nine of ten calibrations (delta 0.1), calibrated together:\n\n" + markdown(
        ["alpha", "risk", "calls"], rows
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Writes a table."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run(arguments: argparse.Namespace) -> SetReport:
    """Trains, evaluates, prints and saves."""
    quiet()
    table, scores = score(arguments)
    settings = {"alphas": ALPHAS, "dataset": arguments.data}
    answers = read_answers(table)
    report = evaluate_sets(
        scores["router"],
        table.rewards,
        kind="gain",
        subsets=table.subsets,
        groups=table.subsets,
        others={KNN: scores[KNN]},
        answers=answers,
        repeats=arguments.repeats,
        name="router",
        **settings,
    )
    parts = [
        f"### {arguments.data}",
        report.to_markdown().rstrip(),
        show_levers(table, scores, settings),
        show_votes(table, scores, settings, answers),
        show_delta(table, scores["router"], arguments, settings),
    ]
    if "winogrande" in table.subsets and answers is None:
        rows = [index for index, subset in enumerate(table.subsets) if subset == "winogrande"]
        # With two choices all wrong answers are the same: the worst case is the true one.
        of_two = {source: values[rows] for source, values in scores.items()}
        said = [["right" if reward > 0.5 else "wrong" for reward in row] for row in table.rewards[rows].tolist()]
        votes = show_votes(table.select(rows), of_two, settings, said)
        parts.append(f"WinoGrande alone, of whose two answers one is right. {votes}")
    text = "\n\n".join(parts)
    print(text)
    folder = Path(arguments.output, arguments.data)
    report.save(folder, overwrite=True)
    (folder / "summary.md").write_text(text + "\n", encoding="utf-8")
    return report


if __name__ == "__main__":
    run(parse())
