"""Tag-based label enhancement: what queries that share a tag have in common (section 3.3 of arXiv 2311.08692)."""

from collections.abc import Sequence

import torch


def enhance_with_tags(
    values: torch.Tensor,
    tags: Sequence[Sequence[str]] | None,
    *,
    beta: float,
    leave_one_out: bool = False,
    shrinkage: float = 0.0,
    min_support: int = 1,
) -> torch.Tensor:
    """Mixes the values of every query with the means of its tags: `beta v_i + (1 - beta) mean_t v_t`.

    Args:
        values: Rewards or probabilities of shape `(queries, experts)`, NaN where they are not known.
        tags: The tags of every query. A query without tags keeps its values.
        beta: Weight of the query's own values.
        leave_one_out: Whether a query's own values are left out of the means of its tags. A tag that no other query
            carries then says nothing of it.
        shrinkage: With how many queries' weight the mean of all queries enters the mean of a tag; it draws the means
            of rare tags to what holds in general.
        min_support: Tags that fewer queries carry are passed over.

    Returns:
        `torch.Tensor` of shape `(queries, experts)`: NaN where `values` is.

    Raises:
        ValueError: If a setting is out of range or there is not one list of tags per query.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"`beta` must lie between 0 and 1, got {beta}.")
    if not shrinkage >= 0:
        raise ValueError(f"`shrinkage` must not be negative, got {shrinkage}.")
    if min_support < 1:
        raise ValueError(f"`min_support` must be at least 1, got {min_support}.")
    if tags is not None and len(tags) != len(values):
        raise ValueError(f"There are {len(values)} rows of rewards, but tags for {len(tags)} queries.")
    if tags is None or beta == 1:
        return values
    query_index, tag_index = _incidence(tags, min_support)
    if not len(query_index):
        return values

    known = ~values.isnan()
    weights, filled = known.to(values.dtype), values.masked_fill(~known, 0.0)
    shape = (int(tag_index.max()) + 1, values.shape[1])
    sums = values.new_zeros(shape).index_add_(0, tag_index, filled[query_index])
    counts = values.new_zeros(shape).index_add_(0, tag_index, weights[query_index])
    # From here on one row for every pair of a query and one of its tags.
    sums, counts = sums[tag_index], counts[tag_index]
    if leave_one_out:
        sums, counts = sums - filled[query_index], counts - weights[query_index]
    says = (counts > 0).to(values.dtype)
    if shrinkage:
        sums = sums + shrinkage * filled.sum(dim=0) / weights.sum(dim=0).clamp(min=1)
        counts = counts + shrinkage
    means = sums / counts.clamp(min=1e-12) * says
    totals = torch.zeros_like(filled).index_add_(0, query_index, means)
    voices = torch.zeros_like(filled).index_add_(0, query_index, says)
    return torch.where(voices > 0, beta * values + (1 - beta) * totals / voices.clamp(min=1), values)


def _incidence(tags: Sequence[Sequence[str]], min_support: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers the tags; returns who carries what as two index tensors of one length, without repetitions."""
    number: dict[str, int] = {}
    pairs = [
        (query, number.setdefault(tag, len(number))) for query, own in enumerate(tags) for tag in dict.fromkeys(own)
    ]
    query_index, tag_index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).unbind(dim=1)
    if min_support > 1 and len(pairs):
        enough = torch.bincount(tag_index)[tag_index] >= min_support
        query_index, tag_index = query_index[enough], tag_index[enough]
    return query_index, tag_index
