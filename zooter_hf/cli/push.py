"""`zooter push`: share a router on the Hub."""

from typing import Annotated

import typer

from zooter_hf.cli.loading import load_config, quiet_loading, resolve_router


def push(
    router: Annotated[str, typer.Argument(help="Folder of the router.")],
    repo_id: Annotated[str, typer.Argument(help="Where to: owner/name.")],
    private: Annotated[bool, typer.Option(help="Make the repository private, if it is made.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to push to.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Commit message.")] = None,
    create_pr: Annotated[bool, typer.Option(help="Open a pull request instead of committing.")] = False,
):
    """Upload a router: weights, config, tokenizer, code and model card, in one commit.

    Log in first with `hf auth login`, or set HF_TOKEN.
    """
    from transformers import AutoModel

    quiet_loading()
    folder = resolve_router(router)
    load_config(folder)  # for its clear error
    commit = AutoModel.from_pretrained(folder).push_to_hub(
        repo_id, private=private or None, revision=revision, commit_message=message, create_pr=create_pr
    )
    print(getattr(commit, "pr_url", None) or commit.commit_url)
