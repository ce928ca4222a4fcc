"""Makes a BERT-like encoder smaller: fewer layers, fewer wordpieces."""

import copy
import json
from collections import Counter
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast


def keep_layers(encoder: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Returns a copy of an encoder with only the given layers, in that order."""
    encoder = copy.deepcopy(encoder)
    encoder.encoder.layer = nn.ModuleList(encoder.encoder.layer[index] for index in layers)
    encoder.config.num_hidden_layers = len(layers)
    return encoder


def keep_tokens(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], size: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Returns copies of an encoder and its WordPiece tokenizer with the `size` most useful tokens.

    These are the special tokens, the printable ASCII characters (so that English text never becomes unknown), what
    occurs at least twice in `texts`, and then the ASCII pieces in the vocabulary's own order, which is roughly that
    of their frequency.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary: dict[str, int] = state["model"]["vocab"]
    characters = [prefix + chr(code) for code in range(33, 127) for prefix in ("", "##")]
    counts = Counter(index for ids in tokenizer(list(texts), verbose=False)["input_ids"] for index in ids)
    pieces = sorted(vocabulary, key=vocabulary.get)
    useful = sorted((piece for piece in pieces if counts[vocabulary[piece]] > 1), key=lambda p: -counts[vocabulary[p]])
    ranked = dict.fromkeys([
        *tokenizer.all_special_tokens,
        *(character for character in characters if character in vocabulary),
        *useful,
        *(piece for piece in pieces if piece.isascii() and not piece.startswith("[unused")),
    ])  # fmt: skip
    kept = sorted(list(ranked)[:size], key=vocabulary.get)
    number = {piece: index for index, piece in enumerate(kept)}

    state["model"]["vocab"] = number
    state["truncation"] = state["padding"] = None
    for token in state["added_tokens"]:
        token["id"] = number[token["content"]]
    for special in state["post_processor"]["special_tokens"].values():
        special["ids"] = [number[token] for token in special["tokens"]]
    smaller = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        model_max_length=encoder.config.max_position_embeddings,
        **{name: str(token) for name, token in tokenizer.special_tokens_map.items()},
    )

    encoder = copy.deepcopy(encoder)
    rows = torch.tensor([vocabulary[piece] for piece in kept])
    embeddings = nn.Embedding.from_pretrained(
        encoder.get_input_embeddings().weight[rows].clone(), freeze=False, padding_idx=number[tokenizer.pad_token]
    )
    encoder.set_input_embeddings(embeddings)
    encoder.config.vocab_size = len(kept)
    encoder.config.pad_token_id = number[tokenizer.pad_token]
    return encoder, smaller
