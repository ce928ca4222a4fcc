"""Experts that fail are replaced; streams that break off are not patched up; nothing is lost under load."""

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chat_server import ChatServer
from tests.conftest import QUERIES
from tests.ensemble.conftest import NAMES
from zooter_hf.ensemble import EnsembleError
from zooter_hf.ensemble.breaker import CircuitBreaker
from zooter_hf.experts import ExpertError


class TestFallback:
    def test_the_next_best_answers(self, make_ensemble, played):
        ensemble = make_ensemble(prefer=NAMES)
        played["alpha"].fault = ExpertError("out of order")
        reply = ensemble.generate("Why?")
        assert (reply.text, reply.expert) == ("beta: Why?", "beta")
        assert reply.decision.expert == "alpha"  # what was decided stays what was decided
        (fallback,) = reply.decision.fallbacks
        assert (fallback.expert, fallback.reason, fallback.asked) == ("alpha", "out of order", True)

    def test_a_query_alone(self, make_ensemble, played):
        ensemble = make_ensemble(prefer=NAMES)
        played["alpha"].fault = lambda query: ExpertError("too long") if "moon" in query else None
        replies = ensemble.generate(QUERIES)
        assert [reply.expert for reply in replies] == ["alpha"] * 4 + ["beta"]
        assert replies[4].text == f"beta: {QUERIES[4]}" and replies[4].decision.fallbacks[0].reason == "too long"

    def test_at_most_so_many(self, make_ensemble, played):
        ensemble = make_ensemble(prefer=NAMES, max_fallbacks=1)
        for expert in played.values():
            expert.fault = ExpertError(f"{expert.spec.name} is gone")
        with pytest.raises(EnsembleError, match=r"\n  alpha: alpha is gone\n  beta: beta is gone$") as error:
            ensemble.generate("Why?")
        assert [each.expert for each in error.value.decision.fallbacks] == ["alpha", "beta"]
        assert not played["gamma"].asked

    def test_none(self, make_ensemble, played):
        played["alpha"].fault = ExpertError("gone")
        for ensemble in (make_ensemble(prefer=NAMES, fallback="none"), make_ensemble(prefer=NAMES)):
            with pytest.raises(EnsembleError, match="gone"):
                ensemble.generate("Why?", fallback="none")
        assert not played["beta"].asked

    def test_in_a_list_the_others_are_answered(self, make_ensemble, played):
        ensemble = make_ensemble(prefer=NAMES)
        for expert in played.values():
            expert.fault = lambda query: ExpertError("no") if query == QUERIES[2] else None
        replies = ensemble.generate(QUERIES)
        assert [reply.text is None for reply in replies] == [False, False, True, False, False]
        assert replies[2].expert is None and "gamma: no" in replies[2].error

    def test_what_no_expert_should_raise(self, make_ensemble, played):
        ensemble = make_ensemble(prefer=NAMES)
        played["alpha"].fault = KeyError("choices")
        assert ensemble.generate("Why?").expert == "beta"
        played["beta"].answer = lambda queries, settings: []
        reply = ensemble.generate("Why?")
        assert reply.expert == "gamma"
        assert [each.reason for each in reply.decision.fallbacks] == [
            "KeyError: 'choices'",
            "ValueError: it gave 0 answers to 1 queries",
        ]

    def test_one_that_cannot_be_loaded(self, make_ensemble, played):
        ensemble = make_ensemble(prefer=NAMES)
        played["alpha"].fault = OSError("no such folder")
        reply = ensemble.generate("Why?")
        assert reply.expert == "beta"
        assert "'alpha' could not be loaded" in reply.decision.fallbacks[0].reason
        assert "no such folder" in reply.decision.fallbacks[0].reason
        assert ensemble.loaded == ["beta"]

    def test_an_interruption_is_no_failure(self, make_ensemble, played):
        ensemble = make_ensemble(prefer=NAMES, cooldown_after=1, cooldown=0.0)
        played["alpha"].fault = ExpertError("once")
        assert ensemble.generate("Why?").expert == "beta"

        def interrupt(queries, settings):
            raise KeyboardInterrupt

        answer, played["alpha"].answer, played["alpha"].fault = played["alpha"].answer, interrupt, None
        with pytest.raises(KeyboardInterrupt):  # on trial
            ensemble.generate("Why?")
        played["alpha"].answer = answer
        assert ensemble.generate("Why?").expert == "alpha"


