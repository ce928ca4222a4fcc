# Copyright 2026 The zooter-hf authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The `zooter-routing` pipeline: queries in, ranked experts out."""

import math
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import torch
from transformers import Pipeline
from transformers.utils import logging
from transformers.utils.chat_template_utils import Chat

from .configuration_zooter import ROUTING_TASK, ZooterConfig


logger = logging.get_logger(__name__)

DEFAULT_BATCH_SIZE = 32
# Queries that are tokenised and sorted by length together: bounds the memory that a long list takes.
_WINDOW = 16_384
# The same for a stream, in batches: bounds how far it is read ahead of what has been answered. With a batch size of 1
# every query of a stream is answered before the next is read.
_STREAM_WINDOW_BATCHES = 16
_NOT_GIVEN = object()
# A remainder of the token budget that is smaller than this is not worth a fragment of an earlier turn.
_MIN_FRAGMENT_TOKENS = 8
_QUERY_KEYS = ("query", "messages", "text")


class ZooterRoutingPipeline(Pipeline):
    """Routes queries with a [`ZooterForRouting`] model. Task identifier: `"zooter-routing"`.

    A query is a string, a chat (a list of messages with `role` and `content`, where a content is a string or a list of
    parts whose text is read), or a mapping with one of them under `"query"`, `"messages"` or `"text"`. Give one, a
    list, a generator or a dataset; a list comes back as a list, a stream as an iterator, in the order of the queries.

    A query longer than the config's `max_query_tokens` keeps its head and its tail. Of a chat the last user turn comes
    first and the earlier turns, from the newest to the oldest and as the config's `chat_context` says, fill what is
    left. The first cut is logged, and `return_truncation=True` shows it for every query.

    Args:
        top_k (`int`, *optional*): How many experts to return, best first. All by default.
        return_truncation (`bool`, defaults to `False`): Whether to tell how many tokens each query has and how many
            of them were read.
        max_query_tokens (`int`, *optional*): Overrides the config's value, within what the encoder can take.
        batch_size (`int`, defaults to 32): Queries in one forward pass. Batches are formed by length, so that little
            is padded; a stream is read some batches ahead for it, unless this is 1.
        cache_size (`int`, defaults to 0): How many queries are remembered, those asked for most recently, so that one
            that comes again needs no forward pass. Given to `pipeline`, not to a call. Known by the tokens that are
            read, no text is kept; forget them with `clear_cache` when the weights change.

    Returns:
        For one query a list of `{"label": expert, "score": probability}`, best first, with probabilities after the
        calibration; a router that predicts rewards adds `"reward"`. With `return_truncation=True` a dict with that
        list under `"ranking"`, and `"query_tokens"`, `"read_tokens"` and `"truncated"`; with a router that has
        centroids of its training queries also `"distance"`, that to the nearest, and `"near"`, its tags.

    Raises:
        ValueError: If a query is empty or a chat has no user turn with text. Names the query's place in its batch, and
            for a list comes before the first forward pass.
        TypeError: If a query is no text and no chat.

    Example:
    ```python
    >>> import zooter_hf
    >>> from transformers import pipeline

    >>> route = pipeline("zooter-routing", model=zooter_hf.DEFAULT_ROUTER)
    >>> [expert["label"] for expert in route("If $a + b = 7$ and $ab = 10$, what is $a^3 + b^3$?", top_k=1)]
    ['llama-3.3-nemotron-super-49b-v1']

    ```
    """

    _load_tokenizer = None  # not demanded of `pipeline(model=router)`: a loaded router knows its own
    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __init__(self, model, tokenizer=None, cache_size=0, **kwargs):
        if isinstance(cache_size, bool) or not isinstance(cache_size, int) or cache_size < 0:
            raise ValueError(f"`cache_size` must be a whole number of at least 0, got {cache_size!r}.")
        if getattr(model.config, "model_type", None) != ZooterConfig.model_type:
            raise TypeError(
                f"The {ROUTING_TASK} pipeline needs a Zooter router, got {type(model).__name__} of type "
                f"{getattr(model.config, 'model_type', None)!r}."
            )
        if tokenizer is None:
            tokenizer = model.tokenizer
        elif getattr(model, "_tokenizer", None) is None:
            model.tokenizer = tokenizer  # so that the model alone can be saved too
        if tokenizer is None:
            raise ValueError("The router has no tokenizer: pass `tokenizer`, or save one into the router's folder.")
        vocabulary = getattr(model.config.encoder_config, "vocab_size", None)
        if vocabulary is not None and len(tokenizer) > vocabulary:
            raise ValueError(
                f"The tokenizer has {len(tokenizer)} tokens, but the router's encoder knows {vocabulary}: this is not "
                "the tokenizer that the router was trained with."
            )
        super().__init__(model=model, tokenizer=tokenizer, **kwargs)
        if self._batch_size is None:
            self._batch_size = DEFAULT_BATCH_SIZE
        self._leading, self._trailing = self._count_special_tokens()
        self._cache_size = cache_size
        self._cache: OrderedDict[Any, dict[str, torch.Tensor]] = OrderedDict()

    def _count_special_tokens(self) -> tuple[int, int]:
        """Counts the special tokens that the tokenizer puts before and behind a text."""
        mask = self.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        leading = mask.index(0) if 0 in mask else len(mask)
        trailing = mask[::-1].index(0) if 0 in mask else 0
        return leading, trailing

    def _sanitize_parameters(self, top_k=_NOT_GIVEN, return_truncation=None, max_query_tokens=None, **unknown):
        if "runtime" in unknown:
            raise TypeError('Give `model_kwargs={"runtime": ...}`: it is the model that is loaded differently.')
        if unknown:
            raise TypeError(
                f"The {ROUTING_TASK} pipeline does not know {sorted(unknown)}. It takes `top_k`, `return_truncation`, "
                "`max_query_tokens` and `batch_size`."
            )
        preprocess_params, postprocess_params = {}, {}
        if top_k is not _NOT_GIVEN:
            if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
                raise ValueError(f"`top_k` must be a positive integer or None for all experts, got {top_k!r}.")
            postprocess_params["top_k"] = top_k
        if return_truncation is not None:
            postprocess_params["return_truncation"] = bool(return_truncation)
        if max_query_tokens is not None:
            limit = self.model.config.max_encoder_tokens or math.inf
            if isinstance(max_query_tokens, bool) or not isinstance(max_query_tokens, int):
                raise ValueError(f"`max_query_tokens` must be an integer, got {max_query_tokens!r}.")
            if not _MIN_FRAGMENT_TOKENS <= max_query_tokens <= limit:
                raise ValueError(
                    f"`max_query_tokens` must lie between {_MIN_FRAGMENT_TOKENS} and {limit}, which is what the "
                    f"encoder can take, got {max_query_tokens}."
                )
            preprocess_params["max_query_tokens"] = max_query_tokens
        return preprocess_params, {}, postprocess_params

    def __call__(self, inputs, num_workers=None, batch_size=None, **kwargs):
        """Routes one query, a list of queries, or a stream of them. See the class for arguments and results."""
        call_params = self._sanitize_parameters(**kwargs)
        init_params = (self._preprocess_params, self._forward_params, self._postprocess_params)
        params = [{**init, **call} for init, call in zip(init_params, call_params, strict=True)]
        if is_one_query(inputs):
            if self._cache_size:
                return next(self.get_iterator([inputs], 0, 1, *params))
            return self.run_single(inputs, *params)
        batch_size = self._batch_size if batch_size is None else batch_size
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"`batch_size` must be a positive integer, got {batch_size!r}.")
        results = self.get_iterator(inputs, num_workers or 0, batch_size, *params)
        return list(results) if isinstance(inputs, list | tuple) else results

    def get_inference_context(self):
        """Returns the context of the forward pass: nothing of it is ever differentiated."""
        return torch.inference_mode

    def preprocess(self, input_: Any, **preprocess_params) -> dict[str, Any]:
        """Turns one query into a batch of one: `input_ids` and `attention_mask` of shape `(1, tokens)`, and counts."""
        turns = read_query(input_, self.model.config.chat_context)
        return self._collate(self._tokenize([turns], **preprocess_params))

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = self.model(input_ids=model_inputs["input_ids"], attention_mask=model_inputs["attention_mask"])
        results = {
            "probabilities": self.model.probabilities(outputs.logits),
            "query_embedding": outputs.query_embedding,
            "query_tokens": model_inputs["query_tokens"],
            "read_tokens": model_inputs["read_tokens"],
        }
        if outputs.predicted_rewards is not None:
            results["predicted_rewards"] = outputs.predicted_rewards.float()
        if self.model.config.centroids:
            results["distance"], results["centroid"] = self.model.nearest_centroids(outputs.query_embedding)
        return results

    def postprocess(self, model_outputs: dict[str, Any], **postprocess_params) -> list[dict] | dict[str, Any]:
        """Turns the outputs for a batch of one into that query's result."""
        return self._rank(model_outputs, **postprocess_params)[0]

    def get_iterator(
        self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params
    ) -> Iterator:
        """Routes many queries: windows of them are tokenised at once and batched by length.

        `num_workers` is not needed: the tokenizer is parallel by itself.
        """
        for batches in self._windows(inputs, batch_size, preprocess_params, forward_params):
            results: dict[int, Any] = {}
            for batch, outputs in batches:
                results.update(zip(batch, self._rank(outputs, **postprocess_params), strict=True))
            yield from (results[index] for index in sorted(results))

    def iterate_batches(self, queries, batch_size: int | None = None) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Runs the router over many queries, for those who want its tensors rather than rankings.

        Args:
            queries: As in a call of the pipeline.
            batch_size (`int`, *optional*): Queries in one forward pass; the pipeline's own by default.

        Yields:
            `tuple[list[int], dict]`: The places of a batch's queries, which come ordered by length, and of its outputs
            `"probabilities"` of shape `(batch, experts)`, calibrated, and `"query_embedding"` of shape
            `(batch, hidden_size)`, on the CPU; perhaps `"predicted_rewards"` of shape `(batch, experts)` and
            `"distance"` of shape `(batch,)`.
        """
        batch_size = self._batch_size if batch_size is None else batch_size
        for batches in self._windows(queries, batch_size, self._preprocess_params, self._forward_params):
            yield from batches

    def tokenize_queries(self, queries, max_query_tokens: int | None = None) -> list[list[int]]:
        """Returns the token ids that the router would read of every query; for training on just these.

        Raises:
            ValueError: If a query is empty. Names its place.
            TypeError: If a query is no text and no chat.
        """
        chat_context = self.model.config.chat_context
        turns = [_read_numbered(index, query, chat_context) for index, query in enumerate(queries)]
        return [ids for ids, _ in self._tokenize(turns, max_query_tokens)]

    def _windows(self, inputs, batch_size: int, preprocess_params, forward_params) -> Iterator[Iterator]:
        """Reads windows of queries; each is an iterator of the batches that its queries form by length."""
        chat_context = self.model.config.chat_context
        queries = (_read_numbered(index, query, chat_context) for index, query in enumerate(inputs))
        if isinstance(inputs, list | tuple):
            queries, window = iter(list(queries)), _WINDOW  # a bad query is found before the first forward pass
        else:
            window = batch_size * _STREAM_WINDOW_BATCHES if batch_size > 1 else 1
        read = 0
        while turns := list(islice(queries, window)):
            yield self._batches(self._tokenize(turns, **preprocess_params), read, batch_size, forward_params)
            read += len(turns)

    def _batches(self, encoded: list, offset: int, batch_size: int, forward_params) -> Iterator[tuple[list[int], Any]]:
        if self._cache_size:
            yield from self._cached_batches(encoded, offset, batch_size, forward_params)
            return
        order = sorted(range(len(encoded)), key=lambda index: len(encoded[index][0]))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            outputs = self.forward(self._collate([encoded[index] for index in batch]), **forward_params)
            yield [offset + index for index in batch], outputs

    def _cached_batches(self, encoded: list, offset: int, batch_size: int, forward_params) -> Iterator:
        """Does what `_batches` does, with one forward pass for queries that are the same, and none for known ones."""
        config = self.model.config
        # What probabilities depend on besides the tokens.
        state = (config.temperature, *(str(value) for value in (config.calibration_scale, config.calibration_bias)))
        state += (str(config.removed_experts), config.centroids is not None)
        places: dict[Any, list[int]] = {}
        for index, (ids, _) in enumerate(encoded):
            places.setdefault((state, tuple(ids)), []).append(index)
        known = [key for key in places if key in self._cache]
        unknown = sorted((key for key in places if key not in self._cache), key=lambda key: len(key[1]))
        for keys, are_known in ((known, True), (unknown, False)):
            for start in range(0, len(keys), batch_size):
                part = keys[start : start + batch_size]
                if not are_known:
                    outputs = self.forward(self._collate([(list(key[1]), 0) for key in part]), **forward_params)
                    for row, key in enumerate(part):
                        self._cache[key] = {
                            name: values[row].clone()
                            for name, values in outputs.items()
                            if isinstance(values, torch.Tensor)
                        }
                rows = [(index, self._cache[key]) for key in part for index in places[key]]
                outputs = {name: torch.stack([row[name] for _, row in rows]) for name in rows[0][1]}
                outputs["query_tokens"] = [encoded[index][1] for index, _ in rows]
                outputs["read_tokens"] = [len(encoded[index][0]) for index, _ in rows]
                yield [offset + index for index, _ in rows], outputs
                for key in part:
                    self._cache.move_to_end(key)
                while len(self._cache) > self._cache_size:
                    self._cache.popitem(last=False)

    def clear_cache(self):
        """Forgets all queries; to be called when the weights of the router have changed."""
        self._cache.clear()

    def _tokenize(self, queries: list[list[str]], max_query_tokens: int | None = None) -> list[tuple[list[int], int]]:
        """Tokenises queries, each given as its turns, the most important first.

        Returns:
            `list[tuple[list[int], int]]`: For each query the token ids that fit into `max_query_tokens`, and how many
            there were.
        """
        limit = max_query_tokens or self.model.config.max_query_tokens
        ids = self.tokenizer(
            list(chain.from_iterable(queries)),
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # the tokenizer would warn of lengths that are dealt with here
        )["input_ids"]
        turn_ids = iter(ids)
        encoded = [self._join(list(islice(turn_ids, len(turns))), limit) for turns in queries]
        if any(len(kept) < total for kept, total in encoded):
            logger.warning_once(
                f"Queries of more than {limit} tokens are not read whole: their head and tail are. Pass "
                "`return_truncation=True` to see this for every query."
            )
        return encoded

    def _join(self, turns: list[list[int]], limit: int) -> tuple[list[int], int]:
        """Joins tokenised turns into one sequence of at most `limit` tokens, and counts what there was."""
        first, *context = turns
        context = [turn[self._leading :] for turn in context]
        total = len(first) + sum(map(len, context))
        joined = self._cut(first, limit, leading=self._leading)
        for turn in context:
            room = limit - len(joined)
            if len(turn) > room:
                if room >= _MIN_FRAGMENT_TOKENS + self._trailing:
                    joined = joined + self._cut(turn, room, leading=0)
                break
            joined = joined + turn
        return joined, total

    def _cut(self, ids: list[int], limit: int, leading: int) -> list[int]:
        """Takes out the middle of a sequence that is too long; its special tokens stay."""
        if len(ids) <= limit:
            return ids
        room = limit - leading - self._trailing
        head = math.ceil(room * self.model.config.head_share)
        tail = room - head
        return ids[: leading + head] + ids[len(ids) - self._trailing - tail :]

    def _collate(self, encoded: list[tuple[list[int], int]]) -> dict[str, Any]:
        """Pads a batch to its longest, on the right whatever the tokenizer would do."""
        lengths = [len(ids) for ids, _ in encoded]
        longest = max(lengths)
        padding = self.tokenizer.pad_token_id or 0
        input_ids = torch.tensor([ids + [padding] * (longest - len(ids)) for ids, _ in encoded])
        attention_mask = (torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)).long()
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "query_tokens": [total for _, total in encoded],
            "read_tokens": lengths,
        }

    def _rank(self, outputs: dict[str, Any], top_k: int | None = None, return_truncation: bool = False) -> list:
        """Turns probabilities of shape `(batch, experts)` into one result per query."""
        config = self.model.config
        kept = config.kept_experts
        scores, order = torch.sort(outputs["probabilities"][:, kept], dim=-1, descending=True, stable=True)
        names = [config.expert_names[index] for index in kept]
        results = [
            [{"label": names[index], "score": score} for index, score in zip(row_order, row, strict=True)]
            for row_order, row in zip(order[:, :top_k].tolist(), scores[:, :top_k].tolist(), strict=True)
        ]
        if "predicted_rewards" in outputs:
            rewards = outputs["predicted_rewards"][:, kept].gather(1, order[:, :top_k]).tolist()
            for ranking, of_query in zip(results, rewards, strict=True):
                for entry, reward in zip(ranking, of_query, strict=True):
                    entry["reward"] = reward
        if not return_truncation:
            return results
        results = [
            {"ranking": ranking, "query_tokens": total, "read_tokens": read, "truncated": read < total}
            for ranking, total, read in zip(results, outputs["query_tokens"], outputs["read_tokens"], strict=True)
        ]
        if "distance" in outputs:
            for result, distance, index in zip(
                results, outputs["distance"].tolist(), outputs["centroid"].tolist(), strict=True
            ):
                result |= {"distance": distance, "near": config.centroids[index].get("tags", [])}
        return results

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """Saves the router with this pipeline's tokenizer. See [`~ZooterForRouting.save_pretrained`]."""
        self.model.tokenizer = self.tokenizer
        self.model.save_pretrained(save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs):
        """Uploads the router with this pipeline's tokenizer. See [`~ZooterForRouting.push_to_hub`]."""
        self.model.tokenizer = self.tokenizer
        return self.model.push_to_hub(repo_id, **kwargs)


