"""`zooter route`: which expert should answer?"""

import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from zooter_hf.cli.loading import load_config, quiet_loading, resolve_router
from zooter_hf.cli.policies import ExcludeOption, IncludeOption, PolicyOption, SettingsOption, read_policy
from zooter_hf.cli.queries import FileOption, JsonLinesOption, read_queries


def route(
    queries: Annotated[
        list[str] | None, typer.Argument(help="Queries. Without any, --file or standard input.")
    ] = None,
    file: FileOption = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Router: a folder or a Hub id. The embedded one by default.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a router on the Hub.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Show this many experts per query.")] = None,
    policy: PolicyOption = None,
    settings: SettingsOption = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say for each query why, and what speaks for the others.")
    ] = False,
    answer_tokens: Annotated[
        int | None, typer.Option(min=0, help="Expected length of an answer, for prices. 256 by default.")
    ] = None,
    max_query_tokens: Annotated[int | None, typer.Option(help="Read at most this many tokens of a query.")] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Queries in one forward pass; 1 answers each as it comes.")
    ] = 32,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps. The first accelerator by default.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="onnx or onnx-int8, of a router that was exported for it: zooter convert --to.")
    ] = None,
    jsonl: JsonLinesOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object a query, as they come.")] = False,
):
    """Say which expert should answer each query, how sure that is, and what it costs."""
    if queries and file is not None:
        raise ValueError("Queries are given both as arguments and with --file. Give one of them.")
    if not queries and file is None:
        if sys.stdin.isatty():
            raise ValueError(
                'No queries. Give some as arguments (zooter route "Why is the sky blue?") or with --file.'
            )
        file = "-"
    if explain and as_json:
        raise ValueError("--json holds everything that --explain says. Give one of them.")
    inputs: Iterable[Any] = queries or read_queries(file, jsonl)
    rows = route_all(
        inputs,
        router=resolve_router(model),
        revision=revision,
        policy=read_policy(policy, settings, include, exclude, answer_tokens=answer_tokens),
        max_query_tokens=max_query_tokens,
        batch_size=batch_size,
        device=device,
        runtime=runtime,
    )
    if as_json:
        for row in rows:
            row["decision"]["ranking"] = row["decision"]["ranking"][:top_k]
            print(json.dumps(row, ensure_ascii=False), flush=True)
    elif explain:
        for row in rows:
            print_explanation(row, shown=top_k)
    else:
        print_table(list(rows), shown=top_k or 2)


