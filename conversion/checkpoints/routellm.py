"""RouteLLM's BERT routers (arXiv 2406.18665): three labels, strong wins, tie, weak wins, become two experts.

RouteLLM's win rate of the strong model is one minus the probabilities of the last two labels. Here the weak expert has
those two outputs of the head, and the logsumexp of them is its logit: the probability of the strong expert is that
same win rate.
"""

from collections.abc import Mapping

from zooter_hf.conversion.checkpoints.experts import ExpertMap, map_labels
from zooter_hf.conversion.checkpoints.sequence_classification import convert, read_config
from zooter_hf.modeling import ZooterForRouting


# The pair that the published routers were trained on.
TRAINED_ON = {"strong": "gpt-4-1106-preview", "weak": "mixtral-8x7b-instruct-v0.1"}


def load(source: str, experts=None, *, revision: str | None = None, token=None, **config) -> ZooterForRouting:
    """Loads a BERT router of RouteLLM; the probability of its first expert is the win rate of the strong model.

    Args:
        source: A folder or a Hub id, for instance `routellm/bert_gpt4_augmented`.
        experts: The strong expert, then the weak one; or `{"strong": ..., "weak": ...}`. By default the pair that the
            published routers were trained on, by name.
        revision: Branch, tag or commit on the Hub.
        token: Token for the Hub.
        config: Fields of [`ZooterConfig`] that the checkpoint says nothing of.

    Raises:
        OSError: If the checkpoint is not there or has no safetensors weights.
        ValueError: If it has not three labels, its head cannot be carried over, or there are not two experts.
    """
    its_config = read_config(source, revision=revision, token=token)
    if its_config.num_labels != 3:
        raise ValueError(
            f"{source} has {its_config.num_labels} labels, {list(its_config.id2label.values())}. A BERT router of "
            "RouteLLM has three: the strong model wins, tie, the weak one wins. Convert others as "
            "sequence_classification."
        )
    experts = TRAINED_ON if experts is None else experts
    if len(experts) != 2 or (isinstance(experts, Mapping) and set(experts) != set(TRAINED_ON)):
        raise ValueError(
            "A router of RouteLLM has two experts: the strong one, then the weak one; or a mapping with the keys "
            f"`strong` and `weak`. Given are {len(experts)}: {list(experts)}."
        )
    pair = map_labels(list(TRAINED_ON), experts)
    if len(pair.experts) != 2:
        raise ValueError(f"The strong and the weak expert are the same: {pair.experts[0].name!r}.")
    return convert(source, ExpertMap(pair.experts, [[0], [1, 2]]), revision=revision, token=token, **config)
