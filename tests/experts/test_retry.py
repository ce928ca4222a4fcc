"""How long is waited before a request is sent again."""

from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zooter_hf.experts.retry import FIRST_BACKOFF, MAX_BACKOFF, parse_retry_after, retry_delay


failures = st.integers(0, 10_000)
chances = st.floats(0, 1)
asked = st.floats(0, 1e6)


@settings(deadline=None)
@given(failures, chances)
def test_back_off_stays_within_its_bounds(failures, chance):
    delay = retry_delay(failures, chance=lambda: chance)
    assert 0 <= delay <= min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** min(failures, 64))


@settings(deadline=None)
@given(failures, asked, chances)
def test_nobody_comes_back_before_the_server_wants(failures, asked, chance):
    assert asked <= retry_delay(failures, asked, lambda: chance) <= asked + MAX_BACKOFF


@settings(deadline=None)
@given(failures, chances)
def test_each_failure_lets_wait_at_least_as_long(failures, chance):
    assert retry_delay(failures, chance=lambda: chance) <= retry_delay(failures + 1, chance=lambda: chance)


@settings(deadline=None)
@given(st.integers(0, 10**9))
def test_seconds_and_dates_say_the_same(seconds):
    now = 1_700_000_000
    assert parse_retry_after(str(seconds), now) == seconds
    assert parse_retry_after(formatdate(now + seconds, usegmt=True), now) == seconds
    assert parse_retry_after(formatdate(now - seconds, usegmt=True), now) == 0


@settings(deadline=None)
@given(st.one_of(st.none(), st.text()))
def test_whatever_a_server_sends_is_seconds_or_nothing(value):
    seconds = parse_retry_after(value, 0.0)
    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize("value", [None, "", "soon", "-1", "nan", "inf", "1e999", "Wed, 99 Foo 2024"])
def test_what_is_no_time_is_passed_over(value):
    assert parse_retry_after(value, 0.0) is None
