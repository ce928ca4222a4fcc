"""`zooter calibrate`: what is fitted to a router after training."""

import os
import shutil
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zooter_hf.cli.evaluate import load_table
from zooter_hf.cli.loading import load_config, quiet_loading, resolve_router


if TYPE_CHECKING:
    from zooter_hf import RewardTable, RoutingPolicy, ZooterForRouting
    from zooter_hf.calibration import Calibration


class Method(str, Enum):
    """How probabilities are calibrated."""

    auto = "auto"
    temperature = "temperature"
    vector = "vector"
    none = "none"


def calibrate(
    router: Annotated[str, typer.Argument(help="A folder or a Hub id.")],
    table: Annotated[str, typer.Argument(help="Reward table of queries that the router was not trained on.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Folder for the result. ROUTER itself by default.")
    ] = None,
    method: Annotated[
        Method, typer.Option(help="Calibrate the probabilities by a temperature or by vectors; none leaves them.")
    ] = Method.temperature,
    centroids: Annotated[
        str | None, typer.Option(help="Reward table of the training: store what its queries are like.")
    ] = None,
    familiar: Annotated[
        float | None,
        typer.Option(
            help="With --centroids: the share of such queries that count as familiar; others go to --default."
        ),
    ] = None,
    default: Annotated[
        str | None, typer.Option(help="Expert for unfamiliar queries. The best one of the training by default.")
    ] = None,
    sets: Annotated[
        float | None, typer.Option(metavar="ALPHA", help="Policy: sets that hold a good expert of all but this share.")
    ] = None,
    by_tag: Annotated[
        bool, typer.Option("--by-tag", help="With --sets: keep the promise for every kind of query; needs centroids.")
    ] = False,
    delta: Annotated[
        float | None, typer.Option(help="With --sets: in all but this share of calibrations, not on average.")
    ] = None,
    mean_price: Annotated[
        float | None, typer.Option(help="Policy: US dollars that a query of TABLE may cost on average.")
    ] = None,
    max_share: Annotated[
        float | None,
        typer.Option(help="Policy: share of the queries of TABLE for the dearest expert, or --expensive."),
    ] = None,
    expensive: Annotated[
        list[str] | None, typer.Option(help="With --max-share: the experts that it is about.")
    ] = None,
    strong: Annotated[
        str | None, typer.Option(help="Policy: a strong expert, with --weak and --strong-share.")
    ] = None,
    weak: Annotated[str | None, typer.Option(help="The expert for all other queries.")] = None,
    strong_share: Annotated[
        float | None, typer.Option(help="Share of the queries of TABLE for the strong one.")
    ] = None,
    plot: Annotated[str | None, typer.Option(help="PNG file for the reliability before and after.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a router on the Hub.")] = None,
    seed: Annotated[int, typer.Option(help="Of the parts that are held out.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries in one forward pass.")] = 32,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in the output folder.")] = False,
):
    """Make a router's probabilities honest, and store a policy that meets a promise or a budget."""
    policies = {"--sets": sets, "--mean-price": mean_price, "--max-share": max_share, "--strong-share": strong_share}
    chosen = [name for name, value in policies.items() if value is not None]
    if len(chosen) > 1:
        raise ValueError(f"{' and '.join(chosen)} are policies of their own. Give one of them.")
    if familiar is not None and centroids is None:
        raise ValueError("--familiar needs --centroids, the reward table of the training.")
    if strong_share is not None and (strong is None or weak is None):
        raise ValueError("--strong-share needs --strong and --weak, the names of two experts.")
    folder = resolve_router(router)
    target = Path(output or folder).expanduser()
    if output is None and not os.path.isdir(folder):
        raise ValueError(f"{router} is on the Hub. Give a folder for the result: --output FOLDER.")
    if output is not None and target.exists() and not overwrite:
        raise FileExistsError(f"{output} is there already. Give another folder, or --overwrite to replace it.")
    if plot is not None:
        from zooter_hf.evaluation.plots import require_matplotlib

        require_matplotlib()
    experts = load_config(folder, revision).expert_names
    rewards = load_table(table, experts)
    training = None if centroids is None else load_table(centroids, experts)

    from transformers import AutoModel
    from transformers.utils import logging

    import zooter_hf
    from zooter_hf import calibration

    quiet_loading()
    model = AutoModel.from_pretrained(folder, revision=revision)
    if sys.stderr.isatty():
        logging.enable_progress_bar()
    if method is not Method.none:
        found = calibration.calibrate(model, rewards, method=method.value, seed=seed, batch_size=batch_size)
        print_calibration(found)
        if plot is not None:
            from zooter_hf.evaluation.plots import save_calibration_plot

            save_calibration_plot(found.before, found.after, plot)
    shared = {} if training is None else store_familiarity(model, training, familiar, default, seed, batch_size)
    policy: RoutingPolicy | None = None
    if sets is not None:
        policy = calibration.calibrate_sets(
            model, rewards, alpha=sets, delta=delta, by_tag=by_tag, batch_size=batch_size, **shared
        )
    elif mean_price is not None or max_share is not None:
        # What answers did cost is better than what list prices and a length let one expect.
        known = {} if rewards.costs is None else {"costs": calibration.mean_costs(rewards)}
        policy = calibration.fit_cost_weight(
            model,
            rewards.queries,
            mean_price=mean_price,
            max_share=max_share,
            expensive=expensive,
            policy=zooter_hf.make_policy({"name": "cost_aware", **known, **shared}),
        )
    elif strong_share is not None:
        policy = calibration.fit_threshold(model, rewards.queries, strong, weak, strong_share=strong_share, **shared)
    elif shared:
        policy = zooter_hf.make_policy(shared, model.config.policy)
    if policy is not None:
        model.config.policy = policy.to_dict()
        print(f"Policy: {', '.join(f'{name} {value}' for name, value in policy.to_dict().items())}")
    save(model, Path(folder), target)
    print(f"Stored in {target}")


