"""An LLM that says which of two answers is better."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from zooter_hf.experts import Expert, GenerationSettings
from zooter_hf.rewards.rendering import check_placeholders, fill, render_plain
from zooter_hf.rewards.skips import count_skip
from zooter_hf.rewards.teachers.choices import read_choice
from zooter_hf.rewards.teachers.pairwise import Comparison, PairwiseTeacher


JUDGE_PROMPT = """Two assistants answered the query of a user. Decide which answer is better: correct, helpful, and \
following what was asked. Do not let the order of the answers or their length decide.

[Query]
{query}

[Answer A]
{a}

[Answer B]
{b}

Reply with one letter and nothing else: A if answer A is better, B if answer B is better."""


class PairwiseJudge(PairwiseTeacher):
    """Compares answers by asking an LLM, with the most likely verdict of it.

    Comparisons without a verdict are counted in `skipped`, under `"failed"` (the expert gave no answer) and
    `"malformed"` (its answer does not name exactly one of the letters).

    Args:
        expert: The judge, on any back end.
        prompt: Contains `{query}`, `{a}` and `{b}`, and asks for the letter A or B.
        max_new_tokens: The most tokens of a verdict. Give more to a judge that reasons first, and have its prompt end
            in "The answer is A" or "The answer is B".

    Raises:
        ValueError: If the prompt lacks a placeholder, or `max_new_tokens` is not positive.
    """

    def __init__(self, expert: Expert, *, prompt: str = JUDGE_PROMPT, max_new_tokens: int = 16):
        check_placeholders(prompt, ("query", "a", "b"))
        self.expert = expert
        self.prompt = prompt
        self.generation = GenerationSettings(max_new_tokens=max_new_tokens)
        self.skipped: Counter[str] = Counter()

    @property
    def settings(self) -> dict[str, Any]:
        """The judge, its prompt, and how it generates."""
        return {
            "type": "PairwiseJudge",
            "expert": self.expert.identity,
            "prompt": self.prompt,
            "generation": self.generation.to_dict(),
        }

    def load(self):
        """Loads the judge."""
        self.expert.load()

    def close(self):
        """Frees the judge."""
        self.expert.close()

    def prefer(self, comparisons: Sequence[Comparison]) -> list[float | None]:
        """Asks the judge; see [`PairwiseTeacher.prefer`].

        Raises:
            ExpertError: If the judge cannot answer at all.
        """
        prompts = [
            fill(self.prompt, {"query": render_plain(each.query), "a": each.first, "b": each.second})
            for each in comparisons
        ]
        verdicts: list[float | None] = []
        for answer in self.expert.answer(prompts, self.generation):
            letter = None if answer.text is None else read_choice(answer.text, "AB")
            if answer.text is None:
                self._skip("failed", f"{answer.error}.")
            elif letter is None:
                self._skip("malformed", f"The verdict {answer.text!r:.80} is neither A nor B.")
            verdicts.append(None if letter is None else float(letter == "A"))
        return verdicts

    def _skip(self, reason: str, remedy: str):
        count_skip(self.skipped, f"Judge {self.expert.spec.name}", reason, remedy)
