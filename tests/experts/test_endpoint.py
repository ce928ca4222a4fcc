"""Experts behind the chat API, asked over HTTP: what they answer, how they fail, and what they never say."""

import asyncio
import gc
import logging
import signal
import threading
import time
import traceback
from email.utils import formatdate

import pytest
from huggingface_hub import constants
from huggingface_hub.inference import _providers

from tests.chat_server import ChatServer
from zooter_hf.experts import EndpointExpert, ExpertError, GenerationSettings, Usage
from zooter_hf.experts.retry import Clock
from zooter_hf.modeling import ExpertSpec


KEY = "sk-onlyForTheTests"
TOKEN = "hf_ofTheUserOfThisMachine"
DEAD = "http://127.0.0.1:9/v1"  # the port of a service that nobody runs


class FakeClock(Clock):
    """Waits at once, and remembers how long it would have been."""

    def __init__(self):
        self.time = 0.0
        self.waits = []

    def now(self):
        return self.time

    def wall(self):
        return 1_700_000_000.0

    def random(self):
        return 1.0

    async def sleep(self, seconds):
        self.waits.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def server():
    with ChatServer() as server:
        yield server


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(server, clock):
    """Makes an expert on the server; fields of the spec and options alike."""
    experts = []

    def make(clock=clock, model="echo", base_url=server.base_url, input_price=None, output_price=None, **options):
        prices = {"input_price": input_price, "output_price": output_price}
        spec = ExpertSpec(
            "an-expert",
            model=model,
            backend="endpoint",
            base_url=base_url,
            options=options,
            context_length=64,
            **prices,
        )
        experts.append(EndpointExpert(spec, clock=clock))
        return experts[-1]

    yield make
    for expert in experts:
        expert.close()


def texts(answers):
    return [answer.text for answer in answers]


# Answers


def test_answers_in_order_with_usage_and_cost(make):
    expert = make(clock=None, input_price=1.0, output_price=3.0)
    chat = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c d"},
    ]
    answers = expert.answer(["one two", chat, *map(str, range(20))])
    assert texts(answers) == ["one two", "c d", *map(str, range(20))]
    assert (answers[1].usage.input_tokens, answers[1].usage.output_tokens) == (4, 2)
    assert answers[1].usage.cost == pytest.approx((4 * 1 + 2 * 3) / 1e6)
    assert 0 < answers[1].usage.seconds < 30
    assert expert.answer([]) == []
    assert expert.capabilities.streaming and not expert.capabilities.local
    assert expert.capabilities.context_length == 64


def test_settings_reach_the_server(make, server):
    settings = GenerationSettings(
        max_new_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop=["END"], system_prompt="Be brief."
    )
    make().answer(["x"], settings)
    sent = server.requests[0].body
    expected = {"model": "echo", "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ["END"]}
    assert {name: sent[name] for name in expected} == expected
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}]
    make().answer(["x"])
    assert server.requests[1].body["temperature"] == 0
    assert {"top_p", "stop"}.isdisjoint(server.requests[1].body)


def test_extra_body_adds_replaces_and_leaves_out(make, server):
    make(extra_body={"seed": None, "max_tokens": None, "max_completion_tokens": 9, "top_k": 5}).answer(["x"])
    sent = server.requests[0].body
    assert (sent["max_completion_tokens"], sent["top_k"]) == (9, 5)
    assert {"seed", "max_tokens"}.isdisjoint(sent)


def test_what_is_cut_by_length_or_empty_is_an_answer(make, server):
    server.models["silent"] = lambda messages: ""
    assert texts(make().answer(["a b c"], GenerationSettings(max_new_tokens=2))) == ["a b"]
    assert texts(make(model="silent").answer(["a"])) == [""]


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": "many"}])
def test_without_token_counts_there_is_no_cost(make, server, usage):
    server.inject(200, body={"choices": [{"message": {"content": "yes"}}], "usage": usage})
    (answer,) = make(input_price=1.0, output_price=1.0).answer(["x"])
    assert answer.text == "yes"
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.cost) == (None, None, None)


