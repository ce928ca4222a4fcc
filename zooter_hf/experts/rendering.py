"""From a query to the tokens that a local model reads."""

from collections.abc import Mapping
from typing import Any

from zooter_hf.experts.base import GenerationSettings, Query, to_messages


# What a message may hold: an assistant's call of a tool needs no content.
_CONTENTS = {"content", "tool_calls"}


class QueryError(ValueError):
    """Why a query cannot be answered; becomes the error of its answer."""


def render(tokenizer, query: Query, settings: GenerationSettings) -> list[int]:
    """Renders a query with the chat template of a tokenizer; without one, the contents are joined by blank lines.

    Where a template refuses system messages, the system prompt is put before the first user message instead.

    Args:
        tokenizer: The tokenizer of the model.
        query: A string or a chat.
        settings: For their system prompt.

    Returns:
        Token ids, special tokens included, never cut.

    Raises:
        QueryError: If the query is empty or no query, or the template refuses it.
    """
    messages = _read(query, settings)
    if tokenizer.chat_template is not None:
        text = _apply_template(tokenizer, messages)
        # The template has written the special tokens already.
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    text = "\n\n".join(content for each in messages if (content := _text_of(each)))
    ids = tokenizer(text, verbose=False)["input_ids"]
    # Some tokenizers end every text; an answer is to follow here.
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def _read(query: Query, settings: GenerationSettings) -> list[dict[str, Any]]:
    if not isinstance(query, str) and (
        isinstance(query, bytes | Mapping)
        or not hasattr(query, "__iter__")
        or not all(isinstance(each, Mapping) and "role" in each and _CONTENTS & set(each) for each in query)
    ):
        raise QueryError(f"A query is a string or a chat (messages with `role` and `content`), got {query!r:.80}.")
    messages = to_messages(query, settings)
    if not any(_text_of(each).strip() for each in messages if each["role"] != "system"):
        raise QueryError("The query is empty.")
    return messages


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str) or content is None:
        return content or ""
    parts = [part if isinstance(part, str) else part.get("text") for part in content]
    if not all(isinstance(part, str) for part in parts):
        raise QueryError("The chat holds parts that are not text, which this expert cannot read.")
    return "\n".join(parts)


def _apply_template(tokenizer, messages: list[dict[str, Any]]) -> str:
    def apply(messages):
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    # What a template raises is up to its author: its own refusals, and whatever a line of it trips over.
    try:
        return apply(messages)
    except ImportError:
        raise
    except Exception as error:
        refusal = error
    folded = _fold_system_prompt(messages)
    if folded is not None:
        try:
            return apply(folded)
        except Exception as error:
            refusal = error
    raise QueryError(f"The chat template of the model refuses the chat: {refusal}.") from refusal


def _fold_system_prompt(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Puts the system messages before the first user message; `None` if there are none, or no user message."""
    system = [_text_of(each) for each in messages if each["role"] == "system"]
    others = [dict(each) for each in messages if each["role"] != "system"]
    first = next((each for each in others if each["role"] == "user"), None)
    if not system or first is None:
        return None
    first["content"] = "\n\n".join([*system, _text_of(first)])
    return others
