"""LoRA adapters on a shared base: held against PEFT's own `set_adapter`, one query at a time."""

import json
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.experts.tiny_models import TEXTS, make_tokenizer, save_adapter, save_model
from zooter_hf import ExpertSpec
from zooter_hf.experts import shared as shared_models
from zooter_hf.experts.adapter import AdapterExpert, answer_mixed
from zooter_hf.experts.base import ExpertError, GenerationSettings
from zooter_hf.experts.local import TransformersExpert


GREEDY = GenerationSettings(max_new_tokens=16)
SAMPLED = GenerationSettings(max_new_tokens=16, temperature=1.0, seed=5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of a base and of adapters on it, which tests must not change."""
    root = tmp_path_factory.mktemp("adapters")
    base = save_model(root / "base")
    kinds = {
        "math": {},
        "code": {"r": 2, "target_modules": ["v_proj", "up_proj"]},
        "dora": {"use_dora": True},
        "head": {"modules_to_save": ["lm_head"]},
        "wide": {"use_rslora": True},
        "vocab": {"target_modules": ["q_proj", "lm_head", "embed_tokens"]},  # with the base's weights of these two
    }
    adapters = {
        name: save_adapter(root / name, base, seed=seed, **fields)
        for seed, (name, fields) in enumerate(kinds.items(), start=1)
    }
    weights = load_file(adapters["head"] / "adapter_model.safetensors")
    weights["base_model.model.lm_head.weight"] = weights["base_model.model.lm_head.weight"].flip(0)
    save_file(weights, adapters["head"] / "adapter_model.safetensors")
    return {"base": base, **adapters}


@pytest.fixture
def make(folders):
    """Makes experts, `make("math", options)`, and closes them."""
    made = []

    def make(name, options=None, folder=None):
        kind = TransformersExpert if name == "base" else AdapterExpert
        made.append(kind(ExpertSpec(name, model=str(folder or folders[name]), options=options or {})))
        return made[-1]

    yield make
    for expert in made:
        expert.close()
    assert not shared_models._held


@pytest.fixture(scope="module")
def references(folders):
    """Texts of PEFT's own `generate`, by adapter and query, without padding and without sharing."""
    from peft import PeftModel

    tokenizer = AutoTokenizer.from_pretrained(folders["base"])
    texts = {}
    for name, folder in folders.items():
        model = AutoModelForCausalLM.from_pretrained(folders["base"])
        if name != "base":
            model = PeftModel.from_pretrained(model, folder)
        for query in TEXTS:
            inputs = tokenizer.apply_chat_template(
                [{"role": "user", "content": query}], add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=16,
                do_sample=False,
                repetition_penalty=1.0,
                temperature=None,
                top_k=None,
                pad_token_id=1,
            )
            new = output[0, inputs["input_ids"].shape[1] :]
            texts[name, query] = tokenizer.decode(new, skip_special_tokens=True)
    answers = {tuple(texts[name, query] for query in TEXTS) for name in folders}
    assert len(answers) == len(folders)  # adapters differ from the base and from each other
    return texts


def texts_of(answers):
    return [answer.text for answer in answers]


class TestOneBase:
    def test_every_adapter_answers_as_by_itself(self, make, references):
        experts = [make(name) for name in ("math", "code", "dora", "head", "wide", "base")]
        for _ in range(2):  # switched back and forth
            for expert in experts:
                expected = [references[expert.spec.name, query] for query in TEXTS]
                assert texts_of(expert.answer(TEXTS, GREEDY)) == expected

    def test_weights_of_the_base_that_were_saved_along(self, make, references):
        math, vocab = make("math"), make("vocab")
        for expert in (math, vocab, math):
            assert texts_of(expert.answer(TEXTS, GREEDY)) == [references[expert.spec.name, query] for query in TEXTS]
        mixed = answer_mixed([math, vocab, math, vocab], TEXTS, GREEDY)
        names = ("math", "vocab", "math", "vocab")
        assert texts_of(mixed) == [references[name, query] for name, query in zip(names, TEXTS, strict=True)]

    @pytest.mark.parametrize(("first", "second"), [("vocab", "head"), ("head", "vocab")])
    def test_adapters_that_exclude_each_other(self, make, references, first, second):
        """One adapts the head with LoRA, the other replaces it: PEFT has no place for both."""
        first, second = make(first), make(second)
        first.load()
        for _ in range(2):
            with pytest.raises(ExpertError, match="adapters that are on it"):
                second.load()
            assert first.answer(TEXTS[:1], GREEDY)[0].text == references[first.spec.name, TEXTS[0]]
        kept = {part for name, _ in first.model.named_parameters() for part in name.split(".") if "adapter_" in part}
        assert kept == {first.adapter}  # nothing of the second takes up memory
        first.close()
        assert second.answer(TEXTS[:1], GREEDY)[0].text == references[second.spec.name, TEXTS[0]]

    def test_is_silent(self, make, capfd):
        import warnings

        make("base").load()
        capfd.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with make("math") as math, make("code") as code:
                answer_mixed([math, code], TEXTS[:2], GREEDY)
        assert capfd.readouterr() == ("", "")

    def test_the_base_is_in_memory_once(self, make):
        math, code, base = make("math"), make("code"), make("base")
        weights = [dict(each.model.named_parameters()) for each in (math, code, base)]
        norm = "model.norm.weight"
        assert len({each[norm].data_ptr() for each in weights}) == 1
        projections = {name: p for name, p in weights[0].items() if name.endswith("k_proj.weight")}
        assert len(projections) == 2  # no copy for the second adapter
        assert not any(parameter.requires_grad for name, parameter in weights[0].items() if "lora_" in name)

    def test_loading_one_leaves_the_base_as_it_is(self, make, folders):
        before = AutoModelForCausalLM.from_pretrained(folders["base"]).state_dict()
        for name in ("math", "code", "dora", "head", "wide"):
            make(name).load()
        after = make("base").model.state_dict()
        for name, weight in before.items():
            module, _, kind = name.rpartition(".")
            found = next(
                after[key]
                for key in (
                    name,
                    f"{module}.base_layer.{kind}",
                    f"{module}.original_module.base_layer.{kind}",
                    f"{module}.original_module.{kind}",
                )
                if key in after
            )
            assert torch.equal(found, weight)

    def test_the_last_to_close_frees_it(self, make, references):
        math, code, base = make("math"), make("code"), make("base")
        model = weakref.ref(math.model)
        code.load(), base.load()
        math.close()
        assert not [name for name, _ in base.model.named_parameters() if "adapter_1" in name]
        assert code.answer(TEXTS[:1], GREEDY)[0].text == references["code", TEXTS[0]]
        code.close()
        assert base.answer(TEXTS[:1], GREEDY)[0].text == references["base", TEXTS[0]]
        # A base without adapters takes one again.
        assert math.answer(TEXTS[:1], GREEDY)[0].text == references["math", TEXTS[0]]
        assert math.model is model()
        math.close()
        base.close()
        assert model() is None

    def test_the_base_may_be_loaded_first(self, make, references):
        base, math = make("base"), make("math")
        assert base.answer(TEXTS[:1], GREEDY)[0].text == references["base", TEXTS[0]]
        assert math.answer(TEXTS[:1], GREEDY)[0].text == references["math", TEXTS[0]]
        assert base.model is math.model

    def test_stream(self, make, references):
        math, code = make("math"), make("code")
        pieces = math.stream(TEXTS[0], GREEDY), code.stream(TEXTS[0], GREEDY)
        first = [next(pieces[0]), next(pieces[1])]  # the second waits for the first to be done
        for name, start, rest in zip(("math", "code"), first, pieces, strict=True):
            *others, usage = rest
            assert start + "".join(others) == references[name, TEXTS[0]]
            assert usage.output_tokens == make(name).answer([TEXTS[0]], GREEDY)[0].usage.output_tokens > 0

    def test_its_own_tokenizer_goes_before(self, make, folders, tmp_path):
        folder = shutil.copytree(folders["math"], tmp_path / "own")
        make_tokenizer("{{ messages[0]['content'] }}<|assistant|>").save_pretrained(folder)
        own, plain = make("own", folder=folder), make("math")
        assert (
            own.answer(["Why?"], GREEDY)[0].usage.input_tokens < plain.answer(["Why?"], GREEDY)[0].usage.input_tokens
        )
        mixed = answer_mixed([own, plain], ["Why?", "Why?"], GREEDY)
        assert texts_of(mixed) == [own.answer(["Why?"], GREEDY)[0].text, plain.answer(["Why?"], GREEDY)[0].text]


class TestMixed:
    def test_a_batch_of_all_is_that_of_each(self, make, references, monkeypatch):
        names = ["math", "base", "code", "wide", "math", "code"]
        experts = {name: make(name, {"batch_size": 16}) for name in set(names)}
        queries = [TEXTS[place % len(TEXTS)] for place in range(len(names))]
        batches, generate = [], experts["math"].model.generate
        monkeypatch.setattr(
            experts["math"].model, "generate", lambda **kw: batches.append(len(kw["input_ids"])) or generate(**kw)
        )
        answers = answer_mixed([experts[name] for name in names], queries, GREEDY)
        assert texts_of(answers) == [references[name, query] for name, query in zip(names, queries, strict=True)]
        assert batches == [6]

    def test_adapters_that_replace_modules_keep_others_from_mixing(self, make, references):
        names = ["math", "code", "base"]
        head = make("head")
        head.load()
        answers = answer_mixed([make(name) for name in names], [TEXTS[0]] * 3, GREEDY)
        assert texts_of(answers) == [references[name, TEXTS[0]] for name in names]

    @pytest.mark.parametrize("apart", ["dora", "head"])
    def test_what_cannot_be_mixed_is_answered_apart(self, make, references, apart):
        names = ["math", apart, "code", "base", apart]
        experts = {name: make(name) for name in set(names)}
        queries = [*TEXTS, TEXTS[0]]
        answers = answer_mixed([experts[name] for name in names], queries, GREEDY)
        assert texts_of(answers) == [references[name, query] for name, query in zip(names, queries, strict=True)]

    def test_sampled(self, make):
        experts = [make("math"), make("code"), make("base")]
        mixed = answer_mixed(experts, [TEXTS[0]] * 3, SAMPLED)
        assert texts_of(mixed) == [expert.answer([TEXTS[0]], SAMPLED)[0].text for expert in experts]
        assert len(set(texts_of(mixed))) > 1

    def test_queries_that_fail(self, make):
        answers = answer_mixed([make("math"), make("code")], ["", "Why?"], GREEDY)
        assert "empty" in answers[0].error and answers[1].text

    def test_a_failure_leaves_no_trace(self, make, references, monkeypatch):
        """PEFT leaves its hooks behind if a mixed batch fails, as one does that is too large for the memory."""
        math, code = make("math"), make("code")
        forward = math.model.forward

        def limited(input_ids, **kwargs):
            if len(input_ids) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(input_ids=input_ids, **kwargs)

        monkeypatch.setattr(math.model, "forward", limited)
        answers = answer_mixed([math, code, math, code], TEXTS, GREEDY)
        names = ("math", "code", "math", "code")
        assert texts_of(answers) == [references[name, query] for name, query in zip(names, TEXTS, strict=True)]
        assert not any(module._forward_pre_hooks for module in math.model.modules())
        assert texts_of(code.answer(TEXTS[:2], GREEDY)) == [references["code", query] for query in TEXTS[:2]]

    def test_must_share_a_base(self, make, folders, tmp_path):
        other = make("base", folder=save_model(tmp_path / "other", seed=1))
        with pytest.raises(ValueError, match=r"\['base', 'math'\] do not share"):
            answer_mixed([make("math"), other], ["a", "b"], GREEDY)
        with pytest.raises(ValueError, match="got 1 for 2"):
            answer_mixed([make("math")], ["a", "b"], GREEDY)


class TestOptions:
    def test_the_base_may_be_named(self, make, folders, references, tmp_path):
        copy = shutil.copytree(folders["base"], tmp_path / "elsewhere")
        expert = make("math", {"base_model": str(copy)})
        assert expert.answer(TEXTS[:1], GREEDY)[0].text == references["math", TEXTS[0]]
        assert expert.shared.source == str(copy)

    def test_they_apply_to_the_base(self, make):
        assert make("math", {"dtype": "bfloat16"}).model.dtype == torch.bfloat16

    def test_experts_on_a_base_must_agree(self, make):
        make("math").load()
        with pytest.raises(ExpertError, match=r"'code'.*bfloat16.*must agree"):
            make("code", {"dtype": "bfloat16"}).load()
        make("wide", {"batch_size": 2}).load()

    def test_unknown(self):
        with pytest.raises(ValueError, match=r"'x'.*adapter_name.*base_model"):
            AdapterExpert(ExpertSpec("x", model="somewhere", options={"adapter_name": "a"}))
        with pytest.raises(ValueError, match="`model`"):
            AdapterExpert(ExpertSpec("x"))

    def test_capabilities(self, make):
        assert make("math").capabilities == make("base").capabilities


class TestAdaptersThatAreRefused:
    @pytest.fixture
    def changed(self, folders, tmp_path):
        """Copies an adapter with other fields in its config."""

        def change(**fields):
            folder = shutil.copytree(folders["math"], tmp_path / "changed")
            file = folder / "adapter_config.json"
            file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
            return folder

        return change

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"peft_type": "IA3"}, "'IA3'.*Only LoRA"),
            ({"task_type": "SEQ_CLS"}, "SEQ_CLS"),
            ({"bias": "all"}, "changes the base"),
            ({"init_lora_weights": "pissa"}, "pissa.*Convert"),
            ({"alora_invocation_tokens": [1]}, "activated"),
            ({"base_model_name_or_path": None}, "base_model"),
            (
                {"base_model_name_or_path": "/trained/elsewhere"},
                "`base_model` is '/trained/elsewhere'.*no such folder",
            ),
            ({"target_modules": ["query_key_value"]}, "does not fit"),
            ({"r": 3}, "does not fit"),
            ({"target_modules": ["q_proj"]}, "does not fit.*counterpart"),
            ({"target_modules": ["q_proj", "down_proj", "o_proj"]}, "does not fit.*counterpart"),
        ],
    )
    def test_by_their_config(self, make, changed, fields, message):
        with pytest.raises(ExpertError, match=f"(?s)'bad'.*{message}"):
            make("bad", folder=changed(**fields)).load()

    @pytest.mark.parametrize("fields", [{"r": 3}, {"target_modules": ["query_key_value"]}])
    def test_the_others_go_on(self, make, changed, references, fields):
        base, math, bad = make("base"), make("math"), make("bad", folder=changed(**fields))
        base.load()
        for expert in (base, math, base):
            with pytest.raises(ExpertError, match="does not fit"):
                bad.load()
            assert expert.answer(TEXTS[:1], GREEDY)[0].text == references[expert.spec.name, TEXTS[0]]

    def test_for_another_base(self, make, tmp_path):
        other = save_model(tmp_path / "other", hidden_size=16)
        with pytest.raises(ExpertError, match="(?s)'math'.*does not fit the base.*other.*trained on.*base"):
            make("math", {"base_model": str(other)}).load()

    def test_not_there(self, make, folders):
        with pytest.raises(ExpertError, match="'x'.*no such folder"):
            make("x", folder="./not-there").load()
        with pytest.raises(ExpertError, match="'x'.*nobody/nothing"):
            make("x", folder="nobody/nothing").load()
        with pytest.raises(ExpertError, match=r"'x'.*adapter_config\.json"):
            make("x", folder=folders["base"]).load()

    def test_weights_that_are_no_safetensors(self, make, changed):
        folder = changed()
        torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
        (folder / "adapter_model.safetensors").unlink()
        with pytest.raises(ExpertError, match="safetensors"):
            make("bad", folder=folder).load()

    def test_weights_that_are_cut_off(self, make, changed):
        file = changed() / "adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(ExpertError, match="cannot be read"):
            make("bad", folder=file.parent).load()

    def test_weights_of_the_base(self, make, changed):
        file = changed() / "adapter_model.safetensors"
        weights = load_file(file)
        save_file({**weights, "base_model.model.model.embed_tokens.weight": torch.zeros(4, 4)}, file)
        with pytest.raises(ExpertError, match="(?s)does not fit.*embed_tokens.*save_embedding_layers"):
            make("bad", folder=file.parent).load()