class TestStreams:
    def test_before_the_first_piece_another_takes_over(self, make_ensemble, played):
        ensemble = make_ensemble(prefer=NAMES)
        played["alpha"].fault = ExpertError("gone")
        stream = ensemble.stream("Why?")
        assert "".join(stream) == "beta: Why?"
        assert stream.expert == "beta" and stream.decision.fallbacks[0].expert == "alpha"
        assert stream.reply.decision == stream.decision

    def test_after_it_the_stream_ends_with_an_error(self, make_ensemble, played):
        ensemble = make_ensemble(prefer=NAMES)
        pieces = []
        with pytest.raises(EnsembleError, match=r"'alpha' broke off after 6 characters.*the stream broke") as error:
            for piece in ensemble.stream("a broken one"):
                pieces.append(piece)
        assert pieces == ["alpha:"] and error.value.text == "alpha:"
        assert not played["beta"].asked

    def test_all_gone(self, make_ensemble, played):
        for expert in played.values():
            expert.fault = ExpertError("gone")
        with pytest.raises(EnsembleError, match="gamma: gone"):
            next(make_ensemble(prefer=NAMES).stream("Why?"))


class TestCoolDown:
    def test_left_alone_and_back_again(self, make_ensemble, played):
        ensemble = make_ensemble(prefer=NAMES, cooldown_after=2, cooldown=0.3)
        alpha = played["alpha"]
        alpha.fault = ExpertError("down")
        for _ in range(2):
            assert ensemble.generate("Why?").expert == "beta"
        reply = ensemble.generate("Why?")
        assert reply.expert == "beta" and len(alpha.asked) == 2
        (fallback,) = reply.decision.fallbacks
        assert not fallback.asked and "left alone" in fallback.reason
        alpha.fault = None
        time.sleep(0.35)
        assert ensemble.generate("Why?").expert == "alpha"

    def test_a_query_that_cannot_be_answered_is_no_failure(self, make_ensemble, played):
        ensemble = make_ensemble(prefer=NAMES, cooldown_after=1)
        played["alpha"].fault = ExpertError("too long", expert_failed=False)
        ensemble.generate("Why?")
        "".join(ensemble.stream("Why?"))
        played["alpha"].fault = None
        assert ensemble.generate("Why?").expert == "alpha"

    def test_if_all_are_left_alone_the_best_is_tried_nevertheless(self, make_ensemble, played):
        ensemble = make_ensemble(prefer=NAMES, cooldown_after=1)
        for expert in played.values():
            expert.fault = ExpertError("down")
        with pytest.raises(EnsembleError):
            ensemble.generate("Why?")
        played["alpha"].fault = None
        assert ensemble.generate("Why?").expert == "alpha"

    def test_a_batch_is_one_trial(self, make_ensemble, played):
        ensemble = make_ensemble(prefer=NAMES, cooldown_after=1, cooldown=0.0)
        played["alpha"].fault = ExpertError("down")
        ensemble.generate("Why?")
        played["alpha"].fault = None
        assert {reply.expert for reply in ensemble.generate(QUERIES)} == {"alpha"}


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class TestBreaker:
    def test_one_trial_at_a_time(self):
        clock = Clock()
        breaker = CircuitBreaker(failures=2, cooldown=10.0, clock=clock)
        for _ in range(2):
            assert breaker.admit("a")
            breaker.failed("a")
        assert not breaker.admit("a") and breaker.waits("a") == 10.0
        assert breaker.admit("b") and breaker.waits("b") is None
        clock.now = 10.0
        assert breaker.admit("a") and not breaker.admit("a")
        breaker.failed("a")
        assert not breaker.admit("a") and breaker.waits("a") == 10.0
        clock.now = 20.0
        assert breaker.admit("a")
        breaker.undecided("a")
        assert breaker.admit("a")
        breaker.succeeded("a")
        assert breaker.admit("a") and breaker.admit("a") and breaker.waits("a") is None

    @given(st.lists(st.sampled_from(["good", "bad", "wait"]), max_size=40), st.integers(1, 4))
    def test_closed_after_failures_in_a_row_alone(self, events, failures):
        clock = Clock()
        breaker = CircuitBreaker(failures=failures, cooldown=1.5, clock=clock)
        in_a_row, until = 0, None
        for event in events:
            if event == "wait":
                clock.now += 1.0
                continue
            assert breaker.admit("a") == (until is None or clock.now >= until)
            if until is not None and clock.now < until:
                continue
            if event == "good":
                breaker.succeeded("a")
                in_a_row, until = 0, None
            else:
                breaker.failed("a")
                in_a_row += 1
                until = clock.now + 1.5 if in_a_row >= failures else None