def is_one_query(inputs: Any) -> bool:
    """Tells one query (or something that is none at all) from a list or stream of queries."""
    if isinstance(inputs, list | tuple):
        return bool(inputs) and isinstance(inputs[0], Mapping) and "role" in inputs[0]
    if isinstance(inputs, str | bytes | Mapping | Chat):
        return True
    return not isinstance(inputs, Iterable) and not hasattr(inputs, "__getitem__")


def read_query(query: Any, chat_context: str = "user") -> list[str]:
    """Reads the texts out of a query, the most important first.

    Args:
        query: A string, a chat, or a mapping that holds one under `"query"`, `"messages"` or `"text"`.
        chat_context (`str`): What to read of a chat besides its last user turn; see [`ZooterConfig`].

    Returns:
        `list[str]`: The string; or of a chat the last user turn and then the other turns, newest first.

    Raises:
        ValueError: If there is no text, or a chat has no user turn with text.
        TypeError: If the query is neither text nor chat.
    """
    query = unwrap_query(query)
    if isinstance(query, str):
        if not query.strip():
            raise ValueError("the query is empty. Pass text, or leave the query out.")
        return [_check_unicode(query)]
    if isinstance(query, Sequence) and not isinstance(query, bytes):
        return [_check_unicode(turn) for turn in _read_chat(query, chat_context)]
    raise TypeError(
        f"a query is a string or a chat (a list of messages with `role` and `content`), got {type(query).__name__}."
    )


