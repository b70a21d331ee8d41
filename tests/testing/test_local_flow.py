"""LocalFlow: a whole Flow in the test's own process does what a Flow of processes does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from docarray import Document, DocumentArray
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from gatewayd import Deployment, Executor, Flow, dynamic_batching, requests
from gatewayd.client.errors import BadClient, BadClientInput, BadServer, BadServerFlow, TimedOut
from gatewayd.flow.flow import FlowError, RuntimeFailToStart
from gatewayd.testing import LocalFlow
from tests.paths import ROOT
from tests.processes import environment
from tests.waiting import until


class Shout(Executor):
    """Capitals; and endpoints that tell how it runs."""

    def __init__(self, mark: str = "", **kwargs):
        super().__init__(**kwargs)
        self.mark = mark
        self.seen: list[str] = []
        self.closed = False

    @requests
    def shout(self, docs: DocumentArray, **kwargs):
        self.seen += docs.texts
        for doc in docs:
            doc.text = doc.text.upper() + self.mark

    @requests(on="/name")
    async def name(self, docs: DocumentArray, **kwargs):
        for doc in docs:
            doc.tags["by"] = self.runtime_args.name

    @requests(on="/env")
    def env(self, **kwargs):
        return {"MARK": os.environ["MARK"]}

    @requests(on="/raise")
    def fail(self, **kwargs):
        raise LookupError("nothing there", 7)

    @requests(on="/never")
    async def never(self, **kwargs):
        await asyncio.Event().wait()

    def close(self):
        self.closed = True


class Headed(Executor):
    """Tells which headers it got, and gives one."""

    @requests
    def tell(self, headers, response_headers, **kwargs):
        response_headers.update({"x-by": self.runtime_args.name, "y": "no"})
        return {"headers": headers}

    @requests(on="/bare")
    def bare(self, **kwargs):
        return {"keywords": sorted(kwargs)}


class Letter(Executor):
    """Appends ``letter``, and answers /search and /index only."""

    def __init__(self, letter: str = "", **kwargs):
        super().__init__(**kwargs)
        self.letter = letter

    @requests(on=["/index", "/search"])
    def append(self, docs: DocumentArray, parameters, **kwargs):
        for doc in docs:
            doc.text += self.letter
        return {"letter": self.letter, "given": parameters.get("given", "")}


def letters(*names: str, **keywords: object) -> Flow:
    flow = Flow()
    for name in names:
        flow = flow.add(name=name, uses=Letter, uses_with={"letter": name}, **keywords)
    return flow


DIAMOND = (
    letters("a")
    .add(name="b", uses=Letter, uses_with={"letter": "b"}, needs="a", when={"tags__k": {"$eq": 1}})
    .add(name="c", uses=Letter, uses_with={"letter": "c"}, needs="a", when={"tags__k": {"$eq": 2}})
    .needs(["b", "c"], name="d", uses=Letter, uses_with={"letter": "d"})
)


@pytest.mark.parametrize("mode", ["COLLECT", "HANG", "REMOVE"])
def test_an_inspect_executor_sees_the_documents_and_changes_nothing(mode):
    described = (
        Flow(inspect=mode)
        .add(name="a", uses=Letter, uses_with={"letter": "a"})
        .inspect(name="watch", uses=Shout, uses_with={"mark": "!"})
        .add(name="b", uses=Letter, uses_with={"letter": "b"})
    )

    with LocalFlow(described) as flow:
        assert flow.post("/search", Document(text="x")).texts == ["xab"]
        if mode == "COLLECT":
            assert flow.executors["watch/rep-0"].seen == ["xa"]
        assert ("watch/rep-0" in flow.executors) == (mode != "REMOVE")

    gathered = dict(described.gather_inspect())
    assert gathered["watch"].collected if mode != "REMOVE" else "watch" not in gathered


def test_headers_are_forwarded_as_a_gateway_forwards_them():
    flow = Flow(forward_headers=["x-*"]).add(name="a", uses=Headed).add(uses=Headed)
    with LocalFlow(flow) as client:
        sent = {"X-Tenant": "t", "Other": "o"}
        (answer,) = client.post("/", Document(), headers=sent, metadata=[("x-m", "m")], return_responses=True)
        (bare,) = client.post("/bare", Document(), headers=sent, return_responses=True)
        with pytest.raises(BadServerFlow, match="forward_headers_max_bytes"):
            client.post("/", Document(), headers={"x-big": "v" * 5000})

    found = {name: result["headers"] for name, result in answer.parameters["__results__"].items()}
    got = {"x-tenant": "t", "x-m": "m"}
    assert found == {"a/rep-0": got, "executor1/rep-0": got}
    assert answer.headers == {"x-by": "a/rep-0, executor1/rep-0"}
    assert "headers" not in bare.parameters["__results__"]["a/rep-0"]["keywords"]


def test_headers_are_not_forwarded_by_default():
    with LocalFlow(Headed) as client:
        (answer,) = client.post("/", Document(), headers={"X-Tenant": "t"}, return_responses=True)

    assert answer.parameters["__results__"]["executor0/rep-0"] == {"headers": {}}
    assert answer.headers == {}


def test_a_class_by_itself_is_a_flow_of_one_executor():
    with LocalFlow(Shout, uses_with={"mark": "!"}) as flow:
        assert flow.post("/", Document(text="hello")).texts == ["HELLO!"]


def test_a_deployment_is_run_as_its_flow_is():
    with LocalFlow(Deployment(uses=Shout, uses_with={"mark": "!"}, protocol="http")) as flow:
        assert flow.post("/", Document(text="a")).texts == ["A!"]


def test_the_keywords_of_an_executor_are_honoured():
    with LocalFlow(
        Shout, name="loud", uses_requests={"/louder": "shout"}, uses_metas={"name": "other"}
    ) as flow:
        assert flow.post("/louder", Document(text="hello")).texts == ["HELLO"]
        assert flow.executor("loud").metas.name == "other"


def test_what_was_defined_in_a_function_is_used_as_it_is():
    heard = []

    class Listening(Executor):
        @requests
        def listen(self, docs, **kwargs):
            heard.extend(docs.texts)

    with LocalFlow(Listening) as flow:
        flow.post("/", Document(text="hello"))
        assert type(flow.executor("executor0")) is Listening

    assert heard == ["hello"]


def test_a_flow_file_is_run_from_its_path_or_its_text(tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "from gatewayd import Executor, requests\n"
        "class Shout(Executor):\n"
        "    @requests\n"
        "    def low(self, docs, **kwargs):\n"
        "        for doc in docs:\n"
        "            doc.text = doc.text.lower()\n"
    )
    text = "jtype: Flow\nexecutors:\n  - uses: Shout\n    py_modules: [{}mine.py]\n"
    (tmp_path / "flow.yml").write_text(text.format(""))

    # This file has a Shout as well: the one that py_modules names is meant.
    for source in (tmp_path / "flow.yml", str(tmp_path / "flow.yml"), text.format(f"{tmp_path}/")):
        with LocalFlow(source) as flow:
            assert flow.post("/", Document(text="Hello")).texts == ["hello"]
    assert str(tmp_path) not in sys.path


def test_documents_take_the_ways_of_the_graph():
    docs = DocumentArray([Document(text="", tags={"k": k}) for k in (1, 2)])

    with LocalFlow(DIAMOND) as flow:
        (response,) = flow.post("/search", docs, parameters={"given": 3}, return_responses=True)

    assert response.docs.texts == ["abd", "acd"]
    assert [route.executor for route in response.routes] == ["gateway", "a", "b", "d", "c"]
    results = response.parameters["__results__"]
    assert {name: result["given"] for name, result in results.items()} == {
        "a/rep-0": 3.0,
        "b/rep-0": 3.0,
        "c/rep-0": 3.0,
        "d/rep-0": 3.0,
    }


def test_executors_that_do_not_bind_the_endpoint_are_passed_over():
    with LocalFlow(letters("a").add(name="s", uses=Shout)) as flow:
        assert flow.post("/other", Document(text="x")).texts == ["X"]
        assert flow.post("/search", Document(text="x"), target_executor="a").texts == ["xa"]


def test_shards_are_asked_as_their_polling_says_between_uses_before_and_uses_after():
    flow = Flow().add(
        name="s",
        uses=Shout,
        shards=2,
        polling={"/name": "all", "/": "any"},
        uses_before=Letter,
        uses_after=Shout,
    )
    with LocalFlow(flow) as running:
        named = running.post("/name", Document(id="1"))
        running.post("/", [Document(text="x"), Document(text="y")], request_size=1)

        assert set(running.executors) == {
            "s/shard-0/rep-0",
            "s/shard-1/rep-0",
            "s/uses_before-0",
            "s/uses_after-0",
        }
        seen = [running.executors[f"s/shard-{shard}/rep-0"].seen for shard in (0, 1)]
    assert [doc.tags["by"] for doc in named] == ["s/uses_after-0"] * 2  # it gets what both shards answered
    assert sorted(map(len, seen)) == [1, 1]


def test_replicas_are_executors_of_their_own():
    with LocalFlow(Flow().add(name="r", uses=Shout, replicas=3)) as flow:
        answers = flow.post("/name", [Document() for _ in range(60)], request_size=1)
        with pytest.raises(KeyError, match="3 executors"):
            flow.executor("r")

    assert {doc.tags["by"] for doc in answers} == {"r/rep-0", "r/rep-1", "r/rep-2"}


def test_documents_cross_as_bytes_so_that_neither_side_sees_the_others_objects():
    sent = Document(text="hello")
    with LocalFlow(Shout) as flow:
        (answered,) = flow.post("/", sent)

    assert (sent.text, answered.text, answered.id) == ("hello", "HELLO", sent.id)


def test_what_an_executor_raises_is_what_a_client_raises():
    with LocalFlow(Shout, name="s") as flow:
        with pytest.raises(BadServer) as raised:
            flow.post("/raise", Document())
        told = []
        flow.post("/raise", Document(), on_error=told.append)

    assert (raised.value.executor, raised.value.name) == ("Shout", "LookupError")
    assert raised.value.args_text == ("nothing there", "7")
    assert "in fail" in str(raised.value)
    assert told[0].status.exception.name == "LookupError"


def test_a_timeout_of_the_client_and_one_of_the_flow_are_the_real_ones():
    with (
        LocalFlow(Shout, name="s", timeout_send=20) as flow,
        pytest.raises(TimedOut, match="deployment s at"),
    ):
        flow.post("/never", Document())
    with LocalFlow(Shout, name="s") as flow, pytest.raises(TimedOut, match=r"own deadline of (1|0\.\d+) s"):
        flow.post("/never", Document(), timeout=1)


def test_a_request_that_the_gateway_refuses_fails_as_over_grpc():
    with LocalFlow(Shout) as flow:
        with pytest.raises(BadServerFlow, match="INVALID_ARGUMENT"):
            flow.post("/", Document(), target_executor="(")
        with pytest.raises(BadClientInput):
            flow.post("/", 7)
        with pytest.raises(BadClient, match="no ports"):
            flow.mutate("{}")


def test_callbacks_run_in_the_thread_that_posts():
    threads = []
    with LocalFlow(Shout) as flow:
        flow.post("/", Document(), on_done=lambda _: threads.append(threading.current_thread()))

    assert threads == [threading.current_thread()]


def test_batches_are_made_and_what_waits_for_one_is_handled_at_the_end():
    sizes = []

    class Batched(Executor):
        @requests
        @dynamic_batching(preferred_batch_size=4, timeout=60_000)
        def size(self, docs, **kwargs):
            sizes.append(len(docs))

    with LocalFlow(Flow().add(name="p").add(name="b", uses=Batched, floating=True)) as flow:
        flow.post("/", [Document() for _ in range(6)], request_size=1)

    assert sorted(sizes) == [2, 4]


def test_an_executor_that_is_to_end_on_an_exception_is_made_anew():
    with LocalFlow(Shout, name="s", exit_on_exceptions=["LookupError"]) as flow:
        first = flow.executor("s")
        with pytest.raises(BadServer):
            flow.post("/raise", Document())
        flow.post("/", Document())

        assert flow.executor("s") is not first
    assert first.closed


def test_stand_ins_take_the_place_of_external_executors_and_of_heavy_ones():
    flow = letters("a").add(name="far", external=True, host="encoder.example", port=1234)
    with pytest.raises(FlowError, match=r"far: it is external, at encoder.example:1234.*stand_ins"):
        LocalFlow(flow)
    with pytest.raises(FlowError, match="'fra' is not one of a, far"):
        LocalFlow(flow, stand_ins={"fra": Shout})

    with LocalFlow(flow, stand_ins={"a": Shout, "far": Shout}) as running:
        assert running.post("/search", Document(text="x")).texts == ["X"]
        assert isinstance(running.executor("far"), Shout)


def test_stand_ins_take_the_place_of_external_executors_around_shards():
    flow = Flow().add(name="s", uses=Shout, shards=2, uses_before_address="encoder.example:1234")
    with pytest.raises(FlowError, match=r"s/uses_before-0: it is external, at encoder.example:1234"):
        LocalFlow(flow)

    with LocalFlow(flow, stand_ins={"s/uses_before-0": Letter}) as running:
        assert running.post("/", Document(text="x")).texts == ["X"]
        assert isinstance(running.executors["s/uses_before-0"], Letter)


def test_variables_of_env_are_set_while_the_flow_runs_and_one_value_holds_for_all():
    assert "MARK" not in os.environ
    with LocalFlow(Shout, env={"MARK": "5"}) as flow:
        (response,) = flow.post("/env", Document(), return_responses=True)
    assert response.parameters["__results__"] == {"executor0/rep-0": {"MARK": "5"}}
    assert "MARK" not in os.environ

    two = Flow().add(uses=Shout, env={"MARK": "1"}).add(uses=Shout, env={"MARK": "2"})
    with pytest.raises(FlowError, match=r"executor1\.env: MARK has another value"):
        LocalFlow(two)


def test_an_executor_that_cannot_be_created_is_named_and_the_others_are_closed():
    closed = []

    class Good(Executor):
        def close(self):
            closed.append(self)

    class Broken(Executor):
        def __init__(self, **kwargs):
            raise OSError("no model file")

    before = set(threading.enumerate())
    with (
        pytest.raises(RuntimeFailToStart, match=r"second/rep-0 cannot start.*no model file") as raised,
        LocalFlow(Flow().add(uses=Good).add(name="second", uses=Broken)),
    ):
        pass

    assert raised.value.replica == "second/rep-0"
    assert len(closed) == 1
    assert set(threading.enumerate()) == before


def test_executors_are_closed_and_what_close_raises_is_raised():
    class Bad(Executor):
        async def close(self):
            raise OSError("disk full")

    with LocalFlow(Shout, name="s") as flow:
        shout = flow.executor("s")
    assert shout.closed

    with pytest.raises(OSError, match="disk full"), LocalFlow(Flow().add(uses=Bad).add(uses=Shout)):
        pass


def test_a_flow_that_has_ended_says_so():
    local = LocalFlow(Shout)
    with local as flow:
        with pytest.raises(RuntimeError, match="runs already"), local:
            pass
        flow.close()  # the client's own: the Flow goes on
        assert flow.is_flow_ready()
    with pytest.raises(RuntimeError, match="has ended"):
        flow.post("/", Document())
    assert not flow.is_flow_ready()
    with local as again:
        assert again.post("/", Document(text="a")).texts == ["A"]


def test_keywords_need_a_class():
    with pytest.raises(TypeError, match="uses_with: an executor's keywords go with its class"):
        LocalFlow(Flow().add(uses=Shout), uses_with={})


def test_no_port_or_process_is_there_and_nothing_is_left_behind():
    def left() -> tuple[set[threading.Thread], set[str]]:
        return set(threading.enumerate()), set(os.listdir("/proc/self/fd"))

    with LocalFlow(Shout):  # what is made once for the process, such as uvloop's own
        pass
    before, ports, children = left(), internet_sockets(), child_processes()
    with LocalFlow(Flow().add(uses=Shout, replicas=2).add(uses=Letter)) as flow:
        flow.post("/", [Document() for _ in range(10)], request_size=2)
        assert internet_sockets() == ports
        assert child_processes() == children
    assert left() == before


def test_neither_grpc_nor_a_reactor_is_loaded_for_it():
    script = (
        "import sys; from gatewayd.testing import LocalFlow; from gatewayd import Executor\n"
        "with LocalFlow(Executor) as flow: flow.is_flow_ready()\n"
        "print([name for name in ('grpc', 'twisted.internet.reactor') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_async_with_gives_an_asynchronous_client():
    async def run() -> list[str]:
        async with LocalFlow(DIAMOND) as flow:
            assert await flow.is_flow_ready()
            with pytest.raises(TimedOut):
                async with LocalFlow(Shout) as other:
                    _ = [docs async for docs in other.post("/never", Document(), timeout=0.01)]
            docs = DocumentArray([Document(tags={"k": 1}) for _ in range(4)])
            return [text async for docs in flow.post("/search", docs, request_size=2) for text in docs.texts]

    assert asyncio.run(run()) == ["abd"] * 4


def test_a_test_that_runs_in_a_loop_may_wait_for_it_as_well():
    async def run() -> list[str]:
        with LocalFlow(Shout) as flow:
            return flow.post("/", Document(text="x")).texts

    assert asyncio.run(run()) == ["X"]


@pytest_twisted.ensureDeferred
async def test_it_runs_beside_a_reactor():
    def post() -> list[str]:
        with LocalFlow(Shout) as flow:
            return flow.post("/", Document(text="x")).texts

    assert reactor.running
    assert post() == ["X"]
    assert await deferToThread(post) == ["X"]


@pytest.mark.slow
def test_it_answers_as_a_flow_of_processes_does():
    described = (
        DIAMOND.add(
            name="s",
            uses=Rec,
            shards=2,
            polling={"/tag": "all", "/results": "all"},
        )
        .add(name="float", uses=Rec, needs="a", floating=True)
        .config_gateway(host="127.0.0.1", port=0)
    )
    with described as real, LocalFlow(described) as local:
        for post in POSTS:
            assert shape(local, **post) == shape(real, **post), post


class Rec(Executor):
    """For the comparison with processes."""

    @requests(on="/tag")
    def tag(self, docs, **kwargs):
        for doc in docs:
            doc.tags[self.runtime_args.name] = 1

    @requests(on="/results")
    def results(self, docs, parameters, **kwargs):
        return {"count": len(docs), **parameters}

    @requests(on="/raise")
    def fail(self, **kwargs):
        raise KeyError("x")

    @requests(on="/type")
    def type_error(self, **kwargs):
        return 7


POSTS: list[dict[str, object]] = [
    {"on": "/search"},
    {"on": "/tag", "parameters": {"a": 1, "s__b": 2}},
    {"on": "/results", "parameters": {"deep": {"er": [1, None]}}},
    {"on": "/raise"},
    {"on": "/type"},
    {"on": "/unknown"},
    {"on": "/search", "target_executor": "a|d"},
    {"on": "/search", "target_executor": "["},
]


def shape(flow: object, **post: object) -> object:
    """An answer without ids and times."""
    docs = DocumentArray([Document(id=f"d{k}", text="x", tags={"k": k}) for k in (1, 2)])
    try:
        (response,) = flow.post(inputs=docs, return_responses=True, continue_on_error=True, **post)
    except Exception as error:
        return type(error), str(error)
    status, parameters = response.status, response.parameters
    # What floats may end before the answer goes out, or after.
    parameters.get("__results__", {}).pop("float/rep-0", None)
    return (
        [(doc.id, doc.text, dict(doc.tags)) for doc in response.docs],
        parameters,
        sorted(
            (route.executor, route.executor != "float" and route.status.code) for route in response.routes
        ),
        (status.code, status.description, status.exception.name, list(status.exception.args)),
    )


def internet_sockets() -> set[str]:
    """The inodes of this process's own TCP sockets."""
    known = {
        line.split()[9]
        for table in ("tcp", "tcp6")
        for line in Path("/proc/self/net", table).read_text().splitlines()[1:]
    }
    return {inode for inode in _own_sockets() if inode in known}


