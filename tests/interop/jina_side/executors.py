"""What the real Jina's executor processes run: ordinary user code that knows nothing of gatewayd."""

import os
import time

from docarray import Document, DocumentArray
from jina import Executor, requests


class Rec(Executor):
    """Signs documents with the last letter of its Deployment's name; ``exec_a`` is A."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.letter = self.runtime_args.name.split("/")[0][-1].upper()

    @requests(on=["/tag", "/search", "/index"])
    def tag(self, docs, **kwargs):
        for doc in docs:
            doc.text = (doc.text or "") + self.letter
            doc.tags[self.letter] = len(docs)

    @requests(on="/who")
    def who(self, docs, **kwargs):
        for doc in docs:
            doc.tags["pid"] = os.getpid()

    @requests(on="/sleep")
    def sleep(self, parameters, **kwargs):
        time.sleep(parameters.get("t", 1.0))

    @requests(on="/raise")
    def fail(self, **kwargs):
        raise ValueError("boom", 1)

    @requests(on="/params")
    def params(self, docs, parameters, **kwargs):
        docs.append(Document(text=self.letter, tags=dict(parameters)))

    @requests(on="/results")
    def results(self, docs, **kwargs):
        return {"n": len(docs), "who": self.letter}

    @requests(on="/matrix")
    def matrix(self, docs, docs_matrix, docs_map, **kwargs):
        seen = {
            "docs": [doc.text for doc in docs],
            "matrix": [[doc.text for doc in array] for array in docs_matrix or []],
            "map": {name: [doc.text for doc in array] for name, array in (docs_map or {}).items()},
        }
        return DocumentArray([Document(text=self.letter, tags=seen)])


class Shard(Executor):
    """Says which shard it is: one document each."""

    @requests(on=["/search", "/any"])
    def which(self, docs, **kwargs):
        return DocumentArray([Document(id=f"shard{self.runtime_args.shard_id}", text=docs[0].text)])
