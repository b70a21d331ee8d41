"""``Flow.load_config``: where files are looked for, and what is put over what they say."""

import io
import json
import sys
from pathlib import Path

import pytest

from gatewayd import Client, Executor, Flow
from gatewayd.client.client import AsyncClient
from gatewayd.flow.flow import FlowError

NAMED = "jtype: Flow\nexecutors: [{{name: {}}}]\n"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """``here`` is the current folder, ``code`` that of the calling code, ``extra`` is another one."""
    found = {name: tmp_path / name for name in ("here", "code", "extra")}
    for folder in found.values():
        folder.mkdir()
    monkeypatch.chdir(found["here"])
    return found


def called_from(folder: Path, expression: str, **names):
    """``expression`` as if it stood in a file of ``folder``."""
    scope = {"__name__": "caller", "__file__": str(folder / "caller.py"), "Flow": Flow, **names}
    exec(f"def call(): return {expression}", scope)
    return scope["call"]()


def names(flow) -> list[str]:
    return [name for name, _ in flow]


def test_a_flow_file_is_looked_for_in_the_search_paths_the_current_folder_and_that_of_the_code(folders):
    for name in ("code", "here", "extra"):
        (folders[name] / "flow.yml").write_text(NAMED.format(name))
        found = called_from(
            folders["code"],
            "Flow.load_config('flow.yml', extra_search_paths=[extra])",
            extra=folders["extra"],
        )
        assert names(found) == [name]


def test_a_file_that_is_nowhere_is_an_error_that_names_the_folders(folders):
    with pytest.raises(FileNotFoundError, match=r"can not find nope\.yml") as raised:
        Flow.load_config("nope.yml", extra_search_paths=str(folders["extra"]))

    assert str(folders["here"]) in str(raised.value)
    assert str(folders["extra"]) in str(raised.value)


