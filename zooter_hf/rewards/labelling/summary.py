"""What a labelling run did, and what it could not."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class ExpertOutcome:
    """What came of an expert.

    Args:
        name: The expert.
        answered: Answers there are, those of earlier runs among them.
        failed: Answers there are not.
        error: Why not: the last error.
        input_tokens: Tokens read, over all answers, as far as the back end says.
        output_tokens: Tokens written.
        cost: US dollars at the prices of its spec, over all answers; `None` if prices are not known.
        seconds: Time that its answers took, over all of them.
    """

    name: str
    answered: int = 0
    failed: int = 0
    error: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    seconds: float = 0.0

    def __str__(self):
        text = f"{self.name}: {self.answered:,} answers"
        if self.output_tokens:
            text += f", {self.output_tokens:,} tokens"
        if self.cost is not None:
            text += f", ${self.cost:.4f}"
        if self.failed:
            text += f"; {self.failed:,} failed, the last with: {self.error}"
        return text


@dataclass
class LabellingSummary:
    """What a labelling run did.

    Args:
        queries: Queries of the set.
        experts: What came of every expert.
        unscored: Answers that a teacher could not score, by teacher.
        untagged: Queries that the tagger failed on; `None` without a tagger.
    """

    queries: int
    experts: list[ExpertOutcome]
    unscored: dict[str, int]
    untagged: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the summary as JSON values."""
        return asdict(self)

    def __str__(self):
        lines = [f"{self.queries:,} queries", *(f"  {expert}" for expert in self.experts)]
        lines += [
            f"  {teacher}: {count:,} answers without a score" for teacher, count in self.unscored.items() if count
        ]
        if self.untagged:
            lines.append(f"  {self.untagged:,} queries without tags: the tagger's output was malformed")
        return "\n".join(lines)
