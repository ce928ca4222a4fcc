"""Tags for tables that have none."""

from collections.abc import Sequence

import numpy as np


class ClusterTagger:
    """Makes tags of query embeddings by k-means, so that label enhancement needs no tagging LLM.

    Args:
        clusters: How many tags; 1 to the number of queries.
        per_subset: Whether queries are clustered within their subset, into `clusters` each. A subset too small for
            that gets fewer.
        prefix: What the names of the tags begin with.
        seed: Where k-means starts.

    Raises:
        ValueError: If `clusters` is not positive.
        ImportError: When it is used, if scikit-learn is not installed.
    """

    def __init__(self, clusters: int = 20, *, per_subset: bool = False, prefix: str = "cluster", seed: int = 0):
        if clusters < 1:
            raise ValueError(f"`clusters` must be positive, got {clusters}.")
        self.clusters = clusters
        self.per_subset = per_subset
        self.prefix = prefix
        self.seed = seed

    def __call__(self, embeddings: np.ndarray, subsets: Sequence[str | None] | None = None) -> list[list[str]]:
        """Tags queries.

        Args:
            embeddings: Shape `(queries, hidden_size)`; only their direction counts.
            subsets: The subset of every query; needed with `per_subset`.

        Returns:
            One tag a query, as a list of one.

        Raises:
            ValueError: If there is no query, or subsets are needed and missing.
        """
        embeddings = np.asarray(embeddings, dtype=np.float32)
        if embeddings.ndim != 2 or not len(embeddings):
            raise ValueError(f"`embeddings` must have the shape (queries, hidden_size), got {embeddings.shape}.")
        if not self.per_subset:
            return [[f"{self.prefix}-{label}"] for label in self._cluster(embeddings)]
        if subsets is None or len(subsets) != len(embeddings):
            raise ValueError("Clusters within subsets need the subset of every query.")
        tags: list[list[str]] = [[]] * len(embeddings)
        names = np.array([subset or "none" for subset in subsets])
        for name in np.unique(names):
            rows = np.flatnonzero(names == name)
            for row, label in zip(rows, self._cluster(embeddings[rows]), strict=True):
                tags[row] = [f"{name}/{self.prefix}-{label}"]
        return tags

    def _cluster(self, embeddings: np.ndarray) -> np.ndarray:
        try:
            from sklearn.cluster import KMeans
            from sklearn.preprocessing import normalize
        except ImportError as error:
            raise ImportError('Clusters need scikit-learn: pip install "zooter-hf[evaluation]"') from error
        embeddings = normalize(embeddings)
        clusters = min(self.clusters, len(np.unique(embeddings, axis=0)))
        return KMeans(clusters, n_init=4, random_state=self.seed).fit_predict(embeddings)
