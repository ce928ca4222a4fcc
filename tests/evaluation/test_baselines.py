"""Predictions without training, against means worked by hand."""

import pytest
import torch
from sklearn.neighbors import KNeighborsRegressor

from zooter_hf.evaluation.baselines import kmeans_scores, knn_scores, training_best_single_model


nan = torch.nan


@pytest.fixture(scope="module")
def cloud():
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(40, 8, generator=generator),
        torch.randn(300, 8, generator=generator),
        torch.rand(300, 3, generator=generator, dtype=torch.float64),
    )


def test_neighbours_are_those_of_scikit_learn(cloud):
    queries, training, rewards = cloud
    expected = KNeighborsRegressor(7, metric="cosine").fit(training.numpy(), rewards.numpy()).predict(queries.numpy())
    torch.testing.assert_close(knn_scores(queries, training, rewards, 7), torch.from_numpy(expected))


@pytest.mark.parametrize("scores", [knn_scores, kmeans_scores])
def test_only_the_direction_of_an_embedding_counts(cloud, scores):
    queries, training, rewards = cloud
    lengths = torch.logspace(-2, 2, 40).unsqueeze(1)
    torch.testing.assert_close(scores(queries * lengths, training, rewards, 9), scores(queries, training, rewards, 9))


@pytest.mark.parametrize("scores", [knn_scores, kmeans_scores])
def test_missing_rewards_by_hand(scores):
    """Two queries on either side: b is known on the first side only, c nowhere."""
    training = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.01, 1.0]])
    rewards = torch.tensor([[1.0, 0.25, nan], [0.0, nan, nan], [0.5, nan, nan], [1.0, nan, nan]])
    predicted = scores(torch.tensor([[2.0, 0.1], [0.1, 2.0]]), training, rewards, 2)
    torch.testing.assert_close(predicted, torch.tensor([[0.5, 0.25, nan], [0.75, 0.25, nan]]), equal_nan=True)


def test_the_best_model_of_training_may_be_poor_afterwards():
    rewards = torch.tensor([[0.0, 1.0]])
    outcome = training_best_single_model(
        ["a", "b"], rewards, torch.tensor([[1.0, nan], [1.0, 0.9]]), [torch.arange(2)]
    )
    assert outcome.expert == "a"
    assert outcome.rewards.tolist() == [0.0]
