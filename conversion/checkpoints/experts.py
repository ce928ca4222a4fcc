"""Which expert stands behind which label of a classifier."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zooter_hf.modeling import ExpertSpec


_PLACEHOLDER = re.compile(r"LABEL_\d+")
_HOW = (
    'Give the experts in the order of the labels, or a mapping, for instance {"LABEL_0": "mixtral-8x7b", "LABEL_1": '
    '{"name": "gpt-4", "backend": "endpoint", ...}}; on the command line as a YAML or JSON file: --experts FILE.'
)


@dataclass(frozen=True)
class ExpertMap:
    """The experts of a router, and the labels of the checkpoint that each of them stands for.

    Args:
        experts: In the order of the router's outputs.
        labels: For every expert the indices of its labels, one or more.
    """

    experts: list[ExpertSpec]
    labels: list[list[int]]

    @property
    def order(self) -> list[int]:
        """The labels in the order in which the router's head has them."""
        return [index for of_expert in self.labels for index in of_expert]

    @property
    def outputs_per_expert(self) -> list[int] | None:
        """What the router's config says of them: nothing where every expert has one label."""
        counts = [len(of_expert) for of_expert in self.labels]
        return None if set(counts) == {1} else counts


def map_labels(
    labels: Sequence[str],
    experts: "Mapping[str, Any] | Sequence[ExpertSpec | Mapping[str, Any] | str] | None" = None,
) -> ExpertMap:
    """Finds out which expert every label stands for; an expert may stand for several labels.

    Args:
        labels: The labels, in the order of the checkpoint's outputs.
        experts: Experts in the order of the labels, or a mapping from labels to experts. By default the labels are
            the names of the experts.

    Raises:
        ValueError: If the experts do not fit the labels, or the labels are placeholders and nothing is given.
    """
    labels = list(labels)
    if len(labels) < 2:
        raise ValueError(f"A router chooses between labels, but there is one alone: {labels}.")
    if experts is None:
        if any(_PLACEHOLDER.fullmatch(label) for label in labels):
            raise ValueError(f"The labels {labels} are placeholders that name no experts. {_HOW}")
        experts = [ExpertSpec(label, model=label if label.count("/") == 1 else None) for label in labels]
    if isinstance(experts, Mapping):
        if set(experts) != set(labels):
            missing = [label for label in labels if label not in experts]
            unknown = [label for label in experts if label not in labels]
            raise ValueError(
                f"The labels are {labels}: the mapping to experts lacks {missing} and names {unknown}, which are not "
                f"among them. {_HOW}"
            )
        experts = [experts[label] for label in labels]
    experts = list(experts)
    if len(experts) != len(labels):
        raise ValueError(f"There are {len(experts)} experts for the {len(labels)} labels {labels}. {_HOW}")
    specs: dict[str, ExpertSpec] = {}
    of_expert: dict[str, list[int]] = {}
    for index, spec in enumerate(map(ExpertSpec.from_value, experts)):
        known, name_alone = specs.get(spec.name), ExpertSpec(spec.name)
        if known not in (None, name_alone, spec) and spec != name_alone:
            raise ValueError(f"Two labels stand for the expert {spec.name!r}, but what is said of it differs.")
        specs[spec.name] = known if known is not None and spec == name_alone else spec
        of_expert.setdefault(spec.name, []).append(index)
    return ExpertMap(list(specs.values()), list(of_expert.values()))


def read_experts(path: str | Path) -> list[Any] | dict[str, Any]:
    """Reads experts from a YAML or JSON file: a list, a mapping with the key `experts`, or one from labels to experts.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds something else.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        raise ValueError(f"{path} must end in .yaml, .yml or .json, so that it is clear how to read it.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is neither YAML nor JSON: {str(error).splitlines()[0]}.") from None
    if isinstance(content, Mapping) and "experts" in content:
        content = content["experts"]
    if not content or not isinstance(content, list | dict):
        raise ValueError(f"{path} must hold a list of experts, or a mapping from labels to experts.")
    return {str(label): expert for label, expert in content.items()} if isinstance(content, dict) else content
