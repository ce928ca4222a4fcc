import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from tests.conftest import QUERIES
from zooter_hf.modeling import ZooterRoutingPipeline, read_query
from zooter_hf.routing import predict


@pytest.fixture(scope="module")
def route(saved_router):
    return pipeline("zooter-routing", model=str(saved_router))


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def labels(result):
    return [expert["label"] for expert in result]


def assert_same(left, right):
    assert labels(left) == labels(right)
    assert [e["score"] for e in left] == pytest.approx([e["score"] for e in right], abs=1e-5)


def test_result_is_the_softmax_of_the_model_best_first(route):
    inputs = route.tokenizer(QUERIES[0], return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        expected = route.model(**inputs).logits[0].softmax(-1)
    result = route(QUERIES[0])
    assert [e["score"] for e in result] == pytest.approx(sorted(expected.tolist(), reverse=True), abs=1e-6)
    assert labels(result) == [route.model.expert_names[i] for i in expected.argsort(descending=True)]
    assert sum(e["score"] for e in result) == pytest.approx(1)


def test_calibration_temperature_is_applied(make_router, tokenizer):
    router = make_router()
    cold = ZooterRoutingPipeline(model=router, tokenizer=tokenizer)(QUERIES[0])
    router.config.temperature = 4.0
    warm = ZooterRoutingPipeline(model=router, tokenizer=tokenizer)(QUERIES[0])
    scores = torch.tensor([e["score"] for e in cold])
    expected = torch.softmax(scores.log() / 4.0, dim=-1)
    assert labels(warm) == labels(cold)
    assert [e["score"] for e in warm] == pytest.approx(expected.tolist(), abs=1e-5)


def test_top_k(route):
    assert len(route(QUERIES[0])) == 3
    assert labels(route(QUERIES[0], top_k=2)) == labels(route(QUERIES[0]))[:2]
    assert len(route(QUERIES[0], top_k=99)) == 3
    first = pipeline("zooter-routing", model=route.model, top_k=1)
    assert len(first(QUERIES[0])) == 1
    assert len(first(QUERIES[0], top_k=None)) == 3, "None asks for all, whatever the pipeline was made with"
    for wrong in (0, -1, 1.5, "all"):
        with pytest.raises(ValueError, match="top_k"):
            route(QUERIES[0], top_k=wrong)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_batch_equals_its_queries_one_by_one(route, batch_size):
    queries = [*QUERIES, *reversed(QUERIES)]
    together = route(queries, batch_size=batch_size)
    assert isinstance(together, list)
    for query, result in zip(queries, together, strict=True):
        assert_same(result, route(query))


def test_batches_are_sorted_by_length_and_padded_to_their_longest(route, monkeypatch):
    shapes = []
    forward = route.model.forward
    monkeypatch.setattr(route.model, "forward", lambda **kw: shapes.append(kw["input_ids"].shape) or forward(**kw))
    queries = ["why " * n for n in (30, 1, 20, 2, 10, 3)]
    route(queries, batch_size=2)
    assert [tuple(shape) for shape in shapes] == [(2, 4), (2, 12), (2, 32)] or [s[1] for s in shapes] == sorted(
        s[1] for s in shapes
    )
    assert sum(s[0] * s[1] for s in shapes) < 6 * 32 * 0.75


def test_every_kind_of_input_gives_the_same(route):
    expected = route(QUERIES)
    rows = Dataset.from_dict({"query": QUERIES, "other": list(range(5))})
    sources = {
        "tuple": tuple(QUERIES),
        "generator": (query for query in QUERIES),
        "iterator": iter(QUERIES),
        "rows": [{"query": query} for query in QUERIES],
        "texts": [{"text": query} for query in QUERIES],
        "chats": [[user(query)] for query in QUERIES],
        "chat rows": [{"messages": [user(query)]} for query in QUERIES],
        "dataset": rows,
        "column": rows["query"],
        "key dataset": KeyDataset(rows, "query"),
        "mixed": [QUERIES[0], [user(QUERIES[1])], {"query": QUERIES[2]}, *QUERIES[3:]],
    }
    for name, source in sources.items():
        results = list(route(source))
        assert len(results) == len(expected), name
        for left, right in zip(results, expected, strict=True):
            assert_same(left, right)


def test_a_stream_is_read_as_it_is_needed(route):
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield QUERIES[len(read) % 5]

    results = route(endless(), batch_size=1)
    first = [next(results) for _ in range(3)]
    assert_same(first[0], route(QUERIES[1]))
    assert len(read) == 3, "with a batch size of 1 no query waits for the next"
    read.clear()
    next(route(endless(), batch_size=4))
    assert len(read) <= 4 * 16


def test_nothing_in_nothing_out(route):
    assert route([]) == []
    assert route(()) == []
    assert list(route(iter([]))) == []


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("", ValueError, "empty"),
        (" \n\t", ValueError, "empty"),
        (None, TypeError, "NoneType"),
        (7, TypeError, "int"),
        ("half a pair: \ud800", ValueError, "Unicode.*character 13"),
        ([user("fine"), user("\ud800")], ValueError, "Unicode"),
        (b"bytes", TypeError, "bytes"),
        ([assistant("hello")], ValueError, "no user turn.*assistant"),
        ([user("")], ValueError, "no text"),
        ([user([{"type": "image_url", "image_url": {"url": "x"}}])], ValueError, "no text"),
        ([user("hi"), {"role": "assistant"}], TypeError, "message 1.*content"),
        ([{"role": "user"}], TypeError, "message 0.*content"),
        ([user(5)], TypeError, "content.*int"),
        ({"prompt": "hi"}, TypeError, "query.*messages.*prompt"),
    ],
)
def test_bad_queries_are_named(route, query, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        route(query)
    with pytest.raises(error, match=f"(?s)Query 1 of the batch.*{message}"):
        route([QUERIES[0], query, QUERIES[1]])
    with pytest.raises(error, match=f"(?s)Query 2 of the batch.*{message}"):
        list(route(iter([QUERIES[0], QUERIES[1], query])))


def test_a_bad_query_stops_a_list_before_any_forward_pass(route, monkeypatch):
    monkeypatch.setattr(route.model, "forward", lambda **kw: pytest.fail("routed before the list was checked"))
    with pytest.raises(ValueError, match="Query 5"):
        route([*QUERIES, ""])


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
def test_batch_size_is_checked(route, batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        route(QUERIES, batch_size=batch_size)


def test_a_loaded_router_brings_its_tokenizer(saved_router, route):
    from transformers import AutoModel

    routing = pipeline("zooter-routing", model=AutoModel.from_pretrained(saved_router))
    assert_same(routing(QUERIES[0]), route(QUERIES[0]))


def test_many_threads_may_route_at_once(route):
    from concurrent.futures import ThreadPoolExecutor

    expected = [route(query) for query in QUERIES]
    with ThreadPoolExecutor(8) as pool:
        for index, result in enumerate(pool.map(route, QUERIES * 10)):
            assert_same(result, expected[index % len(QUERIES)])


def test_unknown_arguments_are_named(route):
    with pytest.raises(TypeError, match="topk"):
        route(QUERIES[0], topk=2)


def words(n):
    return "".join(chr(97 + i % 26) + " " for i in range(n)).strip()


def test_long_queries_keep_head_and_tail_and_say_so(route):
    ids = route.tokenizer(words(200))["input_ids"]
    result = route(words(200), return_truncation=True, max_query_tokens=20)
    assert result["query_tokens"] == len(ids) > 200
    assert result["read_tokens"] == 20
    assert result["truncated"]
    kept = route.preprocess(words(200), max_query_tokens=20)["input_ids"][0].tolist()
    assert kept == ids[:10] + ids[-10:], "one special token and nine others on either side"
    whole = route(QUERIES[3], return_truncation=True)
    assert not whole["truncated"]
    assert whole["read_tokens"] == whole["query_tokens"]
    assert_same(whole["ranking"], route(QUERIES[3]))


def test_head_share_moves_the_cut(make_router, tokenizer):
    ids = tokenizer(words(200))["input_ids"]
    for share, head, tail in ((1.0, 18, 0), (0.0, 0, 18), (0.25, 5, 13)):
        routing = ZooterRoutingPipeline(model=make_router(head_share=share, max_query_tokens=20), tokenizer=tokenizer)
        kept = routing.preprocess(words(200))["input_ids"][0].tolist()
        assert kept == ids[: 1 + head] + ids[len(ids) - 1 - tail :]


@settings(deadline=None, max_examples=60)
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=5), limit=st.integers(8, 64))
def test_a_chat_never_exceeds_the_limit_and_gives_the_last_turn_its_place(route, lengths, limit):
    chat = [user(words(length)) for length in lengths]
    encoded = route.preprocess(chat, max_query_tokens=limit)
    kept, last = encoded["input_ids"][0].tolist(), route.tokenizer(words(lengths[-1]))["input_ids"]
    total = sum(lengths) + 1 + len(lengths)
    assert encoded["query_tokens"] == [total]
    assert encoded["read_tokens"] == [len(kept)]
    assert len(kept) <= limit
    if total <= limit:
        assert len(kept) == total, "what fits is not cut"
    if len(last) <= limit:
        assert kept[: len(last)] == last, "the last user turn comes first and whole"
    assert kept[0] == route.tokenizer.cls_token_id
    assert kept[-1] == route.tokenizer.sep_token_id


