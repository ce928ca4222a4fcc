import numpy as np
import torch

from tests.distillation.test_trainer import arguments
from zooter_hf.distillation import cross_validate
from zooter_hf.distillation.cross_validation import route_embeddings
from zooter_hf.routing import predict


def test_every_query_is_routed_by_a_router_that_has_not_seen_it(make_router, table, tmp_path, monkeypatch):
    seen = []
    original = cross_validate.__globals__["ZooterTrainer"]

    def spy(router, args, train, **kwargs):
        seen.append(list(train.queries))
        return original(router, args, train, **kwargs)

    monkeypatch.setitem(cross_validate.__globals__, "ZooterTrainer", spy)
    args = arguments(tmp_path, freeze_encoder=True, num_train_epochs=60, learning_rate=0.02)
    embeddings = predict(make_router(), table.queries).embeddings
    probabilities = cross_validate(table, lambda: make_router(head="mlp"), args, folds=3, embeddings=embeddings)
    fold_of = table.folds(3, 0)
    for fold, queries in enumerate(seen):
        held_out = [table.queries[row] for row in np.flatnonzero(fold_of == fold)]
        assert len(queries) + len(held_out) == len(table) and not set(queries) & set(held_out)
    assert (probabilities.argmax(1) == table.rewards.argmax(1)).double().mean() > 0.9
    # Embeddings that are known save time and change nothing.
    again = cross_validate(table, lambda: make_router(head="mlp"), args, folds=3)
    torch.testing.assert_close(again, probabilities, atol=1e-4, rtol=1e-3)


def test_the_head_alone_routes_as_the_router(make_router, table):
    router = make_router(head="mlp", temperature=0.5)
    predictions = predict(router, table.queries)
    torch.testing.assert_close(route_embeddings(router, predictions.embeddings), predictions.probabilities)
