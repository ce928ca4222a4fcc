"""`zooter generate`: the chosen expert answers."""

import json
import sys
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zooter_hf.cli.loading import quiet_loading, resolve_router
from zooter_hf.cli.policies import ExcludeOption, IncludeOption, PolicyOption, SettingsOption, read_policy
from zooter_hf.cli.queries import FileOption, JsonLinesOption, read_queries


if TYPE_CHECKING:
    from zooter_hf import Reply, ZooterEnsemble

HELP = "/new begins another conversation, /why shows the last decision, /quit ends."


class FallbackKind(str, Enum):
    """What happens where an expert fails."""

    next = "next"
    none = "none"


def generate(
    queries: Annotated[
        list[str] | None, typer.Argument(help="Queries. Without any, --file, standard input, or a chat in a terminal.")
    ] = None,
    file: FileOption = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Ensemble or router: a folder or a Hub id. The embedded one by default."),
    ] = None,
    experts: Annotated[
        str | None, typer.Option("--experts", "-x", help="YAML file with experts, in place of the router's own.")
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Never choose experts that nobody says how to run.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a router on the Hub.")] = None,
    policy: PolicyOption = None,
    settings: SettingsOption = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    expert: Annotated[
        str | None, typer.Option("--expert", "-e", help="This expert answers, whatever the router says.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="The most tokens of an answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 for the most likely answer.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus of the sampling.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sampling.")] = None,
    system_prompt: Annotated[str | None, typer.Option(help="System message of queries that have none.")] = None,
    sticky: Annotated[
        bool | None,
        typer.Option("--sticky/--no-sticky", help="Stay with the expert of a conversation. A chat does by default."),
    ] = None,
    sticky_margin: Annotated[
        float | None, typer.Option(help="Unless another leads by more than this, in probability.")
    ] = None,
    fallback: Annotated[FallbackKind | None, typer.Option(help="Where an expert fails.")] = None,
    max_loaded: Annotated[int | None, typer.Option(min=1, help="The most models in memory.")] = None,
    device: Annotated[str | None, typer.Option(help="Of the router: cpu, cuda, cuda:1, mps.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries that are answered together.")] = 32,
    jsonl: JsonLinesOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object a query: text, expert, decision, usage.")
    ] = False,
):
    """Have the chosen expert answer: one query, a file, or a chat."""
    if queries and file is not None:
        raise ValueError("Queries are given both as arguments and with --file. Give one of them.")
    chat = not queries and file is None and sys.stdin.isatty()
    if chat and as_json:
        raise ValueError("A chat is not written as JSON. Give queries as arguments, with --file or standard input.")
    given = {"sticky": sticky, "sticky_margin": sticky_margin, "fallback": fallback and fallback.value}
    given["policy"] = read_policy(policy, settings, include, exclude)
    if chat and sticky is None:
        given["sticky"] = True
    generation = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "system_prompt": system_prompt,
    }
    inputs = queries or (None if chat else read_queries(file or "-", jsonl))

    from zooter_hf import ZooterEnsemble

    quiet_loading()
    with ZooterEnsemble.from_pretrained(
        resolve_router(model),
        experts,
        revision=revision,
        on_missing="skip" if skip_missing else "error",
        device=device,
        max_loaded=max_loaded,
        **{name: value for name, value in given.items() if value is not None},
        generation={name: value for name, value in generation.items() if value is not None},
    ) as ensemble:
        if chat:
            converse(ensemble, expert)
        elif as_json or len(queries or ()) != 1:
            answer_all(ensemble, inputs, expert, batch_size, as_json)
        else:
            stream_one(ensemble, queries[0], expert)


def stream_one(ensemble: "ZooterEnsemble", query: Any, expert: str | None) -> "Reply":
    """Prints an answer as it comes, under the name of the expert that gives it."""
    from rich.console import Console

    console = Console(highlight=False)
    named = False
    with ensemble.stream(query, expert=expert) as stream:
        for piece in stream:
            if not named:
                console.print(stream.expert, style="bold", end=": ", markup=False)
                named = True
            console.out(piece, end="", highlight=False)
            sys.stdout.flush()
    if not named:
        console.print(f"{stream.expert}: (an empty answer)", style="bold", markup=False, end="")
    console.print()
    for fallback in stream.decision.fallbacks:
        Console(stderr=True).print(f"{fallback.expert} did not answer: {fallback.reason}", style="dim", markup=False)
    return stream.reply


def answer_all(ensemble: "ZooterEnsemble", queries: Any, expert: str | None, batch_size: int, as_json: bool):
    """Answers queries batch by batch; those that no expert could answer end the command with an error."""
    queries, failed, count = iter(queries), 0, 0
    while batch := list(islice(queries, batch_size)):
        for query, reply in zip(batch, ensemble.generate(batch, expert=expert), strict=True):
            count += 1
            failed += reply.error is not None
            if as_json:
                print(json.dumps({"query": query, **reply.to_dict()}, ensure_ascii=False), flush=True)
            elif reply.error is None:
                print(f"{reply.expert}: {reply.text}\n", flush=True)
            else:
                print(f"error: {reply.error}\n", flush=True)
    if not count:
        print("No queries in the input.", file=sys.stderr)
    if failed:
        raise RuntimeError(f"{failed} of {count} queries were not answered.")


def converse(ensemble: "ZooterEnsemble", expert: str | None):
    """Talks with a person in a terminal."""
    from rich.console import Console

    from zooter_hf.ensemble import EnsembleError

    console = Console(highlight=False)
    console.print(f"{', '.join(ensemble.experts)} answer. {HELP}", style="dim", markup=False)
    chat: list[dict[str, str]] = []
    reply = None
    while True:
        try:
            said = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if said == "/quit":
            return
        if said == "/new":
            chat, reply = [], None
        elif said == "/why":
            console.print(explain(reply), markup=False)
        elif said.startswith("/"):
            console.print(HELP, style="dim", markup=False)
        elif said:
            query = [*chat, {"role": "user", "content": said}]
            try:
                reply = stream_one(ensemble, query, expert)
            except KeyboardInterrupt:
                console.print("\n(stopped; the question is forgotten)", style="dim", markup=False)
            except EnsembleError as error:
                console.print(f"\n{error}", style="red", markup=False)
            else:
                chat = [*query, {"role": "assistant", "content": reply.text}]


def explain(reply: "Reply | None") -> str:
    """Says why an expert was chosen, and what the answer took."""
    if reply is None:
        return "Nothing has been answered yet."
    decision = reply.decision
    lines = [f"{decision.expert}: {decision.reason} ({decision.policy})"]
    lines += [f"  {each.probability:6.1%}  {each.name}" for each in decision.ranking]
    lines += [f"  {each.expert} did not answer: {each.reason}" for each in decision.fallbacks]
    read, written = reply.usage.input_tokens, reply.usage.output_tokens
    took = [f"  routed in {1000 * reply.seconds_routing:.0f} ms", f"answered in {reply.seconds_generating:.1f} s"]
    if None not in (read, written):
        took.append(f"{read} tokens read and {written} written")
    if reply.price is not None:
        took.append(f"${reply.price:.6f}")
    return "\n".join([*lines, ", ".join(took)])