def unwrap_query(query: Any) -> Any:
    """Takes a query out of a mapping, or its messages out of a `Chat`; returns others as they are.

    Raises:
        TypeError: If a mapping holds no query.
    """
    if isinstance(query, Mapping):
        if not (key := next((key for key in _QUERY_KEYS if key in query), None)):
            raise TypeError(
                f"a query given as a mapping needs one of the keys {_QUERY_KEYS}, got {list(query)}. A chat is a list "
                "of messages, even if it has only one."
            )
        query = query[key]
    return query.messages if isinstance(query, Chat) else query


def _read_chat(messages: Sequence[Any], chat_context: str) -> list[str]:
    for position, message in enumerate(messages):
        # An assistant's call of a tool needs no content.
        if not isinstance(message, Mapping) or "role" not in message or not {"content", "tool_calls"} & set(message):
            raise TypeError(
                f"message {position} of the chat must be a mapping with `role` and `content`, got {message!r:.80}."
            )
    texts = [_read_content(message.get("content")) for message in messages]
    users = [position for position, message in enumerate(messages) if message["role"] == "user"]
    if not users:
        raise ValueError(
            f"the chat has no user turn, only {[message['role'] for message in messages]}. A router reads what the "
            "user asks."
        )
    last = users[-1]
    if not texts[last].strip():
        raise ValueError("the last user turn of the chat has no text. A router reads text only.")
    turns = [texts[last]]
    for position in reversed(range(len(messages))):
        role, text = messages[position]["role"], texts[position]
        if position == last or not text.strip():
            continue
        if role == "user" and chat_context != "last_user":
            turns.append(text)
        elif chat_context == "all":
            turns.append(f"{role}: {text}")
    return turns


def _check_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the query is no valid Unicode text ({error.reason} at character {error.start}). Decode it with the "
            "right encoding, or replace what cannot be decoded."
        ) from error
    return text


def _read_content(content: Any) -> str:
    """Reads the text of a message's content; images, sounds and tool calls have none."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and not isinstance(content, bytes):
        parts = [part if isinstance(part, str) else part.get("text") for part in content if part]
        return "\n".join(part for part in parts if isinstance(part, str))
    raise TypeError(f"the content of a message is a string or a list of parts, got {type(content).__name__}.")


def _read_numbered(index: int, query: Any, chat_context: str) -> list[str]:
    try:
        return read_query(query, chat_context)
    except (TypeError, ValueError) as error:
        raise type(error)(f"Query {index} of the batch: {error}") from error


__all__ = ["ZooterRoutingPipeline", "is_one_query", "read_query", "unwrap_query"]
