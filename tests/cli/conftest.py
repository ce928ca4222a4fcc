"""The command line, run in this process."""

import io
import sys
from types import SimpleNamespace

import pytest

from zooter_hf.cli import main


@pytest.fixture
def zooter(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder; returns what it wrote."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments, stdin="", check=True, terminal=False):
        monkeypatch.setattr(sys, "argv", ["zooter", *map(str, arguments)])
        lines = io.StringIO(stdin)
        lines.isatty = lambda: terminal
        monkeypatch.setattr(sys, "stdin", lines)
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main()
        out, err = capsys.readouterr()
        if isinstance(exit.value.code, str):  # which Python prints and turns into 1 on its way out
            err += exit.value.code
        assert (exit.value.code in (0, None)) == check, err
        return SimpleNamespace(stdout=out, stderr=err)

    return run
