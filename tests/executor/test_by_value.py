"""What goes to an executor's process by name, by value, and not at all."""

import subprocess
import sys
import threading
import types

import pytest

from gatewayd import Executor, requests
from gatewayd.executor.batching import Batch
from gatewayd.executor.by_value import ByValue, CannotSend, importable_name, own_path, pack
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

    packed = pack(ByValue(Loud, {"x": {1, 2}}))

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

    with pytest.raises(CannotSend, match=r"Local\.local uses lock \(a lock\)"):
        pack(ByValue(Local))
    with pytest.raises(CannotSend, match=r"uses_with: guard \(a lock\)"):
        pack(ByValue(uses_with={"fine": 1, "guard": lock}))


def test_only_folders_that_a_new_process_would_lack_are_handed_on(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)

    assert own_path()[0] == str(tmp_path)
    assert not [folder for folder in own_path() if folder.endswith("site-packages")]
    assert len(own_path()) < len(sys.path)


RAISE = """
import sys, traceback
from gatewayd.executor.by_value import unpack
try:
    unpack(sys.argv[1]).cls().fail()
except ValueError:
    traceback.print_exc(file=sys.stdout)
"""


def traceback_of(packed):
    """What is printed when the method ``fail`` of the class in ``packed`` raises in another process."""
    done = subprocess.run(
        [sys.executable, "-c", RAISE, packed], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_traceback_shows_the_file_the_line_and_its_text():
    class Failing(Executor):
        def fail(self):
            raise ValueError("here")  # this very line

    shown = traceback_of(pack(ByValue(Failing)))

    line = Failing.fail.__code__.co_firstlineno + 1
    assert f'File "{__file__}", line {line}, in fail\n    raise ValueError("here")' in shown


def test_a_traceback_goes_through_all_code_that_was_sent(tmp_path):
    """Functions in functions, and a module that only this process can import."""
    source = "def outer():\n    def inner():\n        raise ValueError(3)\n    return inner()\n"
    (tmp_path / "helper.py").write_text(source)
    helper = types.ModuleType("helper")
    exec(compile(source, str(tmp_path / "helper.py"), "exec"), helper.__dict__)

    class Failing(Executor):
        def fail(self):
            outer()

    outer = helper.outer
    shown = traceback_of(pack(ByValue(Failing)))

    assert f'File "{tmp_path / "helper.py"}", line 4, in outer\n    return inner()' in shown
    assert f'File "{tmp_path / "helper.py"}", line 3, in inner\n    raise ValueError(3)' in shown


def test_a_file_that_changes_later_does_not_change_the_traceback(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PACK_IN_SCRIPT)
    packed = run_script(script)
    script.write_text("# rewritten\n" * 20)

    assert f'File "{script}", line 6, in fail\n    raise ValueError("in the script")' in traceback_of(packed)


PACK_IN_SCRIPT = """
from gatewayd import Executor
from gatewayd.executor.by_value import ByValue, pack
class Failing(Executor):
    def fail(self):
        raise ValueError("in the script")
print(pack(ByValue(Failing)))
"""

PACK_IN_NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("from gatewayd import Executor", store_history=True)
cell = "class Failing(Executor):\\n    def fail(self):\\n        raise ValueError('in a cell')\\n"
shell.run_cell(cell, store_history=True)
from gatewayd.executor.by_value import ByValue, pack
print(pack(ByValue(shell.user_ns["Failing"])))
"""


def run_script(script):
    done = subprocess.run(
        [sys.executable, str(script)], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def test_a_traceback_names_the_cell_of_a_notebook(tmp_path):
    script = tmp_path / "session.py"
    script.write_text(PACK_IN_NOTEBOOK)

    shown = traceback_of(run_script(script))

    assert "File \"Cell In[2]\", line 3, in fail\n    raise ValueError('in a cell')" in shown


def test_code_without_a_source_is_sent_all_the_same():
    space = {"Executor": Executor, "__name__": "made_up"}
    exec("class Failing(Executor):\n    def fail(self):\n        raise ValueError(1)\n", space)

    assert 'File "<string>", line 3, in fail' in traceback_of(pack(ByValue(space["Failing"])))
