"""The `zooter` command: one module per command, each a thin call of the package's API."""

import os
import sys


def main():
    """Runs the command line. Errors that a user can mend end it with a message and exit code 1."""
    try:
        import typer
    except ImportError:
        sys.exit('The command line needs typer and rich: pip install "zooter-hf[cli]"')

    from zooter_hf.cli.calibrate import calibrate
    from zooter_hf.cli.convert import convert
    from zooter_hf.cli.distill import distill
    from zooter_hf.cli.evaluate import evaluate
    from zooter_hf.cli.generate import generate
    from zooter_hf.cli.info import info
    from zooter_hf.cli.label import label
    from zooter_hf.cli.push import push
    from zooter_hf.cli.route import route

    app = typer.Typer(
        help="Route queries to the expert LLM that will answer them best.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in (route, generate, label, convert, distill, calibrate, evaluate, info, push):
        app.command()(command)
    try:
        app()
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:
        if os.environ.get("ZOOTER_TRACEBACK"):
            raise
        sys.exit(f"zooter: error: {error}\n(set ZOOTER_TRACEBACK=1 to see where it comes from)")
    except KeyboardInterrupt:
        if sys.argv[1:2] in (["label"], ["distill"]):
            print("\nzooter: stopped. Give the same command again to go on.", file=sys.stderr)
        sys.exit(130)
