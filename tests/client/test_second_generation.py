"""What a Client with docarray 0.21 does where the other generation of documents meets it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import orjson
import pydantic
import pytest

from gatewayd.client.client import Client
from gatewayd.client.errors import BadClientInput, BadServerFlow, NoSuchEndpoint
from gatewayd.client.inputs import encoded_parameters
from gatewayd.client.response import Response
from gatewayd.client.transports import typed_json
from gatewayd.messages import wire
from gatewayd.messages.request import Request
from gatewayd.messages.structs import parameters_of
from gatewayd.pb import second


def answer(**fields):
    document = second.DocProto()
    for key, value in fields.items():
        setattr(document.data[key], "text" if isinstance(value, str) else "blob", value)
    content = second.DataContentProto(docs=second.DocListProto(docs=[document]))
    return Response(b"".join(wire.field(wire.DATA, content.SerializeToString())))


def test_documents_of_the_second_are_refused_by_name():
    with pytest.raises(BadServerFlow, match=r"docarray 0\.40 and later, and this Client has docarray 0\.21"):
        _ = answer(id="x", text="t").docs


def test_but_have_their_json():
    assert answer(id="x", text="t").to_dict()["data"] == [{"id": "x", "text": "t"}]


class Settings(pydantic.BaseModel):
    top: int = 3


def test_a_model_of_pydantic_is_sent_as_its_fields():
    assert parameters_of(encoded_parameters(Settings())) == {"top": 3.0}


@pytest.mark.parametrize("wrong", ["text", 3, Settings])
def test_other_parameters_are_refused(wrong):
    with pytest.raises(BadClientInput, match="give a dict or a pydantic model"):
        encoded_parameters(wrong)


BLOB = second.NodeProto(blob=b"\xff")


def request(**fields):
    document = second.DocProto()
    for key, node in fields.items():
        document.data[key].CopyFrom(node)
    content = second.DataContentProto(docs=second.DocListProto(docs=[document]))
    return Request(request_id="r", endpoint="/e", target="t", documents=content.SerializeToString())


def test_typed_routes_get_the_json_that_jinas_client_sends():
    body = typed_json.encode(request(id=second.NodeProto(text="d", type="id"), note=second.NodeProto()))

    assert orjson.loads(body) == {
        "header": {"request_id": "r", "exec_endpoint": "/e", "target_executor": "t"},
        "parameters": {},
        "exec_endpoint": "/e",
        "target_executor": "t",
        "data": [{"id": "d", "note": None}],
    }


@pytest.mark.parametrize(
    ("node", "where"),
    [
        (BLOB, "x holds bytes"),
        (second.NodeProto(float=float("nan")), "x holds NaN"),
        (second.NodeProto(tuple=second.ListOfAnyProto(data=[BLOB])), r"x\[0\] holds bytes"),
        (second.NodeProto(doc=second.DocProto(data={"y": BLOB})), r"x\.y holds bytes"),
        (
            second.NodeProto(doc_array=second.DocListProto(docs=[second.DocProto(data={"y": BLOB})])),
            r"x\[0\]\.y holds bytes",
        ),
    ],
)
def test_what_json_lacks_is_refused_by_name(node, where):
    with pytest.raises(BadClientInput, match=where):
        typed_json.encode(request(x=node))


def test_an_answer_of_a_typed_route_is_read():
    document = {"id": "d", "i": 5, "big": 2**40, "f": 1.5, "b": True, "n": None, "l": [1, "x"], "d": {"k": 2}}
    body = orjson.dumps({"data": [document], "parameters": {"p": 1}, "header": {"request_id": "r"}})

    got = Response(typed_json.decode(body))

    assert (got.request_id, got.parameters) == ("r", {"p": 1.0})
    assert got.to_dict()["data"] == [document]


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"header": {}, "data": [1]}', b'{"header": {}, "data": "x"}']
)
def test_what_is_no_answer_is_told(body):
    with pytest.raises(BadServerFlow, match="not the JSON of a response"):
        typed_json.decode(body)


@pytest.mark.parametrize("server", ["uvicorn", "other"])
def test_a_gateway_of_jina_without_post_is_told_by_its_generation(server):
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = server, ""

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b'{"detail":"Not Found"}'
            self.send_response(404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def version_string(self):
            return server

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.handle_request)
        thread.start()
        with (
            Client(host="127.0.0.1", port=http.server_port, protocol="http") as client,
            pytest.raises(NoSuchEndpoint) as caught,
        ):
            client.post("/e", "x")
        thread.join()

    assert ("docarray 0.40 and later" in str(caught.value)) == (server == "uvicorn")