def store_familiarity(
    router: "ZooterForRouting",
    training: "RewardTable",
    familiar: float | None,
    default: str | None,
    seed: int,
    batch_size: int,
) -> dict[str, float | str]:
    """Stores centroids; returns the settings of a policy that answers what is unlike them by the default expert."""
    from zooter_hf import calibration

    names = router.expert_names
    if default is not None and default not in names:
        raise ValueError(f"--default: there is no expert {default!r}; the router has {names}.")
    quantile = {} if familiar is None else {"quantile": familiar}
    limit = calibration.store_centroids(router, training, seed=seed, batch_size=batch_size, **quantile)
    print(f"{len(router.config.centroids)} centroids of {len(training):,} training queries.")
    if familiar is None:
        return {}
    best = names[int(training.rewards.nanmean(dim=0).nan_to_num(nan=float("-inf")).argmax())]
    return {"max_distance": limit, "default": default or best}


def print_calibration(found: "Calibration"):
    """Prints reliability before and after."""
    how = f"temperature {found.temperature:.3g}" if found.scale is None else "a scale and a bias for every expert"
    print(
        f"Calibrated on {found.queries:,} queries: {how}. On queries held out:\n"
        f"  calibration error      {found.ece_before:.4f} before, {found.ece_after:.4f} after\n"
        f"  negative log-likelihood {found.nll_before:.4f} before, {found.nll_after:.4f} after\n"
        f"  reward of the chosen    {found.reward_before:.4f} before, {found.reward_after:.4f} after"
    )


def save(router: "ZooterForRouting", source: Path, target: Path):
    """Writes a router in place of what is in a folder, beside the other files that are there, at one stroke."""
    from zooter_hf.rewards.card import replace_folder

    with replace_folder(target.resolve()) as folder:
        if source.is_dir():  # the evaluation, a card that a person wrote, exports
            shutil.copytree(source, folder, dirs_exist_ok=True)
        router.save_pretrained(folder)
