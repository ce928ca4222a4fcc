"""Label enhancement: what queries of a kind have in common, against the noise of single rewards.

That is the mean over the queries that share a tag, as in section 3.3 of arXiv 2311.08692; and beyond the paper, if
asked for, the mean over the nearest of them.
"""

from collections.abc import Sequence

import torch


_CHUNK = 1024


def enhance(
    values: torch.Tensor,
    tags: Sequence[Sequence[str]] | None,
    *,
    beta: float,
    leave_one_out: bool = False,
    shrinkage: float = 0.0,
    min_support: int = 1,
    neighbours: torch.Tensor | None = None,
    neighbour_weight: float = 0.5,
) -> torch.Tensor:
    """Mixes the values of every query with what other queries say: `beta v_i + (1 - beta) mean_t v_t`.

    Args:
        values: Rewards or probabilities of shape `(queries, experts)`, NaN where they are not known.
        tags: The tags of every query.
        beta: Weight of the query's own values. A query of which no other says anything keeps its values.
        leave_one_out: Whether a query's own values are left out of the means of its tags. A tag that no other query
            carries then says nothing of it.
        shrinkage: With how many queries' weight the mean of all queries enters the mean of a tag; it draws the means
            of rare tags to what holds in general.
        min_support: Tags that fewer queries carry are passed over.
        neighbours: Indices of shape `(queries, neighbours)` of the queries most like each, -1 for none; see
            [`find_neighbours`].
        neighbour_weight: Share of the neighbours' mean in what others say, where the tags say something too.

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
    if not 0 <= neighbour_weight <= 1:
        raise ValueError(f"`neighbour_weight` must lie between 0 and 1, got {neighbour_weight}.")
    if tags is not None and len(tags) != len(values):
        raise ValueError(f"There are {len(values)} rows of rewards, but tags for {len(tags)} queries.")
    if beta == 1:
        return values
    heard = None
    if tags is not None:
        heard = tag_means(values, tags, leave_one_out=leave_one_out, shrinkage=shrinkage, min_support=min_support)
    if neighbours is not None:
        near = neighbour_means(values, neighbours)
        if heard is None:
            heard = near
        else:
            both = (1 - neighbour_weight) * heard + neighbour_weight * near
            heard = torch.where(heard.isnan(), near, torch.where(near.isnan(), heard, both))
    if heard is None:
        return values
    return torch.where(heard.isnan(), values, beta * values + (1 - beta) * heard)


def tag_means(
    values: torch.Tensor,
    tags: Sequence[Sequence[str]],
    *,
    leave_one_out: bool = False,
    shrinkage: float = 0.0,
    min_support: int = 1,
) -> torch.Tensor:
    """Averages, for every query, the means of its tags; see [`enhance`] for the arguments.

    Returns:
        `torch.Tensor` of shape `(queries, experts)`: NaN where the tags say nothing of an expert.
    """
    query_index, tag_index = _incidence(tags, min_support)
    if not len(query_index):
        return torch.full_like(values, torch.nan)
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
    return totals / voices  # 0 / 0 where there is none


def neighbour_means(values: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
    """Averages the values of every query's neighbours.

    Args:
        values: Shape `(queries, experts)`, NaN where they are not known.
        neighbours: Indices of shape `(queries, neighbours)`, -1 for none.

    Returns:
        `torch.Tensor` of shape `(queries, experts)`: NaN where no neighbour knows a value.
    """
    padded = torch.cat([values, torch.full_like(values[:1], torch.nan)])  # which -1 refers to
    return torch.cat([padded[chunk].nanmean(dim=1) for chunk in neighbours.split(_CHUNK)])


def find_neighbours(embeddings: torch.Tensor, tags: Sequence[Sequence[str]] | None, neighbours: int) -> torch.Tensor:
    """Finds the queries nearest to every query by the cosine of their embeddings.

    They are sought among those that share a tag with it; for a query without tags, among all.

    Args:
        embeddings: Shape `(queries, hidden_size)`.
        tags: The tags of every query.
        neighbours: How many.

    Returns:
        `torch.Tensor` of shape `(queries, neighbours)`: Indices, nearest first; -1 where there are no more.
    """
    directions = torch.nn.functional.normalize(embeddings.float(), dim=-1)
    count = len(directions)
    carries = None
    if tags is not None and any(tags):
        query_index, tag_index = _incidence(tags, 1)
        shape = (count, int(tag_index.max()) + 1)
        carries = torch.sparse_coo_tensor(
            torch.stack([query_index, tag_index]), torch.ones(len(query_index)), shape, check_invariants=False
        ).coalesce()
        untagged = ~torch.zeros(count, dtype=torch.bool).index_fill(0, query_index, True)
    found = []
    for rows in torch.arange(count).split(_CHUNK):
        similarity = directions[rows] @ directions.T
        if carries is not None:
            of_rows = carries.index_select(0, rows).to_dense()
            shares = torch.sparse.mm(carries, of_rows.T).T > 0
            similarity.masked_fill_(~(shares | untagged[rows, None]), -torch.inf)
        similarity[torch.arange(len(rows)), rows] = -torch.inf
        nearest = similarity.topk(min(neighbours, count), dim=1)
        found.append(nearest.indices.masked_fill(nearest.values == -torch.inf, -1))
    return torch.cat(found)


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
