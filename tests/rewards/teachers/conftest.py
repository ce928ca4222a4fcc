"""Tiny reward models: random weights, saved to folders."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForSequenceClassification


CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'tool' %}"
    "{{ raise_exception('tools are not known') }}{% endif %}"
    "{{ message['role'] }} : {{ message['content'] }}{{ eos_token }}{% endfor %}"
)
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def save(model, tokenizer, folder):
    for parameter in model.parameters():
        parameter.data.mul_(8.0)  # the library's small weights would make every score alike
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bert_folder(tokenizer, tmp_path_factory):
    """An encoder without a chat template: a query and an answer are a pair."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, num_labels=1, **SMALL)
    return save(BertForSequenceClassification(config), tokenizer, tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def make_llama(tokenizer, tmp_path_factory):
    """Saves a causal reward model with a chat template: `make_llama(num_labels=1, **config_fields)`."""

    def make(num_labels=1, **fields):
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=64,
            num_labels=num_labels,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
            **{"pad_token_id": None, **SMALL, **fields},
        )
        folder = tmp_path_factory.mktemp("llama")
        save(LlamaForSequenceClassification(config), tokenizer, folder)
        # As in most of them: the end of text is what pads too, and the beginning of text is put before every text.
        chat_tokenizer = type(tokenizer).from_pretrained(folder)
        chat_tokenizer.bos_token, chat_tokenizer.eos_token = "[CLS]", "[SEP]"
        chat_tokenizer.pad_token = "[SEP]"
        chat_tokenizer.chat_template = CHAT_TEMPLATE
        chat_tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def llama_folder(make_llama):
    return make_llama()
