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
"""A router that runs on ONNX runtime in place of torch weights: `runtime="onnx"` or `"onnx-int8"`."""

import importlib
import os
from typing import Any

import torch
from transformers.utils import cached_file

from .configuration_zooter import ZooterConfig
from .modeling_zooter import DOWNLOAD_ARGUMENTS, RoutingOutput, ZooterForRouting


RUNTIMES = {"onnx": "onnx/model.onnx", "onnx-int8": "onnx/model_int8.onnx"}
HEAD = "onnx/head.onnx"
# Where a graph of integers says which calls are too close for it.
RECHECK_KEY = "zooter.recheck_below"
# The onnxruntime that can be told how long threads are to spin; earlier ones do for as long as they like.
SPINS_BRIEFLY = (1, 26)
SPIN_MICROSECONDS = "50"


class OnnxRouter(ZooterForRouting):
    """A [`ZooterForRouting`] whose encoder and heads are an ONNX graph: for use in a pipeline, not for training.

    It runs on the CPU with as many threads as torch uses, and reads no torch weights. In 8-bit integers a close call
    is asked again of the graph in full precision, so that the experts are those of the router; see
    [`zooter_hf.conversion.exports`].

    Args:
        config ([`ZooterConfig`]): The config of the router.
        graph (`str`): Path of the graph.
        head (`str`): Path of the graph of the heads alone, for embeddings that are known.
        full_graph (`str`, *optional*): Path of the graph in full precision, for the close calls of the other.

    Raises:
        ImportError: If onnxruntime is not installed.
        ValueError: If the graph is that of another router.
    """

    def __init__(self, config: ZooterConfig, graph: str, head: str, full_graph: str | None = None):
        # Not the constructor of `ZooterForRouting`, which makes an encoder and heads.
        super(ZooterForRouting, self).__init__(config)
        self.num_labels = config.num_labels
        self.revision = None
        self._tokenizer = None
        self._session = open_session(graph)
        self._head, self._head_session, self._full_session = head, None, None
        self.recheck_below = float(self._session.get_modelmeta().custom_metadata_map.get(RECHECK_KEY, 0.0))
        if self.recheck_below > 0:
            self._full_session = open_session(full_graph)
        self._names = [output.name for output in self._session.get_outputs()]
        self._check(graph)
        if config.centroids:
            inputs = {name: torch.ones(1, 2, dtype=torch.long).numpy() for name in ("input_ids", "attention_mask")}
            centroids = torch.from_numpy(self._session.run(["centroids"], inputs)[0])
            # Once and for all: torch would do it with all its threads, which then spin in the way of the next graph.
            self.register_buffer("centroids", torch.nn.functional.normalize(centroids.float(), dim=-1))

    def _check(self, graph: str):
        config, remedy = self.config, "The graph was exported from another state of the router: export it again."
        if (outputs := self._session.get_outputs()[0].shape[-1]) != config.num_labels:
            raise ValueError(f"{graph} scores {outputs} experts, and the router has {config.num_labels}. {remedy}")
        for name, wanted in (("predicted_rewards", config.predict_rewards), ("centroids", config.centroids)):
            if wanted and name not in self._names:
                raise ValueError(f"{graph} has no {name}. {remedy}")

    @classmethod
    def load(cls, name: str | os.PathLike, runtime: str, config: ZooterConfig | None = None, **kwargs) -> "OnnxRouter":
        """Loads the graph of a router from its folder or repository.

        Args:
            name (`str` or `os.PathLike`): Folder or Hub id.
            runtime (`str`): `"onnx"` or `"onnx-int8"`.
            config ([`ZooterConfig`], *optional*): Its config, if it is loaded already.
            kwargs: `revision`, `token`, `cache_dir` and the like; what is for torch weights is passed over.

        Raises:
            OSError: If there is no such folder or repository, or the graph is not in it. Says how to export it.
            ValueError: If there is no such runtime.
        """
        if runtime not in RUNTIMES:
            raise ValueError(f"`runtime` must be 'torch' or one of {list(RUNTIMES)}, got {runtime!r}.")
        download = {key: kwargs[key] for key in DOWNLOAD_ARGUMENTS if kwargs.get(key) is not None}
        if not isinstance(config, ZooterConfig):
            config = ZooterConfig.from_pretrained(name, **download)
        graphs = [RUNTIMES[runtime], HEAD] + ([] if runtime == "onnx" else [RUNTIMES["onnx"]])
        paths = []
        for graph in graphs:
            path = cached_file(name, graph, _raise_exceptions_for_missing_entries=False, **download)
            if path is None:
                raise OSError(
                    f"{name} holds no {graph}, which the runtime {runtime!r} needs. Export it with "
                    f"`zooter convert ROUTER FOLDER --to {runtime}` or `zooter_hf.conversion.exports.export`, or "
                    "leave `runtime` out."
                )
            # Weights beyond 2 GB lie in a file beside the graph.
            cached_file(name, f"{graph}_data", _raise_exceptions_for_missing_entries=False, **download)
            paths.append(path)
        router = cls(config, *paths)
        router.revision = kwargs.get("revision")
        return router.eval()

    @property
    def device(self) -> torch.device:
        """Where outputs are: on the CPU."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The type of the outputs."""
        return torch.float32

    def to(self, *args, **kwargs) -> "OnnxRouter":
        """Returns itself: a graph stays where it is."""
        return self

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        query_embedding: torch.Tensor | None = None,
        **kwargs,
    ) -> RoutingOutput:
        """Scores the experts; see [`ZooterForRouting.forward`]. Takes tokens or embeddings, and gives no loss.

        Raises:
            TypeError: If other inputs, or labels, are given.
        """
        if given := sorted(name for name, value in kwargs.items() if value is not None and name != "return_dict"):
            raise TypeError(
                f"A router on ONNX runtime takes `input_ids` with `attention_mask`, or `query_embedding`, not {given}."
            )
        if query_embedding is not None:
            self._head_session = self._head_session or open_session(self._head)
            names = [output.name for output in self._head_session.get_outputs()]
            values = self._head_session.run(names, {"query_embedding": query_embedding.float().cpu().numpy()})
            scores = dict(zip(names, map(torch.from_numpy, values), strict=True))
            return RoutingOutput(query_embedding=query_embedding, **scores)
        input_ids = input_ids.long().cpu()
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long().cpu()
        values = self._run(self._session, input_ids, attention_mask)
        if self.recheck_below > 0:
            close = decision_margin(self.probabilities(values["logits"]), self.config.temperature) < self.recheck_below
            if close.any():
                longest = int(attention_mask[close].sum(dim=1).max())  # the pipeline pads on the right
                if attention_mask[close, :longest].sum() != attention_mask[close].sum():
                    longest = input_ids.shape[1]
                exact = self._run(self._full_session, input_ids[close, :longest], attention_mask[close, :longest])
                for name, value in exact.items():
                    values[name][close] = value
        return RoutingOutput(**values)

    def _unit_centroids(self) -> torch.Tensor:
        return self.centroids

    def _run(self, session, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        names = [name for name in self._names if name != "centroids"]
        inputs = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        return dict(zip(names, map(torch.from_numpy, session.run(names, inputs)), strict=True))

    def save_pretrained(self, *args, **kwargs):
        """Refuses: see the message."""
        raise TypeError(
            "A router on ONNX runtime has no weights to save, change or upload. Load it without `runtime` for that."
        )

    push_to_hub = append_expert = add_reward_head = load_adapter = get_input_embeddings = save_pretrained


def decision_margin(probabilities: torch.Tensor, temperature: float) -> torch.Tensor:
    """Tells how close the call between the two best experts is.

    Args:
        probabilities (`torch.Tensor` of shape `(batch, experts)`): Calibrated probabilities.
        temperature (`float`): The calibration temperature; the margin does not depend on it.

    Returns:
        `torch.Tensor` of shape `(batch,)`: The distance of the two highest calibrated logits.
    """
    if probabilities.shape[-1] < 2:
        return probabilities.new_full(probabilities.shape[:1], torch.inf)
    best, second = probabilities.log().topk(2, dim=-1).values.unbind(dim=-1)
    return (best - second) * temperature


def session_options() -> Any:
    """Returns onnxruntime's options for graphs of routers: as many threads as torch uses.

    Raises:
        ImportError: If onnxruntime is not installed.
    """
    onnxruntime = _import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # A thread that sleeps between two operations takes longer to wake than many of them last; one that spins for
    # longer, or beyond the call, takes the cores from the other graph, and from torch.
    spins = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= SPINS_BRIEFLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spins else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def open_session(path: str | os.PathLike, options: Any = None) -> Any:
    """Opens a graph on the CPU.

    Args:
        path (`str` or `os.PathLike`): The graph.
        options (`onnxruntime.SessionOptions`, *optional*): Those of [`session_options`] by default.

    Raises:
        ImportError: If onnxruntime is not installed.
    """
    return _import_onnxruntime().InferenceSession(
        path,
        options or session_options(),
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["SkipLayerNormFusion"],  # on CPUs several times slower than its parts
    )


def _import_onnxruntime() -> Any:
    try:
        # By its name: transformers asks for everything that code from a checkpoint imports, needed or not.
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ImportError("Routers on ONNX runtime need it: pip install onnxruntime") from error


__all__ = ["RUNTIMES", "OnnxRouter", "decision_margin", "open_session", "session_options"]
