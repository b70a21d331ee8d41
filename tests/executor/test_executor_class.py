"""The Executor base class: what a class binds, what is refused, what an instance knows."""

import dataclasses
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd import Executor, dynamic_batching, monitor, requests
from gatewayd.executor.binding import Batching
from gatewayd.executor.executor import created


class Base(Executor):
    @requests(on="/a")
    def a(self, **kwargs):
        return "base a"

    @requests(on=["/b", "/c"])
    async def b(self, docs, parameters, docs_matrix):
        return "base b"


def test_import_gatewayd_loads_neither_docarray_nor_grpc():
    code = "import sys, gatewayd; print({'docarray', 'grpc', 'numpy', 'twisted'} & set(sys.modules))"

    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert output == "set()\n"


def test_endpoints_are_listed_in_the_order_of_definition_with_the_dry_run_last():
    assert list(Base().requests) == ["/a", "/b", "/c", "_jina_dry_run_"]


def test_endpoints_are_inherited_and_can_be_bound_anew():
    class Sub(Base):
        @requests(on="/a")
        def other(self, **kwargs):
            return "sub"

        @requests
        def rest(self, **kwargs):
            return "rest"

    bound = Sub().requests

    assert bound["/a"](Sub()) == "sub"
    assert list(bound) == ["/a", "/b", "/c", "/default", "_jina_dry_run_"]
    assert Base().requests["/a"](Base()) == "base a"


def test_the_base_class_by_itself_answers_everything_but_its_subclasses_do_not():
    assert list(Executor().requests) == ["/default", "_jina_dry_run_"]
    assert "/default" not in Base().requests


def test_uses_requests_takes_the_place_of_the_methods_former_endpoints():
    bound = Base(requests={"/new": "b"}).requests

    assert list(bound) == ["/a", "/new", "_jina_dry_run_"]


def test_uses_requests_must_name_a_method():
    with pytest.raises(
        TypeError, match="/new is to be answered by other, but there is no such method; Base has a, b"
    ):
        Base(requests={"/new": "other"})


def test_uses_requests_must_name_a_method_for_requests():
    class Sub(Base):
        def helper(self, **kwargs): ...

    for name in ("helper", "close"):
        with pytest.raises(TypeError, match=rf"Sub\.{name} has no @requests; Sub has a, b"):
            Sub(requests={"/new": name})


def test_uses_requests_takes_the_method_that_a_subclass_puts_in_the_place_of_a_bound_one():
    class Sub(Base):
        def a(self, **kwargs):
            return "sub"

    sub = Sub(requests={"/new": "a"})

    assert sub.requests["/new"](sub) == "sub"
    assert "/a" not in sub.requests


def test_a_bound_method_must_accept_what_requests_are_called_with():
    with pytest.raises(TypeError, match=r"Narrow\.only_docs .* must accept \*\*kwargs"):

        class Narrow(Executor):
            @requests
            def only_docs(self, docs):
                pass


def test_init_must_accept_keywords():
    with pytest.raises(TypeError, match=r"Deaf\.__init__ must accept \*\*kwargs"):

        class Deaf(Executor):
            def __init__(self, limit):
                pass


def test_init_may_name_what_the_runtime_passes():
    class Named(Executor):
        def __init__(self, metas=None, requests=None, runtime_args=None, dynamic_batching=None):
            super().__init__(metas=metas, requests=requests, runtime_args=runtime_args)

    assert Named().metas.name == "Named"


def test_a_dataclass_is_an_executor_like_any_other():
    @dataclasses.dataclass
    class Data(Executor):
        size: int = 1

        @requests(on="/a")
        def a(self, **kwargs): ...

    @dataclasses.dataclass
    class More(Data):
        colour: str = "red"

        def __post_init__(self):
            self.both = f"{self.size} {self.colour}"

    assert Data(2) == Data(size=2)
    assert Data(2).metas.name == "Data"
    more = created(More, {"size": 3}, {"metas": {"name": "mine"}, "requests": {"/b": "a"}})
    assert (more.both, more.metas.name, list(more.requests)) == ("3 red", "mine", ["/b", "_jina_dry_run_"])
    with pytest.raises(TypeError, match="unexpected keyword argument 'sise'"):
        created(Data, {"sise": 3}, {})


