"""An expert that comes after training is fitted, and those that are there do not notice."""

import pytest
import torch

from tests.conftest import EXPERTS
from zooter_hf import ExpertSpec, RewardTable
from zooter_hf.routing import predict, predict_embedded


NAMES = [expert.name for expert in EXPERTS]


def table_of(rewards, names, tags=None):
    words = ["sum", "tale", "sky", "moon", "novel", "list"]
    return RewardTable.from_rows(
        {
            "query": f"Why is the {words[row % 6]} {'a' * (row % 13 + 1)} {'b' * (row // 13 + 1)}?",
            "rewards": {name: None if value != value else value for name, value in zip(names, values, strict=True)},
            "tags": tags[row] if tags else [],
        }
        for row, values in enumerate(rewards.tolist())
    )


@pytest.fixture(params=["linear", "mlp", "cosine"])
def router(request, make_router):
    return make_router(head=request.param, training={"tau": 1.0, "beta": 1.0})


def level(router, embeddings):
    """Brings the logits of a random router to the scale of a trained one."""
    spread = predict_embedded(router, embeddings).logits.std()
    if router.config.head == "cosine":
        router.classifier.log_temperature.data += spread.log()
    else:
        router.classifier.out_proj.weight.data /= spread
        router.classifier.out_proj.bias.data /= spread


def test_the_share_of_the_new_expert_is_learnt(router):
    """Its reward depends on one direction of the embedding: so must its probability, and its rank."""
    torch.manual_seed(0)
    embeddings = torch.randn(600, router.config.hidden_size)
    level(router, embeddings)
    before = predict_embedded(router, embeddings).logits
    rewards = torch.empty(600, 4, dtype=torch.float64)
    rewards[:, :3] = before.double()
    good = embeddings[:, 0] > 0
    rewards[:, 3] = torch.where(good, 3.0, -2.0)
    router.add_expert({"name": "new", "input_price": 1.0}, table_of(rewards, [*NAMES, "new"]), embeddings=embeddings)
    after = predict_embedded(router, embeddings)
    torch.testing.assert_close(after.logits[:, :3], before)
    share = after.probabilities[:, 3]
    assert share[good].mean() > 2 * share[~good].mean()
    order = share.argsort(descending=True)
    assert good[order[: good.sum()]].float().mean() > 0.8, "the queries it gets first are those it is good at"
    assert router.config.experts[-1] == ExpertSpec("new", input_price=1.0)


def test_the_fit_is_that_of_the_convex_problem(make_router):
    """Against scikit-learn, which knows no offset: with the others' logits at 0 there is none."""
    from sklearn.linear_model import LogisticRegression

    torch.manual_seed(0)
    router = make_router(experts=["a"], head="linear")
    for parameter in router.classifier.parameters():
        torch.nn.init.zeros_(parameter)
    router.classifier.out_proj.bias.data += 1e-4  # no prior scale of zero
    embeddings = torch.randn(300, router.config.hidden_size)
    better = torch.rand(300) < torch.sigmoid(embeddings[:, 1])
    rewards = torch.stack([(~better).double(), better.double()], dim=1)
    table = table_of(rewards, ["a", "new"])
    router.add_expert({"name": "new"}, table, embeddings=embeddings, beta=1.0, tau=1e-3, prior_queries=1e-9)
    reference = LogisticRegression(C=1e6, max_iter=1000).fit(embeddings.numpy(), better.numpy())
    weights = router.classifier.out_proj.weight[1].detach()
    torch.testing.assert_close(weights, torch.tensor(reference.coef_[0]).float(), atol=0.05, rtol=0.05)


def test_tag_means_are_enough(make_router):
    torch.manual_seed(0)
    router = make_router(head="linear", training={"tau": 0.25, "beta": 0.1})
    embeddings = torch.randn(300, router.config.hidden_size)
    tags = [["math"] if value > 0 else ["prose"] for value in embeddings[:, 0].tolist()]
    table = table_of(torch.full((300, 3), 0.5, dtype=torch.float64) + 0.1 * torch.randn(300, 3).double(), NAMES, tags)
    router.add_expert({"name": "new"}, table, tag_rewards={"math": 1.5, "prose": -0.5}, embeddings=embeddings)
    share = predict_embedded(router, embeddings).probabilities[:, 3]
    of_math = torch.tensor([tag == ["math"] for tag in tags])
    assert share[of_math].mean() > 2 * share[~of_math].mean()


def test_predicted_rewards_of_the_new_expert(make_router):
    torch.manual_seed(0)
    router = make_router(head="linear", predict_rewards=True)
    embeddings = torch.randn(400, router.config.hidden_size)
    rewards = torch.rand(400, 4, dtype=torch.float64)
    rewards[:, 3] = 2.0 + 0.5 * embeddings[:, 2].double()
    before = predict_embedded(router, embeddings).predicted_rewards
    table = table_of(rewards, [*NAMES, "new"])
    router.add_expert({"name": "new"}, table, embeddings=embeddings, beta=1.0, prior_queries=1e-6)
    after = predict_embedded(router, embeddings).predicted_rewards
    torch.testing.assert_close(after[:, :3], before)
    torch.testing.assert_close(after[:, 3].double(), rewards[:, 3], atol=1e-3, rtol=0)


def test_some_rewards_may_be_missing(make_router):
    router = make_router()
    rewards = torch.rand(12, 4, dtype=torch.float64)
    rewards[0, 3] = rewards[1, 0] = torch.nan
    rewards[2, :3] = torch.nan
    router.add_expert({"name": "new"}, table_of(rewards, [*NAMES, "new"]))
    assert predict(router, ["Why?"]).probabilities.isfinite().all()
    router = make_router()
    router.add_expert({"name": "new"}, table_of(rewards[:, [0, 3]], [NAMES[0], "new"]))
    assert router.num_labels == 4


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["x", "new"], {}, "no expert of the router.*join"),
        (NAMES[:2], {}, "no rewards of 'new'.*tag_rewards"),
        (NAMES[:2], {"tag_rewards": {"math": 1.0}}, "No query has a tag"),
        ([NAMES[0], "new"], {"prior_queries": 0}, "prior_queries"),
        ([NAMES[0], NAMES[1]], {"name": NAMES[1]}, "already"),
    ],
)
def test_mistakes(make_router, names, settings, message):
    router = make_router()
    table = table_of(torch.rand(6, len(names), dtype=torch.float64), names)
    with pytest.raises(ValueError, match=message):
        router.add_expert({"name": settings.pop("name", "new")}, table, **settings)
    assert router.expert_names == NAMES and router.classifier.out_proj.out_features == 3
