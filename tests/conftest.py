"""Tiny routers: random weights, a tokenizer trained on a few sentences, no network."""

import os
from pathlib import Path


# Tests run in one process a core; threads beyond that would wait for each other, here and in subprocesses.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, DebertaV2Config, ModernBertConfig, PreTrainedTokenizerFast, XLMRobertaConfig

from tests.hub_server import HubServer
from zooter_hf import ExpertSpec, ZooterConfig, ZooterForRouting


VOCABULARY = Path(__file__).with_name("vocabulary.txt")
QUERIES = [
    "Prove that the square root of two is irrational.",
    "Write a function that sorts a list.",
    "Who wrote this novel?",
    "Why?",
    "Explain in one paragraph why the sky is blue by day and red in the evening, and what the moon has to do with it.",
]

EXPERTS = [
    ExpertSpec("math-7b", model="org/math-7b", backend="transformers", input_price=0.1, output_price=0.2),
    ExpertSpec("code-9b", model="org/code-9b", input_price=0.3, output_price=0.6, context_length=8192),
    ExpertSpec("chat-70b", metadata={"size": "70B"}),
]

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
ENCODERS = {
    "bert": lambda n: BertConfig(vocab_size=n, max_position_embeddings=64, **SMALL),
    "xlm-roberta": lambda n: XLMRobertaConfig(vocab_size=n, max_position_embeddings=66, pad_token_id=1, **SMALL),
    "deberta-v2": lambda n: DebertaV2Config(
        vocab_size=n,
        max_position_embeddings=64,
        relative_attention=True,
        position_biased_input=False,
        pos_att_type=["p2c", "c2p"],
        type_vocab_size=0,
        share_att_key=True,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        **SMALL,
    ),
    "modernbert": lambda n: ModernBertConfig(
        vocab_size=n,
        max_position_embeddings=64,
        local_attention=8,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
        **SMALL,
    ),
}


@pytest.fixture(scope="session")
def tokenizer():
    """A WordPiece tokenizer with BERT's special tokens, and token 1 for the padding of XLM-R."""
    # Trained on the queries once: a vocabulary is another with every training, and so is all that is made of it.
    inner = Tokenizer(models.WordPiece.from_file(str(VOCABULARY), unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", inner.token_to_id("[CLS]")), ("[SEP]", inner.token_to_id("[SEP]"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


@pytest.fixture(scope="session")
def make_router(tokenizer):
    """Makes a random router: `make_router(encoder="bert", **config_fields)`."""

    def make(encoder: str = "bert", experts=tuple(EXPERTS), seed: int = 0, **fields) -> ZooterForRouting:
        torch.manual_seed(seed)
        config = ZooterConfig(encoder_config=ENCODERS[encoder](len(tokenizer)), experts=list(experts), **fields)
        router = ZooterForRouting(config).eval()
        router.tokenizer = tokenizer
        # The library's small initial weights would make every expert look alike.
        for parameter in router.parameters():
            parameter.data.mul_(5.0)
        return router

    return make


@pytest.fixture(scope="session")
def saved_router(make_router, tmp_path_factory):
    """Folder of a saved random router that tests must not change."""
    folder = tmp_path_factory.mktemp("routers") / "saved"
    make_router(head="mlp").save_pretrained(folder)
    return folder


@pytest.fixture
def hub():
    """A Hub on this machine."""
    with HubServer() as server:
        yield server
