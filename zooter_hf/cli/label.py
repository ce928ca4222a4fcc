"""`zooter label`: rewards collected, from queries to a reward table."""

from enum import Enum
from typing import Annotated

import typer


class Verify(str, Enum):
    """What is compared with the reference."""

    exact = "exact"
    numeric = "numeric"
    choice = "choice"


class TaggerKind(str, Enum):
    """What tags the queries."""

    instag = "instag"
    clusters = "clusters"


class EngineKind(str, Enum):
    """Where the work is done."""

    local = "local"
    ray = "ray"


INSTAG_MODEL = "OFA-Sys/InsTagger"


def label(
    queries: Annotated[
        str,
        typer.Argument(help="Query set: .jsonl, .parquet or .txt file, a folder, or the id of a dataset on the Hub."),
    ],
    experts: Annotated[str, typer.Option("--experts", "-x", help="YAML file with the list of experts.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the reward table.")],
    reward_model: Annotated[
        list[str] | None, typer.Option(help="Folder or Hub id of a reward model. May be given several times.")
    ] = None,
    verify: Annotated[
        Verify | None, typer.Option(help="Compare answers with the references of the query set.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="YAML file with one expert that compares answers two at a time.")
    ] = None,
    tagger: Annotated[TaggerKind | None, typer.Option(help="By default, the tags of the query set are kept.")] = None,
    tagger_model: Annotated[
        str | None,
        typer.Option(
            help="instag: a folder or Hub id, or a YAML file with one expert "
            f"({INSTAG_MODEL} by default). clusters: the encoder."
        ),
    ] = None,
    clusters: Annotated[int, typer.Option(min=1, help="How many clusters.")] = 20,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The most tokens of an answer.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0 for the most likely answer.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Nucleus of the sampling.")] = 1.0,
    samples: Annotated[int, typer.Option(min=1, help="Answers an expert gives to a query.")] = 1,
    system_prompt: Annotated[str | None, typer.Option(help="System message of queries that have none.")] = None,
    query_column: Annotated[str | None, typer.Option(help="Column of the queries.")] = None,
    reference_column: Annotated[str | None, typer.Option(help="Column of the references.")] = None,
    tag_column: Annotated[str | None, typer.Option(help="Column of the tags.")] = None,
    subset_column: Annotated[str | None, typer.Option(help="Column of the subsets.")] = None,
    split: Annotated[str, typer.Option(help="Split of a dataset.")] = "train",
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first queries.")] = None,
    decontaminate: Annotated[
        list[str] | None,
        typer.Option(help="Leave out queries that share words with this evaluation set. May be given several times."),
    ] = None,
    ngram: Annotated[int, typer.Option(min=1, help="How many words in a row are too many.")] = 6,
    per_tag: Annotated[int | None, typer.Option(min=1, help="Take so many queries of every tag.")] = None,
    engine: Annotated[EngineKind, typer.Option(help="This process (or those of accelerate launch), or Ray.")] = (
        EngineKind.local
    ),
    chunk_size: Annotated[int, typer.Option(min=1, help="Answers asked for at once, and kept together.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of everything that is random.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in the folder.")] = False,
):
    """Collect rewards: experts answer queries, a teacher scores the answers, a tagger tags the queries.

    Stopped at any point, the same command goes on where it was and repeats nothing that was finished.
    """
    from zooter_hf.experts import GenerationSettings, load_experts
    from zooter_hf.rewards.labelling import label as run
    from zooter_hf.rewards.query_sets import decontaminate as leave_out
    from zooter_hf.rewards.query_sets import load_queries

    teacher = _make_teacher(reward_model or [], verify, judge)
    columns = {
        "query_column": query_column,
        "reference_column": reference_column,
        "tag_column": tag_column,
        "subset_column": subset_column,
    }
    members = load_experts(experts)
    tags = _make_tagger(tagger, tagger_model, clusters, seed)
    items = load_queries(queries, **columns, split=split)
    if decontaminate:
        items, left_out = leave_out(items, {source: load_queries(source) for source in decontaminate}, ngram)
        typer.echo(f"{len(left_out):,} queries share {ngram} words in a row with an evaluation set.", err=True)
        if not items:
            raise ValueError(f"Every query of {queries} shares {ngram} words in a row with an evaluation set.")
    if verify is not None and all(item.reference is None for item in items):
        raise ValueError(f"--verify needs references, and {queries} has none. Name their column: --reference-column.")
    labelling = run(
        items[:limit],
        members,
        teacher,
        output=output,
        tagger=tags,
        settings=GenerationSettings(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            system_prompt=system_prompt,
        ),
        samples=samples,
        per_tag=per_tag,
        engine=engine.value,
        chunk_size=chunk_size,
        seed=seed,
        overwrite=overwrite,
    )
    print(labelling.summary)
    print(f"The reward table is in {output}. Train a router from it: zooter distill {output} --encoder ENCODER ...")


def _make_teacher(reward_models: list[str], verify: Verify | None, judge: str | None):
    """Makes the teacher; several are standardised and count alike."""
    from zooter_hf.rewards.teachers import CombinedTeacher, PairwiseJudge, RewardModel, Verifier

    teachers = [RewardModel(model) for model in reward_models]
    if verify is not None:
        teachers.append(Verifier(verify.value))
    if judge is not None:
        teachers.append(PairwiseJudge(_one_expert(judge, "--judge")))
    if not teachers:
        raise ValueError("What scores the answers? Give --reward-model, --verify or --judge.")
    return teachers[0] if len(teachers) == 1 else CombinedTeacher([(teacher, 1.0) for teacher in teachers])


def _make_tagger(kind: TaggerKind | None, model: str | None, clusters: int, seed: int):
    from zooter_hf import ExpertSpec
    from zooter_hf.experts import make_expert
    from zooter_hf.rewards.taggers import EmbeddingTagger, InsTagger

    if kind is None:
        return None
    if kind is TaggerKind.clusters:
        if model is None:
            raise ValueError("--tagger clusters needs the encoder: --tagger-model FOLDER_OR_ID.")
        return EmbeddingTagger(model, clusters=clusters, seed=seed)
    if model is not None and model.endswith((".yaml", ".yml", ".json")):
        return InsTagger(_one_expert(model, "--tagger-model"))
    model = model or INSTAG_MODEL
    return InsTagger(make_expert(ExpertSpec("tagger", model=model, backend="transformers")))


def _one_expert(file: str, option: str):
    from zooter_hf.experts import load_experts, make_expert

    specs = load_experts(file)
    if len(specs) != 1:
        raise ValueError(f"{option}: {file} must hold one expert, it holds {len(specs)}.")
    return make_expert(specs[0])
