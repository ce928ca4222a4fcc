"""Tags from an LLM."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rewards.scripted import ScriptedExpert
from zooter_hf.rewards.taggers import InsTagger
from zooter_hf.rewards.taggers.instag import INSTAG_PROMPT, INSTAG_VICUNA_PROMPT, parse_tags


LIST = '[{"tag": "Math", "explanation": "a sum"}, {"tag": " number  theory ", "explanation": "primes [1]"}]'


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (LIST, ["math", "number theory"]),
        (f"```json\n{LIST}\n```", ["math", "number theory"]),
        (f"Here are the tags [2 of them]: {LIST} I hope {{this}} helps [1].", ["math", "number theory"]),
        ('{"tag": "Math", "explanation": "x"}', ["math"]),
        ('["Math", "MATH ", "Code"]', ["math", "code"]),
        ('[{"tag": ""}, {"tag": "a"}]', ["a"]),
        ("[]", []),
        ('[{"tag": "\u00c9t\u00e9"}]', ["\u00e9t\u00e9"]),
    ],
)
def test_tags_are_read(text, tags):
    assert parse_tags(text) == tags


@pytest.mark.parametrize(
    "text",
    [
        "",
        "math, code",
        "[math, code]",
        LIST[:-20],  # cut off: the first tag alone would be half the truth
        '[{"tag": "a", "words": ["b"]',
        "{'tag': 'a'}",
        '{"explanation": "x"}',
        '[{"tag": "a"}, {"explanation": "x"}]',
        '[{"tag": 1}]',
        '[["a"]]',
        '{"tag": ["a"]}',
        '["\\ud800"]',
        "[" * 100_000,
        '["' + "9" * 10,
        '[{"tag": ' + "9" * 10_000 + "}]",
    ],
)
def test_anything_else_is_malformed(text):
    assert parse_tags(text) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["tag", "explanation", "x"]), inner),
    max_leaves=10,
)


@given(st.text() | st.text(st.sampled_from('[]{}",:tag \\u09e-'), max_size=40) | JSON.map(json.dumps))
def test_any_text_is_read(text):
    tags = parse_tags(text)
    assert tags is None or all(tag and tag == tag.strip() and isinstance(tag, str) for tag in tags)
    assert tags is None or len(set(tags)) == len(tags)


@given(st.lists(st.text("abc xyz", min_size=1)), st.text("abc \n.", max_size=20), st.text(max_size=20))
def test_lists_are_read_whatever_stands_around_them(tags, before, after):
    text = before + json.dumps([{"tag": tag, "explanation": "x"} for tag in tags]) + after
    assert parse_tags(text) == list(dict.fromkeys(" ".join(tag.split()) for tag in tags if tag.strip()))


def test_queries_are_tagged():
    replies = {"q1": LIST, "q2": "no idea", "q3": None, "q4": '["a", "b", "c"]'}
    expert = ScriptedExpert(lambda prompt: replies[prompt.rsplit(" ", 1)[1]])
    tagger = InsTagger(expert, max_tags=2)
    chat = [{"role": "user", "content": "q4"}]
    with tagger:
        tagger.load()
        assert expert.loaded == 1
        assert tagger.tag(["q1", "q2", "q3", chat]) == [["math", "number theory"], None, None, ["a", "b"]]
    assert expert.loaded == 0
    assert expert.asked[0] == INSTAG_PROMPT.replace("{query}", "q1")
    assert expert.settings.temperature == 0 and expert.settings.max_new_tokens == 512
    assert tagger.malformed == 1 and tagger.skipped == {"malformed": 1, "failed": 1}
    assert tagger.tag([]) == []
    assert not tagger.needs_all_queries


def test_prompts():
    assert '{"tag": str, "explanation": str}.\nUser query: {query}' in INSTAG_PROMPT
    assert INSTAG_VICUNA_PROMPT.endswith("User query: {query} ASSISTANT:")
    with pytest.raises(ValueError, match=r"must contain \{query\}"):
        InsTagger(ScriptedExpert(str), prompt="Tags?")
    with pytest.raises(ValueError, match="`max_tags` must be positive"):
        InsTagger(ScriptedExpert(str), max_tags=0)


def test_settings_are_json():
    settings = InsTagger(ScriptedExpert(str), max_tags=3).settings
    assert json.loads(json.dumps(settings)) == settings
    assert settings["expert"] == {"name": "scripted"} and settings["max_tags"] == 3
