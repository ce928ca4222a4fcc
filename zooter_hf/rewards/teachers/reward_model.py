"""Reward models: sequence classifiers with one output, run over a conversation."""

import inspect
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedConfig

from zooter_hf.experts import Query, to_messages
from zooter_hf.rewards.rendering import render_plain
from zooter_hf.rewards.skips import count_skip
from zooter_hf.rewards.teachers.base import Scorable, Teacher


class RewardModel(Teacher):
    """Scores an answer with a sequence classifier of one output, the common form of public reward models.

    The query and the answer, as the last message, are rendered with the tokenizer's chat template. A tokenizer without
    one gets them as a pair of texts, `tokenizer(query, answer)`, where a chat of several messages is written out with
    one paragraph a message, `role: text`.

    Nothing is cut in silence: an answer that cannot be scored gets `None` and is counted in `skipped` under
    `"too long"`, `"not rendered"` (the template refuses the roles) or `"not finite"`.

    Args:
        model: Folder or Hub id, with safetensors weights.
        revision: Branch, tag or commit on the Hub. Give a commit for scores that can be repeated.
        batch_size: Answers in one forward pass.
        dtype: Of the weights: `"auto"` for that of the checkpoint, or a name such as `"bfloat16"`.
        device_map: Where to put the model; see [`~PreTrainedModel.from_pretrained`]. By default the accelerator of
            this process, if there is one.
        max_length: The most tokens of a conversation; by default what the model takes.
        truncation: `"left"` to cut the beginning of a conversation that is too long. An answer that does not fit by
            itself is still not scored.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        ValueError: If `batch_size`, `max_length` or `truncation` is out of its range.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        batch_size: int = 8,
        dtype: str | torch.dtype = "auto",
        device_map: str | dict[str, Any] | None = None,
        max_length: int | None = None,
        truncation: Literal["left"] | None = None,
        trust_remote_code: bool = False,
    ):
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be positive, got {batch_size}.")
        if max_length is not None and max_length < 8:
            raise ValueError(f"`max_length` must be at least 8 tokens, got {max_length}.")
        if truncation not in (None, "left"):
            raise ValueError(f"`truncation` must be 'left' or None, got {truncation!r}.")
        self.model = str(model)
        self.revision = revision
        self.batch_size = batch_size
        self.dtype = str(dtype).removeprefix("torch.")
        self.device_map = device_map
        self.max_length = max_length
        self.truncation = truncation
        self.trust_remote_code = trust_remote_code
        self.skipped: Counter[str] = Counter()
        self._model = None
        self._tokenizer = None

    @property
    def settings(self) -> dict[str, Any]:
        """The model and its revision, its precision, and what is done with long conversations."""
        return {
            "type": "RewardModel",
            "model": self.model,
            "revision": self.revision,
            "dtype": self.dtype,
            "max_length": self.max_length,
            "truncation": self.truncation,
        }

    def load(self):
        """Loads the model and its tokenizer.

        Raises:
            OSError: If the model is not there or has no safetensors weights.
            ValueError: If it has more than one output, no trained head, or takes fewer tokens than `max_length`.
        """
        if self._model is not None:
            return
        shared = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        config = AutoConfig.from_pretrained(self.model, **shared)
        if config.num_labels != 1:
            raise ValueError(
                f"{self.model} has num_labels = {config.num_labels}, but a reward model has one output. Choose a "
                "checkpoint with num_labels = 1, or wrap this one with `CallableTeacher`."
            )
        tokenizer = AutoTokenizer.from_pretrained(self.model, **shared)
        self._limit = self._find_limit(config, tokenizer)
        has_device = torch.accelerator.is_available()
        model, info = AutoModelForSequenceClassification.from_pretrained(
            self.model,
            config=config,
            dtype=self.dtype,
            device_map=self.device_map or (torch.accelerator.current_accelerator().type if has_device else None),
            use_safetensors=True,
            output_loading_info=True,
            **shared,
        )
        if info["missing_keys"]:  # the library would start them at random, and the scores with them
            raise ValueError(
                f"{self.model} lacks the weights {sorted(info['missing_keys'])} of {type(model).__name__}: it was not "
                "saved as a reward model. Choose a checkpoint that was trained to score."
            )
        tokenizer.truncation_side = "left"
        padding = config.get_text_config().pad_token_id
        self._padding = padding if padding is not None and padding >= 0 else None  # -1 stands for none, too
        self._tokenizer = tokenizer
        self._inputs = set(inspect.signature(model.forward).parameters)
        self._model = model.eval()

    def close(self):
        """Frees the model."""
        self._model = self._tokenizer = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def score(self, items: Sequence[Scorable]) -> list[list[float | None]]:
        """Scores answers, batched by length; see [`Teacher.score`].

        Raises:
            OSError: If the model is not there; see `load`.
            ValueError: If it is no reward model; see `load`.
        """
        self.load()
        scores: list[list[float | None]] = [[None] * len(item.answers) for item in items]
        encoded = [
            (encoding, row, column)
            for row, item in enumerate(items)
            for column, answer in enumerate(item.answers)
            if (encoding := self._encode(item.query, answer)) is not None
        ]
        # The longest first: if memory does not suffice, that shows at once.
        encoded.sort(key=lambda entry: -len(entry[0]["input_ids"]))
        for start in range(0, len(encoded), self.batch_size):
            batch = encoded[start : start + self.batch_size]
            rewards = self._forward([encoding for encoding, _, _ in batch])
            for reward, (_, row, column) in zip(rewards, batch, strict=True):
                if math.isfinite(reward):
                    scores[row][column] = reward
                else:
                    self._skip("not finite", f"The score is {reward}; try dtype='float32'.")
        return scores

    def _find_limit(self, config: PreTrainedConfig, tokenizer) -> float:
        """Returns the most tokens of a conversation."""
        positions = getattr(config.get_text_config(), "max_position_embeddings", None)
        positions = positions if isinstance(positions, int) and positions > 0 else math.inf
        # The RoBERTa family counts positions from behind the padding index: 514 positions are 512 tokens.
        if "roberta" in config.model_type or config.model_type == "camembert":
            positions -= (config.pad_token_id or 0) + 1
        if self.max_length is not None:
            if self.max_length > positions:
                raise ValueError(
                    f"`max_length` is {self.max_length}, but {self.model} takes at most {positions} tokens."
                )
            return self.max_length
        return min(positions, tokenizer.model_max_length)

    def _encode(self, query: Query, answer: str) -> dict[str, list[int]] | None:
        """Tokenises a conversation; `None` if that is not possible."""
        if self._tokenizer.chat_template is None:
            text = None
            encoding = self._tokenizer(render_plain(query), answer, verbose=False)
        else:
            text = self._render(query, answer)
            if text is None:
                return None
            # The template writes special tokens itself; a second beginning of the text would change the score.
            encoding = self._tokenizer(text, add_special_tokens=False, verbose=False)
        encoding = {name: list(ids) for name, ids in encoding.items() if name in self._inputs}
        length = len(encoding["input_ids"])
        if length <= self._limit:
            return encoding
        if self.truncation is None:
            self._skip_long(length, "Pass truncation='left' to have the beginning cut.")
            return None
        cut = self._cut_query(encoding, query, answer) if text is None else self._cut_text(encoding, text, answer)
        if cut is None:
            self._skip_long(length, "The answer alone does not fit.")
        return cut

    def _render(self, query: Query, answer: str) -> str | None:
        from jinja2.exceptions import TemplateError  # comes with chat templates

        messages = [*to_messages(query), {"role": "assistant", "content": answer}]
        try:
            return self._tokenizer.apply_chat_template(messages, tokenize=False)
        except TemplateError as error:
            roles = [message["role"] for message in messages]
            self._skip("not rendered", f"The chat template refuses the roles {roles}: {error}.")
            return None

    def _cut_query(self, encoding: dict[str, list[int]], query: Query, answer: str) -> dict[str, list[int]] | None:
        """Cuts the query of a pair from the left; `None` if nothing of it would be left."""
        text = render_plain(query)
        if len(encoding["input_ids"]) - self._limit >= self._count(text):
            return None
        cut = self._tokenizer(text, answer, truncation="only_first", max_length=self._limit)
        return {name: cut[name] for name in encoding}

    def _cut_text(self, encoding: dict[str, list[int]], text: str, answer: str) -> dict[str, list[int]] | None:
        """Cuts a rendered conversation from the left, but never into its answer.

        A token that begins every text is kept.
        """
        first = int(encoding["input_ids"][0] == self._tokenizer.bos_token_id)
        place = text.rfind(answer.strip())  # templates may strip it
        if place < 0 or first + self._count(text[place:]) > self._limit:
            return None
        overflow = len(encoding["input_ids"]) - self._limit
        return {name: values[:first] + values[first + overflow :] for name, values in encoding.items()}

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _skip_long(self, length: int, remedy: str):
        self._skip("too long", f"{length} tokens, of at most {self._limit}. {remedy}")

    @torch.inference_mode()
    def _forward(self, encodings: list[dict[str, list[int]]]) -> list[float]:
        """Scores one batch."""
        # On the right, where causal attention never sees it, whatever the architecture makes of positions.
        padding = {"input_ids": self._set_padding(encodings)}
        longest = max(len(encoding["input_ids"]) for encoding in encodings)
        inputs = {
            name: torch.tensor(
                [each[name] + [padding.get(name, 0)] * (longest - len(each[name])) for each in encodings],
                device=self._model.device,
            )
            for name in encodings[0]
        }
        logits = self._model(**inputs).logits
        if logits.shape != (len(encodings), 1):
            raise ValueError(
                f"{self.model} must give one number an answer, logits of the shape {(len(encodings), 1)}, but gives "
                f"{tuple(logits.shape)}."
            )
        return logits[:, 0].float().tolist()

    def _set_padding(self, encodings: list[dict[str, list[int]]]) -> int:
        """Returns the padding token of a batch, and sets it in the config of a model that has none.

        Causal reward models read their score at the last token that is not the padding token. Where the checkpoint
        names one, that is how it was trained. Where it names none, the score belongs to the very last token, and a
        padding token that ends a conversation too, as the end of text does, would move it to another.
        """
        if self._padding is not None:
            return self._padding
        config = self._model.config.get_text_config()
        used = {token for encoding in encodings for token in encoding["input_ids"]}
        last = {encoding["input_ids"][-1] for encoding in encodings}
        config.pad_token_id = next(
            token for taken in (used, last) for token in range(config.vocab_size) if token not in taken
        )
        return config.pad_token_id

    def _skip(self, reason: str, remedy: str):
        count_skip(self.skipped, f"Reward model {self.model}", reason, remedy)
