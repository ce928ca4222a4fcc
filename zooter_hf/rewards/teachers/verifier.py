"""Answers checked against the right one."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from zooter_hf.rewards.skips import count_skip
from zooter_hf.rewards.teachers.base import Scorable, Teacher
from zooter_hf.rewards.teachers.boxes import last_box
from zooter_hf.rewards.teachers.choices import read_choice
from zooter_hf.rewards.teachers.numbers import read_number


MODES = ("exact", "numeric", "choice")
_QUOTES = " \"'`*_\u201c\u201d\u2018\u2019"


class Verifier(Teacher):
    r"""Gives 1 to answers that agree with the reference, and 0 to others.

    An answer that cannot be read (no number, no letter or several) is wrong: 0. Without a reference there is no
    score; nor with one that cannot be read itself, which is counted in `skipped` under `"unreadable reference"`.

    Args:
        mode: What is compared. `"exact"`: the texts, without regard to case, spaces, quotes, emphasis and a final
            full stop; of an answer with a `\boxed{...}` the last one. `"numeric"`: the last number, see
            [`read_number`]. `"choice"`: the letter of a multiple choice, see [`read_choice`].
        tolerance: How far numbers that are not whole may be off, relative to the reference.
        letters: The letters of a multiple choice.

    Raises:
        ValueError: If there is no such mode, or `tolerance` or `letters` cannot be right.
    """

    def __init__(
        self,
        mode: Literal["exact", "numeric", "choice"],
        *,
        tolerance: float = 1e-6,
        letters: str = "ABCDEFGHIJ",
    ):
        if mode not in MODES:
            raise ValueError(f"`mode` must be one of {MODES}, got {mode!r}.")
        if not 0 <= tolerance < 1:
            raise ValueError(f"`tolerance` must lie between 0 and 1, got {tolerance}.")
        if not re.fullmatch("[A-Z]{2,}", letters):
            raise ValueError(f"`letters` must be two or more of A to Z, got {letters!r}.")
        self.mode = mode
        self.tolerance = tolerance
        self.letters = letters
        self.skipped: Counter[str] = Counter()

    @property
    def settings(self) -> dict[str, Any]:
        """The mode, and what it depends on."""
        settings = {"type": "Verifier", "mode": self.mode}
        if self.mode == "numeric":
            settings["tolerance"] = self.tolerance
        if self.mode == "choice":
            settings["letters"] = self.letters
        return settings

    def score(self, items: Sequence[Scorable]) -> list[list[float | None]]:
        """Checks answers; see [`Teacher.score`]."""
        return [self._check(item) for item in items]

    def _check(self, item: Scorable) -> list[float | None]:
        right = None if item.reference is None else self.read(item.reference)
        if right is None:
            if item.reference is not None:
                self._skip(
                    "unreadable reference",
                    f"The reference {item.reference!r:.80} holds nothing that the mode {self.mode!r} compares.",
                )
            return [None] * len(item.answers)
        return [float(self._agrees(self.read(answer), right)) for answer in item.answers]

    def read(self, text: str) -> Any:
        """Returns what of an answer is compared, which can be hashed; `None` if it holds nothing of the kind."""
        if self.mode == "numeric":
            return read_number(text)
        if self.mode == "choice":
            return read_choice(text, self.letters)
        return normalise(text) or None

    def _agrees(self, given: Any, right: Any) -> bool:
        if given is None:
            return False
        return given.matches(right, self.tolerance) if self.mode == "numeric" else given == right

    def _skip(self, reason: str, remedy: str):
        count_skip(self.skipped, f"Verifier {self.mode}", reason, remedy)


def normalise(text: str) -> str:
    r"""Removes what two texts may differ in and still be the same answer.

    Args:
        text: An answer. Only the last `\boxed{...}` is read, if there is one.

    Returns:
        Without case, quotes and emphasis around it, a final full stop, repeated spaces and Unicode's variants of the
        same character.
    """
    box = last_box(text)
    text = unicodedata.normalize("NFKC", text if box is None else box).casefold()
    text = " ".join(text.split())
    return text.strip(_QUOTES).removesuffix(".").strip(_QUOTES)
