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
"""The Zooter router: a pretrained encoder, pooling, and a head with one output per expert."""

import inspect
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import ModelOutput
from transformers.utils import cached_file, logging
from transformers.utils.generic import can_return_tuple

from .configuration_zooter import ExpertSpec, ZooterConfig


logger = logging.get_logger(__name__)

_UPLOAD_ARGUMENTS = (
    "repo_id", "commit_message", "commit_description", "private", "token", "revision", "create_pr", "tags",
)  # fmt: skip
DOWNLOAD_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


@dataclass
class RoutingOutput(ModelOutput):
    """Output of [`ZooterForRouting`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*, returned when `labels` is given):
            KL divergence (soft labels) or cross-entropy (class indices), mean over the queries that are not masked.
        logits (`torch.FloatTensor` of shape `(batch, experts)`):
            Scores before the softmax and before the calibration temperature.
        query_embedding (`torch.FloatTensor` of shape `(batch, hidden_size)`):
            The pooled states of the encoder, of length 1 if `normalize` is set, before dropout and head.
        predicted_rewards (`torch.FloatTensor` of shape `(batch, experts)`, *optional*, returned by a router with
            `predict_rewards`):
            What each expert's answer should be worth, in the units of the training rewards.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned when `output_hidden_states=True`):
            The encoder's hidden states, each of shape `(batch, tokens, hidden_size)`.
        attentions (`tuple(torch.FloatTensor)`, *optional*, returned when `output_attentions=True`):
            The encoder's attention weights, each of shape `(batch, heads, tokens, tokens)`.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    query_embedding: torch.FloatTensor | None = None
    predicted_rewards: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class ZooterHead(nn.Module):
    """A head of `outputs` rows, one for each of its outputs: `(batch, hidden_size)` to `(batch, outputs)`.

    What the rows read are the features of a query, so that a row can be fitted while all else stays as it is.
    """

    def forward(self, query_embedding: torch.Tensor) -> torch.Tensor:
        return self.score(self.features(query_embedding), self.rows)

    def features(self, query_embedding: torch.Tensor) -> torch.Tensor:
        """Turns query embeddings into what the rows read: `(batch, hidden_size)` to `(batch, features)`."""
        raise NotImplementedError

    @property
    def rows(self) -> torch.Tensor:
        """The rows, of shape `(outputs, row_size)`."""
        raise NotImplementedError

    def score(self, features: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Scores features by rows: `(batch, features)` and `(outputs, row_size)` to `(batch, outputs)`."""
        raise NotImplementedError

    def append_row(self, row: torch.Tensor):
        """Adds an output with its row, of shape `(row_size,)`; the others stay as they are."""
        raise NotImplementedError


