"""
Text search in two executors: one turns text into vectors, the other keeps and ranks them.

    flow:  gateway ── encoder (HashEncoder) ── indexer (SqliteIndexer)

``POST /index`` documents with text, then ``POST /search`` a document whose text is the query: it
comes back with ranked ``matches``, each with ``scores["cosine"]``. No model is downloaded: texts are
compared by the character n-grams they share, which forgives typing errors and word endings.
"""

import sqlite3
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from docarray import Document, DocumentArray
from docarray.proto.docarray_pb2 import DocumentProto
from docarray.score import NamedScore

from gatewayd import Executor, requests


class HashEncoder(Executor):
    """
    Sets each text's ``embedding``: ``dimensions`` float32 numbers of length 1, from hashed n-grams.

    A text without n-grams gets zeros, which are similar to nothing.
    """

    def __init__(self, dimensions: int = 512, shortest: int = 2, longest: int = 4, **kwargs):
        super().__init__(**kwargs)
        self.dimensions, self.lengths = dimensions, range(shortest, longest + 1)

    @requests(on=["/index", "/search", "/update"])
    def encode(self, docs: DocumentArray, **kwargs):
        for doc in docs:
            if doc.embedding is None:
                doc.embedding = self._vector(doc.text or "")

    def _vector(self, text: str) -> np.ndarray:
        vector = np.zeros(self.dimensions, dtype=np.float32)
        for word in text.lower().split():
            # The borders count as characters, so that beginnings and endings weigh more.
            padded = f"<{word}>".encode()
            for length in self.lengths:
                for start in range(len(padded) - length + 1):
                    # crc32 and not hash(): the same in every process, so that an index outlives one.
                    hashed = zlib.crc32(padded[start : start + length])
                    # The highest bit is the sign: what collides then cancels out on average.
                    vector[hashed % self.dimensions] += 1.0 if hashed >> 31 else -1.0
        norm = np.linalg.norm(vector)
        return vector / norm if norm else vector


class SqliteIndexer(Executor):
    """
    Keeps documents in ``<workspace>/index.sqlite`` and ranks them by the cosine of their embeddings.

    ``/index`` and ``/update`` store documents by id, a stored one being replaced; ``/delete`` forgets
    ids; ``/search`` answers with up to ``parameters.limit`` matches (default 10) for each document,
    the best first. What was stored is there again after a restart.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Requests run in one thread, one at a time, but not in the one that runs __init__.
        self._database = sqlite3.connect(Path(self.workspace, "index.sqlite"), check_same_thread=False)
        # Replicas of this executor share the file: readers do not wait for the one that writes.
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS documents (id TEXT PRIMARY KEY, document BLOB, embedding BLOB)"
        )
        self._database.commit()
        self._ids: list[str] = []
        self._matrix = np.zeros((0, 0), dtype=np.float32)
        self._version: tuple[int, int] | None = None

    @requests(on=["/index", "/update"])
    def store(self, docs: DocumentArray, **kwargs):
        rows = [(doc.id, _to_bytes(doc), _unit(doc).tobytes()) for doc in docs]
        # One index has one size of vectors: what comes first decides.
        first = self._database.execute("SELECT length(embedding) FROM documents LIMIT 1").fetchone()
        sizes = {len(embedding) // 4 for _, _, embedding in rows} | ({first[0] // 4} if first else set())
        if len(sizes) > 1:
            raise ValueError(f"embeddings of different sizes cannot be compared: {sorted(sizes)}")
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", rows)
        self._version = None
        for doc in docs:
            doc.embedding = None  # the client asked to have it stored, not to see it

    @requests(on="/delete")
    def delete(self, docs: DocumentArray, **kwargs):
        with self._database:
            self._database.executemany("DELETE FROM documents WHERE id = ?", [(doc.id,) for doc in docs])
        self._version = None

    @requests(on="/search")
    def search(self, docs: DocumentArray, parameters: dict[str, Any], **kwargs):
        limit = parameters.get("limit", 10)
        if not isinstance(limit, int | float) or limit < 1:
            raise ValueError(f"parameters.limit must be a number from 1, not {limit!r}")
        self._refresh()
        for doc in docs:
            doc.matches = self._ranked(_unit(doc), int(limit))
            doc.embedding = None

    def close(self):
        self._database.close()

    def _ranked(self, query: np.ndarray, limit: int) -> DocumentArray:
        if not self._ids:
            return DocumentArray()
        if query.shape != self._matrix.shape[1:]:
            raise ValueError(
                f"the query has {query.size} dimensions, the index {self._matrix.shape[1]}: was it filled "
                "with another encoder?"
            )
        cosines = self._matrix @ query
        limit = min(limit, len(self._ids))
        # argpartition finds the best in linear time; only those are then sorted.
        best = np.argpartition(-cosines, limit - 1)[:limit]
        best = best[np.argsort(-cosines[best], kind="stable")]
        found = DocumentArray()
        for row in best:
            stored = self._database.execute(
                "SELECT document FROM documents WHERE id = ?", (self._ids[row],)
            ).fetchone()
            if stored is not None:  # else another replica has just deleted it
                match = Document.from_protobuf(DocumentProto.FromString(stored[0]))
                match.scores["cosine"] = NamedScore(value=float(cosines[row]))
                found.append(match)
        return found

    def _refresh(self) -> None:
        """Read the embeddings again if this replica or another one has written."""
        (version,) = self._database.execute("PRAGMA data_version").fetchone()
        current = (version, self._database.total_changes)
        if self._version == current:
            return
        rows = self._database.execute("SELECT id, embedding FROM documents ORDER BY rowid").fetchall()
        self._ids = [one for one, _ in rows]
        self._matrix = (
            np.stack([np.frombuffer(embedding, dtype=np.float32) for _, embedding in rows])
            if rows
            else np.zeros((0, 0), dtype=np.float32)
        )
        self._version = current


def _unit(doc: Document) -> np.ndarray:
    """The document's embedding, scaled to length 1. Raises ValueError if it has none."""
    if doc.embedding is None:
        raise ValueError(f"document {doc.id} has no embedding; does an encoder come before the indexer?")
    vector = np.asarray(doc.embedding, dtype=np.float32).ravel()
    length = np.linalg.norm(vector)
    return vector / length if length else vector


def _to_bytes(doc: Document) -> bytes:
    # Without the embedding, which has a column of its own, and without matches of former searches.
    stored = Document(doc, copy=True)
    stored.embedding = None
    stored.matches = DocumentArray()
    return bytes(stored.to_protobuf().SerializeToString())
