"""Tags from an LLM, as InsTag makes them."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from zooter_hf.experts import Expert, GenerationSettings, Query
from zooter_hf.rewards.rendering import check_placeholders, fill, render_plain
from zooter_hf.rewards.skips import count_skip
from zooter_hf.rewards.taggers.base import Tagger


#: The user's turn. The wording is that of InsTag (arXiv 2308.07074) for its local tagger, in the form in which public
#: code gives it to OFA-Sys/InsTagger; the paper prints "Query:" for "User query:".
INSTAG_PROMPT = """Please identify tags of user intentions in the following user query and provide an explanation for \
each tag. Please respond in the JSON format {"tag": str, "explanation": str}.
User query: {query}"""

#: The same within the conversation template that OFA-Sys/InsTagger was trained in (Vicuna's, of FastChat), for an
#: expert that has no chat template and is given the bare text.
INSTAG_VICUNA_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    f"and polite answers to the human's questions. USER: {INSTAG_PROMPT} ASSISTANT:"
)


class InsTagger(Tagger):
    """Tags queries with what an LLM says their intentions are (InsTag, arXiv 2308.07074, the tagger of Zooter).

    Tags come in lower case, without repetitions. A query without tags is counted in `skipped`, under `"failed"` (the
    expert gave no answer) or `"malformed"` (its answer is not the JSON asked for; see [`parse_tags`]).

    Args:
        expert: The tagging LLM, on any back end: OFA-Sys/InsTagger, or another that follows instructions.
        prompt: Contains `{query}`. Use `INSTAG_VICUNA_PROMPT` for a checkpoint of InsTagger without a chat template.
        max_new_tokens: The most tokens of an answer. An answer that is cut off is malformed.
        max_tags: Keeps the first tags of a query only.

    Raises:
        ValueError: If the prompt lacks its placeholder, or a number is not positive.
    """

    def __init__(
        self,
        expert: Expert,
        *,
        prompt: str = INSTAG_PROMPT,
        max_new_tokens: int = 512,
        max_tags: int | None = None,
    ):
        check_placeholders(prompt, ("query",))
        if max_tags is not None and max_tags < 1:
            raise ValueError(f"`max_tags` must be positive, got {max_tags}.")
        self.expert = expert
        self.prompt = prompt
        self.generation = GenerationSettings(max_new_tokens=max_new_tokens)
        self.max_tags = max_tags
        self.skipped: Counter[str] = Counter()

    @property
    def settings(self) -> dict[str, Any]:
        """The LLM, its prompt, how it generates, and how many tags are kept."""
        return {
            "type": "InsTagger",
            "expert": self.expert.identity,
            "prompt": self.prompt,
            "generation": self.generation.to_dict(),
            "max_tags": self.max_tags,
        }

    @property
    def malformed(self) -> int:
        """How many answers were not the JSON asked for."""
        return self.skipped["malformed"]

    def load(self):
        """Loads the LLM."""
        self.expert.load()

    def close(self):
        """Frees the LLM."""
        self.expert.close()

    def tag(self, queries: Sequence[Query]) -> list[list[str] | None]:
        """Tags queries; see [`Tagger.tag`].

        Raises:
            ExpertError: If the LLM cannot answer at all.
        """
        prompts = [fill(self.prompt, {"query": render_plain(query)}) for query in queries]
        tags: list[list[str] | None] = []
        for answer in self.expert.answer(prompts, self.generation) if prompts else []:
            parsed = None if answer.text is None else parse_tags(answer.text)
            if answer.text is None:
                self._skip("failed", f"{answer.error}.")
            elif parsed is None:
                self._skip("malformed", f"{answer.text!r:.80} holds no complete JSON list of tags.")
            tags.append(None if parsed is None else parsed[: self.max_tags])
        return tags

    def _skip(self, reason: str, remedy: str):
        count_skip(self.skipped, f"Tagger {self.expert.spec.name}", reason, remedy)


def parse_tags(text: str) -> list[str] | None:
    """Reads tags out of an answer.

    Args:
        text: Holds a JSON list of objects with a `tag`, a list of strings, or one object; other text, such as a code
            fence, may stand around it. The first place that looks like one of them decides.

    Returns:
        Tags in lower case, with single spaces, without empty and repeated ones; `None` if the JSON is broken, cut
        off, or something else.
    """
    # Not any bracket: "[1]" or "{x}" in a sentence before the list is no JSON of ours.
    start = re.search(r'\[\s*(?=[\[{"\]])|\{\s*(?=")', text)
    if start is None:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start.start())
    except (ValueError, RecursionError):
        return None
    entries = value if isinstance(value, list) else [value]
    tags = [entry.get("tag") if isinstance(entry, dict) else entry for entry in entries]
    if not all(isinstance(tag, str) for tag in tags):
        return None
    tags = [" ".join(tag.lower().split()) for tag in tags]
    try:
        "".join(tags).encode()
    except UnicodeEncodeError:  # half a character, which JSON can escape and no file can hold
        return None
    return list(dict.fromkeys(tag for tag in tags if tag))
