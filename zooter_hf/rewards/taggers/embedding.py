"""Tags from clusters of query embeddings."""

from collections.abc import Sequence
from typing import Any

import torch

from zooter_hf.experts import Query
from zooter_hf.modeling import ZooterForRouting
from zooter_hf.rewards.taggers.base import Tagger
from zooter_hf.rewards.tagging import ClusterTagger
from zooter_hf.routing import predict


class EmbeddingTagger(Tagger):
    """Tags queries with the cluster that their embedding falls into; no tagging LLM is needed.

    Queries are read as a router on the same encoder reads them, and clustered by [`ClusterTagger`].

    Args:
        encoder: Folder or Hub id of a sentence encoder, with safetensors weights.
        revision: Branch, tag or commit on the Hub.
        clusters: How many tags.
        seed: Where k-means starts.
        prefix: What the names of the tags begin with.
        pooling: How token states become an embedding; see [`ZooterConfig`].
        batch_size: Queries in one forward pass.
        device: Where the encoder runs; a GPU by default, if there is one.

    Raises:
        ValueError: If `clusters` or `batch_size` is not positive.
    """

    needs_all_queries = True

    def __init__(
        self,
        encoder: str,
        *,
        revision: str | None = None,
        clusters: int = 20,
        seed: int = 0,
        prefix: str = "cluster",
        pooling: str = "mean",
        batch_size: int = 32,
        device: str | torch.device | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be positive, got {batch_size}.")
        self.encoder = str(encoder)
        self.revision = revision
        self.cluster = ClusterTagger(clusters, prefix=prefix, seed=seed)
        self.pooling = pooling
        self.batch_size = batch_size
        self.device = device
        self._router = None

    @property
    def settings(self) -> dict[str, Any]:
        """The encoder and its revision, and how it is pooled and clustered."""
        return {
            "type": "EmbeddingTagger",
            "encoder": self.encoder,
            "revision": self.revision,
            "pooling": self.pooling,
            "clusters": self.cluster.clusters,
            "seed": self.cluster.seed,
            "prefix": self.cluster.prefix,
        }

    def load(self):
        """Loads the encoder.

        Raises:
            OSError: If the encoder is not there or has no safetensors weights.
        """
        if self._router is not None:
            return
        router = ZooterForRouting.from_encoder(
            self.encoder,
            experts=["unused"],  # a router needs one; its head is not looked at
            pooling=self.pooling,
            encoder_kwargs=None if self.revision is None else {"revision": self.revision},
        )
        self._router = router.to(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def close(self):
        """Frees the encoder."""
        self._router = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def tag(self, queries: Sequence[Query]) -> list[list[str] | None]:
        """Tags queries with one cluster each; see [`Tagger.tag`].

        Raises:
            OSError: If the encoder is not there or has no safetensors weights.
            ValueError: If a query is empty.
            ImportError: If scikit-learn is not installed.
        """
        if not queries:
            return []
        self.load()
        predictions = predict(self._router, queries, batch_size=self.batch_size, description="Embedding")
        return self.cluster(predictions.embeddings.numpy())
