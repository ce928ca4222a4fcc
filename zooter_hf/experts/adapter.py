"""Experts that are LoRA adapters: many of them on one base model in memory."""

from collections.abc import Sequence

from zooter_hf.experts.adapter_files import find_adapter
from zooter_hf.experts.base import Answer, ExpertError, GenerationSettings, Query
from zooter_hf.experts.loading import find_folder, load_tokenizer
from zooter_hf.experts.local import LocalExpert, answer_together
from zooter_hf.experts.shared import acquire, release


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

    def load(self):
        """Loads the adapter, and its base if that is not in memory.

        Raises:
            ExpertError: If there is no such adapter or base, the adapter is no LoRA or does not fit the base, or the
                base is in memory under other options.
            ImportError: If a library is not installed that the base needs.
        """
        if self._shared is not None:
            return
        name, options = self.spec.name, dict(self.spec.options)
        files = find_adapter(name, self.spec.model, options.pop("revision", None))
        base = options.get("base_model") or files.config.get("base_model_name_or_path")
        if not base:
            raise ExpertError(f"Expert {name!r}: the adapter does not name its base. Give the option `base_model`.")
        source = find_folder(name, "base_model", base)
        trained_on = None if "base_model" in options else files.config.get("revision")
        if revision := options.get("base_revision") or trained_on:
            options["revision"] = revision
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
