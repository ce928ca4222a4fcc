import copy

import pytest
import torch

from recipes.shrinking import keep_layers, keep_tokens
from tests.conftest import QUERIES


@pytest.fixture
def encoder(make_router):
    return make_router("bert").encoder


def embed(encoder, tokenizer, text):
    inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        return encoder(**inputs, output_hidden_states=True)


def test_first_layers_give_the_states_that_the_whole_encoder_has_there(encoder, tokenizer):
    whole = embed(encoder, tokenizer, QUERIES[0]).hidden_states
    cut = keep_layers(encoder, [0])
    assert cut.config.num_hidden_layers == 1
    torch.testing.assert_close(embed(cut, tokenizer, QUERIES[0]).last_hidden_state, whole[1])
    assert encoder.config.num_hidden_layers == 2, "the original stays as it was"


def test_kept_tokens_mean_what_they_meant(encoder, tokenizer):
    before = copy.deepcopy(encoder.state_dict())
    text = QUERIES[0]
    size = len(tokenizer) - 20
    smaller, pieces = keep_tokens(encoder, tokenizer, [text] * 2, size)
    assert len(pieces) == smaller.config.vocab_size == size
    assert smaller.get_input_embeddings().weight.shape[0] == size
    assert pieces.tokenize(text) == tokenizer.tokenize(text)
    torch.testing.assert_close(
        embed(smaller, pieces, text).last_hidden_state, embed(encoder, tokenizer, text).last_hidden_state
    )
    assert pieces.pad_token_id == smaller.config.pad_token_id
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_the_smaller_tokenizer_survives_saving(encoder, tokenizer, tmp_path):
    from transformers import AutoTokenizer

    _, pieces = keep_tokens(encoder, tokenizer, QUERIES, len(tokenizer) - 20)
    pieces.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(QUERIES)["input_ids"] == pieces(QUERIES)["input_ids"]
