"""`zooter convert`: other formats to ours, and ours to others."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer


SHOWN_SUBSETS = 20
# Told apart by the file where a table and a checkpoint have the same name.
WEIGHTS = (".pth", ".pt", ".bin")
TABLE_FILES = (".jsonl", ".ndjson", ".parquet")


def convert(
    source: Annotated[str, typer.Argument(help="File or folder to convert; of checkpoints also a Hub id.")],
    target: Annotated[
        str,
        typer.Argument(
            help="Tables: a reward table to write, a .jsonl or .parquet file, or a folder as on the Hub. Checkpoints: "
            "the folder of a router. With --to onnx, onnx-int8 and torch-export the router's own folder."
        ),
    ],
    source_format: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="What SOURCE is. Tables of scores: alpacaeval, arena, llmrouter, llmrouterbench, mixinstruct, "
            "routerbench, routerdc. Checkpoints: routellm, routerdc (if SOURCE is a .pth file), "
            "sentence_transformers, sequence_classification.",
        ),
    ] = None,
    target_format: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="SOURCE is a router, and TARGET becomes: onnx or onnx-int8 (which pipelines run with runtime=...), "
            "torch-export, sequence-classification (which needs no code of ours), merged (adapters merged).",
        ),
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(help="With --to: queries to compare on, one a line; onnx-int8 is calibrated on them."),
    ] = None,
    experts: Annotated[
        str | None,
        typer.Option(
            "--experts",
            help="For checkpoints: a YAML or JSON file with the experts in the order of the labels, or a mapping "
            "from labels to experts.",
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="What the format needs to know besides, for instance mode=bradley_terry and clusters=language of "
            "arena, or encoder=FOLDER of routerdc. May be given several times.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace TARGET if it is there.")] = False,
):
    """Convert a table of scores into a reward table, a checkpoint into a router, or a router into other formats.

    Rows of tables that cannot be read are counted and named. Routers are compared with what they are made of, exports
    with the router, and nothing is written that computes something else.
    """
    path = Path(target).expanduser()
    if (source_format is None) == (target_format is None):
        raise ValueError("Say either what SOURCE is, with --from, or what TARGET is to be, with --to.")
    if target_format is not None:
        _export(source, path, target_format, queries, dict(map(_parse_option, options or [])), overwrite)
        return
    if queries is not None:
        raise ValueError("--queries is for --to: exports are compared with the router on them.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{target} is there already. Give another path, or --overwrite to replace it.")
    parsed = dict(map(_parse_option, options or []))
    if _is_checkpoint(source_format, source):
        _convert_checkpoint(source, path, source_format, experts, parsed)
    else:
        if experts is not None:
            raise ValueError(f"--experts is for checkpoints; tables name their experts, and {source_format} is one.")
        _convert_table(source, path, source_format, parsed, overwrite)


def _export(
    source: str, path: Path, target_format: str, queries: str | None, options: dict[str, Any], overwrite: bool
):
    from transformers import AutoModel

    from zooter_hf.cli.loading import load_config, quiet_loading, resolve_router
    from zooter_hf.cli.queries import read_queries
    from zooter_hf.conversion.exports import FORMATS, export

    if target_format not in FORMATS:
        raise ValueError(f"There is no export {target_format!r}. There are {', '.join(FORMATS)}.")
    router = resolve_router(source)
    load_config(router)  # for its clear error
    quiet_loading()
    check = export(
        AutoModel.from_pretrained(router),
        path,
        target_format,
        queries=None if queries is None else list(read_queries(queries)),
        overwrite=overwrite,
        **options,
    )
    print(f"{path}: {check}.")


def _is_checkpoint(source_format: str, source: str) -> bool:
    from zooter_hf.conversion import checkpoints, reward_tables

    table, checkpoint = source_format in reward_tables.FORMATS, source_format in checkpoints.FORMATS
    if not table and not checkpoint:
        raise ValueError(
            f"There is no reader for {source_format!r}. There are readers for tables of scores "
            f"({', '.join(reward_tables.FORMATS)}) and for checkpoints ({', '.join(checkpoints.FORMATS)})."
        )
    return checkpoint and (not table or source.endswith(WEIGHTS))


def _parse_option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise ValueError(f"--option {text!r} is not NAME=VALUE.")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value  # a string that needs no quotes


def _convert_table(source: str, path: Path, source_format: str, options: dict[str, Any], overwrite: bool):
    from zooter_hf.conversion.reward_tables import load
    from zooter_hf.rewards.rows import list_problems

    table = load(source, source_format, **options)
    table.save(path, overwrite=overwrite)
    subsets = sorted({subset for subset in table.subsets if subset is not None})
    named = ", ".join(subsets[:SHOWN_SUBSETS]) + (", ..." if len(subsets) > SHOWN_SUBSETS else "")
    among = f"{len(subsets)} subsets ({named})" if subsets else "no subsets"
    print(f"{path}: {len(table):,} queries, {len(table.experts)} experts, {among}.")
    if table.left_out:
        print(f"{len(table.left_out)} rows are left out:\n{list_problems(table.left_out)}")
    print(f"Train a router from it: zooter distill {path} --encoder ENCODER --output ROUTER")


def _convert_checkpoint(source: str, path: Path, source_format: str, experts: str | None, options: dict[str, Any]):
    from zooter_hf.cli.loading import quiet_loading
    from zooter_hf.conversion.checkpoints import load
    from zooter_hf.rewards.card import replace_folder

    if path.suffix in TABLE_FILES:
        raise ValueError(f"{path} looks like a table, but a checkpoint becomes a router: give a folder.")
    if path.exists() and not (path / "config.json").is_file() and (path.is_file() or any(path.iterdir())):
        raise FileExistsError(f"{path} holds no router, and is not replaced. Give another folder.")
    quiet_loading()
    router = load(source, source_format, experts, **options)
    router.config.training = {"name": path.resolve().name, **(router.config.training or {})}
    with replace_folder(path) as folder:
        router.save_pretrained(folder)
    print(f"{path}: a router over {len(router.expert_names)} experts ({', '.join(router.expert_names)}).")
    if source_format == "sentence_transformers":
        print("It has the query embeddings of the encoder. Its head is random: train it before use.")
    else:
        print("On built-in sentences its logits are those of the checkpoint.")
        print(f'Try it: zooter route "..." --model {path}')