@pytest.mark.parametrize("where", ["beside the Flow file", "extra", "here", "code"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_files_that_a_flow_file_names_are_looked_for_in_the_same_folders(folders, tmp_path, where, wrapped):
    (tmp_path / "flows").mkdir()
    folder = folders.get(where, tmp_path / "flows")
    item = "{uses: sub/executor.yml, py_modules: [one.py]}"
    item = f"{{jtype: Deployment, with: {item}}}" if wrapped else item
    (tmp_path / "flows" / "flow.yml").write_text(f"jtype: Flow\nexecutors: [{item}]\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "executor.yml").write_text("jtype: M\npy_modules: [two.py]\n")
    (folder / "sub" / "two.py").touch()
    (folder / "one.py").touch()

    flow = called_from(
        folders["code"],
        "Flow.load_config(file, extra_search_paths=[extra])",
        file=tmp_path / "flows" / "flow.yml",
        extra=folders["extra"],
    )

    modules = [str(folder / "sub" / "two.py"), str(folder / "one.py")]
    assert list(flow[0].executor.py_modules) == modules
    assert list(flow.add(name="more")[0].executor.py_modules) == modules


def test_the_process_of_a_gateway_finds_what_the_search_paths_have(folders, tmp_path):
    (folders["extra"] / "code.py").write_text(
        "from gatewayd import Executor, requests\n\n\nclass Named(Executor):\n"
        "    @requests\n    def name(self, docs, **kwargs):\n        docs[0].text = 'found'\n"
    )
    text = (
        "jtype: Flow\nwith: {host: 127.0.0.1}\nexecutors: [{uses: {jtype: Named, py_modules: [code.py]}}]\n"
    )

    with Flow.load_config(text, extra_search_paths=[folders["extra"]]) as flow:
        assert flow.post("/", ["x"]).texts == ["found"]


def test_uses_with_overrides_what_the_flow_sets():
    text = (
        "jtype: Flow\nwith: {port: 5, protocol: grpc, title: t}\nexecutors: [{name: a, uses_with: {x: 1}}]\n"
    )

    flow = Flow.load_config(text, uses_with={"port": 6, "protocol": "http"})

    assert (flow.port, flow.protocol, flow.config.gateway.title) == (6, "http", "t")
    assert flow["a"].executor.uses_with == {"x": 1}
    assert Flow.load_config(text.replace("\nwith:", "\nx-with:"), uses_with={"port": 7}).port == 7
    with pytest.raises(FlowError, match=r"with\.prot: unknown key"):
        Flow.load_config(text, uses_with={"prot": 6})


def test_a_map_and_a_stream_are_overridden_as_a_file_is(tmp_path):
    (tmp_path / "flow.yml").write_text("jtype: Flow\nwith: {port: 5}\n")

    for source in (tmp_path / "flow.yml", {"with": {"port": 5}}, io.StringIO("jtype: Flow\nwith: {port: 5}")):
        assert Flow.load_config(source, uses_with={"port": 6}).port == 6


def test_modules_come_before_those_of_the_file(folders):
    for name in ("one.py", "two.py"):
        (folders["here"] / name).touch()
    text = "jtype: Flow\nwith: {py_modules: two.py}\nexecutors: [{name: a}]\n"

    flow = Flow.load_config(text, py_modules="one.py")

    assert [Path(module).name for module in flow["a"].executor.py_modules] == ["one.py", "two.py"]
    with pytest.raises(FlowError, match=r"can not find nope\.py"):
        Flow.load_config(text, py_modules=["nope.py"])


def test_variables_of_a_map_are_replaced_as_in_a_file(monkeypatch):
    class Local(Executor):
        pass

    monkeypatch.setenv("N", "2")
    held = object()
    source = {
        "with": {"title": "${{ CONTEXT.title }}"},
        "executors": [
            {"name": "a", "uses": Local, "replicas": "$N", "uses_with": {"held": held, "n": "${{ ENV.N }}"}}
        ],
    }

    flow = Flow.load_config(source, context={"title": "T"})

    assert flow.config.gateway.title == "T"
    assert flow["a"].replicas == 2
    assert flow["a"].executor.uses_with == {"n": 2}
    assert flow._description.executors[0]["uses"] is Local
    assert flow._description.executors[0]["uses_with"] == {"held": held, "n": 2}


def test_variables_stay_as_they_are_if_asked(monkeypatch):
    monkeypatch.setenv("V", "value")
    text = "jtype: Flow\nexecutors: [{name: a, uses_with: {v: $V}}]\n"

    assert Flow.load_config(text)["a"].executor.uses_with == {"v": "value"}
    assert Flow.load_config(text, substitute=False)["a"].executor.uses_with == {"v": "$V"}


def test_what_a_variable_of_a_file_held_is_not_searched_for_variables(monkeypatch):
    monkeypatch.setenv("PASSWORD", "pa$WORD")
    monkeypatch.setenv("WORD", "wrong")
    text = "jtype: Flow\nexecutors: [{name: a, uses_with: {v: $PASSWORD}}]\n"

    flow = Flow.load_config(text).add(name="b", uses_with={"v": "$PASSWORD"})

    assert [each.executor.uses_with["v"] for _, each in flow] == ["pa$WORD"] * 2


def test_a_file_can_ask_for_the_asynchronous_client():
    text = "jtype: Flow\nwith: {port: 5, asyncio: true}\n"

    assert isinstance(Flow.load_config(text).client, AsyncClient)
    assert isinstance(Flow.load_config(text, uses_with={"asyncio": False}).client, type(Client()))


def test_keywords_without_an_effect_are_accepted_and_others_are_not():
    text = "jtype: Flow\nexecutors: [{name: a}]\n"

    Flow.load_config(text, allow_py_modules=True, runtime_args={}, needs=None, include_gateway=True)
    for name in ("uses_metas", "uses_requests", "uses_dynamic_batching"):
        with pytest.warns(UserWarning, match=f"{name} has no effect here") as warned:
            Flow.load_config(text, **{name: {"/a": "b"}})
        assert warned[0].filename == __file__
    with pytest.raises(TypeError, match=r"no keyword search_path \(did you mean extra_search_paths"):
        Flow.load_config(text, search_path=[])


def test_a_module_by_its_dotted_name_and_one_beside_the_code(folders, monkeypatch):
    package = folders["here"] / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "module.py").touch()
    (folders["code"] / "beside.py").touch()
    monkeypatch.setattr(sys, "path", [str(folders["here"]), *sys.path])

    flow = called_from(folders["code"], "Flow().add(py_modules=['package.module', 'beside.py'])")

    assert list(flow[0].executor.py_modules) == ["package.module", str(folders["code"] / "beside.py")]


@pytest.mark.parametrize(
    ("executors", "message"),
    [
        (["Ok"], r"executors\[0\]: found 'Ok'; a map is wanted, such as {uses: Ok}"),
        (["Ok", 3, ["a"]], r"executors\[2\]: found a list; accepted: a map"),
        ([{"jtype": "Ok"}], r"jtype: found 'Ok'; accepted: Deployment; an executor's class is uses"),
        ("Ok", "executors: found 'Ok'; accepted: a list of executors"),
        ({"a": {"uses": "Ok"}}, "executors: found a map; accepted: a list of executors"),
    ],
)
def test_what_is_no_executor_is_refused_as_it_is_written(executors, message):
    for source in ({"executors": executors}, f"jtype: Flow\nexecutors: {json.dumps(executors)}"):
        with pytest.raises(FlowError, match=message):
            Flow.load_config(source)
