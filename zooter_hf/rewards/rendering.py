"""Queries as plain text, for models and prompts that take no chat."""

import re
from collections.abc import Mapping
from typing import Any

from zooter_hf.experts import Query


def render_plain(query: Query) -> str:
    """Renders a query as text.

    Args:
        query: A string or chat messages.

    Returns:
        A string as it is; of a chat with a single user message its text; of another chat one paragraph a message,
        `role: text`. Parts of a message that are no text are left out.
    """
    if isinstance(query, str):
        return query
    texts = [(message["role"], read_content(message.get("content"))) for message in query]
    if len(texts) == 1 and texts[0][0] == "user":
        return texts[0][1]
    return "\n\n".join(f"{role}: {text}" for role, text in texts if text)


def fill(template: str, values: Mapping[str, str]) -> str:
    """Puts values in place of `{name}`, in one pass: what looks like a placeholder in a value stays as it is."""
    pattern = "|".join(re.escape(f"{{{name}}}") for name in values)
    return re.sub(pattern, lambda match: values[match[0][1:-1]], template)


def check_placeholders(template: str, names: tuple[str, ...]):
    """Raises a `ValueError` unless every placeholder occurs in a template."""
    if missing := [f"{{{name}}}" for name in names if f"{{{name}}}" not in template]:
        raise ValueError(f"The prompt must contain {', '.join(missing)}, got {template!r:.200}.")


def read_content(content: Any) -> str:
    """Returns the text of a message's content; parts of it that are no text are left out."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = [part if isinstance(part, str) else part.get("text") for part in content]
    return "\n".join(part for part in parts if isinstance(part, str))
