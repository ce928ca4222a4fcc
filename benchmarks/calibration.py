"""Calibration of routers on held-out queries: temperature and vectors, over several seeds.

    python -m benchmarks.calibration --data llmrouter --encoder MINILM

A router is trained on three fifths of the data, calibrated on one fifth, and measured on the last.
"""

import statistics

import torch

from benchmarks.after_training import RECIPE, parse, read, show
from benchmarks.routing import new_router, spread, train
from zooter_hf.calibration import calibrate
from zooter_hf.evaluation.metrics import choose_known, expected_calibration_error, reliability
from zooter_hf.rewards.scores import routed_rewards
from zooter_hf.routing import predict_embedded


METHODS = ("none", "temperature", "vector", "auto")


def main():
    """Runs the benchmark."""
    arguments = parse(__doc__, "calibration", "llmrouter", seeds=5)
    table, embeddings = read(arguments)
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    rewards: dict[str, list[float]] = {method: [] for method in METHODS}
    temperatures = []
    for seed in range(arguments.seeds):
        fold = torch.from_numpy(table.folds(5, seed))
        training, held_out, test = (torch.where(mask)[0] for mask in (fold > 1, fold == 1, fold == 0))
        parts = [table.select(rows.tolist()) for rows in (training, held_out, test)]
        router = train(
            new_router(table, arguments.encoder, RECIPE, seed), parts[0], RECIPE, seed, embeddings[training]
        )
        for method in METHODS:
            if method != "none":
                found = calibrate(router, parts[1], method=method, embeddings=embeddings[held_out])
                if method == "temperature":
                    temperatures.append(found.temperature)
            probabilities = predict_embedded(router, embeddings[test]).probabilities.double()
            chosen = choose_known(probabilities, parts[2].rewards)
            errors[method].append(expected_calibration_error(reliability(probabilities, parts[2].rewards, chosen)))
            rewards[method].append(routed_rewards(parts[2].rewards, chosen).mean().item())

    def percent(value: float) -> str:
        return f"{100 * value:.2f}"

    lines = ["| calibration | error, percent | reward of the chosen, percent |", "|---|---:|---:|"]
    lines += [
        f"| {method} | {spread(errors[method], percent)} | {spread(rewards[method], percent)} |" for method in METHODS
    ]
    lines += ["", f"Temperature: {statistics.fmean(temperatures):.2f} on average."]
    show("\n".join(lines), arguments, "calibration")


if __name__ == "__main__":
    main()
