"""An expert that comes after the training of a router: its rows of the heads, fitted to a few hundred rewards."""

from collections.abc import Mapping

import torch

from zooter_hf.distillation.enhancement import enhance
from zooter_hf.distillation.targets import soft_targets, standardize
from zooter_hf.modeling import ExpertSpec, ZooterForRouting
from zooter_hf.rewards import RewardTable
from zooter_hf.routing import predict


# How many queries' weight it has that the new expert is like the mean of the others. Found by leaving out one expert
# after the other, see `benchmarks/new_expert.py`.
PRIOR_QUERIES = 2.0


def fit_expert(
    router: ZooterForRouting,
    spec: ExpertSpec,
    table: RewardTable,
    *,
    tag_rewards: Mapping[str, float] | None = None,
    tau: float | None = None,
    beta: float | None = None,
    prior_queries: float = PRIOR_QUERIES,
    embeddings: torch.Tensor | None = None,
    batch_size: int = 32,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Finds the rows of the heads with which a router knows a new expert; what `router.add_expert` does.

    With all else as it is, the share of the new expert in the softmax is a logistic regression on the features of the
    head, with the log-sum of the others as its offset: a convex problem with one row of unknowns. It is fitted to the
    expert's share in the targets of training (section 3 of the paper). The others keep their logits, and so their
    order.

    Args:
        router: The router, without the expert.
        spec: The expert.
        table: Rewards of the new expert and of experts of the router on the same queries, which should be like those
            of the training. Queries where the reward of the new expert is missing are passed over.
        tag_rewards: Where no reward of the new expert is known: its mean reward for every tag. The table then need not
            have it; queries without such a tag are passed over.
        tau: Temperature of the targets; that of the router's training by default, or 0.25.
        beta: Weight of a query's own rewards against the means of its tags; that of the training by default, or 0.1.
        prior_queries: With how many queries' weight the row is held near the mean of the others' rows.
        embeddings: The query embeddings of the table, shape `(queries, hidden_size)`, if they are known.
        batch_size: Queries in one forward pass.

    Returns:
        The row of the head, and that of the head that predicts rewards, if there is one; see `append_expert`.

    Raises:
        ValueError: If the table lacks the new expert or all others, no reward can be used, or a value is out of range.
    """
    old = [name for name in router.expert_names if name in table.expert_names]
    if not old:
        raise ValueError(
            f"The table has no expert of the router, {router.expert_names}: how good the new one is can only be said "
            "against them. Join their rewards on the same queries: `table.join(training_table)`."
        )
    known_names = [*table.expert_names]
    if tag_rewards is None and spec.name not in known_names:
        raise ValueError(
            f"The table has no rewards of {spec.name!r}, only of {known_names}. Add them, or give `tag_rewards`."
        )
    if not prior_queries > 0:
        raise ValueError(f"`prior_queries` must be positive, got {prior_queries}.")
    training = router.config.training or {}
    tau = training.get("tau", 0.25) if tau is None else tau
    beta = training.get("beta", 0.1) if beta is None else beta
    rewards = torch.full((len(table), len(router.expert_names) + 1), torch.nan, dtype=torch.float64)
    for name in old:
        rewards[:, router.expert_names.index(name)] = table.rewards[:, known_names.index(name)]
    tags = table.tags
    if tag_rewards is None:
        rewards[:, -1] = table.rewards[:, known_names.index(spec.name)]
    else:
        for row, of_query in enumerate(tags):
            given = [tag_rewards[tag] for tag in of_query if tag in tag_rewards]
            if given:
                rewards[row, -1] = sum(given) / len(given)
    usable = ~rewards[:, -1].isnan() & ~rewards[:, :-1].isnan().all(dim=1)
    if not usable.any():
        raise ValueError(
            f"There is no query on which a reward of {spec.name!r} and of another expert are known. "
            + (
                "No query has a tag of `tag_rewards`."
                if tag_rewards is not None
                else "Join tables of the same queries."
            )
        )
    rows = usable.nonzero().flatten()
    rewards, tags = rewards[rows], [tags[row] for row in rows.tolist()]
    if embeddings is None:
        queries = table.select(rows.tolist()).queries
        embeddings = predict(router, queries, batch_size=batch_size, description="Embedding").embeddings
    else:
        embeddings = embeddings[rows]

    scale = rewards[:, :-1]  # the scale of the training: the new expert must not move it
    targets = soft_targets(standardize(rewards, scale), tags, tau=tau, beta=beta, average="rewards")
    with torch.no_grad():
        given = embeddings.to(router.device, router.dtype)
        features = router.eval().classifier.features(given).float()
        logits = router(query_embedding=given).logits.float()
        reward_features = router.reward_head.features(given).float() if router.config.predict_rewards else None
    offset = logits.masked_fill(rewards[:, :-1].isnan().to(logits.device), -torch.inf).logsumexp(dim=1)
    row = _fit_row(router.classifier, features, offset, targets[:, -1].to(features), prior_queries / len(rows))
    if reward_features is None:
        return row, None
    smooth = enhance(rewards, tags, beta=beta)[:, -1].to(reward_features)
    return row, _fit_reward_row(reward_features, smooth, prior_queries / len(rows))


def _fit_row(head, features, offset, target, regularisation: float) -> torch.Tensor:
    """Fits `sigmoid(head.score(features, row) - offset)` to the share of the new expert, by L-BFGS."""
    # From the mean of the other experts' rows: an expert like the others is the best guess before any reward.
    start = head.rows.detach().float().mean(dim=0)
    row = start.clone().requires_grad_()
    scale = head.rows.detach().float().square().mean()
    optimizer = torch.optim.LBFGS([row], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        score = head.score(features, row.unsqueeze(0)).squeeze(1) - offset
        loss = torch.nn.functional.binary_cross_entropy_with_logits(score, target)
        loss = loss + regularisation * (row - start).square().mean() / scale
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return row.detach()


def _fit_reward_row(features: torch.Tensor, rewards: torch.Tensor, regularisation: float) -> torch.Tensor:
    """Fits a linear row to rewards by ridge regression around their mean, in closed form."""
    centre, mean = features.mean(dim=0), rewards.mean()
    centred = (features - centre).double()
    gram = centred.T @ centred / len(features)
    ridge = regularisation * gram.diagonal().mean().clamp(min=1e-12) * torch.eye(len(gram), device=gram.device)
    moment = centred.T @ (rewards - mean).double() / len(features)
    weights = torch.linalg.solve(gram + ridge.double(), moment).float()
    return torch.cat([weights, (mean - weights @ centre).unsqueeze(0)])
