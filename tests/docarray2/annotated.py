"""An executor whose annotations are texts."""

from __future__ import annotations

from docarray import BaseDoc, DocList
from pydantic import BaseModel

from gatewayd import Executor, requests


class Question(BaseDoc):
    text: str


class Reply(BaseDoc):
    text: str


class Top(BaseModel):
    top: int


class Annotated(Executor):
    @requests(on="/batch")
    def batch(self, docs: DocList[Question], **kwargs) -> DocList[Reply]:
        return DocList[Reply]([Reply(text=doc.text + "!") for doc in docs])

    @requests(on="/single")
    def single(self, doc: Question, parameters: Top, **kwargs) -> Reply:
        return Reply(text=f"{doc.text} {parameters.top}")
