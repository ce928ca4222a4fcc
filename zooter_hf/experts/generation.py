"""The one routine by which local models generate, in batches and as a stream."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

from zooter_hf.experts.base import Answer, ExpertError, GenerationSettings, Usage
from zooter_hf.experts.ending import Cancelled, StopTexts, TextPieces, cut_at_stop, decode
from zooter_hf.experts.sampling import SeededSampling
from zooter_hf.experts.shared import SharedModel


if TYPE_CHECKING:
    from zooter_hf.experts.local import LocalExpert

logger = logging.get_logger(__name__)

# Masked, and cut off again: which token pads makes no difference, and not every tokenizer has one for it.
PAD = 0


@dataclass(frozen=True)
class Row:
    """A query, ready for the model.

    Args:
        place: Which of the queries it is.
        ids: Its tokens.
        expert: The expert that answers it.
    """

    place: int
    ids: list[int]
    expert: "LocalExpert"

    @property
    def company(self) -> tuple:
        """What the rows of a batch have in common: what ends an answer, and the adapter if it mixes with none."""
        mixes = self.expert.mixes and self.expert.shared.mixes
        return self.expert.end_tokens, mixes or self.expert.adapter


def generate_answers(
    shared: SharedModel, rows: Sequence[Row], settings: GenerationSettings, batch_size: int
) -> dict[int, Answer]:
    """Answers rows in batches of like lengths, the longest first.

    Args:
        shared: The model.
        rows: The rows, in any order.
        settings: How to generate.
        batch_size: The most rows of a batch; halved whenever the memory of the accelerator does not suffice.

    Returns:
        The answers by the places of the rows.

    Raises:
        ExpertError: If the model fails for another reason than memory.
    """
    answers: dict[int, Answer] = {}
    # The longest first: memory that does not suffice shows at once.
    waiting = sorted(rows, key=lambda row: (repr(row.company), -len(row.ids)))
    while waiting:
        batch = [row for row in waiting[:batch_size] if row.company == waiting[0].company]
        start = time.perf_counter()
        try:
            outputs = _generate(shared, batch, settings)
        except torch.OutOfMemoryError:
            outputs = None
        except RuntimeError as error:
            raise ExpertError(f"Expert {batch[0].expert.spec.name!r}: the model failed. {error}") from error
        if outputs is None:  # not within `except`, where the error still holds the memory
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if len(batch) > 1:
                batch_size = len(batch) // 2
                logger.warning(
                    f"{len(batch)} queries at once do not fit into memory: going on with {batch_size}. Give the "
                    "option `batch_size` to begin with that."
                )
                continue
            error = f"Memory does not suffice for its {len(batch[0].ids)} tokens and the answer."
            answers[batch[0].place] = Answer(None, error=error)
        else:
            seconds = (time.perf_counter() - start) / len(batch)
            for row, ids in zip(batch, outputs, strict=True):
                text = cut_at_stop(decode(row.expert.tokenizer, ids), settings.stop)
                usage = Usage.of(row.expert.spec, len(row.ids), len(ids), seconds)
                answers[row.place] = Answer(text, usage)
        del waiting[: len(batch)]
    return answers


def stream_answer(shared: SharedModel, row: Row, settings: GenerationSettings) -> Iterator[str | Usage]:
    """Answers one row in pieces, and at last yields the usage. Generation stops where the consumer stops.

    Raises:
        ExpertError: If the model fails.
    """
    start = time.perf_counter()
    streamer, cancelled = _TokenQueue(), threading.Event()
    outcome: dict[str, Any] = {}

    def run():
        try:
            (outcome["ids"],) = _generate(shared, [row], settings, streamer=streamer, cancelled=cancelled)
        except BaseException as error:
            outcome["error"] = error
        finally:
            streamer.close()

    thread = threading.Thread(target=run, name=f"stream of {row.expert.spec.name}", daemon=True)
    pieces = TextPieces(row.expert.tokenizer, settings.stop)
    thread.start()
    try:
        for token in streamer:
            if piece := pieces.add(token):
                yield piece
        if (error := outcome.get("error")) is not None:
            raise ExpertError(f"Expert {row.expert.spec.name!r}: the model failed. {error}") from error
        if piece := pieces.finish(outcome["ids"]):
            yield piece
        seconds = time.perf_counter() - start
        yield Usage.of(row.expert.spec, len(row.ids), len(outcome["ids"]), seconds)
    finally:
        cancelled.set()
        thread.join()


def _generate(
    shared: SharedModel,
    rows: Sequence[Row],
    settings: GenerationSettings,
    *,
    streamer: BaseStreamer | None = None,
    cancelled: threading.Event | None = None,
) -> list[list[int]]:
    """Returns the new tokens of every row, up to its end token and with it."""
    width = max(len(row.ids) for row in rows)
    end_tokens = rows[0].expert.end_tokens
    device = shared.model.device
    # Padded on the left: the last token of every row stands where the answer begins.
    input_ids = torch.tensor([[PAD] * (width - len(row.ids)) + row.ids for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows], device=device)
    config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=False,  # what is sampled, `SeededSampling` samples
        pad_token_id=PAD,
        eos_token_id=list(end_tokens) or None,
    )
    processors = LogitsProcessorList()
    if settings.temperature > 0:
        processors.append(SeededSampling([row.ids for row in rows], settings))
    criteria, stopped = StoppingCriteriaList(), [None] * len(rows)
    if settings.stop:
        criteria.append(StopTexts([row.expert.tokenizer for row in rows], width, settings.stop))
        stopped = criteria[0].lengths
    if cancelled is not None:
        criteria.append(Cancelled(cancelled))
    with shared.using([row.expert.adapter for row in rows]):
        output = shared.model.generate(
            input_ids=input_ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=processors,
            stopping_criteria=criteria,
            streamer=streamer,
        )
    new = output[:, width:].tolist()
    return [_cut(ids, end_tokens, length) for ids, length in zip(new, stopped, strict=True)]


def _cut(ids: list[int], end_tokens: Sequence[int], length: int | None) -> list[int]:
    """Cuts off what was written behind the end of a row while others went on."""
    ids = ids[:length]
    end = next((place for place, token in enumerate(ids) if token in end_tokens), len(ids))
    return ids[: end + 1]


class _TokenQueue(BaseStreamer):
    """Hands tokens from the thread that generates to the one that reads."""

    def __init__(self):
        self._queue: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._prompt_seen = False

    def put(self, value: torch.Tensor):
        """Takes the prompt at first, then token by token."""
        if self._prompt_seen:
            for token in value.flatten().tolist():
                self._queue.put(token)
        self._prompt_seen = True

    def end(self):
        """Called when all goes well only; see `close`."""

    def close(self):
        """No more tokens come."""
        self._queue.put(None)

    def __iter__(self) -> Iterator[int]:
        return iter(self._queue.get, None)