def named_server(name):
    """A server that says who it is."""
    return ChatServer(models={"m": lambda messages: f"{name} answers {messages[-1]['content']}"})


FAULTS = {
    "500": (500, {}),
    "503": (503, {}),
    "429": (429, {"headers": {"Retry-After": "60"}}),
    "malformed": (200, {"body": "{not json"}),
    "empty": (200, {"body": {"choices": []}}),
    "drop": ("drop", {}),
    "cut": ("cut", {}),
    "slow": ("slow", {"seconds": 5.0}),
    "wrong model": (404, {}),
}


@pytest.fixture(scope="module")
def servers():
    with named_server("first") as first, named_server("second") as second:
        yield first, second


def endpoints(servers, **options):
    first, second = servers
    for server in servers:
        server.heal()
        server.requests.clear()
    options = {"timeout": 0.5, "retries": 0, "concurrency": 64, **options}
    shared = {"backend": "endpoint", "model": "m"}
    return {
        name: {"base_url": server.base_url, "options": dict(options), **shared}
        for name, server in (("alpha", first), ("beta", second))
    }


def endpoint_ensemble(make_ensemble, servers, *, cooldown_after=1000, options=None, **settings):
    return make_ensemble(
        endpoints(servers, **(options or {})),
        names=["alpha", "beta"],
        prefer=["alpha", "beta"],
        probabilities=(0.6, 0.4),
        cooldown_after=cooldown_after,
        **settings,
    )


