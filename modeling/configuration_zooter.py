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
"""Configuration of a Zooter router and of the experts it routes between."""

import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.activations import ACT2FN


ROUTING_TASK = "zooter-routing"
POOLINGS = ("cls", "mean")
HEADS = ("linear", "mlp", "cosine")
CHAT_CONTEXTS = ("last_user", "user", "all")
BACKENDS = ("transformers", "adapter", "endpoint")

# The classes in the code that travels with every checkpoint which transformers looks up by name.
_AUTO_MAP = {
    "AutoConfig": "configuration_zooter.ZooterConfig",
    "AutoModel": "modeling_zooter.ZooterForRouting",
    "AutoModelForSequenceClassification": "modeling_zooter.ZooterForRouting",
}
_CUSTOM_PIPELINES = {
    ROUTING_TASK: {"impl": "pipeline_zooter.ZooterRoutingPipeline", "pt": ["AutoModel"], "type": "text"}
}
# The package that transformers puts code under which it fetched with a checkpoint.
_REMOTE_CODE_PACKAGE = "transformers_modules"
_SECRET_WORDS = ("api_key", "apikey", "token", "secret", "password", "authorization")
_NOT_SECRET_WORDS = ("tokens", "tokenizer")


@dataclass(frozen=True)
class ExpertSpec:
    """One expert (candidate LLM) that a router can choose.

    Args:
        name (`str`):
            The label of the expert in every output. Unique within a router.
        model (`str`, *optional*):
            What stands behind it: a Hub model id, or the model name that an endpoint knows.
        backend (`str`, *optional*):
            How it is run: `"transformers"`, `"adapter"` or `"endpoint"`. `None` if the router is used for its
            decisions alone.
        base_url (`str`, *optional*):
            Address of the OpenAI-compatible server, for the `"endpoint"` back end.
        input_price (`float`, *optional*):
            US dollars per million input tokens.
        output_price (`float`, *optional*):
            US dollars per million output tokens.
        context_length (`int`, *optional*):
            The most tokens, query and answer together, that the expert takes.
        options (`dict`, *optional*):
            What the back end needs to know besides: see [`zooter_hf.experts`]. JSON values only. Keys are named by
            the environment variable that holds them (`api_key_env`).
        metadata (`dict`, *optional*):
            Anything else worth keeping (size, licence, release date). JSON values only.

    Raises:
        ValueError: If a field has a value that cannot be right, or `options`, `metadata` or `base_url` carries a
            secret: specs are published with the router, and keys belong into the environment.
    """

    name: str
    model: str | None = None
    backend: str | None = None
    base_url: str | None = None
    input_price: float | None = None
    output_price: float | None = None
    context_length: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name.strip() or self.name != self.name.strip():
            raise ValueError(
                f"An expert's `name` must be a non-empty string without surrounding spaces, got {self.name!r}."
            )
        if self.backend is not None and self.backend not in BACKENDS:
            raise ValueError(f"Expert {self.name!r}: `backend` must be one of {BACKENDS}, got {self.backend!r}.")
        for name in ("input_price", "output_price"):
            price = getattr(self, name)
            if price is None:
                continue
            if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < math.inf:
                raise ValueError(
                    f"Expert {self.name!r}: `{name}` must be a finite number of US dollars per million tokens that is "
                    f"not negative, got {price!r}."
                )
        length = self.context_length
        if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length <= 0):
            raise ValueError(
                f"Expert {self.name!r}: `context_length` must be a positive number of tokens, got {length!r}."
            )
        for name in ("options", "metadata"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                raise ValueError(f"Expert {self.name!r}: `{name}` must be a dict, got {type(value).__name__}.")
            self._refuse_secrets(name, value)
        if self.base_url is not None and "@" in urlsplit(self.base_url).netloc:
            raise ValueError(
                f"Expert {self.name!r}: `base_url` carries a user name or password. Experts are published with the "
                "router: keep keys in environment variables."
            )

    def _refuse_secrets(self, name: str, values: Mapping[str, Any]):
        for key, value in values.items():
            lowered = str(key).lower().replace("-", "_")
            for word in _NOT_SECRET_WORDS:
                lowered = lowered.replace(word, "")
            # What ends in `_env` names an environment variable, and does not hold what is in it.
            if not lowered.endswith("_env") and any(word in lowered for word in _SECRET_WORDS):
                raise ValueError(
                    f"Expert {self.name!r}: `{name}` has the key {key!r}, which looks like a secret. Experts are "
                    "published with the router: keep keys in environment variables."
                )
            if isinstance(value, Mapping):
                self._refuse_secrets(name, value)

    @classmethod
    def from_value(cls, value: "ExpertSpec | Mapping[str, Any] | str") -> "ExpertSpec":
        """Makes a spec of what people write: a spec, a dict of its fields, or just a name.

        Raises:
            ValueError: If a dict has a field that no expert has, or lacks `name`.
            TypeError: If the value is none of the three.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(name=value)
        if not isinstance(value, Mapping):
            raise TypeError(f"An expert is a name, a dict or an ExpertSpec, got {type(value).__name__}: {value!r}.")
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(value) - set(known)):
            raise ValueError(f"Expert {value.get('name')!r} has unknown fields {unknown}. Known fields are {known}.")
        if "name" not in value:
            raise ValueError(f"An expert needs the field `name`, got {dict(value)!r}.")
        return cls(**value)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields that are set, as JSON values."""
        return {key: value for key, value in asdict(self).items() if value not in (None, {})}


@strict
class ZooterConfig(PreTrainedConfig):
    r"""Configuration of a [`ZooterForRouting`] router: an encoder, a head, and the experts it chooses between.

    Args:
        encoder_config (`dict` or `PreTrainedConfig`):
            Configuration of the encoder: any architecture that `AutoModel` knows and that returns hidden states of
            shape `(batch, tokens, hidden_size)`.
        experts (`list[ExpertSpec | dict | str]`):
            The experts, in the order of the router's outputs. `id2label` follows from them.
        base_encoder (`str`, *optional*):
            Hub id of the pretrained encoder that training started from, for the model card.
        pooling (`str`, defaults to `"mean"`):
            How token states become one query embedding: `"cls"` (the first token) or `"mean"` (over the tokens that
            are not padding).
        normalize (`bool`, defaults to `False`):
            Whether the query embedding is scaled to length 1.
        head (`str`, defaults to `"linear"`):
            `"linear"`, `"mlp"` (one hidden layer), or `"cosine"` (similarity to learned expert embeddings,
            divided by a learned temperature).
        head_hidden_size (`int`, *optional*):
            Width of the hidden layer of the `"mlp"` head. Defaults to the width of the encoder.
        head_activation (`str`, defaults to `"gelu"`):
            What the hidden layer of the `"mlp"` head ends in: a name in `transformers.activations.ACT2FN`.
        head_norm (`bool`, defaults to `False`):
            Whether a layer norm follows the activation of the `"mlp"` head.
        outputs_per_expert (`list[int]`, *optional*):
            How many outputs of the head stand for each expert: the logit of an expert is the `logsumexp` of its
            outputs, so that its probability is the sum of theirs. One each by default.
        head_dropout (`float`, defaults to 0.1):
            Dropout on the query embedding, and within the `"mlp"` head.
        cosine_temperature (`float`, defaults to 0.1):
            The value that the learned temperature of the `"cosine"` head starts from.
        max_query_tokens (`int`, *optional*):
            The most tokens of a query that are read, special tokens included. Defaults to 512 or to what the encoder
            can take, whichever is less.
        head_share (`float`, defaults to 0.5):
            A query that is too long keeps its head and its tail; this is the share of the head.
        chat_context (`str`, defaults to `"user"`):
            What the router reads of a chat besides its last user turn: `"last_user"` (nothing), `"user"` (the other
            user turns) or `"all"` (every turn, those of other roles with the role's name before them). The last user
            turn comes first in the encoder's input, then the others from the newest to the oldest, as far as
            `max_query_tokens` reaches.
        predict_rewards (`bool`, defaults to `False`):
            Whether a second head predicts the reward of every expert's answer, in the units of the training rewards.
        temperature (`float`, defaults to 1.0):
            Calibration temperature. Probabilities are `softmax(logits / temperature)`; the logits and the training
            loss do not know of it.
        calibration_scale (`list[float]`, *optional*):
            For calibration by vectors: each expert's logit is multiplied by its scale, before the temperature.
        calibration_bias (`list[float]`, *optional*):
            What is added to each expert's scaled logit.
        removed_experts (`list[str]`, *optional*):
            Names of experts that are no longer there: their probability is 0, and they are in no ranking.
        policy (`dict`, *optional*):
            How decisions are made by default, as JSON values: `{"name": ..., option: ...}`, see
            [`zooter_hf.routing.RoutingPolicy`]. The rankings of the pipeline do not depend on it.
        centroids (`list[dict]`, *optional*):
            What the training queries around each stored centroid are, as `{"tags": [...], "queries": number}`; the
            centroids themselves are a buffer of the model.
        training (`dict`, *optional*):
            Where the router comes from, as JSON values, for its model card. Known keys: `method`, `beta`, `tau`,
            `datasets` (list of `{"name", "url", "license", "queries"}`), `language`, `license`, `hyperparameters`
            (dict), `limitations` (list of sentences) and `evaluation` (see [`zooter_hf.hub.card`]). Other keys are
            kept as they are.

    Raises:
        ValueError: If experts repeat a name, `id2label` contradicts them, or a value is out of its range.

    Example:
    ```python
    >>> from transformers import BertConfig
    >>> from zooter_hf import ZooterConfig

    >>> config = ZooterConfig(encoder_config=BertConfig(), experts=["qwen2.5-7b", "gemma-2-9b"], head="mlp")
    >>> config.id2label
    {0: 'qwen2.5-7b', 1: 'gemma-2-9b'}

    ```
    """

    model_type = "zooter"
    sub_configs = {"encoder_config": AutoConfig}
    keys_to_ignore_at_inference = ["query_embedding", "predicted_rewards", "hidden_states", "attentions"]

    encoder_config: dict | PreTrainedConfig | None = None
    experts: list | tuple | None = None
    base_encoder: str | None = None
    pooling: str = "mean"
    normalize: bool = False
    head: str = "linear"
    head_hidden_size: int | None = None
    head_activation: str = "gelu"
    head_norm: bool = False
    outputs_per_expert: list | tuple | None = None
    head_dropout: float | int = 0.1
    cosine_temperature: float | int = 0.1
    max_query_tokens: int | None = None
    head_share: float | int = 0.5
    chat_context: str = "user"
    predict_rewards: bool = False
    temperature: float | int = 1.0
    calibration_scale: list | tuple | None = None
    calibration_bias: list | tuple | None = None
    removed_experts: list | tuple | None = None
    policy: dict | None = None
    centroids: list | tuple | None = None
    training: dict | None = None

    def __post_init__(self, **kwargs):
        if isinstance(self.encoder_config, dict):
            self.encoder_config = _encoder_config_from_dict(self.encoder_config)
        elif self.encoder_config is not None:
            # The base class would reset what a loaded encoder has chosen.
            kwargs.setdefault("attn_implementation", self.encoder_config._attn_implementation)
        if self.experts is None:
            self.experts = list(self.id2label.values()) if self.id2label else []
        self.experts = [ExpertSpec.from_value(expert) for expert in self.experts]
        if self.max_query_tokens is None:
            self.max_query_tokens = min(512, self.max_encoder_tokens or 512)

        if self.experts and kwargs.get("num_labels") not in (None, len(self.experts)):
            raise ValueError(
                f"`num_labels` is {kwargs['num_labels']}, but there are {len(self.experts)} experts. Leave it out: it "
                "follows from `experts`."
            )
        if not self.id2label and self.experts:
            self.id2label = dict(enumerate(self.expert_names))
        if self.experts:
            self.label2id = {name: index for index, name in enumerate(self.expert_names)}

        # Both are written anew by `to_dict`, and read only where this very class came with the checkpoint: a config
        # that names custom pipelines makes `pipeline()` insist on `trust_remote_code` even where the installed
        # package has registered the task.
        if not type(self).__module__.startswith(_REMOTE_CODE_PACKAGE):
            kwargs.pop("auto_map", None)
            kwargs.pop("custom_pipelines", None)

        super().__post_init__(**kwargs)
        self._check()

    @property
    def expert_names(self) -> list[str]:
        """Names of the experts, in the order of the router's outputs."""
        return [expert.name for expert in self.experts]

    @property
    def kept_experts(self) -> list[int]:
        """Indices of the experts that have not been removed."""
        removed = set(self.removed_experts or ())
        return [index for index, name in enumerate(self.expert_names) if name not in removed]

    @property
    def head_outputs(self) -> int:
        """Number of outputs of the head: one an expert, if `outputs_per_expert` says nothing else."""
        return sum(self.outputs_per_expert or [1] * len(self.experts))

    @property
    def hidden_size(self) -> int | None:
        """Width of the query embedding."""
        return getattr(self.encoder_config, "hidden_size", None)

    @property
    def max_encoder_tokens(self) -> int | None:
        """The most tokens the encoder can take, special tokens included; `None` if its config sets no limit."""
        positions = getattr(self.encoder_config, "max_position_embeddings", None)
        if not isinstance(positions, int) or positions <= 0:
            return None
        # The RoBERTa family counts positions from behind the padding index: 514 positions are 512 tokens.
        if "roberta" in self.encoder_config.model_type or self.encoder_config.model_type == "camembert":
            positions -= (self.encoder_config.pad_token_id or 0) + 1
        return positions

    def _check(self):
        counts = Counter(self.expert_names)
        if repeated := sorted(name for name, count in counts.items() if count > 1):
            raise ValueError(f"Expert names must be unique, but these are given more than once: {repeated}.")
        if self.experts and list(self.id2label.values()) != self.expert_names:
            raise ValueError(
                f"`id2label` names {len(self.id2label)} experts, {list(self.id2label.values())}, but `experts` names "
                f"{len(self.experts)}, {self.expert_names}. Leave `id2label` and `num_labels` out: they follow from "
                "`experts`."
            )
        if self.encoder_config is not None and getattr(self.encoder_config, "is_encoder_decoder", False):
            raise ValueError(
                f"`encoder_config` is of type {self.encoder_config.model_type!r}, an encoder-decoder. A router needs "
                "an encoder (BERT, DeBERTa, ModernBERT, XLM-RoBERTa, ...)."
            )
        for name, allowed in (
            ("pooling", POOLINGS),
            ("head", HEADS),
            ("head_activation", tuple(ACT2FN)),
            ("chat_context", CHAT_CONTEXTS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}.")
        if self.head_hidden_size is not None and self.head_hidden_size <= 0:
            raise ValueError(f"`head_hidden_size` must be positive, got {self.head_hidden_size}.")
        outputs = self.outputs_per_expert
        if outputs is not None and (
            len(outputs) != len(self.experts)
            or any(isinstance(count, bool) or not isinstance(count, int) or count < 1 for count in outputs)
        ):
            raise ValueError(
                f"`outputs_per_expert` must be a positive number for each of the {len(self.experts)} experts, got "
                f"{outputs}."
            )
        if not 0 <= self.head_dropout < 1:
            raise ValueError(f"`head_dropout` must be at least 0 and less than 1, got {self.head_dropout}.")
        if not 0 <= self.head_share <= 1:
            raise ValueError(f"`head_share` must lie between 0 and 1, got {self.head_share}.")
        for name in ("temperature", "cosine_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be a positive finite number, got {getattr(self, name)}.")
        for name in ("calibration_scale", "calibration_bias"):
            vector = getattr(self, name)
            if vector is not None and (
                len(vector) != len(self.experts) or not all(math.isfinite(value) for value in vector)
            ):
                raise ValueError(f"`{name}` must be a finite number for each of the {len(self.experts)} experts.")
        removed = list(self.removed_experts or ())
        if unknown := [name for name in removed if name not in self.expert_names]:
            raise ValueError(f"`removed_experts` names {unknown}, which are not among {self.expert_names}.")
        if self.experts and set(removed) == set(self.expert_names):
            raise ValueError("`removed_experts` names all experts. A router needs at least one.")
        if self.max_query_tokens < 8:
            raise ValueError(f"`max_query_tokens` must be at least 8, got {self.max_query_tokens}.")
        if self.max_encoder_tokens is not None and self.max_query_tokens > self.max_encoder_tokens:
            raise ValueError(
                f"`max_query_tokens` is {self.max_query_tokens}, but the encoder ({self.encoder_config.model_type}) "
                f"takes at most {self.max_encoder_tokens} tokens."
            )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        """Makes a config of its serialised form; fields given in `kwargs` go before and are checked like any other.

        Raises:
            ValueError: If it is the config of a model of another kind.
        """
        if (model_type := config_dict.get("model_type", cls.model_type)) != cls.model_type:
            raise ValueError(
                f"This is the config of a model of type {model_type!r}, not of a Zooter router. To start a router on "
                "an encoder, use `ZooterForRouting.from_encoder(encoder, experts=[...])`."
            )
        given = {f.name: kwargs.pop(f.name) for f in fields(cls) if f.name in kwargs and f.name in cls.__annotations__}
        if "experts" in given:  # the labels follow from them
            config_dict = {key: value for key, value in config_dict.items() if key not in ("id2label", "label2id")}
        # The base class alone knows how to update a nested config.
        if isinstance(given.get("encoder_config"), dict):
            kwargs["encoder_config"] = given.pop("encoder_config")
        return super().from_dict({**config_dict, **given}, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Serialises the config, with the references to the code that travels with the checkpoint."""
        output = super().to_dict()
        output["experts"] = [expert.to_dict() for expert in self.experts]
        output["auto_map"] = dict(_AUTO_MAP)
        output["custom_pipelines"] = {task: dict(entry) for task, entry in _CUSTOM_PIPELINES.items()}
        if isinstance(output["encoder_config"], dict):
            # Where the encoder lay on the machine that trained the router is nobody else's business, and the labels
            # of a bare encoder are the library's placeholders.
            for key in ("_name_or_path", "id2label", "label2id"):
                output["encoder_config"].pop(key, None)
        return output

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs):
        """Writes `config.json`, and beside it the code files that its `auto_map` refers to.

        Args:
            save_directory (`str` or `os.PathLike`): Folder to write to; made if it is not there.
            push_to_hub (`bool`): Whether to upload afterwards; see [`~PreTrainedConfig.save_pretrained`].
            kwargs: Passed on to [`~PreTrainedConfig.save_pretrained`].
        """
        self._check()
        if not os.path.isfile(save_directory):  # the library's own error for that comes from below
            os.makedirs(save_directory, exist_ok=True)
            copy_code_files(save_directory)
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)


def copy_code_files(save_directory: str | os.PathLike):
    """Copies the code that travels with every checkpoint into a folder."""
    # Not at the top: they import this module. It is these lines that make transformers fetch all four files whichever
    # of them it loads from a checkpoint.
    from .modeling_zooter import ZooterForRouting
    from .pipeline_zooter import ZooterRoutingPipeline
    from .runtime_zooter import OnnxRouter

    for travelling in (ZooterConfig, ZooterForRouting, ZooterRoutingPipeline, OnnxRouter):
        source = Path(sys.modules[travelling.__module__].__file__)
        target = Path(save_directory, source.name)
        if source.resolve() != target.resolve():
            shutil.copyfile(source, target)


def _encoder_config_from_dict(values: dict[str, Any]) -> PreTrainedConfig:
    model_type = values.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"`encoder_config` has the model type {model_type!r}, which transformers does not know. It must be the "
            "config of an encoder, with its `model_type`."
        )
    return CONFIG_MAPPING[model_type](**{key: value for key, value in values.items() if key != "model_type"})


__all__ = ["ExpertSpec", "ZooterConfig"]
