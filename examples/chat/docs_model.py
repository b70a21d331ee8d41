"""
A language model that answers questions about gatewayd, and streams its tokens.

    flow:  gateway ── model (DocsModel)        /chat streams, /embed does not

It is a small one, trained when the executor starts, in about a second, on the project's own documentation: an
n-gram model of words, smoothed after Witten and Bell, half of it made of the passages that are most like the
question. So it writes sentences in the style of these pages, near the subject, and now and then true ones.
Nothing is downloaded.

``openai: {chat: /chat, embeddings: /embed}`` serves it to OpenAI's clients (docs/guide/openai.md).
"""

import asyncio
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gatewayd import Executor, requests

try:
    from docarray import Document, DocumentArray
except ImportError:  # docarray 0.40 and later, where documents have classes of their own
    from docarray import BaseDoc, DocList
    from docarray.typing import NdArray

    class Document(BaseDoc):  # type: ignore[no-redef, misc]  # the other docarray is installed
        text: str = ""
        tags: dict[str, Any] = {}  # noqa: RUF012  # pydantic copies it
        embedding: NdArray | None = None

    DocumentArray = DocList[Document]

DOCS = Path(__file__).parents[2] / "docs"
END = "\n"  # of a paragraph

TOKEN = re.compile(r"\s?\w+|\s?[^\w\s]")
MARKS = re.compile(r"[`*]|\[|\]\([^)]*\)")


def passages(folder: Path) -> list[str]:
    """The paragraphs of all pages, without code, tables and lists."""
    found = []
    for page in sorted(folder.rglob("*.md")):
        text = MARKS.sub("", re.sub(r"```.*?```|<!--.*?-->", "", page.read_text("utf-8"), flags=re.DOTALL))
        for paragraph in text.split("\n\n"):
            line = " ".join(paragraph.split())
            if len(line) > 60 and line[0].isalpha() and line.endswith("."):
                found.append(line)
    return found


def tokens_of(text: str) -> list[str]:
    """Words and signs, each with the blank before it, so that they can be joined again."""
    return TOKEN.findall(" " + text)


def vector(text: str, dimensions: int = 256) -> np.ndarray:
    """An embedding of length 1: hashed n-grams of letters. Texts that share words are near to each other."""
    found = np.zeros(dimensions, dtype=np.float32)
    for word in re.findall(r"\w+", text.lower()):
        marked = f"<{word}>"
        for size in (3, 4, 5):
            for start in range(len(marked) - size + 1):
                hashed = zlib.crc32(marked[start : start + size].encode())
                found[hashed % dimensions] += 1 if hashed & 0x80000000 else -1
    length = float(np.linalg.norm(found))
    return found / length if length else found


class NGrams:
    """
    What follows what in some texts. ``order`` tokens before the next one are looked at.

    ``vocabulary`` maps tokens to their places in distributions.
    """

    def __init__(self, texts: Iterable[str], vocabulary: dict[str, int], order: int = 3):
        self.vocabulary, self.order = vocabulary, order
        self._follow: dict[tuple[str, ...], Counter[int]] = defaultdict(Counter)
        for text in texts:
            tokens = [END, *tokens_of(text), END]
            for end in range(1, len(tokens)):
                token = vocabulary[tokens[end]]
                for start in range(max(0, end - order), end + 1):
                    self._follow[tuple(tokens[start:end])][token] += 1

    def distribution(self, context: Sequence[str]) -> np.ndarray:
        """How probable each token of the vocabulary is after ``context``."""
        found = np.full(len(self.vocabulary), 1 / len(self.vocabulary))
        for size in range(min(self.order, len(context)) + 1):
            follow = self._follow.get(tuple(context[len(context) - size :]))
            if follow is None:
                break
            kinds = len(follow)
            found *= kinds
            found[list(follow)] += list(follow.values())
            found /= kinds + follow.total()
        return found