class ZooterProjectionHead(ZooterHead):
    """A head whose rows are those of a linear layer, weights and bias."""

    out_proj: nn.Linear

    def forward(self, query_embedding: torch.Tensor) -> torch.Tensor:
        return self.out_proj(self.features(query_embedding))

    @property
    def rows(self) -> torch.Tensor:
        return torch.cat([self.out_proj.weight, self.out_proj.bias.unsqueeze(1)], dim=1)

    def score(self, features: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(features, rows[:, :-1], rows[:, -1])

    def append_row(self, row: torch.Tensor):
        _append(self.out_proj, "weight", row[:-1])
        _append(self.out_proj, "bias", row[-1])
        self.out_proj.out_features += 1

    @torch.no_grad()
    def rescale(self, scale: float, shift: float):
        """Changes the units of the outputs: they become `scale * output + shift`."""
        self.out_proj.weight.mul_(scale)
        self.out_proj.bias.mul_(scale).add_(shift)


class ZooterLinearHead(ZooterProjectionHead):
    """Dropout and one linear layer."""

    def __init__(self, config: ZooterConfig, outputs: int):
        super().__init__()
        self.dropout = nn.Dropout(config.head_dropout)
        self.out_proj = nn.Linear(config.hidden_size, outputs)

    def features(self, query_embedding: torch.Tensor) -> torch.Tensor:
        return self.dropout(query_embedding)


class ZooterMLPHead(ZooterProjectionHead):
    """One hidden layer, dropout before both layers."""

    def __init__(self, config: ZooterConfig, outputs: int):
        super().__init__()
        head_hidden_size = config.head_hidden_size or config.hidden_size
        self.dropout = nn.Dropout(config.head_dropout)
        self.dense = nn.Linear(config.hidden_size, head_hidden_size)
        self.activation = ACT2FN[config.head_activation]
        self.norm = nn.LayerNorm(head_hidden_size) if config.head_norm else nn.Identity()
        self.out_proj = nn.Linear(head_hidden_size, outputs)

    def features(self, query_embedding: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.norm(self.activation(self.dense(self.dropout(query_embedding)))))


class ZooterCosineHead(ZooterHead):
    """Cosine similarity to learned expert embeddings over a learned temperature, as in RouterDC (arXiv 2409.19886).

    Every output lies within `1 / temperature` of zero.
    """

    def __init__(self, config: ZooterConfig, outputs: int):
        super().__init__()
        self.dropout = nn.Dropout(config.head_dropout)
        self.expert_embeddings = nn.Parameter(torch.empty(outputs, config.hidden_size))
        self.log_temperature = nn.Parameter(torch.empty(()))  # the logarithm keeps the temperature positive

    def features(self, query_embedding: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.dropout(query_embedding), dim=-1)

    @property
    def rows(self) -> torch.Tensor:
        return self.expert_embeddings

    def score(self, features: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return features @ nn.functional.normalize(rows, dim=-1).T * torch.exp(-self.log_temperature)

    def append_row(self, row: torch.Tensor):
        _append(self, "expert_embeddings", row)


HEAD_CLASSES = {"linear": ZooterLinearHead, "mlp": ZooterMLPHead, "cosine": ZooterCosineHead}
# A cosine is no reward: it is bounded by the temperature.
REWARD_HEAD_CLASSES = {**HEAD_CLASSES, "cosine": ZooterMLPHead}


class ZooterPreTrainedModel(PreTrainedModel):
    """Saving, loading and sharing of routers."""

    config: ZooterConfig
    config_class = ZooterConfig
    base_model_prefix = "encoder"
    input_modalities = ("text",)
    supports_gradient_checkpointing = True
    # The encoder dispatches attention, and says no for itself where its architecture lacks an implementation.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    # What a package adds to every saved folder beyond weights, config, tokenizer and code (a model card), and what it
    # brings into the folder of an upload before that.
    _save_hooks: list[Callable[..., None]] = []
    _push_hooks: list[Callable[..., None]] = []

    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, ZooterCosineHead):
            init.normal_(module.expert_embeddings, std=0.02)
            init.constant_(module.log_temperature, math.log(self.config.cosine_temperature))

    @classmethod
    def register_save_hook(cls, hook: Callable[[PreTrainedModel, str, str | None], None]):
        """Has `hook(router, save_directory, repo_id)` called at the end of every `save_pretrained`."""
        if hook not in cls._save_hooks:
            cls._save_hooks.append(hook)

    @classmethod
    def register_push_hook(cls, hook: Callable[..., None]):
        """Has `hook(router, directory, repo_id, token=..., revision=...)` called before an upload is put together."""
        if hook not in cls._push_hooks:
            cls._push_hooks.append(hook)

    @property
    def tokenizer(self):
        """The tokenizer that is saved with the router, or `None`.

        Loaded from where the router came from when it is first needed; assign another to replace it.
        """
        if self._tokenizer is None and self.config.name_or_path:
            try:
                # With the config at hand nothing asks whether to trust code that runs already.
                self._tokenizer = AutoTokenizer.from_pretrained(
                    self.config.name_or_path, revision=self.revision, config=self.config
                )
            except (OSError, ValueError) as error:
                logger.info(f"{self.config.name_or_path} has no tokenizer: {error}")
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer):
        self._tokenizer = tokenizer

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """Loads a router as [`~PreTrainedModel.from_pretrained`] does, from safetensors only.

        With `runtime="onnx"` or `"onnx-int8"`, also as `pipeline(..., model_kwargs={"runtime": ...})`, a graph that
        was exported into the same folder takes the place of the weights; see [`~runtime_zooter.OnnxRouter`].

        Raises:
            ValueError: If `use_safetensors=False` or `weights_only=False` asks for pickled weights.
            OSError: If the folder or repository is not there, or holds no safetensors weights.
        """
        if (runtime := kwargs.pop("runtime", None)) not in (None, "torch"):
            from .runtime_zooter import OnnxRouter  # not at the top: it imports this module

            return OnnxRouter.load(pretrained_model_name_or_path, runtime, **kwargs)
        refuse_pickles(kwargs)
        model = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        router = model[0] if isinstance(model, tuple) else model  # with `output_loading_info=True`
        router.revision = kwargs.get("revision")
        return model

    def load_adapter(self, peft_model_id: str | None = None, *args, **kwargs):
        """Adds a PEFT adapter to the router, from safetensors only. See [`~PeftAdapterMixin.load_adapter`].

        Raises:
            OSError: If the adapter's folder holds pickled weights and no safetensors.
        """
        # The library would fall back to a pickle without a word.
        if peft_model_id is not None and kwargs.get("adapter_state_dict") is None:
            download = {
                **(getattr(kwargs.get("load_config"), "download_kwargs", None) or {}),
                **(kwargs.get("adapter_kwargs") or {}),
            }
            download = {name: value for name, value in download.items() if name in DOWNLOAD_ARGUMENTS}
            weights = "adapter_model.safetensors"
            if not cached_file(peft_model_id, weights, _raise_exceptions_for_missing_entries=False, **download):
                raise OSError(
                    f"{peft_model_id} holds no {weights}. Routers load weights from safetensors only: save the "
                    "adapter again with `save_pretrained`, which writes safetensors."
                )
        return super().load_adapter(peft_model_id, *args, **kwargs)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: dict | None = None,
        push_to_hub: bool = False,
        **kwargs,
    ):
        """Writes config, safetensors, tokenizer, the code that reads them, and what the save hooks add.

        A model with a PEFT adapter writes the adapter alone, as in the library.

        Args:
            save_directory (`str` or `os.PathLike`): Folder to write to; made if it is not there.
            is_main_process (`bool`): Whether this process writes, in distributed training.
            state_dict (`dict`, *optional*): Weights to write instead of the model's own.
            push_to_hub (`bool`): Whether to upload to `repo_id` (default: the folder's name) afterwards.
            kwargs: `max_shard_size` and the like for [`~PreTrainedModel.save_pretrained`]; with `push_to_hub` also
                the arguments of [`~ZooterForRouting.push_to_hub`].
        """
        upload = {name: kwargs.pop(name) for name in _UPLOAD_ARGUMENTS if name in kwargs}
        super().save_pretrained(save_directory, is_main_process=is_main_process, state_dict=state_dict, **kwargs)
        if not is_main_process or os.path.isfile(save_directory):  # for a file the library has logged its error
            return
        directory = os.fspath(save_directory)
        if not getattr(self, "_hf_peft_config_loaded", False):
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(directory)
            else:
                logger.warning(
                    f"No tokenizer is saved in {directory}: this router was not loaded from a folder that has one. "
                    "Set `router.tokenizer` before saving."
                )
            for hook in self._save_hooks:
                hook(self, directory, upload.get("repo_id"))
        if push_to_hub:
            upload.setdefault("repo_id", os.path.basename(os.path.normpath(directory)))
            self.push_to_hub(**upload)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str = "50GB",
        tags: Sequence[str] | str | None = None,
    ):
        """Uploads the router in one commit: config, safetensors, tokenizer, code files and model card.

        Takes the arguments of [`~PushToHubMixin.push_to_hub`]. The repository is made if it is not there; if the
        upload fails, the revisions it had stay as they were.

        Returns:
            `huggingface_hub.CommitInfo`: Address and hash of the commit.

        Raises:
            huggingface_hub.errors.HfHubHTTPError: If the Hub refuses (wrong token, no permission, ...).
        """
        # Not the library's own method: that one writes a blank card over the one that the save hooks wrote.
        repo_id = HfApi().create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        if tags:
            self.add_model_tags(tags)
        with tempfile.TemporaryDirectory() as directory:
            for hook in self._push_hooks:
                hook(self, directory, repo_id, token=token, revision=revision)
            self.save_pretrained(directory, max_shard_size=max_shard_size, repo_id=repo_id)
            return self._upload_modified_files(
                directory,
                repo_id,
                files_timestamps={},
                commit_message=commit_message or "Upload Zooter router",
                commit_description=commit_description,
                token=token,
                create_pr=create_pr,
                revision=revision,
            )


