r"""Final answers in LaTeX boxes."""


def last_box(text: str) -> str | None:
    r"""Returns what the last `\boxed{...}` or `\fbox{...}` of a text holds, braces within it matched.

    Args:
        text: An answer.

    Returns:
        The content; `None` if there is no box, or the last one is not closed.
    """
    start = max(text.rfind(command) + len(command) if command in text else -1 for command in (r"\boxed{", r"\fbox{"))
    if start < 0:
        return None
    depth = 1
    for end in range(start, len(text)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            return text[start:end]
    return None
