"""Experts in memory: loaded once, kept while used, freed for others."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ensemble.experts import PlayedExpert
from zooter_hf.ensemble.pool import ExpertPool, PoolBusy
from zooter_hf.experts import ExpertError


def pool_of(*names, bytes=None, **limits):
    experts = {name: PlayedExpert(name, bytes=bytes) for name in names}
    return ExpertPool(experts, **limits), experts


def use(pool, name):
    with pool.lease(name) as expert:
        assert expert.loaded
        return expert


def test_loaded_on_first_use_and_kept():
    pool, experts = pool_of("a", "b")
    assert pool.loaded == []
    for _ in range(3):
        use(pool, "a")
    assert pool.loaded == ["a"] and experts["a"].loads == 1 and not experts["b"].loaded
    pool.close()
    assert pool.loaded == [] and not experts["a"].loaded
    use(pool, "a")
    assert experts["a"].loads == 2


def test_the_least_recently_used_goes():
    pool, experts = pool_of("a", "b", "c", max_loaded=2)
    for name in "abac":
        use(pool, name)
    assert pool.loaded == ["a", "c"] and not experts["b"].loaded
    use(pool, "b")
    assert pool.loaded == ["c", "b"]


def test_a_byte_budget():
    pool, experts = pool_of("a", "b", "c", bytes=40, max_bytes=100)
    for name in "abc":
        use(pool, name)
    assert pool.loaded == ["b", "c"] and pool.bytes == 80
    experts["a"].bytes = 70
    use(pool, "a")
    assert pool.loaded == ["a"] and pool.bytes == 70
    experts["b"].bytes = 101
    with pytest.raises(ExpertError, match="'b' takes .* more than `max_bytes`"):
        use(pool, "b")
    assert pool.loaded == ["a"]  # none had to go for it


def test_larger_than_was_thought():
    pool, experts = pool_of("a", "b", bytes=40, max_bytes=100)
    use(pool, "a")
    b = experts["b"]
    load = b.load

    def load_and_grow():
        load()
        b.bytes = 90

    b.load = load_and_grow
    use(pool, "b")
    assert pool.loaded == ["b"] and pool.bytes == 90
    pool.close()
    b.bytes, b.loaded = 40, False

    def load_and_burst():
        load()
        b.bytes = 101

    b.load = load_and_burst
    with pytest.raises(ExpertError, match="max_bytes"):
        use(pool, "b")
    assert pool.loaded == [] and not b.loaded


def test_what_is_in_use_is_not_freed():
    pool, experts = pool_of("a", "b", max_loaded=1, patience=0.2)
    with pool.lease("a"):
        with pytest.raises(PoolBusy, match=r"'b' waited.*max_loaded"), pool.lease("b"):
            pass
        assert experts["a"].loaded
        pool.close()
        assert experts["a"].loaded
    use(pool, "b")
    assert not experts["a"].loaded


def test_who_waits_goes_on_as_soon_as_there_is_room():
    pool, _ = pool_of("a", "b", max_loaded=1, patience=10)
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with pool.lease("a"):
            entered.set()
            leave.wait()

    with ThreadPoolExecutor(2) as threads:
        threads.submit(hold)
        entered.wait()
        waiting = threads.submit(use, pool, "b")
        time.sleep(0.05)
        assert not waiting.done()
        leave.set()
        assert waiting.result(timeout=5).spec.name == "b"


def test_two_requests_never_load_one_model_twice():
    pool, experts = pool_of("a")
    experts["a"].loading = 0.1
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda _: use(pool, "a"), range(16)))
    assert experts["a"].loads == 1 and not experts["a"].wrong


def test_under_load_no_expert_is_used_that_is_not_loaded():
    pool, experts = pool_of(*"abcdef", max_loaded=2)
    for expert in experts.values():
        expert.loading = 0.002

    def work(number):
        name = "abcdef"[number * 7 % 6]
        with pool.lease(name) as expert:
            assert len([each for each in experts.values() if each.loaded]) <= 2
            (answer,) = expert.answer([str(number)])
            return answer.text == f"{name}: {number}"

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(work, range(300)))
    assert not any(expert.wrong for expert in experts.values())
    assert len(pool.loaded) <= 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from("abcd"), max_size=25),
    st.one_of(st.none(), st.integers(1, 4)),
    st.one_of(st.none(), st.integers(40, 200)),
)
def test_limits_hold_and_the_last_one_stays(names, max_loaded, max_bytes):
    sizes = {"a": 10, "b": 20, "c": 30, "d": 40}
    experts = {name: PlayedExpert(name, bytes=size) for name, size in sizes.items()}
    pool = ExpertPool(experts, max_loaded=max_loaded, max_bytes=max_bytes)
    for name in names:
        use(pool, name)
        assert pool.loaded[-1] == name
        assert pool.loaded == [each for each in pool.loaded if experts[each].loaded]
        assert pool.bytes == sum(sizes[each] for each in pool.loaded)
        assert max_loaded is None or len(pool.loaded) <= max_loaded
        assert max_bytes is None or pool.bytes <= max_bytes
        # Nobody went who was used later than one who stayed, unless the room was needed.
    recent = list(dict.fromkeys(reversed(names)))
    if max_bytes is None:
        assert pool.loaded == list(reversed(recent[: max_loaded or 4]))


def test_one_that_cannot_be_loaded_leaves_no_trace():
    pool, experts = pool_of("a", "b", max_loaded=1)
    experts["a"].fault = OSError("disk full")
    for _ in range(2):
        with pytest.raises(ExpertError, match=r"'a' could not be loaded. OSError: disk full"):
            use(pool, "a")
    assert pool.loaded == []
    use(pool, "b")
    experts["a"].fault = None
    use(pool, "a")
    assert pool.loaded == ["a"]


def test_endpoints_do_not_count():
    pool, experts = pool_of("a", "b", "c", max_loaded=1)
    experts["b"].local = experts["c"].local = False
    with pool.lease("b"), pool.lease("a"), pool.lease("c"):
        assert pool.loaded == ["a"]
    pool.close()
    assert not experts["b"].loaded


def test_one_that_cannot_be_closed_makes_room_nevertheless(caplog):
    pool, experts = pool_of("a", "b", max_loaded=1, patience=1)

    def refuse():
        raise RuntimeError("stuck")

    use(pool, "a")
    experts["a"].close = refuse
    use(pool, "b")
    assert pool.loaded == ["b"]


def test_preloading():
    pool, experts = pool_of("a", "b", "c", max_loaded=2)
    pool.preload(["a", "b"])
    assert pool.loaded == ["a", "b"] and not experts["c"].loaded
    with pytest.raises(ValueError, match=r"3 models.*max_loaded"):
        pool.preload()
    pool, _ = pool_of("a", "b", "c", bytes=40, max_bytes=100)
    with pytest.raises(ValueError, match="do not fit"):
        pool.preload()
