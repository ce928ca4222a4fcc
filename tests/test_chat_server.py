"""The local chat server answers the real client as the API says."""

import time

import pytest
from huggingface_hub import InferenceClient, constants, errors

from tests.chat_server import ChatServer


HI = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two three four"}]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # whatever the rest of the suite runs with
    with ChatServer({"echo": lambda messages: messages[-1]["content"]}, api_key="right") as server:
        yield server


def client(server, key="right"):
    return InferenceClient(base_url=server.base_url, api_key=key, timeout=10)


def test_answers_and_counts(server):
    reply = client(server).chat_completion(HI, model="echo")
    assert reply.choices[0].message.content == "one two three four"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (6, 4)
    short = client(server).chat_completion(HI, model="echo", max_tokens=2)
    assert (short.choices[0].message.content, short.choices[0].finish_reason) == ("one two", "length")
    assert client(server).chat_completion(HI, model="echo", stop=[" three"]).choices[0].message.content == "one two"
    assert server.requests[1].body["max_tokens"] == 2
    limit = time.monotonic() + 5  # the log is written after the client has its answer
    while not all(request.complete for request in server.requests) and time.monotonic() < limit:
        time.sleep(0.01)
    assert all(request.complete and request.status == 200 for request in server.requests)


def test_streams_with_usage(server):
    with client(server) as streaming:
        usage = {"include_usage": True}
        chunks = list(streaming.chat_completion(HI, model="echo", stream=True, stream_options=usage))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "one two three four"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 4


def test_refuses_wrong_keys_models_and_bodies(server):
    with pytest.raises(errors.HfHubHTTPError, match="401"):
        client(server, "wrong").chat_completion(HI, model="echo")
    with pytest.raises(errors.HfHubHTTPError, match="404"):
        client(server).chat_completion(HI, model="other")
    with pytest.raises(errors.HfHubHTTPError, match="400"):
        client(server).chat_completion([{"role": "user"}], model="echo")


def test_faults_befall_whom_they_should(server):
    server.inject(429, headers={"Retry-After": "7"})
    with pytest.raises(errors.HfHubHTTPError) as refused:
        client(server).chat_completion(HI, model="echo")
    assert (refused.value.response.status_code, refused.value.response.headers["Retry-After"]) == (429, "7")
    for kind in ("drop", "cut"):
        server.inject(kind, where="three")
        client(server).chat_completion([{"role": "user", "content": "four"}], model="echo")
        with pytest.raises(errors.HTTPError):
            client(server).chat_completion(HI, model="echo")
    server.inject(200, times=None, body="not JSON")
    with pytest.raises(ValueError):
        client(server).chat_completion(HI, model="echo")
    server.heal()
    client(server).chat_completion(HI, model="echo")
