"""How well the distance to stored centroids tells queries unlike the training, on subsets held out one by one.

    python -m benchmarks.shift --data routerdc --encoder MINILM

Of every subset in turn nothing is trained on. The area under the ROC curve is the chance that one of its queries is
farther from the centroids than a held-out query of the other subsets. Then what it is worth: queries beyond the
distance within which 99 % (95 %) of the familiar ones lie go to the best single model of the training.
"""

import torch
from sklearn.metrics import roc_auc_score

from benchmarks.after_training import RECIPE, parse, read, show
from benchmarks.routing import HELD_OUT, SPLIT_SEED, new_router, train
from zooter_hf.calibration import store_centroids
from zooter_hf.rewards.scores import routed_rewards
from zooter_hf.routing import predict_embedded


QUANTILES = (0.99, 0.95)


def main():
    """Runs the benchmark."""
    arguments = parse(__doc__, "shift", "routerdc")
    table, embeddings = read(arguments, whole=True)
    subsets = table.subsets
    lines = [
        "| subset held out | queries | area under ROC | router | best of training | "
        + " | ".join(f"fall back beyond {quantile:.0%}" for quantile in QUANTILES)
        + " |",
        "|---|---:|---:|---:|---:|" + "---:|" * len(QUANTILES),
    ]
    for held in sorted(set(subsets)):
        inside = torch.tensor([index for index, subset in enumerate(subsets) if subset != held])
        outside = torch.tensor([index for index, subset in enumerate(subsets) if subset == held])
        fold = torch.from_numpy(table.select(inside.tolist()).folds(round(1 / HELD_OUT), SPLIT_SEED))
        rest, familiar = inside[fold != 0], inside[fold == 0]
        training = table.select(rest.tolist())
        router = train(new_router(training, arguments.encoder, RECIPE, 0), training, RECIPE, 0, embeddings[rest])
        limits = [
            store_centroids(router, training, quantile=quantile, embeddings=embeddings[rest]) for quantile in QUANTILES
        ]
        near, far = (predict_embedded(router, embeddings[rows]) for rows in (familiar, outside))
        labels = torch.cat([torch.zeros(len(familiar)), torch.ones(len(outside))])
        area = roc_auc_score(labels.numpy(), torch.cat([near.distances, far.distances]).numpy())
        rewards = table.rewards[outside]
        best = torch.full((len(outside),), int(training.rewards.nanmean(dim=0).argmax()))
        chosen = far.probabilities.argmax(dim=1)
        ways = [chosen, best, *(torch.where(far.distances > limit, best, chosen) for limit in limits)]
        scores = [100 * routed_rewards(rewards, way).mean().item() for way in ways]
        lines.append(
            f"| {held} | {len(outside):,} | {area:.2f} | " + " | ".join(f"{score:.1f}" for score in scores) + " |"
        )
    show("\n".join(lines), arguments, "shift")


if __name__ == "__main__":
    main()
