"""A small teacher: does the answer speak of what was asked, without going in circles?"""

import re
from collections.abc import Sequence
from typing import Any

import torch

from zooter_hf.modeling import ZooterForRouting
from zooter_hf.rewards.teachers import Scorable, Teacher
from zooter_hf.routing import predict


class EmbeddingTeacher(Teacher):
    """Scores an answer by the cosine of its embedding and the query's, times the share of its words that are new.

    Args:
        encoder: Folder or Hub id of a sentence encoder.
    """

    def __init__(self, encoder: str):
        self.encoder = encoder
        self._router = None

    @property
    def settings(self) -> dict[str, Any]:
        """The encoder."""
        return {"type": "EmbeddingTeacher", "model": self.encoder}

    def load(self):
        """Loads the encoder; the head of the router around it is not used."""
        if self._router is None:
            self._router = ZooterForRouting.from_encoder(
                self.encoder, experts=["a", "b"], encoder_kwargs={"dtype": torch.float32}
            )

    def close(self):
        """Frees the encoder."""
        self._router = None

    def score(self, items: Sequence[Scorable]) -> list[list[float | None]]:
        """See [`Teacher.score`]; an answer without words gets 0."""
        self.load()
        texts = [text for item in items for text in (item.query, *(answer.strip() or "." for answer in item.answers))]
        embeddings = torch.nn.functional.normalize(predict(self._router, texts).embeddings, dim=1)
        scores, place = [], 0
        for item in items:
            query, answers = embeddings[place], embeddings[place + 1 : place + 1 + len(item.answers)]
            cosines = (answers @ query).tolist()
            scores.append([c * _new_words(answer) for c, answer in zip(cosines, item.answers, strict=True)])
            place += 1 + len(item.answers)
        return scores


def _new_words(text: str) -> float:
    words = re.findall(r"\w+", text.lower())
    return len(set(words)) / len(words) if words else 0.0
