"""What the commands share about policies: how one is named and changed on the command line."""

import json
from typing import Annotated, Any

import typer


PolicyOption = Annotated[
    str | None,
    typer.Option("--policy", help="argmax, cost_aware, threshold or set. The router's own policy by default."),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the policy: tolerance=0.02, default=EXPERT."),
]
IncludeOption = Annotated[list[str] | None, typer.Option("--include", help="Only this expert, and others so named.")]
ExcludeOption = Annotated[list[str] | None, typer.Option("--exclude", help="Not this expert.")]


def read_policy(
    name: str | None, settings: list[str] | None, include: list[str] | None, exclude: list[str] | None, **others: Any
) -> dict[str, Any] | None:
    """Makes of the options what [`~zooter_hf.routing.make_policy`] takes; `None` if there are none.

    Raises:
        ValueError: If a setting is not of the form NAME=VALUE.
    """
    values: dict[str, Any] = {} if name is None else {"name": name}
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set takes NAME=VALUE, got {setting!r}.")
        values[key.strip().replace("-", "_")] = _read(value.strip())
    given = {"include": include or None, "exclude": exclude or None, **others}
    values |= {key: value for key, value in given.items() if value is not None}
    return values or None


def _read(value: str) -> Any:
    """Reads a number, list or null as JSON, and anything else as the text that it is."""
    try:
        return json.loads(value)
    except ValueError:
        return value