def test_concurrency_is_used_and_kept(make, server):
    server.latency = 0.05
    expert = make(clock=None, concurrency=3)
    threads = [threading.Thread(target=expert.answer, args=(["x"] * 6,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 18
    assert server.max_concurrency == 3, "also when several threads ask"


def test_works_inside_a_running_event_loop(make):
    async def cell():
        expert = make()
        return texts(expert.answer(["a"])), list(expert.stream("b c"))[:-1]

    assert asyncio.run(cell()) == (["a"], ["b", " c"])


def test_connections_are_kept_until_closed_and_opened_again(make, server):
    expert = make(concurrency=1)
    with expert:
        expert.answer(["a"])
        expert.answer(["b"])
        assert len(server.connections) == 1
    for _ in range(100):
        if not server.connections:
            break
        time.sleep(0.02)
    assert not server.connections
    assert texts(expert.answer(["c"])) == ["c"]


def test_closing_ends_what_is_under_way(make, server):
    server.inject("slow", times=None, seconds=1)
    expert, raised = make(clock=None), []

    def ask():
        try:
            expert.answer(["x"])
        except ExpertError as error:
            raised.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    while not server.requests:
        time.sleep(0.01)
    expert.close()
    thread.join(timeout=10)
    assert raised and "an-expert" in raised[0] and "closed" in raised[0]
    stream = expert.stream("a b")
    next(stream)
    expert.close()
    with pytest.raises(ExpertError, match="closed"):
        next(stream)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
def test_an_interruption_ends_the_requests_and_not_the_expert(make, server):
    def interrupt(*_):
        raise KeyboardInterrupt

    server.inject("slow", times=8, seconds=3)
    expert, before = make(clock=None), signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1)
        with pytest.raises(KeyboardInterrupt):
            expert.answer(["x"] * 100)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    sent = len(server.requests)
    assert texts(expert.answer(["y"])) == ["y"]
    assert len(server.requests) == sent + 1 <= 9


def test_what_is_dropped_leaves_no_thread(make, server):
    expert = EndpointExpert(ExpertSpec("dropped", model="echo", backend="endpoint", base_url=server.base_url))
    expert.answer(["x"])
    (thread,) = [each for each in threading.enumerate() if each.name == "expert dropped"]
    del expert
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_answers_in_the_hubs_offline_mode(make, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert texts(make().answer(["a server in the next room is not the Hub"])) != [None]


# Failures that pass


@pytest.mark.parametrize("fault", [429, 500, 502, 503, 504, "drop", "cut"])
def test_what_fails_for_the_moment_is_tried_again(make, server, clock, fault):
    server.inject(fault, times=3)
    assert texts(make().answer(["x"])) == ["x"]
    assert clock.waits == [0.5, 1.0, 2.0]
    assert len(server.requests) == 4


def test_an_answer_that_does_not_come_is_asked_for_again(make, server, clock):
    server.inject("slow", seconds=1.5)
    assert texts(make(timeout=0.7).answer(["x"])) == ["x"]
    server.inject("slow", times=None, where="slow", seconds=1.5)
    slow, quick = make(timeout=0.7, retries=1).answer(["slow", "quick"])
    assert "in time" in slow.error
    assert quick.text == "quick"


def test_retries_come_to_an_end(make, server, clock):
    server.inject(500, times=None, where="poison")
    answers = make(retries=2).answer(["a", "poison", "b"])
    assert texts(answers) == ["a", None, "b"]
    assert "500" in answers[1].error and "Injected failure" in answers[1].error
    assert len([request for request in server.requests if request.query == "poison"]) == 3
    server.heal()
    server.inject(503, times=None)
    with pytest.raises(ExpertError, match=r"an-expert.*HTTP 503"):
        make(retries=0).answer(["a", "b"])


@pytest.mark.parametrize(
    ("header", "least"),
    [("7", 7), ("1.5", 1.5), (formatdate(1_700_000_000 + 40, usegmt=True), 40), ("0", 0), ("soon", 0), ("-3", 0)],
)
def test_retry_after_is_honoured(make, server, clock, header, least):
    server.inject(429, headers={"Retry-After": header})
    assert texts(make().answer(["x"])) == ["x"]
    assert clock.waits == [least + 0.5]


def test_who_asks_for_too_long_a_wait_is_given_up(make, server, clock):
    server.inject(429, times=None, headers={"Retry-After": "3600"}, where="late")
    with pytest.raises(ExpertError, match=r"3600 s.*120 s"):
        make().answer(["late"] * 50)
    assert not clock.waits
    assert len(server.requests) <= 8, "the others are not even sent"
    server.requests.clear()
    answers = make(concurrency=1).answer(["x", "late", "y"])
    assert texts(answers) == ["x", None, None]
    assert "3600 s" in answers[2].error


def test_a_wait_is_for_all_requests(make, server):
    server.models["slow"] = lambda messages: time.sleep(0.3) or "done"
    server.inject(429, headers={"Retry-After": "0.7"})
    answers = make(clock=None, model="slow", concurrency=4).answer(["x"] * 8)
    assert texts(answers) == ["done"] * 8
    refused = next(request for request in server.requests if request.status == 429)
    assert len(server.requests) == 9
    assert min(request.began for request in server.requests[4:]) >= refused.began + 0.7


MALFORMED = {
    "not JSON": "<html>welcome</html>",
    "a list": [],
    "nothing": "null",
    "no choices": {"usage": {}},
    "empty choices": {"choices": []},
    "choices of another kind": {"choices": "none"},
    "null content": {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]},
    "content of another kind": {"choices": [{"message": {"content": 7}}]},
    "not UTF-8": "\udcff",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_replies_are_tried_again_a_few_times(make, server, body):
    body = body if body != "\udcff" else "{\x00"
    server.inject(200, times=1, body=body)
    assert texts(make().answer(["x"])) == ["x"]
    server.inject(200, times=None, body=body, where="bad")
    server.requests.clear()
    bad, good = make().answer(["bad", "good"])
    assert "malformed" in bad.error
    assert good.text == "good"
    assert len(server.requests) == 4


@pytest.mark.parametrize("content", [None, ""])
def test_reasoning_without_an_answer_says_what_to_do(make, server, content):
    message = {"role": "assistant", "content": content, "reasoning_content": "hm"}
    server.inject(200, body={"choices": [{"message": message, "finish_reason": "length"}]})
    (answer,) = make().answer(["x"], GenerationSettings(max_new_tokens=5))
    assert "5 tokens" in answer.error and "max_new_tokens" in answer.error
    assert len(server.requests) == 1


# Failures that stay


@pytest.mark.parametrize("status", [400, 413, 422, 418])
def test_a_query_that_is_refused_has_an_error_alone(make, server, clock, status):
    server.inject(status, times=None, where="long", body={"error": {"message": "the context is 64 tokens"}})
    long, short = make().answer(["long", "short"])
    assert long.error == f"HTTP {status}: the context is 64 tokens"
    assert short.text == "short"
    assert len(server.requests) == 2 and not clock.waits
    assert make().answer(["long"])[0].error


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_refusal_of_the_expert_is_for_all(make, server, clock, status):
    server.inject(status, times=None)
    with pytest.raises(ExpertError, match=rf"an-expert.*HTTP {status}"):
        make().answer(["x"] * 50)
    assert len(server.requests) <= 8 and not clock.waits


def test_a_refusal_in_the_midst_of_answers_loses_none(make, server):
    server.inject(403, times=None, where="rude")
    assert texts(make(concurrency=1).answer(["a", "rude", "b"])) == ["a", None, "b"]


def test_a_model_that_the_server_does_not_know(make):
    with pytest.raises(ExpertError, match=r"an-expert.*`other` does not exist.*Check `model` and `base_url`"):
        make(model="other").answer(["x"])


def test_a_server_that_is_not_there(make, clock):
    with pytest.raises(ExpertError, match=r"an-expert.*http://127\.0\.0\.1:9/v1.*no connection.*base_url"):
        make(base_url=DEAD, retries=3).answer(["x"] * 200)
    assert len(clock.waits) <= 8 * 3, "those in line did not each try for themselves"


def test_a_server_that_goes_away_loses_no_answers(make, server, clock):
    def last(messages):
        if messages[-1]["content"] == "3":
            server.__exit__()
        return messages[-1]["content"]

    server.models["last"] = last
    answers = make(model="last", concurrency=1, retries=2).answer(["1", "2", *["3"] * 50])
    assert texts(answers) == ["1", "2", *[None] * 50]
    assert "no connection" in answers[-1].error
    assert len(clock.waits) <= 2 * 2


def test_a_query_that_cannot_be_sent_fails_alone(make):
    lone, fine = make().answer(["\ud800", "fine"])
    assert "UTF-8" in lone.error
    assert fine.text == "fine"


# Streams


def test_streams_in_pieces_with_usage_at_the_end(make, server):
    *pieces, usage = make(input_price=1.0, output_price=1.0).stream("one two three")
    assert pieces == ["one", " two", " three"]
    assert isinstance(usage, Usage)
    assert (usage.input_tokens, usage.output_tokens, usage.cost) == (3, 3, 6e-6)
    assert server.requests[0].body["stream"] is True


def test_pieces_come_while_the_server_writes(make, server):
    server.piece_seconds = 0.2
    began = time.monotonic()
    stream = make(clock=None).stream("one two three four five six seven eight nine ten")
    assert next(stream) == "one"
    assert time.monotonic() - began < 1.5, "ten pieces take more than two seconds"
    stream.close()


def test_closing_a_stream_closes_its_connection(make, server):
    server.piece_seconds = 0.05
    stream = make(clock=None).stream("word " * 400)  # twenty seconds
    assert next(stream) == "word"
    stream.close()
    deadline = time.monotonic() + 5
    while server.concurrency and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.concurrency == 0
    assert not server.requests[0].complete


@pytest.mark.parametrize("fault", [429, 500, "drop"])
def test_a_stream_is_tried_again_up_to_its_first_piece(make, server, clock, fault):
    server.inject(fault, times=2)
    *pieces, _ = make().stream("one two")
    assert pieces == ["one", " two"]
    assert clock.waits == [0.5, 1.0]


def test_a_stream_that_breaks_off_says_so(make, server, clock):
    server.inject("cut")
    stream = make().stream("one two three four five six")
    assert next(stream) == "one"
    with pytest.raises(ExpertError, match=r"an-expert.*broke"):
        list(stream)
    assert len(server.requests) == 1 and not clock.waits


def test_a_stream_that_ends_before_the_answer_does(make, server):
    event = '{"choices": [{"index": 0, "delta": {"content": "one"}, "finish_reason": null}]}'
    server.inject(200, body=f"data: {event}\n\n", headers={"Content-Type": "text/event-stream"})
    with pytest.raises(ExpertError, match="ended before"):
        list(make().stream("one two"))


def test_an_error_within_a_stream(make, server):
    server.inject(200, times=None, body='data: {"error": {"message": "out of memory"}}\n\n')
    with pytest.raises(ExpertError, match="out of memory"):
        list(make(retries=1).stream("x"))
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_stream_that_is_refused(make, server, clock, status):
    server.inject(status, body={"error": "for a reason"})
    with pytest.raises(ExpertError, match=f"HTTP {status}: for a reason"):
        list(make().stream("x"))
    assert not clock.waits


# Keys


def everything_said(error):
    """The traceback with all that led to it, also where a chain is not shown."""
    said = ["".join(traceback.format_exception(error))]
    while error is not None:
        said.append(repr(error))
        error = error.__context__ or error.__cause__
    return "\n".join(said)


def test_the_users_token_goes_to_no_server_of_their_choice(make, server):
    expert = make()
    expert.answer(["x"])
    list(expert.stream("x"))
    assert len(server.requests) == 2
    for request in server.requests:
        assert "authorization" not in request.headers
        assert TOKEN not in str(request)


def test_the_key_is_sent_and_read_anew(make, server, monkeypatch):
    server.api_key = KEY
    expert = make(api_key_env="SERVER_KEY")
    monkeypatch.setenv("SERVER_KEY", f"{KEY}\n")
    assert texts(expert.answer(["x"])) == ["x"]
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    monkeypatch.setenv("SERVER_KEY", "another")
    with pytest.raises(ExpertError, match=r"SERVER_KEY"):
        expert.answer(["x"])


@pytest.mark.parametrize("way", ["answer", "stream"])
@pytest.mark.parametrize("fault", [401, 403, 400, 500, "drop", "cut", "not JSON", "late"])
def test_keys_are_never_repeated(make, server, monkeypatch, caplog, way, fault):
    monkeypatch.setenv("SERVER_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    start = f"I know {KEY}, from 'Authorization: Bearer {KEY}', not 'Bearer sk-only-another'; "
    # What is long is cut, here within the key.
    body = {"error": {"message": f"{start.ljust(290, '.')}{KEY}"}}
    if fault == "not JSON":
        server.inject(200, times=None, body=f"data: {KEY}\n\n")
    elif fault == "late":
        server.inject(429, times=None, body=body, headers={"Retry-After": "999"})
    else:
        server.inject(fault, times=None, body=body)
    expert = make(api_key_env="SERVER_KEY", retries=1)
    try:
        answers = expert.answer(["a b"]) if way == "answer" else list(expert.stream("a b"))
        said = str(answers)
        assert way == "answer"
    except ExpertError as error:
        assert error.__cause__ is None and error.__context__ is None
        said = everything_said(error)
    if isinstance(fault, int):
        assert "I know ***" in said
    everything = f"{said}\n{expert!r}\n{vars(expert)!r}\n{caplog.text}"
    assert "sk-only" not in everything
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_key_that_is_not_there_is_named_on_first_use(make, server, monkeypatch):
    monkeypatch.delenv("SERVER_KEY", raising=False)
    expert = make(api_key_env="SERVER_KEY")
    for use in (expert.load, lambda: expert.answer(["x"]), lambda: list(expert.stream("x"))):
        with pytest.raises(ExpertError, match=r"an-expert.*SERVER_KEY.*`options.api_key_env`"):
            use()
    monkeypatch.setenv("SERVER_KEY", "two\nlines")
    with pytest.raises(ExpertError, match="SERVER_KEY") as error:
        expert.load()
    assert "two" not in str(error.value)
    assert not server.requests


def test_a_server_that_wants_a_key_and_gets_none(make, server):
    server.api_key = KEY
    with pytest.raises(ExpertError, match=r"an-expert.*401.*api_key_env"):
        make().answer(["x"])


# Inference Providers


@pytest.fixture
def providers(server, monkeypatch):
    """The server in the place of Hugging Face's router."""
    monkeypatch.setattr(_providers.CONVERSATIONAL_AUTO_ROUTER, "base_url", server.base_url.removesuffix("/v1"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server.api_key = TOKEN


def test_inference_providers_get_the_users_token(make, providers, server):
    expert = make(base_url=None)
    assert texts(expert.answer(["x"])) == ["x"]
    assert list(expert.stream("one two"))[:-1] == ["one", " two"]
    server.inject(401, body=f"Bearer {TOKEN} is not welcome")
    with pytest.raises(ExpertError, match=r"Inference Providers \(auto\).*hf auth whoami") as error:
        expert.answer(["x"])
    assert TOKEN not in everything_said(error.value)


def test_inference_providers_need_a_token(make, providers, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ExpertError, match=r"an-expert.*hf auth login"):
        make(base_url=None).answer(["x"])


def test_a_provider_that_is_not_known(make, providers, clock):
    with pytest.raises(ExpertError, match=r"an-expert.*'nobody' not supported"):
        make(base_url=None, provider="nobody").answer(["x"])
    assert not clock.waits


def test_inference_providers_are_not_asked_offline(make, providers, server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ExpertError, match="HF_HUB_OFFLINE"):
        make(base_url=None).answer(["x"])
    assert not server.requests


# Specs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": None}, "`model`"),
        ({"base_url": "localhost:8000"}, "`base_url`.*'localhost:8000'"),
        ({"base_url": "ftp://host/v1"}, "`base_url`"),
        ({"options": {"concurency": 3}}, r"\['concurency'\].*concurrency"),
        ({"options": {"concurrency": 0}}, r"`options.concurrency`.*got 0"),
        ({"options": {"concurrency": 101}}, r"`options.concurrency`.*100"),
        ({"options": {"concurrency": True}}, "`options.concurrency`"),
        ({"options": {"timeout": "2 minutes"}}, r"`options.timeout`.*seconds"),
        ({"options": {"timeout": float("inf")}}, "`options.timeout`"),
        ({"options": {"retries": -1}}, "`options.retries`"),
        ({"options": {"provider": "together"}}, "`base_url` and `options.provider`"),
        ({"base_url": None, "options": {"provider": ""}}, "`options.provider`"),
        ({"options": {"extra_body": [1]}}, "`options.extra_body`"),
        ({"options": {"extra_body": {"stream": True}}}, r"`options.extra_body`.*\['stream'\]"),
        ({"options": {"api_key_env": "sk-abc-def"}}, "`options.api_key_env`"),
        ({"options": {"api_key_env": "hf_abcdefghijkl"}}, "`options.api_key_env`"),
    ],
)
def test_specs_that_cannot_be_right(fields, message):
    fields = {"model": "echo", "base_url": "http://localhost:8000/v1", **fields}
    with pytest.raises(ValueError, match=rf"'an-expert'.*{message}") as error:
        EndpointExpert(ExpertSpec("an-expert", backend="endpoint", **fields))
    assert "abc" not in str(error.value), "what was taken for a name may be the key"
