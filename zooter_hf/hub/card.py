"""Writes the model card of a router from what its config knows.

The config's `training` may carry an `evaluation`, which becomes a table and the card's machine-readable results:

    {"dataset": str, "queries": int,
     "percent": bool?,                                         # whether scores are shown in percent; yes by default
     "router": {"score": float, "standard_error": float?},
     "best_single_model": {"expert": str, "score": float, "standard_error": float?},
     "gain": {"score": float, "low": float, "high": float}?,   # router minus best single model, 95 % interval
     "random": float?, "oracle": float?,
     "subsets": {name: {"queries": int, "router": float, "best_single_model": float, "oracle": float?}}?,
     "script": str?}

Scores are mean rewards of the chosen expert: fractions, where they are shown in percent.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging


if TYPE_CHECKING:
    from huggingface_hub import ModelCard, ModelCardData

    from zooter_hf.modeling import ZooterConfig, ZooterForRouting


logger = logging.get_logger(__name__)

CARD_NAME = "README.md"
TEMPLATE = Path(__file__).with_name("card_template.md")
GENERATED_MARK = "<!-- written by zooter-hf: remove this line to keep your own changes -->"
TAGS = ["zooter", "zooter-hf", "llm-routing", "router"]


def write_model_card(router: "ZooterForRouting", save_directory: str, repo_id: str | None = None):
    """Writes `README.md` into a saved router's folder; a card that a person has made their own is left alone.

    Args:
        router: The router that was saved.
        save_directory: Its folder.
        repo_id: Where it will live on the Hub, for the code in the card.
    """
    path = Path(save_directory, CARD_NAME)
    if _is_hand_written(path):
        logger.info(f"{path} was written by a person and is kept.")
    elif source := _own_card(router):
        shutil.copyfile(source, path)
    else:
        card = model_card(router.config, repo_id=repo_id, parameters=router.num_parameters(), tags=router.model_tags)
        path.write_text(str(card), encoding="utf-8")


def fetch_model_card(
    router: "ZooterForRouting",
    directory: str,
    repo_id: str,
    token: bool | str | None = None,
    revision: str | None = None,
):
    """Brings the card that a repository has into the folder of an upload, so that a person's own is not replaced.

    A hand-written card in the router's own folder goes before it: that is the one its owner means to push.
    """
    from huggingface_hub import HfApi

    if _own_card(router):
        return
    api = HfApi(token=token)
    # A branch that is yet to be made starts from the main one.
    branch = next((name for name in (revision, None) if api.file_exists(repo_id, CARD_NAME, revision=name)), "")
    if branch != "":
        shutil.copyfile(api.hf_hub_download(repo_id, CARD_NAME, revision=branch), Path(directory, CARD_NAME))


def _own_card(router: "ZooterForRouting") -> Path | None:
    """Finds the hand-written card in the folder that a router was loaded from."""
    folder = router.config.name_or_path  # empty for a router that was not loaded
    path = Path(folder, CARD_NAME)
    return path if folder and _is_hand_written(path) else None


def _is_hand_written(path: Path) -> bool:
    return path.is_file() and GENERATED_MARK not in path.read_text(encoding="utf-8")


def model_card(
    config: "ZooterConfig",
    repo_id: str | None = None,
    parameters: int | None = None,
    tags: list[str] | None = None,
    embedded: bool = False,
) -> "ModelCard":
    """Makes the model card of a router.

    Args:
        config: The router's config.
        repo_id: Where the router lives on the Hub. The code in the card names a placeholder without it.
        parameters: How many parameters the router has.
        tags: Tags for the Hub beside the usual ones.
        embedded: Whether this is the router that comes with the package.

    Returns:
        `huggingface_hub.ModelCard`: Metadata and text.
    """
    from huggingface_hub import ModelCard

    training = config.training or {}
    return ModelCard.from_template(
        card_data=_metadata(config, training, repo_id, tags),
        template_path=str(TEMPLATE),
        repo_id=repo_id or "path/to/this/router",
        title=training.get("name") or (repo_id or "zooter-router").split("/")[-1],
        config=config,
        encoder=config.encoder_config,
        parameters=parameters,
        embedded=embedded,
        training=training,
        evaluation=training.get("evaluation"),
        can_answer=all(expert.backend is not None for expert in config.experts),
        has_prices=any(expert.input_price is not None for expert in config.experts),
        mark=GENERATED_MARK,
    )


def _metadata(
    config: "ZooterConfig", training: dict[str, Any], repo_id: str | None, tags: list[str] | None
) -> "ModelCardData":
    from huggingface_hub import EvalResult, ModelCardData

    results = None
    if evaluation := training.get("evaluation"):
        results = [
            EvalResult(
                task_type="text-classification",
                task_name="LLM routing",
                dataset_type="reward-table",
                dataset_name=evaluation["dataset"],
                metric_type="mean_reward",
                metric_name="Mean reward of the chosen expert",
                metric_value=evaluation["router"]["score"],
            )
        ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=[*TAGS, *(tag for tag in tags or [] if tag not in TAGS)],
        base_model=config.base_encoder,
        datasets=[dataset["name"] for dataset in training.get("datasets", [])] or None,
        language=training.get("language"),
        license=training.get("license"),
        model_name=(training.get("name") or (repo_id or "zooter-router").split("/")[-1]) if results else None,
        eval_results=results,
    )
