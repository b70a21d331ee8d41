"""Embeds texts and images, without a model: of the same shape as executors around a real one."""

from multiprocessing.pool import ThreadPool

import numpy as np
from docarray.math.distance.numpy import cosine

from gatewayd import DocumentArray, Executor, requests


class Encoder(Executor):
    def __init__(
        self,
        size: int = 8,
        device: str | None = None,
        minibatch_size: int = 3,
        access_paths: str = "@r",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self._size = size
        self._minibatch_size = minibatch_size
        self._access_paths = access_paths
        replicas = getattr(self.runtime_args, "replicas", 1)
        threads = max(1, 4 // replicas) if hasattr(self.runtime_args, "replicas") else 1
        self._device = device or "cpu"
        self._pool = ThreadPool(processes=threads)

    def _embedded(self, docs: "DocumentArray"):
        with self.monitor(name="preprocess_seconds", documentation="time of preprocessing in seconds"):
            data = [(doc.text or "").encode() or doc.blob for doc in docs]
        rows = [np.resize(np.frombuffer(each, np.uint8), self._size) for each in data]
        return docs, np.array(rows, np.float32) / 255

    @requests
    async def encode(self, docs: "DocumentArray", parameters: dict = {}, **kwargs):  # noqa: B006
        paths = parameters.get("access_paths", self._access_paths)
        size = int(parameters.get("minibatch_size", self._minibatch_size))
        found = DocumentArray(doc for doc in docs[paths] if doc.text or doc.blob)
        if found:
            for batch, embeddings in found.map_batch(self._embedded, batch_size=size, pool=self._pool):
                batch.embeddings = embeddings
        if parameters.get("drop_image_content", False):
            for doc in docs[paths]:
                doc.pop("blob", "tensor")
        return docs

    @requests(on="/rank")
    async def rank(self, docs: "DocumentArray", parameters: dict, **kwargs):
        await self.encode(docs["@r,m"], parameters=parameters)
        for doc in docs:
            distances = cosine(doc.embedding[None], doc.matches.embeddings)[0]
            for match, distance in zip(doc.matches, distances, strict=True):
                match.scores["clip_score"].value = 1 - distance
                match.scores["clip_score"].op_name = "cosine"
            doc.matches = sorted(doc.matches, key=lambda one: one.scores["clip_score"].value, reverse=True)