def route_all(
    queries: Iterable[Any],
    router: str,
    revision: str | None,
    policy: dict[str, Any] | None,
    max_query_tokens: int | None,
    batch_size: int,
    device: str | None,
    runtime: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Routes queries as they come; yields each with its decision and what was read of it."""
    from transformers import pipeline

    from zooter_hf import ROUTING_TASK
    from zooter_hf.routing import decide

    quiet_loading()
    load_config(router, revision)  # for its clear error
    kwargs = {} if runtime is None else {"model_kwargs": {"runtime": runtime}}
    routing = pipeline(ROUTING_TASK, model=router, revision=revision, device=device, batch_size=batch_size, **kwargs)
    waiting: deque[Any] = deque()  # read, and not answered yet

    def remember(query):
        waiting.append(query)
        return query

    for routed in decide(
        routing,
        map(remember, queries),
        router=router,
        policy=policy,
        max_query_tokens=max_query_tokens,
    ):
        yield {
            "query": waiting.popleft(),
            "decision": routed.decision.to_dict(),
            "query_tokens": routed.query_tokens,
            "read_tokens": routed.read_tokens,
            "truncated": routed.truncated,
        }


def print_table(rows: list[dict[str, Any]], shown: int):
    """Prints decisions for a person."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        Console(stderr=True).print("No queries in the input.")
        return
    priced = any(expert["price"] is not None for row in rows for expert in row["decision"]["ranking"])
    columns = ["expert", "prob."]
    for place in range(2, shown + 1):
        columns += ["runner-up" if shown == 2 else f"{place}.", "prob."]
    if priced:
        columns += ["$ / 1000", "dearest"]
    # In a pipe or a log there is no terminal whose width could be asked for.
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)
    # The query gives way to what the others need, as far as it can; after that names are folded.
    names = max(len(expert["name"]) for row in rows for expert in row["decision"]["ranking"])
    needed = sum(names if index % 2 == 0 and index < 2 * shown else 8 for index in range(len(columns)))
    room = max(16, console.width - needed - 3 * len(columns) - 4)
    table = Table()
    table.add_column("query", max_width=room, no_wrap=True, overflow="ellipsis")
    for column in columns:
        name = column not in ("prob.", "$ / 1000", "dearest")
        table.add_column(column, justify="left" if name else "right", no_wrap=not name, overflow="fold")
    for row in rows:
        ranking = in_order(row["decision"])
        cells = [Text(shorten(row["query"]) + (" [cut]" if row["truncated"] else ""))]
        for place in range(shown):
            expert = ranking[place] if place < len(ranking) else None
            style = "bold" if place == 0 else ""
            cells.append(Text(expert["name"] if expert else "-", style=style))
            cells.append(Text(f"{expert['probability']:.1%}" if expert else "-", style=style))
        if priced:
            prices = [expert["price"] for expert in ranking if expert["price"] is not None]
            cells.append(Text("-" if ranking[0]["price"] is None else f"{1000 * ranking[0]['price']:.3f}"))
            cells.append(Text(f"{1000 * max(prices):.3f}" if prices else "-"))
        table.add_row(*cells)
    console.print(table)
    if priced:
        console.print(
            "$ / 1000: estimated price of a thousand such queries at the chosen expert's list prices; dearest: with "
            "the most expensive expert."
        )
    if any(row["truncated"] for row in rows):
        console.print("[cut]: the middle of this query was not read; --json shows how much.", markup=False)


def in_order(decision: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the ranking as the policy has it: the chosen expert, who would take its place, then the others."""
    places = {name: place for place, name in enumerate([decision["expert"], *decision["alternatives"]])}
    return sorted(decision["ranking"], key=lambda expert: places.get(expert["name"], len(places)))


def print_explanation(row: dict[str, Any], shown: int | None):
    """Prints one decision with all that led to it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    decision = row["decision"]
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160, highlight=False)
    console.print(Text(shorten(row["query"]), style="dim"))
    console.print(Text(f"{decision['expert']}: {decision['reason']} ({decision['policy']})", style="bold"))
    if decision["members"]:
        weights = decision["weights"] or {}
        members = [f"{name} ({weights[name]:.2g})" if name in weights else name for name in decision["members"]]
        console.print(Text(f"  asked together: {', '.join(members)}; {decision['aggregation']}"))
    if decision["distance"] is not None:
        near = ", ".join(decision["near"]) or "queries without tags"
        console.print(Text(f"  nearest training queries: {near}, at a cosine distance of {decision['distance']:.2f}"))
    if row["truncated"]:
        console.print(Text(f"  read {row['read_tokens']} of {row['query_tokens']} tokens"))
    ranking = in_order(decision)[:shown]
    columns = {
        "prob.": ("probability", "{:.1%}"),
        "reward": ("reward", "{:.3g}"),
        "$ / 1000": ("price", "{:.3f}"),
        "may not answer": ("out", "{}"),
    }
    columns = {
        title: each for title, each in columns.items() if any(expert[each[0]] is not None for expert in ranking)
    }
    table = Table(box=None, pad_edge=True)
    table.add_column("expert", overflow="fold")
    for title in columns:
        table.add_column(title, justify="left" if title == "may not answer" else "right")
    for expert in ranking:
        values = {**expert, "price": None if expert["price"] is None else 1000 * expert["price"]}
        cells = ["" if values[key] is None else form.format(values[key]) for key, form in columns.values()]
        table.add_row(Text(expert["name"]), *map(Text, cells))
    console.print(table)
    console.print()


def shorten(query: Any) -> str:
    """Returns a query's most important text on one line."""
    from zooter_hf.modeling import read_query

    return " ".join(read_query(query, "last_user")[0].split())
