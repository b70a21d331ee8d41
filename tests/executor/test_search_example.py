"""The demo's executors, called as a user's test would call them: without a gateway."""

import importlib.util

import pytest
from docarray import Document, DocumentArray

from tests.paths import ROOT

SOURCE = ROOT / "examples" / "search" / "executors.py"
FRUIT = {"1": "a red apple", "2": "a green pear", "3": "yellow bananas"}


@pytest.fixture(scope="module")
def search_executors():
    spec = importlib.util.spec_from_file_location("search_executors", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def flow(search_executors, tmp_path):
    """Calls the encoder, then the indexer, as the Flow does."""

    class Flow:
        def __init__(self):
            self.encoder = search_executors.HashEncoder()
            self.open()

        def open(self):
            self.indexer = search_executors.SqliteIndexer(workspace=str(tmp_path))

        def post(self, endpoint, documents, **parameters):
            for executor in (self.encoder, self.indexer):
                if endpoint in executor.requests:
                    executor.requests[endpoint](executor, docs=documents, parameters=parameters)
            return documents

        def index(self, texts):
            return self.post("/index", DocumentArray([Document(id=i, text=t) for i, t in texts.items()]))

        def search(self, text, **parameters):
            return self.post("/search", DocumentArray([Document(text=text)]), **parameters)[0].matches

    flow = Flow()
    yield flow
    flow.indexer.close()


def test_the_most_similar_text_comes_first_with_its_cosine(flow):
    flow.index(FRUIT)

    matches = flow.search("apples")

    cosines = [match.scores["cosine"].value for match in matches]
    assert matches[0].text == "a red apple"
    assert cosines == sorted(cosines, reverse=True)
    assert flow.search("a red apple")[0].scores["cosine"].value == pytest.approx(1.0)


def test_limit_bounds_the_matches_and_is_10_by_default(flow):
    flow.index({str(number): f"text {number}" for number in range(20)})

    assert len(flow.search("text")) == 10
    assert len(flow.search("text", limit=3.0)) == 3
    assert len(flow.search("text", limit=100.0)) == 20


def test_indexing_an_id_again_replaces_its_document(flow):
    flow.index(FRUIT)
    flow.index({"2": "apple apple apple"})

    assert flow.search("apple")[0].id == "2"
    assert len(flow.search("apple")) == 3


def test_deleted_documents_are_not_found(flow):
    flow.index(FRUIT)
    flow.post("/delete", DocumentArray([Document(id="1")]))

    assert {match.id for match in flow.search("apple")} == {"2", "3"}


def test_the_index_is_there_after_a_restart(flow):
    flow.index(FRUIT)
    flow.indexer.close()
    flow.open()

    assert flow.search("banana")[0].id == "3"


def test_what_another_replica_wrote_is_found(flow, search_executors, tmp_path):
    flow.index(FRUIT)
    assert len(flow.search("apple")) == 3
    other = search_executors.SqliteIndexer(workspace=str(tmp_path))
    more = DocumentArray([Document(id="4", text="apple")])
    flow.encoder.encode(more)
    other.store(more)
    other.close()

    assert flow.search("apple")[0].id == "4"


def test_an_empty_index_has_no_matches(flow):
    assert len(flow.search("apple")) == 0


def test_matches_keep_their_tags_and_queries_lose_their_embedding(flow):
    flow.post("/index", DocumentArray([Document(id="1", text="apple", tags={"price": 2})]))
    query = DocumentArray([Document(text="apple")])
    flow.post("/search", query)

    assert query[0].embedding is None
    assert query[0].matches[0].tags == {"price": 2.0}


@pytest.mark.parametrize("limit", [0, -1, "many"])
def test_a_limit_that_makes_no_sense_is_refused(flow, limit):
    with pytest.raises(ValueError, match=r"parameters\.limit"):
        flow.search("apple", limit=limit)


def test_a_document_without_embedding_is_refused(flow):
    with pytest.raises(ValueError, match="no embedding"):
        flow.indexer.store(DocumentArray([Document(id="x", text="never encoded")]))


def test_embeddings_of_another_size_are_refused(flow, search_executors):
    flow.index(FRUIT)
    other = DocumentArray([Document(id="x", text="apple")])
    search_executors.HashEncoder(dimensions=8).encode(other)

    with pytest.raises(ValueError, match="different sizes"):
        flow.indexer.store(other)
