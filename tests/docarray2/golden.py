"""The executors behind the golden data of the second generation, as executors of ours; and that data."""

import json
from types import ModuleType

from gatewayd.pb import second
from tests.paths import ROOT

GOLDEN = ROOT / "tests" / "golden34"
SOURCE = GOLDEN / "executors.py"


def _executors():
    module = ModuleType("golden_executors")
    text = SOURCE.read_text().replace("from jina import", "from gatewayd import")
    exec(compile(text, str(SOURCE), "exec"), vars(module))
    return module


EXECUTORS = _executors()
CONVERSATIONS = json.loads((GOLDEN / "grpc" / "manifest.json").read_text())
ENDPOINTS = json.loads((GOLDEN / "endpoints_proto.json").read_text())


def request(number, index=0):
    return (GOLDEN / "grpc" / f"{number:02}_req{index}.bin").read_bytes()


def answers(number):
    files = sorted((GOLDEN / "grpc").glob(f"{number:02}_resp*.bin"))
    return [path.read_bytes() for path in files]


def decoded(message, kind=second.DataRequestProto):
    return kind.FromString(message)
