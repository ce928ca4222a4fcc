"""Tiny classifiers of every architecture, with weights large enough to tell labels apart."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    CamembertConfig,
    DebertaConfig,
    DistilBertConfig,
    ElectraConfig,
    RobertaConfig,
)

from tests.conftest import ENCODERS, SMALL


LABELS = ("org/small-7b", "org/large-70b", "code-9b")
ARCHITECTURES = {
    **ENCODERS,
    "roberta": lambda n: RobertaConfig(vocab_size=n, max_position_embeddings=66, pad_token_id=1, **SMALL),
    "camembert": lambda n: CamembertConfig(vocab_size=n, max_position_embeddings=66, pad_token_id=1, **SMALL),
    "electra": lambda n: ElectraConfig(vocab_size=n, embedding_size=12, max_position_embeddings=64, **SMALL),
    "deberta": lambda n: DebertaConfig(
        vocab_size=n,
        max_position_embeddings=64,
        relative_attention=True,
        pos_att_type=["c2p"],
        type_vocab_size=0,
        **SMALL,
    ),
    "distilbert": lambda n: DistilBertConfig(
        vocab_size=n, max_position_embeddings=64, dim=16, n_layers=2, n_heads=2, hidden_dim=24
    ),
}


@pytest.fixture(scope="session")
def make_classifier(tokenizer, tmp_path_factory):
    """Saves a random classifier: `make_classifier(architecture, labels, **config_fields)` gives folder and model."""

    def make(architecture="bert", labels=LABELS, seed=0, **fields):
        config = ARCHITECTURES[architecture](len(tokenizer))
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
        for name, value in fields.items():
            setattr(config, name, value)
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config).eval()
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
        folder = tmp_path_factory.mktemp("classifiers") / architecture
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder, model

    return make
