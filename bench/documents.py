"""
What both our executor process and the real Jina's run, where executors are compared.

The method does nothing: what is measured is what a request costs around it, documents decoded and encoded.
"""

try:
    from jina import Executor, requests
except ImportError:
    from gatewayd import Executor, requests


class Same(Executor):
    @requests
    def same(self, docs, **kwargs):
        pass