class TestEndpoints:
    @pytest.mark.parametrize("name", FAULTS)
    def test_every_way_to_fail(self, make_ensemble, servers, name):
        kind, details = FAULTS[name]
        ensemble = endpoint_ensemble(make_ensemble, servers)
        servers[0].inject(kind, None, where="poison", **details)
        began = time.monotonic()
        replies = ensemble.generate(["plain", "poison", "plain too"])
        assert [reply.text for reply in replies] == [
            "first answers plain",
            "second answers poison",
            "first answers plain too",
        ]
        assert replies[1].decision.fallbacks[0].expert == "alpha"
        stream = ensemble.stream("poison")
        if name == "cut":  # in the midst of it
            with pytest.raises(EnsembleError, match="broke off"):
                "".join(stream)
            assert "second" not in stream.text
        else:
            assert "".join(stream) == "second answers poison"
        assert time.monotonic() - began < 8

    def test_a_server_that_is_not_there(self, make_ensemble, servers):
        experts = endpoints(servers)
        experts["alpha"]["base_url"] = "http://127.0.0.1:9/v1"
        ensemble = make_ensemble(experts, names=["alpha", "beta"], prefer=["alpha", "beta"], probabilities=(0.6, 0.4))
        assert ensemble.generate("Why?").text == "second answers Why?"
        assert "".join(ensemble.stream("Why?")) == "second answers Why?"

    def test_given_up_soon_if_another_can_take_over(self, make_ensemble, servers):
        experts = endpoints(servers)
        for spec in experts.values():
            del spec["options"]["retries"]
        arguments = {"names": ["alpha", "beta"], "prefer": ["alpha", "beta"], "probabilities": (0.6, 0.4)}
        servers[0].inject(500, None)
        assert make_ensemble(experts, **arguments).generate("Why?").expert == "beta"
        assert len(servers[0].requests) == 2  # and not six
        servers[0].heal()
        servers[0].inject(429, None, headers={"Retry-After": "30"})
        began = time.monotonic()
        assert make_ensemble(experts, **arguments).generate("Why?").expert == "beta"
        assert time.monotonic() - began < 10

    def test_a_server_that_is_down_is_not_asked_again_and_again(self, make_ensemble, servers):
        ensemble = endpoint_ensemble(make_ensemble, servers, cooldown_after=3, cooldown=60.0)
        servers[0].inject(503, None)
        for number in range(10):
            assert ensemble.generate(f"q{number}").expert == "beta"
        assert len(servers[0].requests) == 3

    def test_64_at_once_and_nothing_is_lost_doubled_or_swapped(self, make_ensemble, servers):
        experts = endpoints(servers)
        # A machine that is busy must not make an expert slow that is not.
        experts["alpha"]["options"]["timeout"], experts["beta"]["options"]["timeout"] = 3.0, 60.0
        arguments = {"names": ["alpha", "beta"], "prefer": ["alpha", "beta"], "probabilities": (0.6, 0.4)}
        ensemble = make_ensemble(experts, cooldown_after=1000, **arguments)
        ways = [None, *FAULTS]
        for name, (kind, details) in FAULTS.items():
            servers[0].inject(kind, None, where=f"<{name}>", **details)
        queries = [f"<{ways[number % len(ways)]}> number {number}." for number in range(128)]

        def expected(query):
            return f"{'first' if '<None>' in query else 'second'} answers {query}"

        with ThreadPoolExecutor(64) as threads:
            replies = list(threads.map(ensemble.generate, queries))
        assert [reply.text for reply in replies] == [expected(query) for query in queries]

        async def streamed(query):
            stream = ensemble.astream(query)
            try:
                return "".join([piece async for piece in stream])
            except EnsembleError as error:
                return error

        async def main():
            return await asyncio.gather(*(streamed(query) for query in queries))

        for query, text in zip(queries, asyncio.run(main()), strict=True):
            if "<cut>" in query:
                assert isinstance(text, EnsembleError)
                assert f"first answers {query}".startswith(text.text) and text.text
            else:
                assert text == expected(query)
        # Every query was sent once each time, and to the second server only where the first had failed before.
        first, second = (Counter(request.query for request in server.requests) for server in servers)
        assert first == Counter(2 * queries)
        failed = [query for query in queries if "<None>" not in query]
        assert second == Counter(failed) + Counter(query for query in failed if "<cut>" not in query)

    def test_local_experts_and_servers_work_at_the_same_time(self, make_ensemble, played):
        for name in NAMES:
            played[name].seconds = 0.2
            played[name].local = name == "alpha"
        ensemble = make_ensemble()
        ensemble.preload()
        threads = set()
        for expert in played.values():
            answer = expert.answer

            def noted(queries, settings, answer=answer):
                threads.add(threading.get_ident())
                return answer(queries, settings)

            expert.answer = noted
        replies = ensemble.generate(QUERIES)
        used = {reply.expert for reply in replies}
        assert len(used) > 1 and len(threads) == len(used)
        assert ("alpha" in used) == (threading.get_ident() in threads)
