"""Whether what is brought together speaks of the same experts."""

from collections.abc import Sequence


def check_experts(one: str, expected: Sequence[str], other: str, names: Sequence[str], remedy: str):
    """Raises `ValueError`, naming both lists, unless two have the same experts in the same order."""
    if list(expected) == list(names):
        return
    problem = "in another order" if sorted(expected) == sorted(names) else "others"
    raise ValueError(
        f"{one} has the experts {list(expected)}, and {other} has {problem}: {list(names)}. Bring them together with "
        f"{remedy}."
    )
