"""An executor of ours for typed documents, and their class."""

from docarray import BaseDoc, DocList

from gatewayd import Executor, requests


class In(BaseDoc):
    text: str


class Typed(Executor):
    @requests(on="/echo")
    def echo(self, docs: DocList[In], **kwargs) -> DocList[In]:
        for doc in docs:
            doc.text += "!"
        return docs
