"""The card of a reward table, and what sharing one takes."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

    from zooter_hf.rewards.table import RewardTable


TEMPLATE = Path(__file__).parent / "dataset_card_template.md"
CARD_NAME = "README.md"
GENERATED_MARK = "<!-- written by zooter-hf: remove this line to keep your own changes -->"


def write_dataset_card(table: "RewardTable", folder: Path, title: str, repo_id: str | None = None):
    """Writes the card of a table into a folder."""
    from huggingface_hub import DatasetCard, DatasetCardData

    queries = len(table)
    sizes = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    size = next((index for index, limit in enumerate(sizes) if queries < limit), len(sizes))
    names = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "n>10M")
    data = DatasetCardData(
        tags=["zooter", "llm-routing", "reward-table"],
        task_categories=["text-classification"],
        size_categories=[names[size]],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    )
    card = DatasetCard.from_template(
        card_data=data,
        template_path=str(TEMPLATE),
        title=title,
        repo_id=repo_id or "path/to/this/table",
        experts=table.experts,
        summary=table.summary(),
        has_spreads="spreads" in table.dataset.column_names,
        has_costs="costs" in table.dataset.column_names,
        has_responses="responses" in table.dataset.column_names,
        mark=GENERATED_MARK,
    )
    (folder / CARD_NAME).write_text(str(card), encoding="utf-8")


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Gives a new folder to write to, and puts it where `path` is when that has succeeded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield partial
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        partial.chmod(0o755)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def push_table(
    table: "RewardTable",
    repo_id: str,
    *,
    private: bool | None,
    token: str | bool | None,
    revision: str | None,
    commit_message: str,
    create_pr: bool,
) -> "CommitInfo":
    """Uploads a table in one commit; see [`RewardTable.push_to_hub`]."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as directory:
        folder = table.save(Path(directory, "table"))
        card = folder / CARD_NAME
        write_dataset_card(table, folder, title=repo_id.split("/")[-1], repo_id=repo_id)
        known = revision is None or any(
            ref.name == revision for ref in api.list_repo_refs(repo_id, repo_type="dataset").branches
        )
        if known and api.file_exists(repo_id, CARD_NAME, repo_type="dataset", revision=revision):
            there = Path(api.hf_hub_download(repo_id, CARD_NAME, repo_type="dataset", revision=revision))
            if GENERATED_MARK not in there.read_text(encoding="utf-8"):
                card.unlink()  # a person wrote it
        return api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
            # The files of a table that had more shards would be read along with those of this one.
            delete_patterns=["data/*"],
        )
