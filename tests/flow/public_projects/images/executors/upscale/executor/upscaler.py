"""Answers one endpoint, and leaves the others to the other executors."""

import os

from gatewayd import DocumentArray, Executor, requests


class Upscaler(Executor):
    def __init__(self, path: str, **kwargs):
        super().__init__(**kwargs)
        self.path = path

    @requests(on="/upscale")
    async def upscale(self, docs: DocumentArray, **kwargs):
        query = {"$and": [{"tags__upscaled": {"$exists": False}}, {"tags__generator": {"$exists": True}}]}
        for doc in docs.find(query):
            self.logger.info(f"upscaling [{doc.text}] with {self.path}")
            doc.tags["upscaled"] = True
            self.logger.success("done!")
            doc.tags["upscaled_on"] = os.environ["CUDA_VISIBLE_DEVICES"]
            doc.blob = None
            doc.embedding = None
