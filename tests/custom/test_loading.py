"""From ``gateway.uses`` to a class: what is found, and what a mistake is answered with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.config import FlowConfig, load_flow
from gatewayd.config.model import GatewayClass
from gatewayd.custom.loading import create, load_class
from gatewayd.errors import ConfigError

CLASS = """
from gatewayd import Gateway

class MyGateway(Gateway):
    def __init__(self, word="Hello", count=1):
        self.word, self.count = word, count
"""


@pytest.fixture(autouse=True)
def _modules_of_a_test_are_its_own() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def flow(folder: Path, gateway: str, **files: str) -> FlowConfig:
    """The Flow file with these settings of the gateway, beside Python files."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "flow.yml").write_text(f"jtype: Flow\ngateway:\n{gateway}")
    return load_flow(folder / "flow.yml", environ={})


def custom(config: FlowConfig) -> GatewayClass:
    assert config.gateway.custom is not None
    return config.gateway.custom


@pytest.mark.parametrize(
    "gateway",
    [
        "  uses: MyGateway\n  py_modules: mine.py\n  uses_with: {word: Hi}\n",
        "  uses: mine:MyGateway\n  uses_with: {word: Hi}\n",
        "  uses: mine.MyGateway\n  uses_with: {word: Hi}\n",
        "  uses: {jtype: MyGateway, with: {word: Ho}, py_modules: mine.py}\n  uses_with: {word: Hi}\n",
        "  uses: '!MyGateway'\n  py_modules: [mine.py]\n  uses_with: {word: Hi}\n",
    ],
)
def test_a_class_is_named_as_those_of_executors_are(gateway: str, tmp_path: Path) -> None:
    config = flow(tmp_path, gateway, mine=CLASS)
    instance = create(custom(config), config.base_dir)

    assert vars(instance) == {"word": "Hi", "count": 1}


def test_a_file_describes_it_with_paths_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "gateways"
    folder.mkdir()
    (folder / "mine.py").write_text(CLASS)
    (folder / "mine.yml").write_text("jtype: MyGateway\nwith: {word: Ho}\npy_modules: mine.py\n")
    config = flow(tmp_path, "  uses: gateways/mine.yml\n  uses_with: {count: 2}\n")

    assert vars(create(custom(config), config.base_dir)) == {"word": "Ho", "count": 2}


def test_modules_that_with_gives_to_all_are_the_gateways_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CLASS)
    (tmp_path / "flow.yml").write_text(
        "jtype: Flow\nwith: {py_modules: mine.py}\ngateway: {uses: MyGateway}\n"
    )
    config = load_flow(tmp_path / "flow.yml", environ={})

    assert load_class(custom(config), config.base_dir).__name__ == "MyGateway"


@pytest.mark.parametrize(
    ("gateway", "text"),
    [
        (
            "  uses: HTTPGateway\n",
            "gateway.uses: HTTPGateway is one of Jina's own; here that is protocol: http",
        ),
        ("  uses: 'docker://x'\n", "gateways from docker:// are not supported yet"),
        ("  uses: BaseExecutor\n", "gateway.uses: found no gateway class"),
        ("  uses: a b\n", "gateway.uses: found 'a b'; accepted: a class"),
        ("  uses: none.yml\n", "gateway.uses: can not find none.yml"),
        ("  uses: A\n  py_modules: none.py\n", "gateway.py_modules: can not find none.py"),
        ("  uses: A\n  uses_with: 7\n", "gateway.uses_with: found a number; accepted: a map"),
    ],
)
def test_mistakes_that_the_file_alone_shows(gateway: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        flow(tmp_path, gateway)
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("gateway", "source", "texts"),
    [
        ("uses: mine:Other", CLASS, ["gateway.uses: mine:Other: ", "mine.py has no class Other"]),
        ("uses: no_such.Mine", CLASS, ["gateway.uses: no_such.Mine: the module no_such cannot be imported"]),
        (
            "{uses: Other, py_modules: mine.py}",
            CLASS,
            ["gateway.uses: there is no Gateway class Other (looked in: ", "found: ", "MyGateway"],
        ),
        (
            "{uses: MyGateway, py_modules: mine.py, uses_with: {wrd: Hi}}",
            CLASS,
            ["mine.py: MyGateway cannot be created: TypeError(", "wrd"],
        ),
        (
            "{uses: MyGateway, py_modules: mine.py}",
            "raise OSError('no disk')",
            ["gateway.", "mine.py cannot be imported: OSError('no disk')", 'mine.py", line 1, in <module>'],
        ),
        ("uses: mine:Mine", "class Mine: pass", ["Mine in ", "mine.py is not a gatewayd Gateway"]),
    ],
)
def test_mistakes_of_a_class_name_the_key_the_file_and_the_place(
    gateway: str, source: str, texts: list[str], tmp_path: Path
) -> None:
    config = flow(tmp_path, f"  {gateway}\n", mine=source)
    with pytest.raises(ConfigError) as refused:
        create(custom(config), config.base_dir)
    assert str(refused.value).startswith(f"{tmp_path / 'flow.yml'}:3:")
    for text in texts:
        assert text in str(refused.value)


FASTAPI_STYLE = """
from jina.serve.runtimes.gateway.http.fastapi import FastAPIBaseGateway

class MyGateway(FastAPIBaseGateway):
    @property
    def app(self):
        return None
"""


@pytest.mark.parametrize(
    "source",
    [
        FASTAPI_STYLE,
        FASTAPI_STYLE.replace("from jina.", "from gatewayd."),
        "import sys, types\n"
        "jina = sys.modules['jina'] = types.ModuleType('jina')\n"
        "class Base: __module__ = 'jina.serve.gateway'\n"
        "class MyGateway(Base): pass\n",
        CLASS + "    async def run_server(self): pass\n",
    ],
    ids=["Jina is not there", "only its name was replaced", "Jina is there", "its methods are there"],
)
@pytest.mark.parametrize("uses", ["mine:MyGateway", "MyGateway"])
def test_a_class_for_jinas_gateways_is_answered_with_the_way_to_port_it(
    source: str, uses: str, tmp_path: Path
) -> None:
    config = flow(tmp_path, f"  uses: {uses}\n  py_modules: mine.py\n", mine=source)
    with pytest.raises(ConfigError, match=r"inherit from gatewayd.Gateway, .*await self.post\(") as refused:
        create(custom(config), config.base_dir)
    assert "Traceback" not in str(refused.value)
