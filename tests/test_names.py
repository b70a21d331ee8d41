"""What ``gatewayd`` itself offers, and what it says of the reference's names that it does not have."""

import subprocess
import sys

import docarray
import pytest

import gatewayd


@pytest.mark.parametrize("name", [name for name in gatewayd.__all__ if name != "__version__"])
def test_every_name_is_there(name):
    assert getattr(gatewayd, name).__module__.startswith(("gatewayd.", "docarray."))
    assert name in dir(gatewayd)


def test_documents_are_those_of_docarray():
    assert gatewayd.Document is docarray.Document
    assert gatewayd.DocumentArray is docarray.DocumentArray


def test_importing_gatewayd_loads_nothing_else():
    code = "import gatewayd, sys; print({'docarray', 'twisted', 'grpc', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("AsyncFlow", r"use Flow\(asyncio=True\)"),
        ("AsyncClient", r"use Client\(asyncio=True\)"),
        ("DocumentArrayMemmap", "use DocumentArray"),
        ("BaseExecutor", "use Executor"),
        ("Response", r"post\(return_responses=True\)"),
    ],
)
def test_a_name_of_the_reference_that_is_absent_says_what_to_use(name, instead):
    with pytest.raises(ImportError, match=f"gatewayd has no {name}: .*{instead}"):
        exec(f"from gatewayd import {name}")
    with pytest.raises(AttributeError, match=f"gatewayd has no {name}: .*{instead}"):
        getattr(gatewayd, name)
    assert not hasattr(gatewayd, name)


def test_other_names_are_missing_as_in_any_module():
    with pytest.raises(ImportError, match="cannot import name 'Nope'"):
        from gatewayd import Nope  # noqa: F401
    assert not hasattr(gatewayd, "Nope")
