"""What goes to an executor's process by name, by value, and not at all."""

import subprocess
import sys
import threading

import pytest

from gatewayd import Executor, requests
from gatewayd.executor.batching import Batch
from gatewayd.executor.by_value import CannotCarry, Carried, importable_name, own_path, pack
from tests.processes import environment

UNPACK = """
import sys
from gatewayd.executor.by_value import unpack
arrived = unpack(sys.argv[1])
executor = arrived.cls()
print(executor.shout([]))
print(sorted(executor.requests))
print(arrived.uses_with["x"])
"""


class Greeting(Executor):
    word = "hello"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    @requests(on="/greet")
    def greet(self, docs, **kwargs):
        return self.word


def test_a_class_of_an_importable_module_goes_by_its_name():
    assert importable_name(Batch) == "gatewayd.executor.batching:Batch"


def test_a_class_of_a_function_has_no_name():
    class Local(Executor):
        pass

    assert importable_name(Local) is None


def test_a_class_that_went_by_value_keeps_its_endpoints_and_its_super():
    class Loud(Greeting):
        @requests(on="/shout")
        def shout(self, docs, **kwargs):
            return super().greet(docs).upper()

    packed = pack(Carried(Loud, {"x": {1, 2}}))

    # In this process cloudpickle would know the class again.
    done = subprocess.run(
        [sys.executable, "-c", UNPACK, packed], env=environment(), capture_output=True, text=True, timeout=60
    )
    expected = ["HELLO", "['/greet', '/shout', '_jina_dry_run_']", "{1, 2}"]
    assert done.stdout.splitlines() == expected, done.stderr


def test_what_a_method_uses_and_cannot_go_is_named():
    class Local(Executor):
        @requests
        def local(self, docs, **kwargs):
            with lock:
                return None

    lock = threading.Lock()

    with pytest.raises(CannotCarry, match=r"Local\.local uses lock \(a lock\)"):
        pack(Carried(Local))
    with pytest.raises(CannotCarry, match=r"uses_with: guard \(a lock\)"):
        pack(Carried(uses_with={"fine": 1, "guard": lock}))


def test_only_folders_that_a_new_process_would_lack_are_handed_on(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)

    assert own_path()[0] == str(tmp_path)
    assert not [folder for folder in own_path() if folder.endswith("site-packages")]
    assert len(own_path()) < len(sys.path)
