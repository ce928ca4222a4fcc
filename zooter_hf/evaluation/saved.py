"""How reports are kept: as JSON, as Markdown, and as plots, side by side in a folder."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from zooter_hf.evaluation.plots import require_matplotlib, save_plots


Report = TypeVar("Report", bound="SavedReport")


class SavedReport:
    """A report, as a frozen dataclass, that can be saved and loaded.

    A kind of report says what its files are called, and which plots it has.
    """

    stem: ClassVar[str]
    plots: ClassVar[Mapping[str, Callable]]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as JSON values; what is not known is `None`."""
        return json.loads(json.dumps(asdict(self), allow_nan=False))

    @classmethod
    def from_dict(cls: type[Report], values: Mapping[str, Any]) -> Report:
        """Makes a report of what `to_dict` returned.

        Raises:
            ValueError: If it is no such report.
        """
        raise NotImplementedError

    def to_json(self) -> str:
        """Returns the report as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def to_markdown(self) -> str:
        """Returns the report as Markdown."""
        raise NotImplementedError

    def save(self, folder: str | Path, overwrite: bool = False, plots: bool = True) -> list[Path]:
        """Writes `<stem>.json`, `<stem>.md` and the plots.

        Args:
            folder: Where to; made if it is not there.
            overwrite: Whether the files of an earlier report are replaced.
            plots: Whether to draw plots; needs matplotlib.

        Returns:
            The files.

        Raises:
            FileExistsError: If a file is there already.
            NotADirectoryError: If `folder` is a file.
            ImportError: If plots are asked for and matplotlib is not installed.
        """
        folder = self.check_folder(folder, overwrite=overwrite, plots=plots)
        folder.mkdir(parents=True, exist_ok=True)
        own = self._own_files(folder)
        for path in own:
            path.unlink(missing_ok=True)  # a plot of the earlier report that this one has not
        own[0].write_text(self.to_json(), encoding="utf-8")
        own[1].write_text(self.to_markdown(), encoding="utf-8")
        return own[:2] + (save_plots(self, folder, self.plots) if plots else [])

    @classmethod
    def check_folder(cls, folder: str | Path, overwrite: bool = False, plots: bool = True) -> Path:
        """Checks that a report can be saved, before the long work of making one.

        Returns:
            The folder's path; nothing is made yet.

        Raises:
            FileExistsError: If a file of a report is there already and may not be replaced.
            NotADirectoryError: If `folder` is a file.
            ImportError: If plots are asked for and matplotlib is not installed.
        """
        folder = Path(folder).expanduser()
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file. Give a folder for the report.")
        for path in cls._own_files(folder):
            if path.exists() and not overwrite:
                raise FileExistsError(
                    f"{path} is there already. Give another folder, or `overwrite=True` (--overwrite) to replace it."
                )
        if plots:
            require_matplotlib()
        return folder

    @classmethod
    def load(cls: type[Report], path: str | Path) -> Report:
        """Loads a report from its JSON file or the folder that it is in.

        Raises:
            OSError: If there is no such file.
            ValueError: If it is no report of this kind.
        """
        path = Path(path).expanduser()
        path = path / f"{cls.stem}.json" if path.is_dir() else path
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def _own_files(cls, folder: Path) -> list[Path]:
        return [folder / name for name in (f"{cls.stem}.json", f"{cls.stem}.md", *cls.plots)]
