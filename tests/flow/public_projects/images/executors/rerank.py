"""Joins the generators, and orders what they made."""

from gatewayd import DocumentArray, Executor, requests


class Rerank(Executor):
    def __init__(self, best: int, **kwargs):
        super().__init__(**kwargs)
        self.best = best

    @requests(on="/")
    async def rerank(self, docs: DocumentArray, **kwargs):
        for doc in docs:
            for position, match in enumerate(doc.matches):
                match.scores["clip_score"].value = position
            found = sorted(doc.matches, key=lambda match: match.scores["clip_score"].value, reverse=True)
            doc.matches = found[: self.best]
