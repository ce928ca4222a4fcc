"""How long to wait before a request is sent again."""

import asyncio
import math
import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime


FIRST_BACKOFF = 0.5
MAX_BACKOFF = 30.0
MAX_RETRY_AFTER = 120.0


class Clock:
    """Time and chance of the retries; tests put their own in its place."""

    def now(self) -> float:
        """Returns seconds since some moment, for differences."""
        return time.monotonic()

    def wall(self) -> float:
        """Returns seconds since the epoch, for dates that a server names."""
        return time.time()

    def random(self) -> float:
        """Returns a number between 0 and 1."""
        return random.random()

    async def sleep(self, seconds: float):
        """Waits."""
        await asyncio.sleep(seconds)


def retry_delay(failures: int, retry_after: float | None = None, chance: Callable[[], float] = random.random) -> float:
    """Returns the seconds to wait: exponential back-off with full jitter, on top of what the server asked for.

    Args:
        failures: How many times the request has failed before, from 0.
        retry_after: Seconds that the server asked for, if it did.
        chance: Gives a number between 0 and 1. Without it, all who were refused together would come back together.
    """
    # No power beyond the first that reaches the limit: a float has no room for the thousandth.
    longest = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** min(failures, 10))
    return (retry_after or 0.0) + chance() * longest


def parse_retry_after(value: str | None, wall: float) -> float | None:
    """Reads the header `Retry-After`.

    Args:
        value: Seconds, or an HTTP date.
        wall: The time, in seconds since the epoch, that a date is compared with.

    Returns:
        Seconds from now, 0 for a date that has passed; `None` if there is no header or it says something else.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = max(0.0, parsedate_to_datetime(value).timestamp() - wall)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return seconds if 0 <= seconds < math.inf else None
