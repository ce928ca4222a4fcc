"""`zooter convert`: other formats to ours."""

from pathlib import Path
from typing import Annotated

import typer


SHOWN_SUBSETS = 20


def convert(
    source: Annotated[str, typer.Argument(help="File or folder to convert.")],
    target: Annotated[
        str, typer.Argument(help="A reward table to write: a .jsonl or .parquet file, or a folder as on the Hub.")
    ],
    source_format: Annotated[
        str, typer.Option("--from", help="What SOURCE is: llmrouter, routerbench or routerdc (tables of scores).")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace TARGET if it is there.")] = False,
):
    """Convert a table of scores into a reward table; rows that cannot be read are counted and named."""
    from zooter_hf.conversion.reward_tables import load
    from zooter_hf.rewards.rows import list_problems

    if Path(target).expanduser().exists() and not overwrite:
        raise FileExistsError(f"{target} is there already. Give another path, or --overwrite to replace it.")
    table = load(source, source_format)
    table.save(target, overwrite=overwrite)
    subsets = sorted({subset for subset in table.subsets if subset is not None})
    named = ", ".join(subsets[:SHOWN_SUBSETS]) + (", ..." if len(subsets) > SHOWN_SUBSETS else "")
    print(f"{target}: {len(table):,} queries, {len(table.experts)} experts, {len(subsets)} subsets ({named}).")
    if table.left_out:
        print(f"{len(table.left_out)} rows are left out:\n{list_problems(table.left_out)}")
    print(f"Train a router from it: zooter distill {target} --encoder ENCODER --output ROUTER")
