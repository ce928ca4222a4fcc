"""What the tests of the labelling run collect rewards with; in a module of its own, so that actors can import it."""

from zooter_hf import ExpertSpec
from zooter_hf.experts import Answer, Capabilities, Expert, ExpertError, Usage, to_messages
from zooter_hf.rewards.taggers import Tagger
from zooter_hf.rewards.teachers import Teacher


class Echo(Expert):
    """Says its name and the query; `loaded` holds the experts that are in memory."""

    loaded: set[str] = set()

    def __init__(self, name, *, fails_on=(), stops_after=None, error=None, **fields):
        super().__init__(ExpertSpec(name, model=f"org/{name}", backend="transformers", **fields))
        self.fails_on, self.stops_after, self.error = fails_on, stops_after, error
        self.asked = []
        self.most_loaded = 0

    @property
    def capabilities(self):
        return Capabilities(chat=True, batches=True, streaming=False, local=True)

    def load(self):
        self.loaded.add(self.spec.name)
        self.most_loaded = max(self.most_loaded, len(self.loaded))

    def close(self):
        self.loaded.discard(self.spec.name)

    def answer(self, queries, settings=None):
        if self.error is not None:
            raise self.error
        self.load()
        answers = []
        for query in queries:
            text = to_messages(query)[-1]["content"]
            if self.stops_after is not None and len(self.asked) >= self.stops_after:
                raise KeyboardInterrupt
            self.asked.append((text, settings.seed))
            if text in self.fails_on:
                answers.append(Answer(None, error=f"cannot say anything to {text}"))
            else:
                said = f"{self.spec.name}, seed {settings.seed}: {text}" + "!" * (settings.seed % 3)
                answers.append(Answer(said, Usage.of(self.spec, 10, len(said), 0.5)))
        return answers

    def stream(self, query, settings=None):
        raise ExpertError("not here")


def length_of_answer(query, answer):
    """The reward of an answer."""
    return float(len(answer))


class Judge(Teacher):
    """Compares: the longest answer gets 1, the others 0."""

    compares = True

    def __init__(self):
        self.seen = []

    @property
    def settings(self):
        return {"type": "Judge"}

    def score(self, items):
        self.seen += [item.answers for item in items]
        longest = [max(map(len, item.answers)) for item in items]
        return [
            [float(len(answer) == most) for answer in item.answers] for item, most in zip(items, longest, strict=True)
        ]


class FirstWord(Tagger):
    """Tags a query with its first word; fails on digits."""

    def __init__(self, kind="word"):
        self.kind = kind
        self.asked = []

    @property
    def settings(self):
        return {"type": "FirstWord", "kind": self.kind}

    def tag(self, queries):
        self.asked += queries
        return [None if query[0].isdigit() else [query.split()[0].lower().strip("?")] for query in queries]
