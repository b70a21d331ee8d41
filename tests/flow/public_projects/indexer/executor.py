"""Keeps documents in sqlite, and finds the nearest ones."""

import inspect
import os

from gatewayd import DocumentArray, Executor, requests
from gatewayd.logging.logger import JinaLogger


class Indexer(Executor):
    """Documents with embeddings, on disk."""

    FILE_NAME = "index.db"

    def __init__(self, match_args: dict | None = None, table_name: str = "documents", **kwargs):
        super().__init__(**kwargs)
        self._match_args = match_args or {}
        self._index = DocumentArray(
            storage="sqlite",
            config={
                "connection": os.path.join(self.workspace, Indexer.FILE_NAME),
                "table_name": table_name,
            },
        )
        self.logger = JinaLogger(self.metas.name)

    @property
    def table_name(self) -> str:
        return self._index._table_name

    @requests(on="/index")
    def index(self, docs: "DocumentArray", **kwargs):
        """Add documents."""
        if docs:
            self._index.extend(docs)

    @requests(on="/search")
    def search(self, docs: "DocumentArray", parameters: dict | None = None, **kwargs):
        """The nearest documents, as matches."""
        accepted = set(inspect.getfullargspec(docs.match).args) - {"self"}
        wanted = {**self._match_args, **(parameters or {})}
        docs.match(self._index, **{key: value for key, value in wanted.items() if key in accepted})

    @requests(on="/delete")
    def delete(self, parameters: dict, **kwargs):
        """Drop the documents of ``ids``."""
        ids = parameters.get("ids", [])
        if len(ids) > 0:
            del self._index[ids]

    @requests(on="/update")
    def update(self, docs: DocumentArray, **kwargs):
        """Replace documents of the same ids."""
        for doc in docs:
            try:
                self._index[doc.id] = doc
            except (IndexError, KeyError):
                self.logger.warning(f"cannot update doc {doc.id}: it is not stored")

    @requests(on="/filter")
    def filter(self, parameters: dict, **kwargs):
        """The stored documents of which ``query`` holds."""
        return DocumentArray(self._index.find(parameters["query"]))

    @requests(on="/fill_embedding")
    def fill_embedding(self, docs: DocumentArray, **kwargs):
        """The embeddings that are stored under the documents' ids."""
        for doc in docs:
            doc.embedding = self._index[doc.id].embedding

    @requests(on="/clear")
    def clear(self, **kwargs):
        """Drop everything."""
        self._index.clear()

    def close(self) -> None:
        del self._index