CHAT = [
    {"role": "system", "content": "be brief"},
    user([{"type": "text", "text": "first"}, {"type": "image_url", "image_url": {"url": "x"}}]),
    assistant(None),
    user("second"),
    assistant("done"),
    user("third"),
    {"role": "tool", "content": "42"},
]


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("last_user", ["third"]),
        ("user", ["third", "second", "first"]),
        ("all", ["third", "tool: 42", "assistant: done", "second", "first", "system: be brief"]),
    ],
)
def test_what_is_read_of_a_chat(context, expected):
    assert read_query(CHAT, context) == expected


def test_multi_part_text_is_joined():
    chat = [user([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])]
    assert read_query(chat) == ["one\ntwo"]


def test_the_conversation_counts(route):
    alone, after = route([user("Why?")]), route([user(QUERIES[4]), assistant("I see."), user("Why?")])
    assert alone != after
    assert_same(alone, route("Why?"))


def test_wrong_models_and_tokenizers_are_refused(make_router, tokenizer):
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    bert = BertForSequenceClassification(
        BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    )
    with pytest.raises(TypeError, match="Zooter router.*bert"):
        ZooterRoutingPipeline(model=bert, tokenizer=tokenizer)
    bigger = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    )
    bigger.add_tokens([f"new{i}" for i in range(10)])
    with pytest.raises(ValueError, match="not the tokenizer"):
        ZooterRoutingPipeline(model=make_router(), tokenizer=bigger)