def _own_sockets() -> Iterator[str]:
    for entry in Path("/proc/self/fd").iterdir():
        try:
            kind, _, inode = os.readlink(entry).partition(":")
        except FileNotFoundError:
            continue
        if kind == "socket":
            yield inode.strip("[]")


def child_processes() -> str:
    return "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))


# -- streams ----------------------------------------------------------------------------------------------


class Counting(Executor):
    """Streams; ``closed`` counts the generators that have ended."""

    ended = 0

    @requests(on="/count")
    async def count(self, doc: Document, parameters, **kwargs):
        try:
            for number in range(int(parameters["to"])):
                yield Document(text=f"{doc.text} {number}")
        finally:
            Counting.ended += 1

    @requests(on="/plain")
    def plain(self, doc: Document, **kwargs):
        yield Document(text="one")
        yield Document(text="two")

    @requests(on="/breaks")
    async def breaks(self, doc: Document, **kwargs):
        yield Document(text="first")
        raise ValueError("in the middle")

    @requests(on="/never_next")
    async def never_next(self, doc: Document, **kwargs):
        yield Document(text="first")
        await asyncio.Event().wait()


def test_documents_stream_through_the_executors_behind():
    flow = Flow().add(uses=Counting).add(uses=Shout, uses_with={"mark": "!"})
    with LocalFlow(flow) as client:
        texts = [doc.text for doc in client.stream_doc("/count", Document(text="a"), parameters={"to": 3})]
        plain = [doc.text for doc in client.stream_doc("/plain", Document())]

    assert texts == ["A 0!", "A 1!", "A 2!"]
    assert plain == ["ONE!", "TWO!"]


def test_who_leaves_early_ends_the_generator():
    Counting.ended = 0
    with LocalFlow(Counting) as client:
        for doc in client.stream_doc("/count", Document(text="a"), parameters={"to": 1_000_000}):
            assert doc.text == "a 0"
            break
        until(lambda: Counting.ended == 1)


def test_an_error_in_mid_stream_is_raised_after_what_came():
    texts = []
    with LocalFlow(Counting) as client, pytest.raises(BadServerFlow, match="in the middle"):
        for doc in client.stream_doc("/breaks", Document()):
            texts.append(doc.text)

    assert texts == ["first"]


def test_a_gap_that_is_too_long_ends_a_stream():
    with LocalFlow(Flow(timeout_send=100).add(uses=Counting)) as client, pytest.raises(TimedOut):
        list(client.stream_doc("/never_next", Document()))
