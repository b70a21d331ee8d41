"""Another generator, which runs beside the first one."""

import os

from gatewayd import Document, DocumentArray, Executor, requests


class Diffusion(Executor):
    def __init__(self, model_path: str, steps: int, **kwargs):
        super().__init__(**kwargs)
        self.steps = steps
        os.environ["MODEL_PATH"] = model_path

    @requests(on="/")
    async def diffuse(self, docs: DocumentArray, parameters: dict, **kwargs):
        skip_rate = float(parameters.get("skip_rate", 0.5))
        count = max(1, min(8, int(parameters.get("num_images", 1))))
        for doc in docs:
            for _ in range(count):
                tags = {
                    "generator": "diffusion",
                    "skipped": int(self.steps * skip_rate),
                    "devices": os.environ["CUDA_VISIBLE_DEVICES"],
                    "model": os.environ["MODEL_PATH"],
                }
                doc.matches.append(Document(uri="data:,x", text=doc.text, tags=tags))
