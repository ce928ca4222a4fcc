"""An expert that answers with what a function says, and remembers what it was asked."""

from zooter_hf import ExpertSpec
from zooter_hf.experts import Answer, Capabilities, Expert


class ScriptedExpert(Expert):
    """`ScriptedExpert(reply)`: `reply(prompt)` is the answer, or `None` for a failure."""

    def __init__(self, reply):
        super().__init__(ExpertSpec("scripted"))
        self.reply = reply
        self.asked = []
        self.settings = None
        self.loaded = 0

    def load(self):
        self.loaded += 1

    def close(self):
        self.loaded -= 1

    @property
    def capabilities(self):
        return Capabilities(chat=True, batches=True, streaming=False, local=True)

    def answer(self, queries, settings=None):
        self.asked += queries
        self.settings = settings
        texts = [self.reply(query) for query in queries]
        return [Answer(text, error="it broke" if text is None else None) for text in texts]

    def stream(self, query, settings=None):
        raise NotImplementedError
