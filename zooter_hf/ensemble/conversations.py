"""Which expert a conversation is with."""

import hashlib
import json
import threading
from collections import OrderedDict
from typing import Any

from zooter_hf.experts import Query, to_messages
from zooter_hf.routing import Decision


MAX_CONVERSATIONS = 100_000


class Conversations:
    """Remembers which expert answered last in a conversation, the most recent ones only.

    A conversation is known by its name, or by what was said so far: the next query begins with all of it. Threads may
    share it. Nothing but hashes is kept.

    Args:
        limit: How many are remembered.
    """

    def __init__(self, limit: int = MAX_CONVERSATIONS):
        self.limit = limit
        self._experts: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._experts)

    def expert_of(self, query: Query, name: str | None = None) -> str | None:
        """Returns the expert that a query's conversation is with; `None` if it is new or too long ago.

        Args:
            query: The query.
            name: Of the conversation, if it has one.
        """
        if name is None:
            messages = to_messages(query)
            last = max((place for place, each in enumerate(messages) if each["role"] == "assistant"), default=None)
            if last is None:
                return None
            key = _key_of(messages[: last + 1])
        else:
            key = _key_of(name)
        with self._lock:
            return self._experts.get(key)

    def remember(self, query: Query, text: str, expert: str, name: str | None = None):
        """Takes note of who answered.

        Args:
            query: The query.
            text: The answer.
            expert: Name of the expert.
            name: Of the conversation, if it has one.
        """
        answer = {"role": "assistant", "content": text}
        key = _key_of([*to_messages(query), answer] if name is None else name)
        with self._lock:
            self._experts[key] = expert
            self._experts.move_to_end(key)
            while len(self._experts) > self.limit:
                self._experts.popitem(last=False)


def stay_with(decision: Decision, expert: str | None, margin: float) -> Decision:
    """Keeps a conversation with its expert, unless the chosen one leads by more than a margin.

    Args:
        decision: What was decided about the query by itself.
        expert: Whom the conversation is with; `None` for a new one.
        margin: In probability.

    Returns:
        The decision, or one for that expert.
    """
    if expert is None or expert == decision.expert or expert not in decision.alternatives:
        return decision
    if decision.asks_several or decision.refused:  # what was promised of a set holds for all of it
        return decision
    probabilities = {each.name: each.probability for each in decision.ranking}
    lead = probabilities.get(decision.expert, 0.0) - probabilities.get(expert, 0.0)
    if lead > margin:
        return decision.choosing(
            decision.expert, f"{decision.reason}; leads {expert}, who answered last, by {lead:.2f}"
        )
    return decision.choosing(
        expert, f"answered last in this conversation; {decision.expert} leads by {lead:.2f}, not more than {margin:g}"
    )


def _key_of(conversation: Any) -> str:
    if not isinstance(conversation, str):
        conversation = [{"role": each["role"], "content": _strip(each.get("content"))} for each in conversation]
    return hashlib.sha256(json.dumps(conversation, sort_keys=True, default=str).encode()).hexdigest()


def _strip(content: Any) -> Any:
    return content.strip() if isinstance(content, str) else content
