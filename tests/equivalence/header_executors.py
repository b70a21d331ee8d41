"""Executors that tell which headers they got, and answer with some of their own."""

from __future__ import annotations

from pathlib import Path

from gatewayd import Executor, dynamic_batching, requests


class Told(Executor):
    """``/tell`` returns its headers among the results; answers carry ``x-by`` with the Deployment's name."""

    @requests(on="/tell")
    def tell(self, docs, parameters, docs_matrix, headers, response_headers):
        return self._told(parameters, headers, response_headers)

    @requests(on="/tell_async")
    async def tell_async(self, parameters, headers, response_headers, **kwargs):
        return self._told(parameters, headers, response_headers)

    @requests(on="/raise")
    def fail(self, response_headers, **kwargs):
        response_headers["x-retry"] = "no"
        raise ValueError("boom")

    @requests(on="/illegal")
    def illegal(self, response_headers, **kwargs):
        response_headers["x-split"] = "a\r\nx-other: b"

    @requests(on="/much")
    def much(self, response_headers, **kwargs):
        response_headers["x-little"] = "1"
        response_headers["x-much"] = "v" * 20_000

    @requests(on="/keywords")
    def keywords(self, docs, **kwargs):
        return {"keywords": sorted(kwargs)}

    @requests(on="/batched")
    @dynamic_batching(preferred_batch_size=100, timeout=200)
    async def batched(self, docs, headers, response_headers, **kwargs):
        response_headers["x-size"] = str(len(docs))
        for doc in docs:
            doc.tags.update(headers)

    def _told(self, parameters, headers, response_headers):
        name = self.runtime_args.name.partition("/")[0]
        response_headers.update({"x-by": name, "y-hidden": "1", "x-raw-bin": b"\x00\xff"})
        if "file" in parameters:
            whole = self.runtime_args.name.replace("/", ".")
            Path(f"{parameters['file']}.{whole}").write_text(repr(sorted(headers.items())))
        return {"headers": headers}
