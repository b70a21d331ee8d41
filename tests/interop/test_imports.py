"""gatewayd, docarray and the real Jina in one process, imported in any order."""

import itertools
import subprocess
import sys

import pytest

from tests.processes import environment

pytestmark = pytest.mark.slow

OURS = "import gatewayd, gatewayd.pb, gatewayd.messages.wire; from gatewayd import Executor, requests"
DOCARRAY = "import docarray.proto; from docarray import Document, DocumentArray"
JINA = "import jina; from jina import Client, DocumentArray"
# Both can be used afterwards: a message of ours reads what docarray and Jina write.
USE = """
from docarray import Document, DocumentArray
from gatewayd.pb import DataRequestProto
written = DocumentArray([Document(text='x')]).to_protobuf().SerializeToString()
request = DataRequestProto()
request.data.docs.ParseFromString(written)
assert request.data.docs.docs[0].text == 'x'
print('works')
"""
USE_JINA = """
from jina.types.request.data import DataRequest
theirs = DataRequest()
theirs.data.docs = DocumentArray([Document(text='y')])
assert DataRequestProto.FromString(theirs.proto.SerializeToString()).data.docs.docs[0].text == 'y'
"""


def run(python, *statements):
    done = subprocess.run(
        [python, "-c", "\n".join(statements)], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "works", done.stderr


@pytest.mark.parametrize("order", list(itertools.permutations([OURS, DOCARRAY])), ids=["ours first", "last"])
def test_docarray_and_gatewayd_in_any_order(order):
    run(sys.executable, *order, USE)


@pytest.mark.interop
@pytest.mark.parametrize("order", list(itertools.permutations([OURS, JINA])), ids=["ours first", "last"])
def test_jina_and_gatewayd_in_any_order(jina_python, order):
    run(jina_python, *order, USE.replace("print", f"{USE_JINA}\nprint"))
