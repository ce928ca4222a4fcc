"""Queries as plain text."""

from zooter_hf.rewards.rendering import fill, render_plain


def test_queries():
    assert render_plain("Why?\n") == "Why?\n"
    assert render_plain([{"role": "user", "content": "Why?"}]) == "Why?"
    parts = [{"type": "text", "text": "Look:"}, {"type": "image", "url": "x"}, {"type": "text", "text": "why?"}]
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": None},
        {"role": "user", "content": parts},
    ]
    assert render_plain(chat) == "system: Be brief.\n\nuser: Look:\nwhy?"


def test_values_are_put_in_once():
    assert fill('{a} {"x": 1} {b} {c} {a}', {"a": "{b}", "b": "\\1 {a}"}) == '{b} {"x": 1} \\1 {a} {c} {b}'
