"""Marks what is finished."""

import time

from gatewayd import DocumentArray, Executor, requests


class Store(Executor):
    @requests(on="/upscale")
    def store(self, docs: DocumentArray, **kwargs):
        docs[...].blobs = None
        docs[...].embeddings = None
        for doc in docs.find({"tags__upscaled": {"$exists": True}}):
            doc.tags["finish_time"] = time.time()
