"""A client that embeds: the gateway's Client inside a class of its own, as packages on top of it do."""

import os
import time
import warnings
from functools import partial
from urllib.parse import urlparse

from docarray import Document, DocumentArray


class EncodingClient:
    def __init__(self, server: str, credential: dict = {}):  # noqa: B006
        url = urlparse(server)
        scheme = url.scheme
        tls = scheme in ("grpcs", "https", "wss")
        scheme = scheme[:-1] if tls else scheme
        self._scheme = "websocket" if scheme == "ws" else scheme
        if self._scheme not in ("grpc", "http", "websocket"):
            raise ValueError(f"{server} is not a valid scheme")
        settings = {"host": url.hostname, "port": url.port, "protocol": self._scheme, "tls": tls}

        from gatewayd import Client

        self._client = Client(**settings)
        self._async_client = Client(**settings, asyncio=True)
        self._authorization = credential.get("Authorization", os.environ.get("ENCODER_AUTH_TOKEN"))
        self.progress = 0

    def _documents(self, content, results):
        for each in content:
            if isinstance(each, str):
                document = Document(text=each, tags={"__created_here__": True})
            elif isinstance(each, Document):
                document = each
            else:
                raise TypeError(f"unsupported input type {each!r}")
            results.append(document)
            yield document

    def _payload(self, content, results, kwargs):
        payload = {
            "inputs": self._documents(content, results),
            "request_size": kwargs.get("batch_size", 8),
            "total_docs": len(content) if hasattr(content, "__len__") else None,
        }
        if self._scheme == "grpc" and self._authorization:
            payload.update(metadata=(("authorization", self._authorization),))
        elif self._scheme == "http" and self._authorization:
            payload.update(headers={"Authorization": self._authorization})
        if "prefetch" in kwargs:
            payload.update(prefetch=kwargs["prefetch"])
        return payload

    @staticmethod
    def _parameters(kwargs):
        parameters = kwargs.pop("parameters", None) or {}
        parameters["drop_image_content"] = parameters.get("drop_image_content", True)
        return parameters, parameters.pop("model", "")

    def _gather(self, response, results, attribute="embedding"):
        found = response.data.docs
        results[found[:, "id"]][:, attribute] = found[:, attribute]

    def _count(self, response, func=None):
        self.progress += len(response.data.docs)
        if func is not None:
            func(response)

    @staticmethod
    def _unboxed(results):
        if not results:
            return results
        return results.embeddings if "__created_here__" in results[0].tags else results

    def encode(self, content, **kwargs):
        if isinstance(content, str):
            raise TypeError("content must be an iterable")
        if not hasattr(content, "__len__"):
            warnings.warn("the length of the input is unknown", stacklevel=2)
        results = DocumentArray()
        on_done, on_error, on_always = map(kwargs.get, ("on_done", "on_error", "on_always"))
        parameters, model = self._parameters(kwargs)
        self._client.post(
            on=f"/encode/{model}".rstrip("/"),
            **self._payload(content, results, kwargs),
            on_done=on_done or partial(self._gather, results=results),
            on_error=on_error,
            on_always=partial(self._count, func=on_always),
            parameters=parameters,
        )
        return self._unboxed(results) if on_done is None else None

    async def aencode(self, content, **kwargs):
        results = DocumentArray()
        parameters, model = self._parameters(kwargs)
        async for found in self._async_client.post(
            on=f"/encode/{model}".rstrip("/"),
            **self._payload(content, results, kwargs),
            on_error=kwargs.get("on_error"),
            parameters=parameters,
        ):
            results[found[:, "id"]].embeddings = found.embeddings
            self.progress += len(found)
        return self._unboxed(results)

    def rank(self, docs, **kwargs):
        results = DocumentArray()
        parameters, model = self._parameters(kwargs)
        self._client.post(
            on=f"/rank/{model}".rstrip("/"),
            **self._payload(docs, results, kwargs),
            on_done=partial(self._gather, results=results, attribute="matches"),
            parameters=parameters,
        )
        return results

    async def arank(self, docs, **kwargs):
        results = DocumentArray()
        async for found in self._async_client.post(on="/rank", **self._payload(docs, results, kwargs)):
            results[found[:, "id"]][:, "matches"] = found[:, "matches"]
        return results

    def index(self, content, **kwargs):
        results = DocumentArray()
        self._client.post(
            on="/index",
            **self._payload(content, results, kwargs),
            on_done=partial(self._gather, results=results),
            parameters=kwargs.pop("parameters", None),
        )
        return self._unboxed(results)

    def search(self, content, limit: int = 10, **kwargs):
        results = DocumentArray()
        parameters = kwargs.pop("parameters", {})
        parameters["limit"] = limit
        self._client.post(
            on="/search",
            **self._payload(content, results, kwargs),
            parameters=parameters,
            on_done=partial(self._gather, results=results, attribute="matches"),
        )
        return results

    async def asearch(self, content, limit: int = 10, **kwargs):
        results = DocumentArray()
        async for found in self._async_client.post(
            on="/search", **self._payload(content, results, kwargs), parameters={"limit": limit}
        ):
            results[found[:, "id"]][:, "matches"] = found[:, "matches"]
        return results

    def profile(self, content: str = "") -> dict[str, float]:
        began = time.perf_counter()
        responses = self._client.post("/", self._documents([content], DocumentArray()), return_responses=True)
        whole = (time.perf_counter() - began) * 1000
        gateway, executor = (
            route.end_time.ToMilliseconds() - route.start_time.ToMilliseconds()
            for route in responses[0].routes[:2]
        )
        return {"Roundtrip": whole, "Server": gateway, "Encoder": executor}