class Model:
    """Trained on the pages in ``folder``."""

    def __init__(self, folder: Path, order: int = 3):
        self._passages = passages(folder)
        kinds = dict.fromkeys(token for text in self._passages for token in tokens_of(text))
        self._tokens = [END, *kinds]
        self._vocabulary = {token: place for place, token in enumerate(self._tokens)}
        self._order = order
        self._all = NGrams(self._passages, self._vocabulary, order)
        self._vectors = np.stack([vector(text) for text in self._passages])

    def answer(
        self, question: str, temperature: float = 0.7, top_p: float = 1.0, seed: int | None = None
    ) -> Iterator[str]:
        """Tokens, until the end of a paragraph. A ``temperature`` of 0 always takes the most probable one."""
        chosen = np.argsort(self._vectors @ vector(question))[-6:]
        near = NGrams([self._passages[place] for place in chosen], self._vocabulary, self._order)
        random = np.random.default_rng(seed)
        context = [END]
        while True:
            found = (self._all.distribution(context) + near.distribution(context)) / 2
            token = self._tokens[_drawn(found, temperature, top_p, random)]
            if token == END:
                return
            context.append(token)
            yield token.removeprefix(" ") if len(context) == 2 else token


def _drawn(found: np.ndarray, temperature: float, top_p: float, random: np.random.Generator) -> int:
    if temperature <= 0:
        return int(np.argmax(found))
    found = found ** (1 / temperature)
    found /= found.sum()
    if top_p < 1:
        order = np.argsort(-found)
        kept = order[: int(np.searchsorted(np.cumsum(found[order]), top_p)) + 1]
        only = np.zeros_like(found)
        only[kept] = found[kept]
        found = only / only.sum()
    return int(random.choice(len(found), p=found))


def until_stop(tokens: Iterable[str], stops: Sequence[str]) -> Iterator[str]:
    """``tokens`` up to the first of ``stops``; what may be its beginning is kept back until that is known."""
    text = ""
    longest = max(map(len, stops), default=1)
    for token in tokens:
        text += token
        places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
        if places:
            if min(places):
                yield text[: min(places)]
            return
        ready = len(text) - (longest - 1)
        if ready > 0:
            yield text[:ready]
            text = text[ready:]
    if text:
        yield text


class DocsModel(Executor):
    """
    Answers as documents with a piece of text each; the last one has no text, but says in its tags why it is
    the last (``finish_reason``), and how many tokens there were (``usage``).

    ``tokens_per_second`` is no faster than people read; 0 for as fast as it goes.
    """

    def __init__(self, docs: str = str(DOCS), tokens_per_second: float = 25, **kwargs):
        super().__init__(**kwargs)
        self.model = Model(Path(docs))
        self.pause_s = 1 / tokens_per_second if tokens_per_second else 0

    @requests(on="/chat")
    async def chat(self, doc: Document, parameters: dict[str, Any], **kwargs) -> AsyncIterator[Document]:
        asked = doc.tags.get("messages") or [{"content": doc.text}]
        prompt = sum(len(tokens_of(str(message.get("content")))) for message in asked)
        most = int(parameters.get("max_tokens") or 200)
        seed = parameters.get("seed")
        made, reason = 0, "stop"

        def counted() -> Iterator[str]:
            nonlocal made, reason
            for token in self.model.answer(
                doc.text,
                temperature=float(parameters.get("temperature", 0.7)),
                top_p=float(parameters.get("top_p", 1)),
                seed=None if seed is None else abs(int(seed)),
            ):
                if made == most:
                    reason = "length"
                    return
                made += 1
                yield token

        for piece in until_stop(counted(), parameters.get("stop") or ()):
            yield Document(text=piece)
            await asyncio.sleep(self.pause_s)
        usage = {"prompt_tokens": prompt, "completion_tokens": made}
        yield Document(tags={"finish_reason": reason, "usage": usage})

    @requests(on="/embed")
    def embed(self, docs: DocumentArray, parameters: dict[str, Any], **kwargs) -> DocumentArray:
        dimensions = int(parameters.get("dimensions") or 256)
        for doc in docs:
            doc.embedding = vector(doc.text, dimensions)
            doc.tags["usage"] = {"prompt_tokens": len(tokens_of(doc.text))}
        return docs
