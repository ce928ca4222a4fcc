"""Experts that run in this process: any causal language model that transformers can load."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from zooter_hf.experts.base import Answer, Capabilities, Expert, ExpertError, GenerationSettings, Query, Usage
from zooter_hf.experts.generation import Row, generate_answers, stream_answer
from zooter_hf.experts.loading import DEFAULT_BATCH_SIZE, LOADING_OPTIONS, check_spec, estimate_bytes, find_folder
from zooter_hf.experts.rendering import QueryError, render
from zooter_hf.experts.shared import SharedModel, acquire, release, shared_key
from zooter_hf.modeling import ExpertSpec


class LocalExpert(Expert):
    """What experts in this process have in common; they differ in what they load.

    The same settings are used for every model: what a model's own generation config recommends (a temperature, a
    repetition penalty) does not count, but for the tokens that end an answer.

    Args:
        spec: What the expert is.

    Raises:
        ValueError: If `model` is missing, or an option is not known or has a value that cannot be right.
    """

    #: The options that the back end knows.
    known_options: tuple[str, ...] = ("batch_size", *LOADING_OPTIONS)

    def __init__(self, spec: ExpertSpec):
        check_spec(spec, self.known_options)
        super().__init__(spec)
        #: The name of its adapter within the model; `None` for the model itself.
        self.adapter: str | None = None
        #: Whether a batch may hold rows of other experts on the same model.
        self.mixes = True
        #: Tokens that end an answer.
        self.end_tokens: tuple[int, ...] = ()
        self._shared: SharedModel | None = None
        self._tokenizer = None

    @abstractmethod
    def _locate(self) -> tuple[str, Mapping[str, Any]]:
        """Finds what is to be loaded: folder or Hub id of the model, and the options that it is loaded with."""

    @property
    def memory_key(self) -> str:
        """The model with the options that it is loaded with; see [`Expert.memory_key`]."""
        return shared_key(*self._locate())

    @property
    def memory_bytes(self) -> int | None:
        """The memory of the model with all adapters on it.

        Before it is loaded, that of its weights by its config; `None` if they are to be quantised.
        """
        if self._shared is not None:
            return self._shared.model.get_memory_footprint()
        return estimate_bytes(self.spec.name, *self._locate())

    @property
    def model(self) -> PreTrainedModel:
        """The model, shared with other experts on it; loaded if need be."""
        self.load()
        return self._shared.model

    @property
    def tokenizer(self):
        """The tokenizer, whose chat template renders queries; loaded if need be."""
        self.load()
        return self._tokenizer

    @property
    def shared(self) -> SharedModel:
        """The model with its other users; loaded if need be."""
        self.load()
        return self._shared

    @property
    def batch_size(self) -> int:
        """The most queries that are answered at once."""
        return self.spec.options.get("batch_size", DEFAULT_BATCH_SIZE)

    @property
    def context_length(self) -> int | None:
        """The most tokens, query and answer together: of the spec, or of the model; `None` if neither says."""
        if self.spec.context_length is not None:
            return self.spec.context_length
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def capabilities(self) -> Capabilities:
        """What the expert can do; loads the model."""
        return Capabilities(
            chat=self.tokenizer.chat_template is not None,
            batches=True,
            streaming=True,
            local=True,
            context_length=self.context_length,
        )

    def answer(self, queries: Sequence[Query], settings: GenerationSettings | None = None) -> list[Answer]:
        """Answers queries, in their order; see [`Expert.answer`].

        A query that does not fit into the context together with an answer of `max_new_tokens` has an error: it is
        never cut. The same query under the same seed has the same answer, whatever it is batched with, as far as the
        arithmetic of differently padded batches agrees.
        """
        return answer_together([self] * len(queries), queries, settings)

    def stream(self, query: Query, settings: GenerationSettings | None = None) -> Iterator[str | Usage]:
        """Yields an answer in pieces as they come, and at last its usage; see [`Expert.stream`]."""
        settings = settings or GenerationSettings()
        try:
            row = self._row(0, query, settings)
        except QueryError as error:
            message = f"Expert {self.spec.name!r} cannot answer the query: {error}"
            raise ExpertError(message, expert_failed=False) from error
        yield from stream_answer(self.shared, row, settings)

    def close(self):
        """Gives the model back; its last user frees the memory."""
        if self._shared is not None:
            shared, self._shared, self._tokenizer = self._shared, None, None
            if self.adapter is not None:
                shared.remove_adapter(self.adapter)
                self.adapter = None
            release(shared)

    def _hold(self, shared: SharedModel, tokenizer):
        self._shared, self._tokenizer = shared, tokenizer
        ends = shared.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self.end_tokens = tuple(sorted({*ends, tokenizer.eos_token_id} - {None}))

    def _row(self, place: int, query: Query, settings: GenerationSettings) -> Row:
        with self.shared.tokenizer_lock:
            ids = render(self.tokenizer, query, settings)
        limit = self.context_length
        if limit is not None and len(ids) + settings.max_new_tokens > limit:
            raise QueryError(
                f"The query has {len(ids)} tokens, which with `max_new_tokens` of {settings.max_new_tokens} is more "
                f"than the context of {limit} tokens. Shorten it, or ask for fewer tokens."
            )
        return Row(place, ids, self)


class TransformersExpert(LocalExpert):
    """Any causal language model, from a folder or from the Hub.

    Experts with the same model and the same options share it in memory, also with adapters on it.

    Args:
        spec: What the expert is. `model` is a folder or a Hub id; `options` may have

            - `batch_size`: the most queries that are answered at once, 8 by default;
            - `dtype`: `"auto"` or the name of a torch dtype;
            - `device_map`: a device, `"auto"` or a dict. By default the accelerator of the machine, if it has one;
            - `quantization_config`: a dict as of transformers, such as `{"load_in_4bit": true}`;
            - `gguf_file`: the name of a GGUF file within `model`. Otherwise weights are loaded from safetensors only;
            - `revision`: of the repository on the Hub;
            - `attn_implementation`: as of transformers;
            - `trust_remote_code`: whether code that comes with the model may be run, `False` by default.

    Raises:
        ValueError: If `model` is missing, or an option is not known or has a value that cannot be right.
    """

    def load(self):
        """Loads the model, if it is not loaded.

        Raises:
            ExpertError: If there is no such model, or it cannot be loaded.
            ImportError: If a library is not installed that it needs.
        """
        if self._shared is None:
            shared = acquire(self.spec.name, *self._locate())
            self._hold(shared, shared.tokenizer)

    def _locate(self) -> tuple[str, Mapping[str, Any]]:
        return find_folder(self.spec.name, "model", self.spec.model), self.spec.options


def answer_together(
    experts: Sequence[LocalExpert], queries: Sequence[Query], settings: GenerationSettings | None = None
) -> list[Answer]:
    """Answers queries by experts on one model in memory, in common batches.

    Args:
        experts: The expert of every query.
        queries: Strings or chats.
        settings: How to generate.

    Raises:
        ExpertError: If no query at all can be answered.
        ValueError: If the experts do not share a model.
    """
    settings = settings or GenerationSettings()
    for expert in experts:
        expert.load()
    if len({id(expert.shared) for expert in experts}) > 1:
        names = sorted({expert.spec.name for expert in experts})
        raise ValueError(
            f"The experts {names} do not share a model, so that their queries cannot be answered together. Let each "
            "answer its own."
        )
    answers: dict[int, Answer] = {}
    rows = []
    for place, (expert, query) in enumerate(zip(experts, queries, strict=True)):
        try:
            rows.append(expert._row(place, query, settings))
        except QueryError as error:
            answers[place] = Answer(None, error=str(error))
    if rows:
        batch_size = min(row.expert.batch_size for row in rows)
        answers.update(generate_answers(rows[0].expert.shared, rows, settings, batch_size))
    return [answers[place] for place in range(len(queries))]
