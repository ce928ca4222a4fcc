"""Experts, a teacher and a tagger that say what they were asked, and need no model."""

import pytest

from tests.rewards.labelling.fakes import Echo, length_of_answer


QUERIES = ["How many legs has a spider?", "Why?", "2 + 2 = ?", "Name a river.", "Sort a list in Python, please."]


@pytest.fixture
def queries():
    return [{"query": query, "subset": "short" if len(query) < 10 else "long"} for query in QUERIES]


@pytest.fixture
def experts():
    return [Echo("loud"), Echo("calm")]


@pytest.fixture
def teacher():
    return length_of_answer