@pytest.mark.parametrize("calls", [False, True])
def test_an_init_that_hands_nothing_on_leaves_what_the_runtime_gives(tmp_path, calls):
    class Careless(Executor):
        def __init__(self, size=1, **kwargs):
            if calls:
                super().__init__()
            self.size = size

        @requests(on="/a")
        def a(self, **kwargs): ...

    given = {
        "metas": {"name": "mine"},
        "requests": {"/b": "a"},
        "runtime_args": {"name": "x/rep-0", "workspace": str(tmp_path), "shard_id": 1},
        "dynamic_batching": {"/b": {"preferred_batch_size": 2}},
    }
    careless = created(Careless, {"size": 2}, given)

    assert careless.size == 2
    assert careless.workspace == str(tmp_path / "mine" / "1")
    assert careless.logger.name == "mine"
    assert list(careless.requests) == ["/b", "_jina_dry_run_"]
    assert careless.batching == {"/b": Batching(2)}
    assert careless.runtime_args.name == "x/rep-0"
    assert Careless().metas.name == "Careless"


def test_metas_name_is_the_class_name_unless_given():
    assert Base().metas.name == "Base"
    assert Base(metas={"name": "mine"}).metas.name == "mine"


@pytest.mark.parametrize("place", ["runtime_args", "metas", "init"])
def test_the_workspace_is_a_folder_of_the_executors_own(tmp_path, place):
    base = str(tmp_path / "ws")
    executor = {
        "runtime_args": lambda: Base(runtime_args={"workspace": base, "shard_id": 1}, workspace="/not/this"),
        "metas": lambda: Base(metas={"workspace": base}, runtime_args={"shard_id": 1}),
        "init": lambda: Base(workspace=base, runtime_args={"workspace": None, "shard_id": 1}),
    }[place]()

    assert executor.workspace == str(tmp_path / "ws" / "Base" / "1")
    assert (tmp_path / "ws" / "Base" / "1").is_dir()


def test_the_folders_that_are_made_for_a_workspace_are_its_user_s_alone(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o750)
    base = tmp_path / "shared" / "new" / "ws"
    before = os.umask(0)
    try:
        folder = Path(Base(workspace=str(base), runtime_args={"shard_id": 0}).workspace)
    finally:
        os.umask(before)

    made = [folder, folder.parent, base, base.parent]
    assert [stat.S_IMODE(each.stat().st_mode) for each in made] == [0o700] * 4
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o750


def test_without_a_workspace_it_is_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert Base().workspace == str(tmp_path / "gatewayd" / "Base")


def test_dynamic_batching_works_on_either_side_of_requests():
    class Batched(Executor):
        @requests(on="/x")
        @dynamic_batching(preferred_batch_size=4, timeout=200)
        def x(self, **kwargs):
            pass

        @dynamic_batching(preferred_batch_size=8)
        @requests(on="/y")
        def y(self, **kwargs):
            pass

    assert Batched().batching == {"/x": Batching(4, 0.2), "/y": Batching(8, 10.0)}


def test_configured_batching_wins_and_the_endpoint_wins_over_the_function():
    class Batched(Executor):
        @dynamic_batching(preferred_batch_size=4)
        @requests(on=["/x", "/y"])
        def both(self, **kwargs):
            pass

    configured = {"both": {"preferred_batch_size": 5}, "/y": {"preferred_batch_size": 6, "timeout": 1}}

    assert Batched(dynamic_batching=configured).batching == {"/x": Batching(5), "/y": Batching(6, 0.001)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"/a": {}}, "preferred_batch_size must be 1 or more, not None"),
        ({"/a": {"preferred_batch_size": 0}}, "1 or more, not 0"),
        ({"/a": {"preferred_batch_size": 2, "timeout": -1}}, "timeout must be 0 ms or more"),
        ({"/a": {"preferred_batch_size": 2, "size": 1}}, "unknown size"),
        ({"/nobody": {"preferred_batch_size": 2}}, "neither an endpoint nor a bound method"),
    ],
)
def test_batching_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Base(dynamic_batching=settings)


def test_monitor_leaves_a_method_what_it_was():
    class Timed(Executor):
        @monitor()
        @requests(on="/x")
        def x(self, docs, **kwargs):
            with self.monitor("inner_seconds", "the inner part"):
                return "x"

        @requests(on="/y")
        @monitor(name="y_seconds", documentation="y")
        async def y(self, **kwargs):
            return "y"

    timed = Timed()

    assert timed.requests["/x"](timed, docs=None) == "x"
    with pytest.raises(StopIteration, match="y"):
        timed.requests["/y"](timed).send(None)


def test_with_closes():
    class Closing(Executor):
        closed = False

        def close(self):
            self.closed = True

    with Closing() as executor:
        assert not executor.closed
    assert executor.closed
