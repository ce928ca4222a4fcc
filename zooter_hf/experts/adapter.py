"""Experts that are LoRA adapters: many of them on one base model in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from zooter_hf.experts.adapter_files import WEIGHTS_FILE, AdapterFiles, find_adapter
from zooter_hf.experts.base import Answer, ExpertError, GenerationSettings, Query
from zooter_hf.experts.loading import find_folder, load_tokenizer
from zooter_hf.experts.local import LocalExpert, answer_together
from zooter_hf.experts.shared import acquire, release
from zooter_hf.modeling import ExpertSpec


class AdapterExpert(LocalExpert):
    """A LoRA adapter on a base model, which all adapters on that base share in memory.

    An adapter that brings its own tokenizer is rendered with that one, otherwise with the tokenizer of its base.

    Args:
        spec: What the expert is. `model` is the folder of the adapter or its Hub id; `options` are those of
            [`TransformersExpert`], which apply to the base and in which the adapters on a base must agree (but for
            `batch_size`), and

            - `base_model`: folder or Hub id of the base, by default what the adapter says it was trained on;
            - `base_revision`: of the base on the Hub, while `revision` is that of the adapter.

    Raises:
        ValueError: If `model` is missing, or an option is not known or has a value that cannot be right.
    """

    known_options = (*LocalExpert.known_options, "base_model", "base_revision")

    def __init__(self, spec: ExpertSpec):
        super().__init__(spec)
        self._files: AdapterFiles | None = None

    def load(self):
        """Loads the adapter, and its base if that is not in memory.

        Raises:
            ExpertError: If there is no such adapter or base, the adapter is no LoRA or does not fit the base, or the
                base is in memory under other options.
            ImportError: If a library is not installed that the base needs.
        """
        if self._shared is not None:
            return
        name, files = self.spec.name, self._find()
        source, options = self._locate()
        shared = acquire(name, source, options, for_adapter=True)
        try:
            tokenizer = shared.tokenizer
            if files.has_tokenizer:
                trust = {"trust_remote_code": options.get("trust_remote_code", False)}
                tokenizer = load_tokenizer(name, str(files.folder), trust)
            self.adapter = shared.add_adapter(name, files)
        except BaseException:
            release(shared)
            raise
        self.mixes = files.mixes
        self._hold(shared, tokenizer)

    @property
    def memory_bytes(self) -> int | None:
        """The memory of the base with all adapters on it; see [`LocalExpert.memory_bytes`]."""
        known = super().memory_bytes
        if known is None or self._shared is not None:
            return known
        return known + (self._find().folder / WEIGHTS_FILE).stat().st_size

    def close(self):
        """Takes the adapter away; the last user of the base frees its memory."""
        super().close()
        self._files = None

    def _find(self) -> AdapterFiles:
        if self._files is None:
            self._files = find_adapter(self.spec.name, self.spec.model, self.spec.options.get("revision"))
        return self._files

    def _locate(self) -> tuple[str, Mapping[str, Any]]:
        name, options, config = self.spec.name, dict(self.spec.options), self._find().config
        options.pop("revision", None)  # of the adapter
        base = options.get("base_model") or config.get("base_model_name_or_path")
        if not base:
            raise ExpertError(f"Expert {name!r}: the adapter does not name its base. Give the option `base_model`.")
        trained_on = None if "base_model" in options else config.get("revision")
        if revision := options.get("base_revision") or trained_on:
            options["revision"] = revision
        return find_folder(name, "base_model", base), options


def answer_mixed(
    experts: Sequence[LocalExpert], queries: Sequence[Query], settings: GenerationSettings | None = None
) -> list[Answer]:
    """Answers queries by different adapters on one base, in common batches.

    Rows of adapters that PEFT cannot mix (with DoRA, or with whole modules of their own) run in batches of their own.

    Args:
        experts: The expert of every query, as often as it has queries: adapters, or the base itself as a
            [`TransformersExpert`] with the same options.
        queries: Strings or chats.
        settings: How to generate.

    Returns:
        The answers, in the order of the queries; the same as every expert gives by itself.

    Raises:
        ExpertError: If no query at all can be answered.
        ValueError: If there are not as many experts as queries, or they do not share a base.
    """
    if len(experts) != len(queries):
        raise ValueError(f"There must be an expert for every query, got {len(experts)} for {len(queries)} queries.")
    return answer_together(experts, queries, settings)
