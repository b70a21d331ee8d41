"""
The executors behind the golden data: what ``tests/golden`` calls ``Rec`` and ``Echo``.

``Rec`` signs with the last character of its Deployment's name, as a capital: ``exec_a`` is A.
"""

import asyncio
import json
import time
from pathlib import Path

import numpy as np
from docarray import Document, DocumentArray

from gatewayd import Executor, requests


class Rec(Executor):
    """Every endpoint that the golden data was recorded with, in the order in which it lists them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        name = getattr(self.runtime_args, "name", "exec_a")
        self.letter = name.split("/")[0][-1].upper()

    @requests(on=["/tag", "/index", "/search", "/update", "/delete", "/"])
    def tag(self, docs, **kwargs):
        for doc in docs:
            doc.text = (doc.text or "") + self.letter
            doc.tags[self.letter] = len(docs)

    @requests(on="/identity")
    def identity(self, **kwargs):
        pass

    @requests(on="/raise")
    def fail(self, docs, **kwargs):
        for doc in docs:
            doc.text = "changed before the failure"
        raise ValueError("boom", 1)

    @requests(on="/raise_if")
    def raise_if(self, docs, parameters, **kwargs):
        for doc in docs:
            doc.text = (doc.text or "") + self.letter
        if parameters.get("who") == self.letter:
            raise ValueError(f"boom {self.letter}")

    @requests(on="/sleep")
    def sleep(self, parameters, **kwargs):
        time.sleep(parameters.get("t", 1.0))

    @requests(on="/asleep")
    async def asleep(self, docs, parameters, **kwargs):
        if "begun" in parameters:
            await asyncio.to_thread(Path(parameters["begun"]).touch)
        wanted = docs[0].tags.get("t") if len(docs) else None
        await asyncio.sleep(parameters.get("t", 0.0) if wanted is None else wanted)

    @requests(on="/results")
    def results(self, docs, **kwargs):
        return {"n": len(docs), "who": self.letter}

    @requests(on="/params")
    def params(self, docs, parameters, **kwargs):
        seen = Document(text=self.letter, tags={"params": parameters, "kwargs": sorted(kwargs)})
        return DocumentArray([seen, *docs])

    @requests(on="/new")
    def new(self, **kwargs):
        return DocumentArray([Document(id=f"n{self.letter}", text=f"new {self.letter}")])

    @requests(on="/bad")
    def bad(self, **kwargs):
        return "a string"

    @requests(on="/branch")
    def branch(self, docs, **kwargs):
        self._branch(docs)

    @requests(on="/matrix")
    def matrix(self, docs, docs_matrix, docs_map, **kwargs):
        seen = {
            "docs": [doc.text for doc in docs],
            "matrix": [[doc.text for doc in array] for array in docs_matrix or []],
            "map": {name: [doc.text for doc in array] for name, array in (docs_map or {}).items()},
        }
        return DocumentArray([Document(text=self.letter, tags=seen)])

    @requests(on="/rich")
    def rich(self, **kwargs):
        full = Document(
            id="rich0",
            parent_id="p0",
            granularity=1,
            adjacency=2,
            blob=b"\x00\x01\xfe\xff",
            mime_type="application/octet-stream",
            weight=0.5,
            uri="file:///x",
            tags={"i": 1, "f": 1.5, "b": True, "n": None, "s": "x", "l": [1, "a", {"k": 2}], "d": {"z": 1}},
            offset=1.5,
            location=[1.0, 2.0],
            modality="image",
            embedding=np.arange(4, dtype=np.float32).reshape(2, 2),
        )
        full.scores["cos"].value = 0.25
        full.scores["cos"].op_name = "op"
        full.scores["cos"].description = "de"
        full.scores["cos"].ref_id = "r"
        full.evaluations["prec"].value = 1.0
        full.chunks = DocumentArray(
            [Document(id="c0", text="chunk"), Document(id="c1", tensor=np.array([[1, 2], [3, 4]]))]
        )
        match = Document(id="m0", text="match")
        match.scores["s"].value = 0.1
        full.matches = DocumentArray([match])
        return DocumentArray(
            [
                full,
                Document(id="rich1", tensor=np.array([1, 2, 3], dtype=np.uint8)),
                Document(id="rich2", embedding=[1, 2, 3]),
                Document(id="rich3", tensor=np.zeros((0, 3))),
            ]
        )

    @requests(on="/branchj")
    def branchj(self, docs, parameters, **kwargs):
        time.sleep(parameters.get("t", 0.0))
        if self.letter != "C":
            self._branch(docs)

    @requests(on="/swap")
    def swap(self, docs, parameters, **kwargs):
        time.sleep(parameters.get("t", 0.0))
        if self.letter == "C":
            return None
        return DocumentArray([Document(id=f"x{self.letter}"), *reversed(docs)])

    @requests(on="/jsontags")
    def jsontags(self, docs, **kwargs):
        return DocumentArray(
            [
                Document(
                    id=doc.id,
                    text=json.dumps(doc.tags, sort_keys=True),
                    mime_type=f"{_shown(doc.tensor)} | {_shown(doc.embedding)} | blob {doc.blob!r}",
                    tags={"non_empty": list(doc.non_empty_fields)},
                )
                for doc in docs
            ]
        )

    @requests(on="/scalar")
    def scalar(self, **kwargs):
        return DocumentArray([Document(id="s0", tensor=np.array(1.5, dtype=np.float32))])

    def _branch(self, docs):
        for index, doc in enumerate(docs):
            doc.text = f"text by {self.letter}"
            doc.tags["who"] = self.letter
            doc.chunks.append(Document(id=f"c{self.letter}{index}", text=f"chunk {self.letter}"))
            if self.letter == "A":
                doc.matches.append(Document(id=f"m{index}", text="match A"))
            else:
                doc.embedding = np.array([1, 2], dtype=np.float32)
                doc.uri = f"http://{self.letter.lower()}"
                doc.matches.append(Document(id=f"m{index}", uri=f"match {self.letter} uri"))
        docs.append(Document(id=f"new{self.letter}", text=f"new from {self.letter}"))


class Echo(Executor):
    """Answers every endpoint by appending a document."""

    @requests
    def foo(self, docs, **kwargs):
        docs.append(Document(text="foo was called"))


class Documented(Executor):
    """Methods with and without docstrings."""

    @requests(on=["/one", "/two"])
    def one(self, **kwargs):
        """
        One line.

            Indented more.
        """

    @requests(on="/long")
    async def long(self, **kwargs): ...

    long.__doc__ = "x" * 20_000

    @requests(on="/plain")
    def plain(self, **kwargs): ...


def _shown(array):
    return f"{type(array).__name__} {getattr(array, 'dtype', '')} {getattr(array, 'shape', '')}"