class ZooterForRouting(ZooterPreTrainedModel):
    """A router: reads a query and gives a distribution over the experts (Zooter, arXiv 2311.08692, section 3).

    Args:
        config ([`ZooterConfig`]): The encoder, the head and the experts.
        encoder (`PreTrainedModel`, *optional*): The encoder itself; made from `config.encoder_config` by default. See
            [`~ZooterForRouting.from_encoder`] for a router on a pretrained one.

    Raises:
        ValueError: If the config names no encoder or no experts, or the encoder does not fit it.

    Example:
    ```python
    >>> from transformers import BertConfig
    >>> from zooter_hf import ZooterConfig, ZooterForRouting

    >>> config = ZooterConfig(encoder_config=BertConfig(num_hidden_layers=2), experts=["qwen2.5-7b", "gemma-2-9b"])
    >>> router = ZooterForRouting(config)
    >>> router.num_labels
    2

    ```
    """

    # The trainer must not divide the loss by a count of label elements: soft labels have one per expert.
    accepts_loss_kwargs = False
    _expert_fitter: Callable[..., tuple[torch.Tensor, torch.Tensor | None]] | None = None

    def __init__(self, config: ZooterConfig, encoder: PreTrainedModel | None = None):
        if config.encoder_config is None or not config.experts:
            raise ValueError(
                "A router needs `encoder_config` and at least one expert in its config. Give both, or start from a "
                "pretrained encoder with `ZooterForRouting.from_encoder(encoder, experts=[...])`."
            )
        if not isinstance(config.hidden_size, int):
            raise ValueError(
                f"`encoder_config` of type {config.encoder_config.model_type!r} has no `hidden_size`: it is not the "
                "config of a text encoder."
            )
        super().__init__(config)
        self.num_labels = config.num_labels
        self.encoder = AutoModel.from_config(config.encoder_config) if encoder is None else encoder
        # The pooler of BERT-like encoders is not used here; left in, its idle weights break distributed training.
        if "add_pooling_layer" in inspect.signature(type(self.encoder).__init__).parameters:
            self.encoder.pooler = None
        self.config.encoder_config = self.encoder.config  # one object, so that a change to either is seen by both
        self.classifier = HEAD_CLASSES[config.head](config, config.head_outputs)
        if config.predict_rewards:
            self.reward_head = REWARD_HEAD_CLASSES[config.head](config, config.num_labels)
        if config.centroids:
            self.register_buffer("centroids", torch.zeros(len(config.centroids), config.hidden_size))
        self.revision = None
        self._tokenizer = None
        self.post_init()

    @classmethod
    def from_encoder(
        cls,
        encoder: "str | os.PathLike | PreTrainedModel",
        experts: Sequence["ExpertSpec | dict[str, Any] | str"],
        *,
        tokenizer=None,
        base_encoder: str | None = None,
        encoder_kwargs: dict[str, Any] | None = None,
        **config_kwargs,
    ) -> "ZooterForRouting":
        """Starts a router from a pretrained encoder, with a new head.

        Args:
            encoder (`str`, `os.PathLike` or `PreTrainedModel`):
                A Hub id, a local folder, or a loaded encoder.
            experts (`Sequence[ExpertSpec | dict | str]`):
                The experts, in the order of the router's outputs.
            tokenizer (`PreTrainedTokenizerBase`, *optional*):
                The encoder's tokenizer. Loaded from `encoder` when that is a name or folder.
            base_encoder (`str`, *optional*):
                Hub id of the encoder, for the model card. Follows from `encoder` when that is a Hub id.
            encoder_kwargs (`dict`, *optional*):
                Passed on to `AutoModel.from_pretrained` (`revision`, `token`, `dtype`, `attn_implementation`, ...).
            config_kwargs:
                Further fields of [`ZooterConfig`]: `head`, `pooling`, `max_query_tokens`, ...

        Returns:
            [`ZooterForRouting`]: In evaluation mode. The head is random: train it before use.

        Raises:
            OSError: If the encoder is not there or has no safetensors weights.
            ValueError: If a field of the config is wrong (see [`ZooterConfig`]).
            TypeError: If there is no such field.
        """
        if isinstance(experts, str):
            raise TypeError(f"`experts` is a list of experts, got the string {experts!r}.")
        if unknown := sorted(set(config_kwargs) - {field.name for field in fields(cls.config_class)}):
            raise TypeError(f"ZooterConfig has no fields {unknown}. Look for a misspelling.")
        name = None
        if not isinstance(encoder, PreTrainedModel):
            encoder_kwargs = dict(encoder_kwargs or {})
            refuse_pickles(encoder_kwargs)
            name = os.fspath(encoder)
            if name.startswith((".", "~", os.sep)) and not os.path.isdir(name):
                raise OSError(f"There is no encoder folder {name}. Give a folder that is there, or a Hub id.")
            encoder = AutoModel.from_pretrained(name, **encoder_kwargs)
            if tokenizer is None:
                shared = ("revision", "token", "cache_dir", "local_files_only", "subfolder", "trust_remote_code")
                tokenizer = AutoTokenizer.from_pretrained(
                    name, **{key: encoder_kwargs[key] for key in shared if key in encoder_kwargs}
                )
        if base_encoder is None and name is not None and not os.path.exists(name):
            base_encoder = name
        config = cls.config_class(
            encoder_config=encoder.config, experts=list(experts), base_encoder=base_encoder, **config_kwargs
        )
        config.dtype = encoder.dtype
        router = cls(config, encoder=encoder).to(dtype=encoder.dtype, device=encoder.device)
        router.tokenizer = tokenizer
        return router.eval()

    def get_input_embeddings(self) -> nn.Module:
        """Returns the token embeddings of the encoder."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        """Replaces the token embeddings of the encoder."""
        self.encoder.set_input_embeddings(value)

    @property
    def expert_names(self) -> list[str]:
        """Names of the experts, in the order of the logits."""
        return self.config.expert_names

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Turns logits of shape `(batch, experts)` into calibrated probabilities of the same shape, in float32.

        Experts that have been removed have the probability 0.
        """
        config, logits = self.config, logits.float()
        if config.calibration_scale is not None:
            logits = logits * logits.new_tensor(config.calibration_scale)
        if config.calibration_bias is not None:
            logits = logits + logits.new_tensor(config.calibration_bias)
        if config.removed_experts:
            removed = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
            removed[config.kept_experts] = False
            logits = logits.masked_fill(removed, -torch.inf)
        return torch.softmax(logits / config.temperature, dim=-1)

    def nearest_centroids(self, query_embedding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Finds how far queries are from what the router was trained on.

        Args:
            query_embedding (`torch.Tensor` of shape `(batch, hidden_size)`): Of the queries.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: The cosine distance to the nearest centroid, from 0 to 2, in float32,
            and its index; both of shape `(batch,)`.

        Raises:
            ValueError: If the router has no centroids.
        """
        if not self.config.centroids:
            raise ValueError("The router has no centroids of its training queries: see `zooter_hf.store_centroids`.")
        query = nn.functional.normalize(query_embedding.float(), dim=-1)
        similarity, index = (query @ self._unit_centroids().T).max(dim=-1)
        return 1 - similarity, index

    def _unit_centroids(self) -> torch.Tensor:
        return nn.functional.normalize(self.centroids.float(), dim=-1)

    def remove_expert(self, name: str):
        """Takes an expert out: its probability becomes 0 and those of the others sum to 1. No weight changes.

        Args:
            name (`str`): The expert. `restore_expert` brings it back.

        Raises:
            ValueError: If there is no such expert, or it is the last one.
        """
        self._check_expert(name)
        self._set_removed([*(self.config.removed_experts or ()), name])

    def restore_expert(self, name: str):
        """Brings back an expert that was removed.

        Raises:
            ValueError: If there is no such expert, or it is not removed.
        """
        self._check_expert(name)
        if name not in (self.config.removed_experts or ()):
            raise ValueError(f"The expert {name!r} is not removed.")
        self._set_removed([other for other in self.config.removed_experts if other != name])

    def append_expert(self, spec: ExpertSpec, row: torch.Tensor, reward_row: torch.Tensor | None = None):
        """Adds an expert whose rows of the heads are known; see `add_expert` for fitting them to rewards.

        The logits of the other experts stay as they are.

        Args:
            spec ([`ExpertSpec`]): The expert.
            row (`torch.Tensor` of shape `(row_size,)`): Its row of the head; see [`ZooterHead`].
            reward_row (`torch.Tensor` of shape `(row_size,)`, *optional*): Its row of the head that predicts rewards;
                needed by a router that has one.

        Raises:
            ValueError: If there is an expert of that name, or a row is missing.
        """
        config = self.config
        self._check_new(spec)
        if config.predict_rewards and reward_row is None:
            raise ValueError("The router predicts rewards: the new expert needs a `reward_row`, too.")
        config.experts = [*config.experts, spec]
        config.id2label = dict(enumerate(config.expert_names))
        config.label2id = {name: index for index, name in config.id2label.items()}
        for name, value in (("calibration_scale", 1.0), ("calibration_bias", 0.0), ("outputs_per_expert", 1)):
            if getattr(config, name) is not None:
                setattr(config, name, [*getattr(config, name), value])
        self.num_labels = config.num_labels
        self.classifier.append_row(row)
        if config.predict_rewards:
            self.reward_head.append_row(reward_row)

    def add_expert(self, spec: "ExpertSpec | dict[str, Any]", table: Any, **settings):
        """Adds an expert, fitted to its rewards while all else stays as it is; no retraining.

        Args:
            spec ([`ExpertSpec`] or `dict`): The expert.
            table ([`~zooter_hf.RewardTable`]): Rewards of the new expert, and of those that are there, on the same
                queries.
            settings: See [`zooter_hf.distillation.fit_expert`].

        Raises:
            ImportError: If the package zooter-hf, which fits it, is not imported.
            ValueError: If the table does not have what is needed.
        """
        if self._expert_fitter is None:
            raise ImportError("Fitting an expert needs the package zooter-hf: `import zooter_hf`.")
        spec = ExpertSpec.from_value(spec)
        self._check_new(spec)
        self.append_expert(spec, *type(self)._expert_fitter(self, spec, table, **settings))

    @classmethod
    def register_expert_fitter(cls, fitter: Callable[..., tuple[torch.Tensor, torch.Tensor | None]]):
        """Has `fitter(router, spec, table, **settings)` find the rows of a new expert, for `add_expert`."""
        cls._expert_fitter = staticmethod(fitter)

    def _check_expert(self, name: str):
        if name not in self.config.expert_names:
            raise ValueError(f"There is no expert {name!r}; the router has {self.config.expert_names}.")

    def _check_new(self, spec: ExpertSpec):
        if spec.name in self.config.expert_names:
            raise ValueError(f"There is an expert {spec.name!r} already. Give the new one another name.")

    def _set_removed(self, names: Sequence[str]):
        if set(names) == set(self.config.expert_names):
            raise ValueError(f"{names[-1]!r} is the last expert. A router needs at least one.")
        self.config.removed_experts = list(dict.fromkeys(names)) or None

    def add_reward_head(self):
        """Gives the router a head that predicts rewards, with random weights; nothing happens if it has one."""
        if not self.config.predict_rewards:
            self.config.predict_rewards = True
            head = REWARD_HEAD_CLASSES[self.config.head](self.config, self.config.num_labels)
            head.apply(self._init_weights)
            self.reward_head = head.to(dtype=self.dtype, device=self.device).train(self.training)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        query_embedding: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        expert_mask: torch.BoolTensor | None = None,
        **kwargs,
    ) -> RoutingOutput:
        r"""Scores the experts for a batch of queries.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, tokens)`, *optional*):
                Token ids of the queries. Either these or `inputs_embeds`.
            attention_mask (`torch.Tensor` of shape `(batch, tokens)`, *optional*):
                1 for tokens, 0 for padding. All ones by default.
            token_type_ids (`torch.LongTensor` of shape `(batch, tokens)`, *optional*):
                Segment ids, for encoders that have segments.
            position_ids (`torch.LongTensor` of shape `(batch, tokens)`, *optional*):
                Positions, for encoders that have them.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, tokens, hidden_size)`, *optional*):
                Embedded tokens in place of `input_ids`.
            query_embedding (`torch.FloatTensor` of shape `(batch, hidden_size)`, *optional*):
                What an earlier call gave under this name. The encoder is then not run: the head of a frozen encoder
                trains in seconds.
            labels (`torch.Tensor`, *optional*):
                Floating point of shape `(batch, experts)`: target distributions, and the loss is
                `KL(labels || router)` (section 3.2 of the paper). Integers of shape `(batch,)`: class indices, and the
                loss is cross-entropy; -100 leaves a query out.
            expert_mask (`torch.BoolTensor` of shape `(batch, experts)`, *optional*):
                False where the reward of an expert is not known. Such an expert takes no part in the softmax of the
                loss, and a query with no known expert takes no part in the mean. Logits are not masked.
            kwargs:
                Passed on to the encoder (`output_hidden_states`, `output_attentions`, ...).

        Returns:
            [`RoutingOutput`]: Or a tuple of its values with `return_dict=False`.

        Raises:
            ValueError: If labels or mask have another shape than the logits ask for, or both queries and their
                embeddings are given.
        """
        outputs = None
        if query_embedding is None:
            query_embedding, outputs = self._encode(
                input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs
            )
        elif input_ids is not None or inputs_embeds is not None:
            raise ValueError("Give either `query_embedding` or the tokens of the queries, not both.")
        logits = self.classifier(query_embedding)
        if self.config.outputs_per_expert:
            groups = logits.split(list(self.config.outputs_per_expert), dim=-1)
            logits = torch.stack([group.logsumexp(dim=-1) for group in groups], dim=-1)
        return RoutingOutput(
            loss=None if labels is None else routing_loss(logits, labels, expert_mask),
            logits=logits,
            query_embedding=query_embedding,
            predicted_rewards=self.reward_head(query_embedding) if self.config.predict_rewards else None,
            hidden_states=getattr(outputs, "hidden_states", None),
            attentions=getattr(outputs, "attentions", None),
        )

    def _encode(self, input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs):
        """Runs the encoder; returns the pooled query embeddings and the encoder's own outputs."""
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        # Architectures without segments or positions do not know the argument, so what is not given is not passed.
        inputs = {name: value for name, value in inputs.items() if value is not None}
        outputs = self.encoder(**inputs, **kwargs)
        query_embedding = self._pool(outputs.last_hidden_state, attention_mask)
        if self.config.normalize:
            query_embedding = nn.functional.normalize(query_embedding, dim=-1)
        return query_embedding, outputs

    def _pool(self, states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Pools `(batch, tokens, hidden_size)` into `(batch, hidden_size)`."""
        if self.config.pooling == "cls":
            if attention_mask is None:
                return states[:, 0]
            # The first token that is not padding, also where the tokenizer pads on the left.
            first = attention_mask.long().argmax(dim=1)
            return states[torch.arange(states.shape[0], device=states.device), first]
        if attention_mask is None:
            return states.mean(dim=1)
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def _append(module: nn.Module, name: str, row: torch.Tensor):
    """Adds a row to a parameter; a parameter of another shape is another parameter."""
    old = getattr(module, name)
    row = row.to(dtype=old.dtype, device=old.device).reshape(1, *old.shape[1:])
    new = nn.Parameter(torch.cat([old.data, row]), requires_grad=old.requires_grad)
    new._is_hf_initialized = True
    setattr(module, name, new)


def routing_loss(logits: torch.Tensor, labels: torch.Tensor, expert_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Computes the training loss of a router.

    Args:
        logits (`torch.Tensor` of shape `(batch, experts)`): The router's scores.
        labels (`torch.Tensor`): Target distributions of shape `(batch, experts)`, or class indices of shape
            `(batch,)` with -100 for queries to leave out; an index whose expert is masked is left out too.
        expert_mask (`torch.Tensor` of shape `(batch, experts)`, *optional*): False where a reward is not known.

    Returns:
        `torch.Tensor`: A scalar, the mean over the queries that take part; 0 if none does.

    Raises:
        ValueError: If the shapes do not fit.
    """
    soft = labels.is_floating_point()
    expected = tuple(logits.shape) if soft else (logits.shape[0],)
    if tuple(labels.shape) != expected:
        raise ValueError(
            f"`labels` of dtype {labels.dtype} must have the shape {expected}, got {tuple(labels.shape)}. Target "
            "distributions are floating point of shape (batch, experts), class indices are integers of shape (batch,)."
        )
    if expert_mask is not None and expert_mask.shape != logits.shape:
        raise ValueError(
            f"`expert_mask` must have the shape {tuple(logits.shape)}, got {tuple(expert_mask.shape)}: one value per "
            "query and expert."
        )
    logits = logits.float()
    known = torch.ones_like(logits, dtype=torch.bool) if expert_mask is None else expert_mask.bool()
    takes_part = known.any(dim=-1)
    if not soft:
        index = labels.clamp(min=0).unsqueeze(-1)
        takes_part = takes_part & (labels != -100) & known.gather(-1, index).squeeze(-1)
    # A row without a known expert would be a softmax over nothing; it is computed unmasked and not counted.
    log_probabilities = logits.masked_fill(~known & takes_part.unsqueeze(-1), -torch.inf).log_softmax(dim=-1)
    if soft:
        targets = labels.float().masked_fill(~known, 0.0)
        # Masked experts have log probability -inf and target 0; their product must be 0, not nan.
        per_expert = torch.xlogy(targets, targets) - targets * log_probabilities.masked_fill(~known, 0.0)
        per_query = per_expert.sum(dim=-1)
    else:
        per_query = -log_probabilities.gather(-1, index).squeeze(-1)
    per_query = per_query.masked_fill(~takes_part, 0.0)
    return per_query.sum() / takes_part.sum().clamp(min=1)


def refuse_pickles(kwargs: dict[str, Any]):
    """Makes loading arguments insist on safetensors; raises `ValueError` where they ask for pickled weights."""
    if kwargs.get("use_safetensors") is False or kwargs.get("weights_only") is False:
        raise ValueError(
            "Routers and their encoders load weights from safetensors only, never from a pickle: leave "
            "`use_safetensors` and `weights_only` out. To convert a pickled checkpoint that you trust, load it with "
            "transformers and save it again."
        )
    kwargs["use_safetensors"] = True


__all__ = ["RoutingOutput", "ZooterForRouting", "ZooterPreTrainedModel", "routing_loss"]
