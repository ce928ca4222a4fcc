"""Collects rewards: experts answer, teachers score, a tagger tags, and a table comes out."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from zooter_hf.experts import Expert, ExpertError, GenerationSettings, Query, load_experts, make_expert
from zooter_hf.modeling import ExpertSpec
from zooter_hf.rewards.labelling.engines import Engine, make_engine
from zooter_hf.rewards.labelling.stages import Answers, Scores, Tags
from zooter_hf.rewards.labelling.store import Store
from zooter_hf.rewards.labelling.summary import ExpertOutcome, LabellingSummary
from zooter_hf.rewards.query_sets import QueryItem, load_queries, sample_per_tag
from zooter_hf.rewards.samples import average_samples
from zooter_hf.rewards.table import RewardTable
from zooter_hf.rewards.taggers import Tagger
from zooter_hf.rewards.teachers import CallableTeacher, CombinedTeacher, RewardModel, Teacher


logger = logging.get_logger(__name__)

_SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class Labelling:
    """What a labelling run produced.

    Args:
        table: The reward table.
        summary: What was done, and what failed.
        folder: Where the table is.
    """

    table: RewardTable
    summary: LabellingSummary
    folder: Path


def collect_rewards(
    queries: "str | Path | Iterable[QueryItem | Mapping[str, Any] | Query]",
    experts: "str | Path | Sequence[Expert | ExpertSpec | Mapping[str, Any]]",
    reward_model: Any,
    *,
    output: str | Path,
    tagger: Tagger | None = None,
    **options,
) -> RewardTable:
    """Collects rewards and returns the reward table; see [`label`], which says what happened besides."""
    return label(queries, experts, reward_model, output=output, tagger=tagger, **options).table


def label(
    queries: "str | Path | Iterable[QueryItem | Mapping[str, Any] | Query]",
    experts: "str | Path | Sequence[Expert | ExpertSpec | Mapping[str, Any]]",
    reward_model: Any,
    *,
    output: str | Path,
    tagger: Tagger | None = None,
    settings: GenerationSettings | None = None,
    samples: int = 1,
    per_tag: int | None = None,
    engine: "str | Engine" = "local",
    chunk_size: int = 32,
    seed: int = 0,
    overwrite: bool = False,
) -> Labelling:
    """Has experts answer queries, teachers score the answers and a tagger tag the queries.

    Everything that is done is kept at once in `<output>.work`: stopped at any point, the same call goes on and
    repeats nothing, and its table is that of a run that was not stopped. What depends on a setting is kept apart from
    what was done with another. The folder may be deleted when nothing is to be added to the table any more.

    One expert, teacher or tagger at a time is in memory. An expert that fails on queries leaves nulls. Failed answers
    are asked for again by the next run.

    Args:
        queries: A query set, as [`load_queries`] reads it; or queries: items, dicts of their fields, strings, chats.
        experts: A file of experts, as [`load_experts`] reads it; or experts, or what they are.
        reward_model: What scores the answers: a [`Teacher`], a [`CombinedTeacher`], a function of query and answer, or
            the folder or Hub id of a reward model.
        output: Folder of the reward table.
        tagger: What tags the queries. By default their own tags are kept, if they have any.
        settings: How experts generate.
        samples: How many answers an expert gives to a query. Their mean reward counts; the table keeps the spread.
        per_tag: How many queries of every tag are taken (see [`sample_per_tag`]); tags are then made first.
        engine: `"local"`, `"ray"`, or an engine of your own. Under `accelerate launch`, `"local"` shares the queries
            between its processes.
        chunk_size: How many answers are asked for at once, and kept together.
        seed: Which queries are taken with `per_tag`.
        overwrite: Whether a table in `output` that this run did not write may be replaced.

    Returns:
        [`Labelling`]. Under `accelerate launch`, in every process.

    Raises:
        FileExistsError: If something is in `output` that no such run has written.
        ValueError: If there is no query or expert, or a setting is out of its range.
        ExpertError: If no expert gave any answer; says why of each.
        OSError: If nothing can be written: a full disk, a folder without permission; says what is kept.
    """
    output = Path(output).expanduser()
    work = output.resolve().with_name(f"{output.resolve().name}.work")
    settings = settings or GenerationSettings()
    if samples < 1:
        raise ValueError(f"`samples` must be positive, got {samples}.")
    if samples > 1 and not settings.temperature:
        raise ValueError(
            f"{samples} answers at temperature 0 would all be the same. Set a `temperature`, or `samples=1`."
        )
    if chunk_size < 1:
        raise ValueError(f"`chunk_size` must be positive, got {chunk_size}.")
    items = _make_items(queries)
    members = _make_experts(experts)
    teacher = _make_teacher(reward_model)
    parts = teacher.parts if isinstance(teacher, CombinedTeacher) else [(teacher, 1.0)]
    _check_output(output, work, overwrite)
    engine = make_engine(engine)

    with _locked(work, engine):
        tags = None
        if tagger is not None and per_tag is not None:
            tags = _tag(items, tagger, work, engine, chunk_size)
        if per_tag is not None:
            chosen = sample_per_tag(_with_tags(items, tags), per_tag, seed)
            logger.warning(f"{len(chosen):,} of {len(items):,} queries are taken, up to {per_tag} of every tag.")
            items = [items[row] for row in chosen]
            tags = None if tagger is None else [tags[row] for row in chosen]

        answers = Answers(items, members, settings, samples, Store(work / "answers", engine.rank))
        answers.run(engine, chunk_size)
        outcomes = _outcomes(answers)
        if not any(outcome.answered for outcome in outcomes):
            errors = "\n".join(f"  {outcome.name}: {outcome.error}" for outcome in outcomes)
            raise ExpertError(f"No expert gave any answer:\n{errors}")
        scores, unscored = [], {}
        for part, _ in parts:
            stage = Scores(items, answers, part, Store(work / "rewards", engine.rank))
            stage.run(engine, chunk_size)
            scores.append(stage.array())
            name = _name_of(part, unscored)
            unscored[name] = sum(outcome.answered for outcome in outcomes) - int((~np.isnan(scores[-1])).sum())
        if tagger is not None and tags is None:
            tags = _tag(items, tagger, work, engine, chunk_size)

        rewards = scores[0]
        if isinstance(teacher, CombinedTeacher):
            flat = teacher.combine([of_part.reshape(len(items), -1) for of_part in scores])
            rewards = flat.reshape(rewards.shape)
        summary = LabellingSummary(
            len(items), outcomes, unscored, None if tagger is None else sum(of_query is None for of_query in tags)
        )
        table = RewardTable.from_rows(
            _rows(items, answers, *average_samples(rewards), tags), [expert.spec for expert in members]
        )
        if engine.rank == 0:
            table.save(output, overwrite=True)
            (work / _SUMMARY_FILE).write_text(json.dumps(summary.to_dict(), indent=2), encoding="utf-8")
        engine.wait()
    return Labelling(table, summary, output)


def _make_items(queries: Any) -> list[QueryItem]:
    if isinstance(queries, str | Path):
        return load_queries(queries)
    items = []
    for number, query in enumerate(queries, start=1):
        try:
            items.append(QueryItem.from_value(query))
        except (ValueError, TypeError) as error:
            raise ValueError(f"Query {number}: {error}.") from error
    if not items:
        raise ValueError("There are no queries.")
    return items


def _make_experts(experts: Any) -> list[Expert]:
    if isinstance(experts, str | Path):
        experts = load_experts(experts)
    members = [each if isinstance(each, Expert) else make_expert(ExpertSpec.from_value(each)) for each in experts]
    names = [expert.spec.name for expert in members]
    if not names:
        raise ValueError("There are no experts.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"The experts {twice} are named twice.")
    return members


def _make_teacher(reward_model: Any) -> Teacher | CombinedTeacher:
    if isinstance(reward_model, Teacher | CombinedTeacher):
        return reward_model
    if isinstance(reward_model, str | Path):
        return RewardModel(str(reward_model))
    if callable(reward_model):
        return CallableTeacher(reward_model)
    raise TypeError(
        f"`reward_model` must be a teacher, a function of query and answer, or a reward model's folder or Hub id, got "
        f"{type(reward_model).__name__}."
    )


def _check_output(output: Path, work: Path, overwrite: bool):
    if output.is_file():
        raise FileExistsError(f"{output} is a file. Give a folder for the reward table.")
    # A table whose working folder is beside it was written by such a run, and can be written again.
    if output.is_dir() and any(output.iterdir()) and not (work / _SUMMARY_FILE).exists() and not overwrite:
        raise FileExistsError(
            f"{output} is not empty. Give another folder, or pass `overwrite=True` (--overwrite) to replace what is "
            "there."
        )


@contextmanager
def _locked(work: Path, engine: Engine) -> Iterator[None]:
    """Keeps a second run away from the working folder."""
    from filelock import FileLock, Timeout

    try:
        work.mkdir(parents=True, exist_ok=True)
        if not os.access(work, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise OSError(f"{work} cannot be written to: {error.strerror}. Give another output folder.") from error
    if engine.rank:
        yield
        return
    lock = FileLock(work / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OSError(f"Another run is at work in {work}. Wait for it, or give another output folder.") from None
    try:
        yield
    finally:
        lock.release()


def _tag(
    items: Sequence[QueryItem], tagger: Tagger, work: Path, engine: Engine, chunk_size: int
) -> list[list[str] | None]:
    stage = Tags(items, tagger, Store(work / "tags", engine.rank))
    stage.run(engine, chunk_size)
    return [stage.get(row) for row in range(len(items))]


def _with_tags(items: Sequence[QueryItem], tags: Sequence[list[str] | None] | None) -> Sequence[QueryItem]:
    if tags is None:
        return items
    return [
        QueryItem(item.query, item.reference, tuple(of_query or ()), item.subset)
        for item, of_query in zip(items, tags, strict=True)
    ]


def _outcomes(answers: Answers) -> list[ExpertOutcome]:
    outcomes = []
    for index, expert in enumerate(answers.experts):
        outcome = ExpertOutcome(expert.spec.name, error=answers.failures.get(expert.spec.name))
        for row in range(len(answers.items)):
            for sample in range(answers.samples):
                answer = answers.get(row, index, sample)
                if answer is None:
                    outcome.failed += 1
                    continue
                usage = answers.usage(index, answer)
                outcome.answered += 1
                outcome.input_tokens += usage.input_tokens or 0
                outcome.output_tokens += usage.output_tokens or 0
                outcome.seconds += usage.seconds or 0.0
                if usage.cost is not None:
                    outcome.cost = (outcome.cost or 0.0) + usage.cost
        outcomes.append(outcome)
    return outcomes


def _name_of(teacher: Teacher, taken: Mapping[str, Any]) -> str:
    """Returns what a person would call a teacher, with a number where two have the same name."""
    settings = teacher.settings
    name = str(settings.get("name") or settings.get("model") or type(teacher).__name__)
    same = sum(other == name or other.startswith(f"{name} (") for other in taken)
    return f"{name} ({same + 1})" if same else name


def _rows(
    items: Sequence[QueryItem],
    answers: Answers,
    rewards: np.ndarray,
    spreads: np.ndarray,
    tags: Sequence[list[str] | None] | None,
) -> Iterator[dict[str, Any]]:
    """Yields the rows of the table; of several answers it holds the first, and their mean cost."""
    names = [expert.spec.name for expert in answers.experts]
    for row, item in enumerate(items):
        costs, responses = {}, {}
        for index, name in enumerate(names):
            given = [answer for s in range(answers.samples) if (answer := answers.get(row, index, s)) is not None]
            known = [cost for answer in given if (cost := answers.usage(index, answer).cost) is not None]
            costs[name] = sum(known) / len(known) if known else None
            responses[name] = given[0]["text"] if given else None
        yield {
            "query": item.query,
            "rewards": _by_name(names, rewards[row]),
            "tags": list(item.tags) if tags is None else tags[row] or [],
            "subset": item.subset,
            "spreads": _by_name(names, spreads[row]) if answers.samples > 1 else None,
            "costs": costs if any(cost is not None for cost in costs.values()) else None,
            "responses": responses,
        }


def _by_name(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}
