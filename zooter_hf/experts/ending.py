"""Where an answer ends, and its text."""

import threading
from collections.abc import Sequence

import torch
from transformers import StoppingCriteria


# A token is at least a byte of the text, but for the special tokens among them, which are not shown.
SPARE_TOKENS = 8


class StopTexts(StoppingCriteria):
    """Ends rows whose new text holds a stop text.

    transformers' own stop strings also look at the prompt, and do not say where a row has ended.

    Args:
        tokenizers: The tokenizer of every row.
        prompt_tokens: How many tokens stand before the new ones, padding included.
        stop: The texts.
    """

    def __init__(self, tokenizers: Sequence, prompt_tokens: int, stop: Sequence[str]):
        self.tokenizers = tokenizers
        self.prompt_tokens = prompt_tokens
        self.stop = stop
        self.window = max(len(text.encode()) for text in stop) + SPARE_TOKENS
        #: New tokens of every row at its end; `None` if no stop text has come.
        self.lengths: list[int | None] = [None] * len(tokenizers)

    def __call__(self, input_ids: torch.LongTensor, scores, **_) -> torch.BoolTensor:
        """Returns which rows have ended, shape `(rows,)`."""
        new = input_ids[:, self.prompt_tokens :]
        for row, ids in enumerate(new[:, -self.window :].tolist()):
            if self.lengths[row] is None:
                text = decode(self.tokenizers[row], ids)
                if any(each in text for each in self.stop):
                    self.lengths[row] = new.shape[1]
        ended = [length is not None for length in self.lengths]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)


class Cancelled(StoppingCriteria):
    """Ends all rows once an event is set."""

    def __init__(self, event: threading.Event):
        self.event = event

    def __call__(self, input_ids: torch.LongTensor, scores, **_) -> torch.BoolTensor:
        """Returns which rows have ended, shape `(rows,)`."""
        return torch.full((len(input_ids),), self.event.is_set(), dtype=torch.bool, device=input_ids.device)


def decode(tokenizer, ids: Sequence[int]) -> str:
    """Returns the text of tokens as it was written: without special tokens, spaces kept."""
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Returns what stands before the first of the stop texts."""
    return text[: min((place for each in stop if (place := text.find(each)) >= 0), default=len(text))]


class TextPieces:
    """Turns tokens, as they come, into pieces of text that are never taken back.

    Held back are bytes that are no character yet, and what may be the beginning of a stop text. transformers' own
    streamer decodes every line by itself, by which many tokenizers lose the first space of a line: indented code would
    not be streamed as it is answered.

    Args:
        tokenizer: Of the model.
        stop: Texts that end the answer.
    """

    def __init__(self, tokenizer, stop: Sequence[str]):
        self.tokenizer = tokenizer
        self.stop = stop
        self.ids: list[int] = []
        self.given = 0
        self._text = ""
        # Tokens from `_start` are decoded with those from `_read`, as a token's text depends on the one before it.
        self._start = self._read = 0

    def add(self, token: int) -> str:
        """Takes a token; returns the text that is sure by now, which may be empty."""
        self.ids.append(token)
        before = decode(self.tokenizer, self.ids[self._start : self._read])
        after = decode(self.tokenizer, self.ids[self._start :])
        if len(after) > len(before) and not after.endswith("\N{REPLACEMENT CHARACTER}"):
            self._text += after[len(before) :]
            self._start, self._read = self._read, len(self.ids)
        text = cut_at_stop(self._text, self.stop)
        if text == self._text:
            text = text[: len(text) - self._maybe_stop(text)]
        return self._give(text)

    def finish(self, ids: Sequence[int]) -> str:
        """Returns the rest of the text, given all tokens of the answer."""
        return self._give(cut_at_stop(decode(self.tokenizer, ids), self.stop))

    def _give(self, text: str) -> str:
        piece = text[self.given :]
        self.given += len(piece)
        return piece

    def _maybe_stop(self, text: str) -> int:
        """Counts the characters at the end of a text with which a stop text may begin."""
        longest = max((len(each) for each in self.stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(each.startswith(text[-length:]) for each in self.stop):
                return length
        return 0
