"""A set in which every tag is there, and none too often."""

from collections.abc import Sequence

import numpy as np

from zooter_hf.rewards.query_sets.items import QueryItem


def sample_per_tag(items: Sequence[QueryItem], k: int = 10, seed: int = 0) -> list[int]:
    """Draws up to `k` queries of every tag (section 4.1 of the paper: 10).

    Tags are served from the rarest to the most frequent; queries drawn for one tag count for all tags they carry, so
    that a set stays small. Queries without tags are not drawn.

    Args:
        items: The query set, with tags.
        k: How many queries a tag.
        seed: Which ones.

    Returns:
        The numbers of the queries that were drawn, sorted.

    Raises:
        ValueError: If `k` is not positive, or no query has a tag.
    """
    if k < 1:
        raise ValueError(f"`k` must be positive, got {k}.")
    members: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        for tag in item.tags:
            members.setdefault(tag, []).append(row)
    if not members:
        raise ValueError("No query has a tag, so none can be drawn by tag. Tag them first, or name a tagger.")
    generator = np.random.default_rng(seed)
    chosen: set[int] = set()
    for tag in sorted(members, key=lambda tag: (len(members[tag]), tag)):
        missing = k - sum(row in chosen for row in members[tag])
        free = [row for row in members[tag] if row not in chosen]
        if missing > 0 and free:
            chosen.update(generator.choice(free, min(missing, len(free)), replace=False).tolist())
    return sorted(chosen)
