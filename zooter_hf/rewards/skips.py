"""What teachers and taggers could not do, counted by the reason."""

from collections import Counter

from transformers.utils import logging


logger = logging.get_logger(__name__)


def count_skip(skipped: Counter[str], owner: str, reason: str, remedy: str):
    """Counts one more, and logs the first of every reason.

    Args:
        skipped: The counts of the owner by reason.
        owner: Who skips, for the log.
        reason: Short and the same every time: `"too long"`.
        remedy: What it means and what can be done, for the log.
    """
    skipped[reason] += 1
    if skipped[reason] == 1:
        logger.warning(f"{owner}: {reason}. {remedy} Further cases are counted in `skipped`, not logged.")