def test_max_query_tokens_is_checked(route):
    for wrong in (3, 65, 12.5, True):
        with pytest.raises(ValueError, match="max_query_tokens"):
            route(QUERIES[0], max_query_tokens=wrong)


def test_the_stock_text_classification_pipeline_loads_the_router(saved_router, route, caplog):
    stock = pipeline("text-classification", model=str(saved_router))
    assert "not supported" not in caplog.text
    assert_same(stock(QUERIES[0], top_k=None), route(QUERIES[0]))


def test_batches_as_tensors_are_what_the_pipeline_ranks(make_router):
    router = make_router()
    route = ZooterRoutingPipeline(model=router, tokenizer=router.tokenizer, device="cpu")
    rankings = route(QUERIES * 3)
    predictions = predict(router.train(), QUERIES * 3, batch_size=2)
    assert router.training  # left as it was
    for ranking, row in zip(rankings, predictions.probabilities, strict=True):
        by_name = dict(zip(router.expert_names, row.tolist(), strict=True))
        assert {expert["label"]: expert["score"] for expert in ranking} == pytest.approx(by_name)
    ids = torch.tensor([route.tokenize_queries(QUERIES)[1]])
    with torch.no_grad():
        expected = router.eval()(input_ids=ids).query_embedding[0]
    torch.testing.assert_close(predictions.embeddings[1], expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="no queries"):
        predict(router, [])
