"""A router whose choice is known, and experts that are played."""

import pytest
import torch

from tests.conftest import QUERIES
from tests.ensemble.experts import PlayedExpert
from zooter_hf import ZooterEnsemble
from zooter_hf.routing import predict


NAMES = ["alpha", "beta", "gamma"]


@pytest.fixture
def router(make_router):
    return make_router(experts=NAMES)


@pytest.fixture
def played():
    """Three experts by name."""
    return {name: PlayedExpert(name, input_price=1.0, output_price=2.0) for name in NAMES}


@pytest.fixture
def make_ensemble(make_router, played):
    """Makes an ensemble: `make_ensemble(prefer=[...])` has a router that always ranks in that order."""
    ensembles = []

    def make(experts=None, *, prefer=None, probabilities=(0.5, 0.3, 0.2), names=NAMES, **arguments):
        router = make_router(experts=names)
        if prefer is None:
            balance(router)
        else:
            rank(router, prefer, probabilities)
        ensemble = ZooterEnsemble(router, played if experts is None else experts, **arguments)
        ensembles.append(ensemble)
        return ensemble

    yield make
    for ensemble in ensembles:
        ensemble.close()


def rank(router, prefer, probabilities=(0.5, 0.3, 0.2)):
    """Has a router say the same of every query."""
    layer = _last_layer(router)
    torch.nn.init.zeros_(layer.weight)
    for name, probability in zip(prefer, probabilities, strict=True):
        layer.bias.data[router.expert_names.index(name)] = torch.tensor(probability).log()


def balance(router):
    """Has a router find every expert as good as the others on average, so that no expert is the best for all."""
    probabilities = predict(router, QUERIES).probabilities
    _last_layer(router).bias.data -= probabilities.log().mean(0)


def _last_layer(router):
    return [module for module in router.classifier.modules() if isinstance(module, torch.nn.Linear)][-1]
