"""What a router remembers of its training queries, to tell those that are unlike any."""

from collections import defaultdict

import numpy as np
import torch

from zooter_hf.evaluation.baselines import require_sklearn
from zooter_hf.modeling import ZooterForRouting
from zooter_hf.rewards import RewardTable
from zooter_hf.routing import predict


def store_centroids(
    router: ZooterForRouting,
    table: RewardTable,
    *,
    per_tag: int = 10,
    quantile: float = 0.99,
    folds: int = 5,
    seed: int = 0,
    batch_size: int = 32,
    embeddings: torch.Tensor | None = None,
) -> float:
    """Gives a router centroids of its training queries, which are saved with its weights; no text is kept.

    The queries of every tag are clustered by their embeddings. How far a query is from the nearest centroid then tells
    whether it is like the training, and the tags of that centroid what it is like. Centroids that were there are
    replaced.

    Args:
        router: The router, with its tokenizer.
        table: What it was trained on.
        per_tag: How many centroids a tag has; fewer for a tag with fewer queries. Queries without tags are one group.
        quantile: Share of the training queries that are to count as familiar.
        folds: In how many parts queries are held out to measure that: each part by the centroids of the others.
        seed: Which queries those are, and where k-means starts.
        batch_size: Queries in one forward pass.
        embeddings: The query embeddings of the table, shape `(queries, hidden_size)`, if they are known.

    Returns:
        The distance within which that share lies: the `max_distance` for a policy that answers queries unlike these by
        its default expert.

    Raises:
        ValueError: If a value is out of its range, or there are fewer queries than folds.
        ImportError: If scikit-learn is not installed.
    """
    if per_tag < 1:
        raise ValueError(f"`per_tag` must be positive, got {per_tag}.")
    if not 0 < quantile < 1:
        raise ValueError(f"`quantile` must lie between 0 and 1, got {quantile}.")
    require_sklearn()
    fold_of = table.folds(folds, seed)
    if embeddings is None:
        embeddings = predict(router, table.queries, batch_size=batch_size, description="Embedding").embeddings
    unit = torch.nn.functional.normalize(embeddings.float(), dim=1).numpy()
    tags = table.tags
    distances = np.empty(len(table))
    for fold in range(folds):
        rest, held_out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        centroids, _ = _cluster(unit[rest], [tags[row] for row in rest], per_tag, seed)
        distances[held_out] = 1 - (unit[held_out] @ centroids.T).max(axis=1)
    centroids, described = _cluster(unit, tags, per_tag, seed)
    router.config.centroids = described
    stored = torch.from_numpy(centroids).to(dtype=router.dtype, device=router.device)
    router.register_buffer("centroids", stored)
    return float(np.quantile(distances, quantile))


def _cluster(unit: np.ndarray, tags: list[list[str]], per_tag: int, seed: int) -> tuple[np.ndarray, list[dict]]:
    """Clusters the queries of every tag; returns centroids of length 1 and what lies around each."""
    from sklearn.cluster import KMeans

    members: dict[str, list[int]] = defaultdict(list)
    for row, of_query in enumerate(tags):
        for tag in of_query or [""]:
            members[tag].append(row)
    centroids, described = [], []
    for tag in sorted(members):
        points = unit[members[tag]]
        clusters = min(per_tag, len(np.unique(points, axis=0)))
        kmeans = KMeans(clusters, n_init=2, random_state=seed).fit(points)
        centroids.append(kmeans.cluster_centers_)
        sizes = np.bincount(kmeans.labels_, minlength=clusters)
        described += [{"tags": [tag] if tag else [], "queries": int(size)} for size in sizes]
    stacked = np.concatenate(centroids).astype(np.float32)
    return stacked / np.linalg.norm(stacked, axis=1, keepdims=True).clip(min=1e-12), described
