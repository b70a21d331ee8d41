"""Draws the text of each document."""

import os

import helper

from gatewayd import Document, DocumentArray, Executor, requests


class Dream(Executor):
    @requests(on="/")
    def draw(self, docs: DocumentArray, parameters: dict, **kwargs):
        count = max(1, min(8, int(parameters.get("num_images", 1))))
        for doc in docs:
            for image in helper.drawn(doc.text, count):
                tags = {
                    "text": doc.text,
                    "generator": "dream",
                    "devices": os.environ["CUDA_VISIBLE_DEVICES"],
                    "log_level": os.environ["JINA_LOG_LEVEL"],
                }
                drawn = Document(blob=image, mime_type="image/png", tags=tags).convert_blob_to_datauri()
                drawn.text = doc.text
                doc.matches.append(drawn)
