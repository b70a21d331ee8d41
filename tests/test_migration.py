"""
docs/migration.md is true: each row of its tables has a check here, or the name of the test that checks it.

A row that is added, changed in its left column or removed without its check fails.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import socket
import sys
import warnings
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import click.testing
import numpy as np
import pytest
import pytest_twisted
import websockets
import yaml
from docarray import Document, DocumentArray

import gatewayd
from gatewayd import Client, Deployment, Executor, Flow, Gateway, excepts, requests
from gatewayd.cli import main
from gatewayd.client import errors as client_errors
from gatewayd.client.client import ClientKeywords
from gatewayd.client.inputs import batches, encoded_documents
from gatewayd.client.post import Post
from gatewayd.config import load_flow_text
from gatewayd.config.keys import EXECUTOR, FLOW, GATEWAY, NOT_YET, SECTIONS, Section
from gatewayd.config.model import DeploymentConfig, FlowConfig, GatewayConfig, PoolLimits
from gatewayd.custom.loading import check_class
from gatewayd.dispatch.parameters import Parameters, parse
from gatewayd.errors import BadRequest, ConfigError, DeadlineExceeded, ExecutorUnreachable, TooLarge, codes_of
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.export.plan import ExportError
from gatewayd.flow.flow import FlowError
from gatewayd.flow.process import RuntimeFailToStart
from gatewayd.messages.chaining import check_chains
from gatewayd.messages.conditions import compile_condition
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.document_arrays import documents_of
from gatewayd.messages.formats import SECOND
from gatewayd.messages.request import Request, Response
from gatewayd.messages.wire import Malformed, decode_request
from gatewayd.pb import DataContentProto, DocumentProto
from gatewayd.pool.attempts import GiveUp
from gatewayd.pool.retry import RETRY_BACKOFF, RetryPolicy
from gatewayd.status import status_maps
from gatewayd.testing import LocalFlow
from tests.dispatch.fakes import FakePool, build, deployment
from tests.messages.second.made import content, plain
from tests.messages.test_chaining import EXECUTORS
from tests.paths import ROOT
from tests.pool import test_attempts
from tests.protocols.harness import FakeDispatcher, answer_to, asyncio_client, in_thread, served, until
from tests.protocols.http.test_http import call
from tests.test_docs import table_rows

PAGE = ROOT / "docs" / "migration.md"

Check = Callable[[Path], Awaitable[None] | None]
CHECKS: dict[str, Check] = {}

# What needs processes or much more than a few lines, and the test of it.
NOT_CHECKED_HERE = {
    "Jina 3.34's `stream_doc`: the asynchronous client only, which drops parameters":
        "tests/client/test_streaming.py::test_documents_come_one_by_one",
    "Jina 3.34's `stream_doc` over HTTP: refusals and failures are an empty or a short result":
        "tests/client/test_streaming.py::test_a_stream_that_ends_badly_raises_after_what_came",
    "Jina 3.34's `stream_doc` over HTTP: events that reads cut, or that hold `event: `, break it":
        "tests/client/test_events.py::test_every_framing_that_was_tried_on_jinas_client_is_read",
    "Jina 3.34's, over HTTP: an executor that raises is a ValueError, and `on_error` is not called":
        "tests/docarray2/test_client_and_jina.py::test_callbacks_hear_what_is_theirs",
    "Jina 3.34's, over HTTP: bytes that are no text, a TypeError":
        "tests/client/test_second_generation.py::test_what_json_lacks_is_refused_by_name",
    "`reload` of an executor loads its module again inside the process that runs":
        "tests/service/test_reload_processes.py::test_files_are_watched_if_the_flow_says_so",
    "`reload=True` restarts a Flow that blocks when its file changes":
        "tests/flow/test_flow.py::test_a_flow_in_python_warns_that_it_does_not_reload",
    "the metrics of executors are at all addresses of the machine":
        "tests/service/test_monitoring.py::test_the_ports_and_names_are_those_of_the_reference",
    "a label `executor_endpoint` takes any value that a client sends":
        "tests/executor/test_metrics.py::test_an_endpoint_that_a_client_made_up_is_no_label",
    "`jina_sent_request_bytes` and `jina_received_response_bytes` of the gateway":
        "tests/service/test_monitoring.py::test_the_ports_and_names_are_those_of_the_reference",
    "with `metrics`, the gateway and each executor send metrics of Jina's names":
        "tests/service/test_metrics_over_otlp.py::test_a_collector_gets_the_figures_of_the_whole_service",
    "summaries of the gateway count successful requests alone":
        "tests/telemetry/metrics/test_reference.py::test_the_names_and_sums_are_those_of_the_reference",
    "what an executor has started may outlive it":
        "tests/supervisor/test_supervisor.py::test_no_child_outlives_its_executor",
    "tracebacks show the frames of the framework":
        "tests/executor/test_tracebacks.py::test_a_users_frames_stay_with_their_source",
    "an external executor without gRPC's reflection fails every request":
        "tests/rpc/test_channel.py::test_an_executor_that_only_streams_is_asked_by_call",
    "after a malformed message of a stream the gateway hangs when it stops":
        "tests/protocols/grpc/test_grpc.py::test_garbage_in_a_stream_ends_that_stream_only",
    "endpoints are discovered once, and never again if that fails":
        "tests/pool/test_pool.py::test_discovery_is_tried_again_and_refreshed_with_every_connection",
    "a server that ends a call with UNKNOWN or INTERNAL causes an obscure error":
        "tests/pool/test_attempts.py::test_the_error_has_the_executors_code_and_the_replicas_labels",
    "connections until descriptors run out":
        "tests/protocols/test_admission.py::test_some_descriptors_are_kept_in_reserve",
    "any number of calls on one gRPC connection":
        "tests/protocols/grpc/test_grpc.py::test_a_thousand_calls_at_once_on_one_connection",
    "WebSocket: control frames and fragments at any rate":
        "tests/protocols/websocket/test_pace.py::test_a_flood_is_closed_with_1008_and_parsed_no_further",
    "`host: 0.0.0.0` is IPv4 only, but both families for gRPC":
        "tests/protocols/test_binding.py::test_every_protocol_listens_on_the_same_families",
    "`uses` of the gateway replaces the gateway":
        "tests/custom/test_mount.py::test_a_path_of_the_gateway_stays_its_own",
    "`class MyGateway(FastAPIBaseGateway)` with `app`":
        "tests/custom/test_loading.py::test_a_class_for_jinas_gateways_is_answered_with_the_way_to_port_it",
    "a failed executor is not reported":
        "tests/protocols/graphql/test_graphql.py::"
        "test_an_executors_failure_leaves_the_data_of_its_field_and_of_others",
    "`data` omitted, scores, blobs as input: errors":
        "tests/protocols/graphql/test_graphql.py::test_a_recorded_exchange_goes_as_recorded",
    "`tags` and `parameters` that are objects: errors":
        "tests/protocols/graphql/test_graphql.py::test_tags_and_parameters_are_objects_or_texts_that_hold_them",
    "documents of an inspect executor may be in the answer":
        "tests/dispatch/test_dispatcher.py::"
        "test_the_answer_waits_for_an_inspect_executor_and_has_nothing_of_its_documents",
    "every client sees tracebacks, versions and the API's documentation":
        "tests/protocols/test_what_is_exposed.py::test_nothing_is_there_in_production",
    "queries of any size":
        "tests/protocols/graphql/test_graphql.py::test_too_large_queries_are_refused_by_name",
    "over WebSocket, failures are swallowed":
        "tests/client/test_same_errors.py::test_a_fault_raises_its_class",
    "over HTTP arrays lose their type, and NaN is a 500":
        "tests/client/test_numbers.py::test_what_json_lacks_survives_in_every_field",
}  # fmt: skip


def row(left: str) -> Callable[[Check], Check]:
    """The check of the row whose left column is ``left``."""

    def register(check: Check) -> Check:
        assert left not in CHECKS, left
        CHECKS[left] = check
        return check

    return register


def rows() -> list[str]:
    """The left column of every table of differences."""
    return [left for left, _ in table_rows(PAGE, "In Jina", "Here")]


def names_in(column: str) -> list[str]:
    """What stands as code in the cells of ``column``."""
    cells = [cell for cell, _ in table_rows(PAGE, column, "Instead")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


# -- the page and its checks ---------------------------------------------------------------------------


def test_every_row_has_a_check_and_every_check_its_row() -> None:
    found = rows()

    assert len(found) == len(set(found)), "two rows begin alike"
    assert CHECKS.keys() & NOT_CHECKED_HERE.keys() == set()
    assert sorted(found) == sorted([*CHECKS, *NOT_CHECKED_HERE])


@pytest.mark.parametrize("left", NOT_CHECKED_HERE)
def test_a_row_without_a_check_is_held_by_a_test_that_exists(left: str) -> None:
    file, _, name = NOT_CHECKED_HERE[left].partition("::")
    tree = ast.parse((ROOT / file).read_text())

    assert name in {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("left", [left for left in rows() if left not in NOT_CHECKED_HERE])
@pytest_twisted.ensureDeferred
async def test_the_row_is_true(left: str, tmp_path: Path) -> None:
    waiting = CHECKS[left](tmp_path)
    if waiting is not None:
        await waiting


# -- what is not there ----------------------------------------------------------------------------------


def test_the_keys_that_are_refused_are_listed() -> None:
    refused = {key.name for section in SECTIONS for key in section.keys if key.status == NOT_YET}

    assert {*names_in("Key")} == refused


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (section, key.name)
        for section in (FLOW, GATEWAY, EXECUTOR)
        for key in section.keys
        if key.status == NOT_YET
    ],
    ids=lambda value: value if isinstance(value, str) else value.title,
)
def test_a_key_that_is_listed_is_refused_by_name(section: Section, name: str) -> None:
    told = ""
    for value in (True, "x", 5, {"a": "b"}, "HANG"):
        part = {name: value}
        whole = {"executors": [part]} if section is EXECUTOR else {section.title: part}
        with pytest.raises(FlowError) as refused:
            Flow.load_config({"jtype": "Flow", **whole})
        told += str(refused.value)

    assert f".{name}: not supported yet" in told


def test_values_that_are_listed_are_refused() -> None:
    schemes = {name.rpartition(" ")[2] for name in names_in("Value")}

    assert schemes == {"jinahub://", "jinaai://", "docker://"}
    for scheme in (*schemes, "jinahub+docker://"):
        refuses(f"executors: [{{uses: '{scheme}Hello'}}]", "not supported yet")
    with pytest.raises(FileNotFoundError):
        Flow.load_config("https://example.org/flow.yml")


def test_names_that_are_listed_raise_with_what_to_use() -> None:
    listed = names_in("Import from `jina`")

    assert sorted(listed) == sorted(gatewayd._ABSENT)
    for name in listed:
        with pytest.raises(AttributeError, match=f"gatewayd has no {name}: \\w+"):
            getattr(gatewayd, name)


def test_methods_that_are_listed_raise_with_what_to_use() -> None:
    from gatewayd.flow.served import _ABSENT

    listed = names_in("Method of `Flow` and `Deployment`")

    assert sorted(listed) == sorted(_ABSENT)
    for kind in (Flow, Deployment):
        for name in listed:
            with pytest.raises(AttributeError, match=f"no attribute '{name}': \\w+"):
                getattr(kind(), name)


def test_commands_that_are_listed_say_what_to_use() -> None:
    from gatewayd.cli import _ELSEWHERE

    listed = names_in("Command of `jina`")

    assert sorted(listed) == sorted(_ELSEWHERE)
    for name in listed:
        done = click.testing.CliRunner().invoke(main, [name])
        assert done.exit_code == 2
        assert f"there is no command '{name}'; " in done.output


# -- helpers --------------------------------------------------------------------------------------------


def flow_of(text: str, **keywords: Any) -> FlowConfig:
    return Flow.load_config(f"jtype: Flow\n{text}\n", **keywords).config


def gateway_of(text: str) -> GatewayConfig:
    return flow_of(f"gateway: {text}").gateway


def executor_of(text: str) -> DeploymentConfig:
    (found,) = flow_of(f"executors: [{text}]").deployments
    return found


def refuses(text: str, *words: str) -> None:
    with pytest.raises(FlowError) as refused:
        flow_of(text)
    for word in words:
        assert word in str(refused.value)


class Tells(Executor):
    """Adds its name to the texts, on /tell; answers /other with its name as the only document."""

    @requests(on="/tell")
    def tell(self, docs, **kwargs):
        for doc in docs:
            doc.text += self.runtime_args.name.partition("/")[0]

    @requests(on="/other")
    def other(self, **kwargs):
        return DocumentArray([Document(id=self.runtime_args.name.partition("/")[0])])


class Joins(Executor):
    """Binds nothing that is asked for."""

    @requests(on="/nothing")
    def nothing(self, **kwargs): ...


# -- Flow files -----------------------------------------------------------------------------------------


@row("`to_kubernetes_yaml` and `to_docker_compose_yaml` write pods with a head for shards")
def _(folder: Path) -> None:
    flow = Flow().add(name="a", shards=2)
    for export in (flow.to_kubernetes_yaml, flow.to_k8s_yaml, flow.to_docker_compose_yaml):
        with pytest.raises(ExportError, match=r"executors\.a\.shards: cannot be exported"):
            export(folder / "out")


@row("exported values of `env` stand in a ConfigMap")
def _(folder: Path) -> None:
    flow = Flow().add(name="a", env={"TOKEN": "deep secret"})
    with pytest.warns(UserWarning, match=r"executors\.a\.env: its values are written as they are"):
        flow.to_kubernetes_yaml(folder)
    for each in yaml.safe_load_all((folder / "a" / "a.yml").read_text()):
        assert ("deep secret" in str(each)) == (each["kind"] == "Secret")


@row("unknown keys are ignored")
def _(folder: Path) -> None:
    refuses("gateway: {prot: 1}", "gateway.prot: unknown key", "did you mean protocol")
    flow_of("x-mine: {a: 1}")


@row("with an unknown name in `needs` the Flow never answers")
def _(folder: Path) -> None:
    refuses("executors: [{name: a, needs: nope}]", "no executor is called 'nope'")


@row("a port that is not a number is a warning")
def _(folder: Path) -> None:
    refuses("gateway: {port: abc}", "gateway.port: found 'abc'")


@row("a bad value ends the process with a usage message")
def _(folder: Path) -> None:
    assert issubclass(FlowError, ValueError)
    with pytest.raises(FlowError):
        Flow().add(replicas="many")
    refuses("executors:\n- replicas: many", "<text>:3:3: executors[0].replicas")


@row("`compression` takes `Gzip`, not the documented `gzip`")
def _(folder: Path) -> None:
    for spelling in ("gzip", "Gzip", "GZIP"):
        assert gateway_of(f"{{compression: {spelling}}}").compression == "gzip"


@row("the name in a `jtype: Deployment` item is lost")
def _(folder: Path) -> None:
    assert executor_of("{jtype: Deployment, with: {name: b}}").name == "b"


@row("files are looked up in many folders, also those of PATH")
def _(folder: Path) -> None:
    (folder / "mine.yml").write_text("jtype: Flow\nexecutors: [{uses: one.yml}]\n")
    (folder / "one.yml").write_text("jtype: BaseExecutor\nwith: {a: 1}\n")
    assert Flow.load_config(folder / "mine.yml").num_deployments == 1
    assert Flow.load_config("mine.yml", extra_search_paths=[str(folder)]).num_deployments == 1
    with pytest.MonkeyPatch.context() as patch, pytest.raises(FileNotFoundError):
        patch.setenv("PATH", str(folder))
        Flow.load_config("mine.yml")


@row("executors listen on 0.0.0.0, at free ports")
def _(folder: Path) -> None:
    assert executor_of("{}").host is None
    spec = ExecutorSpec.of(executor_of("{port: 1234}"), 0, 0, ".")
    assert (spec.host, spec.port, spec.socket) == ("127.0.0.1", 1234, None)
    assert executor_of("{host: 0.0.0.0}").host == "0.0.0.0"


@row("`path` of `expose_endpoint` has no effect")
def _(folder: Path) -> None:
    flow = Flow()
    flow.expose_endpoint("/a", path="/b")
    assert flow.config.gateway.expose_endpoints == {"/a": {"http_path": "/b"}}


@row("endpoints are exposed one by one")
def _(folder: Path) -> None:
    assert gateway_of("{expose_endpoints: all}").expose_endpoints == {"*": {}}


@row("`timeout_send: -1` makes every call time out")
def _(folder: Path) -> None:
    assert gateway_of("{timeout_send: -1}").timeout_send_s is None
    assert gateway_of("{timeout_send: 0}").timeout_send_s is None


@row("values of environment variables may add keys")
def _(folder: Path) -> None:
    text = "with: {env: {VALUE: \"a\\nport: 5\"}}\ngateway: {title: '${{ ENV.VALUE }}'}"
    found = flow_of(text).gateway
    assert (found.title, found.listeners[0].port) == ("a\nport: 5", 0)


@row("a variable that is not set stays as text")
def _(folder: Path) -> None:
    flow = load_flow_text("jtype: Flow\ngateway: {title: $NOT_SET_ANYWHERE}\n")
    assert flow.gateway.title == "$NOT_SET_ANYWHERE"
    assert "NOT_SET_ANYWHERE is not set" in flow.warnings[0]
    refuses("gateway: {port: $NOT_SET_ANYWHERE}", "gateway.port: the environment variable NOT_SET_ANYWHERE")


@row("of two executors on one port, one is called in place of the other")
def _(folder: Path) -> None:
    flow = flow_of("executors: [{port: 5}, {port: 5}]")
    with pytest.raises(ConfigError, match="5"):
        flow.check_conflicts()


@row("`cors` is on or off")
def _(folder: Path) -> None:
    assert gateway_of("{cors: true}").cors == ("*",)
    assert gateway_of("{cors: ['https://a.example', 'https://b.example']}").cors == (
        "https://a.example",
        "https://b.example",
    )


# -- executors ------------------------------------------------------------------------------------------


@row("`log_config` is a file of handlers, of each executor and the gateway")
def _(folder: Path) -> None:
    (folder / "log.yml").write_text(
        "handlers: [StreamHandler, SysLogHandler]\nlevel: ERROR\n"
        "configs:\n  StreamHandler: {formatter: JsonFormatter}\n  SysLogHandler: {ident: x}\n"
    )
    flow = load_flow_text("jtype: Flow\nwith: {log_config: log.yml}\n", base_dir=folder)
    assert (flow.gateway.log_level, flow.gateway.log_format) == ("error", "json")
    assert [warning.split(": ")[2] for warning in flow.warnings] == ["SysLogHandler is ignored"]


@row("all users may read what an executor has in its workspace")
def _(folder: Path) -> None:
    made = Path(Executor(workspace=str(folder / "new")).workspace)
    assert made.stat().st_mode & 0o777 == (folder / "new").stat().st_mode & 0o777 == 0o700


@row("without `super().__init__()` every request fails")
def _(folder: Path) -> None:
    class Plain(Executor):
        def __init__(self, word: str, **kwargs):
            self.word = word

        @requests
        def tell(self, docs, **kwargs):
            docs[0].text = f"{self.word} {self.metas.name} {bool(self.workspace)}"

    with LocalFlow(Plain, uses_with={"word": "w"}, workspace=str(folder)) as flow:
        assert flow.post("/", Document()).texts == ["w Plain True"]


@row("`uses_requests` may name a method without `@requests`")
def _(folder: Path) -> None:
    class Half(Executor):
        def plain(self, **kwargs): ...

        @requests(on="/a")
        def bound(self, **kwargs): ...

    with pytest.raises(RuntimeFailToStart, match="plain"), LocalFlow(Half, uses_requests={"/b": "plain"}):
        pass


@row("the methods of one class are also bound in others of its name")
def _(folder: Path) -> None:
    def made(endpoint: str) -> type[Executor]:
        class Same(Executor):
            @requests(on=endpoint)
            def tell(self, docs, **kwargs):
                docs[0].text += endpoint

        return Same

    first, second = made("/a"), made("/b")
    with LocalFlow(Flow().add(uses=first).add(uses=second)) as flow:
        assert [flow.post(on, Document()).texts for on in ("/a", "/b")] == [["/a"], ["/b"]]


@row("a generator as a method fails")
def _(folder: Path) -> None:
    class Yields(Executor):
        @requests
        def tell(self, docs, **kwargs):
            for text in "ab":
                yield Document(text=text)

    with LocalFlow(Yields) as flow:
        assert flow.post("/", Document()).texts == ["a", "b"]


@row("pickled documents (`docs_bytes`) are read")
def _(folder: Path) -> None:
    documents = DocumentArray([Document(text="x")])
    protobuf, pickled = (
        DataContentProto(docs_bytes=documents.to_bytes(protocol=form)).SerializeToString()
        for form in ("protobuf-array", "pickle-array")
    )
    assert documents_of(protobuf).texts == ["x"]
    with pytest.raises(Malformed, match="unsafe to read"):
        documents_of(pickled)


# -- Flows in Python ------------------------------------------------------------------------------------


@row("`expose_endpoint` returns nothing")
def _(folder: Path) -> None:
    flow = Flow()
    assert flow.expose_endpoint("/a") is flow


@row("a Flow that does not run makes ConnectionError of `post`")
def _(folder: Path) -> None:
    with pytest.raises(excepts.FlowBuildLevelError, match="with") as refused:
        Flow().post("/", Document())
    assert isinstance(refused.value, RuntimeError)


@row("`load_config(py_modules=...)` of a Flow is a KeyError")
def _(folder: Path) -> None:
    (folder / "mine.py").write_text("")
    (found,) = flow_of("executors: [{}]", py_modules=str(folder / "mine.py")).deployments
    assert found.executor.py_modules == (str(folder / "mine.py"),)


@row("`uses_metas` and `uses_requests` of `Flow.load_config` have no effect")
def _(folder: Path) -> None:
    for keywords in ({"uses_metas": {"name": "x"}}, {"uses_requests": {"/a": "b"}}):
        with pytest.warns(UserWarning, match="no effect"):
            (found,) = flow_of("executors: [{}]", **keywords).deployments
        assert (found.executor.uses_metas, found.executor.uses_requests) == ({}, {})


@row("`Deployment` speaks gRPC, and its `port` is a list")
def _(folder: Path) -> None:
    for protocol in ("grpc", "http", "websocket"):
        assert Deployment(uses=Tells, protocol=protocol, port=5).port == 5
    assert Deployment(uses=Tells, protocol=["grpc", "http"], port=[5, 6]).port == [5, 6]


@row("the name of a `Deployment` that is added to a Flow is lost")
def _(folder: Path) -> None:
    assert Flow().add(Deployment(name="b")).config.deployments[0].name == "b"


@row("variables in `Flow.add(...)` count for the executor's arguments and metas")
def _(folder: Path) -> None:
    flow = Flow().add(env={"NUMBER": 3}, replicas="${{ ENV.NUMBER }}", uses_with={"a": "$NUMBER"})
    (found,) = flow.config.deployments
    assert (found.replicas, found.executor.uses_with) == (3, {"a": 3})
    assert Flow(env={"T": "x"}).config_gateway(title="$T").config.gateway.title == "$T"


@row("`flow['a']` is a `Deployment` that can be changed")
def _(folder: Path) -> None:
    settings = Flow().add(name="a", replicas=2)["a"]
    assert settings.replicas == 2
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        settings.replicas = 3


@row("a stop waits for floating work without limit")
def _(folder: Path) -> None:
    assert GatewayConfig().floating_grace_period_s == 60.0
    # tests/flow: test_closing_waits_for_floating_work_beyond_the_grace_period


# -- topologies -----------------------------------------------------------------------------------------


@row("a join that is skipped passes on its last branch alone")
def _(folder: Path) -> None:
    flow = Flow().add(name="a", uses=Tells).add(name="b", uses=Tells, needs="gateway")
    with LocalFlow(flow.needs(["a", "b"], name="c", uses=Joins)) as running:
        assert {doc.id for doc in running.post("/other", Document())} >= {"a", "b"}


@row("the answer may have another branch's view of the parameters")
def _(folder: Path) -> None:
    flow = Flow().add(name="a", uses=Tells).add(name="b", uses=Tells, needs="gateway")
    given = {"k": 1.0, "a__own": 2.0, "b__own": 3.0}
    with LocalFlow(flow.needs(["a", "b"], name="c", uses=Tells)) as running:
        (response,) = running.post("/tell", Document(), parameters=given, return_responses=True)
    assert response.parameters == given


@row("executors whose names contain `__` cannot be addressed by parameters")
def _(folder: Path) -> None:
    sent = gatewayd.pb.Struct()
    sent.update({"a__b__k": 1})
    assert [*parse(Parameters(sent.SerializeToString()).for_executor("a__b")).fields] == ["k"]


@row("shards are behind a process of their own, the head")
def _(folder: Path) -> None:
    with LocalFlow(Flow().add(name="s", uses=Tells, shards=2)) as flow:
        assert set(flow.executors) == {"s/shard-0/rep-0", "s/shard-1/rep-0"}
    flow_of("executors: [{shards: 2, port: 5}]")


@row("`when`: values that cannot be compared fail the request")
def _(folder: Path) -> None:
    assert not matches({"text": {"$lt": 5}}, Document(text="x"))


@row(
    "a Flow in which an executor binds neither all endpoints of the one before it nor `/default` ends at once"
)
def _(folder: Path) -> None:
    found = check_chains(EXECUTORS, [("a", "b")])
    assert found.misfits == ()
    assert "b binds neither /sleep" in found.passed_over[0]


def joined(*parts: dict[str, Any], sent: dict[str, Any]) -> list[dict[str, Any]]:
    return plain(SECOND.merge([content(part) for part in parts], [content(sent)] * len(parts)))


@row(
    "joins of docarray 0.40 and later: the branch that answers last overwrites what others changed",
)
def _(folder: Path) -> None:
    assert joined({"id": "d", "i": 1}, {"id": "d", "i": 0}, sent={"id": "d", "i": 0}) == [{"id": "d", "i": 1}]


@row("and what both branches were sent in a list is there twice")
def _(folder: Path) -> None:
    parts = ({"id": "d", "l": ["sent", name]} for name in ("a", "b"))
    assert joined(*parts, sent={"id": "d", "l": ["sent"]}) == [{"id": "d", "l": ["sent", "a", "b"]}]


@row("and documents without an id are merged into one")
def _(folder: Path) -> None:
    assert len(joined({"id": None}, {"id": None}, sent={"id": None})) == 2


@row("`when`: entries beside `$or` are further alternatives")
def _(folder: Path) -> None:
    query = {"$or": [{"text": {"$eq": "x"}}], "uri": {"$eq": "u"}}
    assert not matches(query, Document(text="x"))
    assert matches(query, Document(text="x", uri="u"))


def matches(query: Mapping[str, Any], document: Document) -> bool:
    return compile_condition(query)(DocumentProto.FromString(document.to_protobuf().SerializeToString()))


# -- failures -------------------------------------------------------------------------------------------


@row("a call that timed out is sent four times")
def _(folder: Path) -> None:
    for retries, again in ((-1, False), (0, False), (1, True)):
        policy = RetryPolicy(retries)
        assert policy.allows("DEADLINE_EXCEEDED", reached=True, endpoint="/", tries=1, replicas=1) is again


@row("a request that crashes its executor is sent to every replica")
def _(folder: Path) -> None:
    # tests/faults: test_a_request_that_ends_its_executor_ends_two_replicas_and_no_more
    addresses = [f"10.0.0.{number}:1" for number in range(4)]
    replicas = test_attempts.Replicas(labels={each: each for each in addresses}, reachable=addresses)
    one = test_attempts.attempts(replicas)
    crash = test_attempts.CallError("UNAVAILABLE", "Socket closed", lost=True)
    ended = []
    for address in addresses:
        one.start(address, 0.0, connected=True)
        ended.append(address)
        if isinstance(test_attempts.fail(one, crash), GiveUp):
            break
    assert len(ended) == 2


@row("replicas take turns")
def _(folder: Path) -> None:
    assert PoolLimits().balancing == "least_in_flight"
    assert gateway_of("{pool: {balancing: round_robin}}").pool.balancing == "round_robin"


@row("an executor that is down costs seconds, or minutes")
def _(folder: Path) -> None:
    # tests/faults: test_a_dead_end_is_always_reported_within_a_second
    pauses_s = sum(RETRY_BACKOFF.delay_s(tries, 1.0) for tries in (1, 2, 3))
    assert pauses_s < 1
    assert PoolLimits().connect_timeout_s < 1


@row("requests pile up without limit")
def _(folder: Path) -> None:
    assert (PoolLimits().max_in_flight, PoolLimits().max_queued) == (4000, 4000)
    assert gateway_of("{pool: {max_queued: 0}}").pool.max_queued == 0


@row("messages of any size")
def _(folder: Path) -> None:
    # tests/protocols/grpc: test_the_limit_is_for_the_inflated_message
    assert GatewayConfig().max_message_bytes == 100_000_000


@row("any number of documents in a request in JSON")
async def _(folder: Path) -> None:
    assert GatewayConfig().max_documents == 100_000
    for data in ([{}] * 3, [{"chunks": [{}], "matches": [{}]}]):
        status, _, _ = await asked("POST", "/post", {"data": data}, max_documents=2)
        assert status == 413


# -- HTTP -----------------------------------------------------------------------------------------------


async def asked(
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    dispatcher: FakeDispatcher | None = None,
    **settings: Any,
) -> tuple[int, dict[str, str], bytes]:
    """The answer of a gateway with ``settings``."""
    async with served(dispatcher=dispatcher, **settings) as gateway:
        found: tuple[int, dict[str, str], bytes] = await in_thread(
            call, gateway.port, method, path, body, headers
        )
        return found


def failing(error: Exception) -> FakeDispatcher:
    def fails(request: Request) -> Response:
        raise error

    return FakeDispatcher(fails)


@row("many mistakes in a body are 500")
async def _(folder: Path) -> None:
    for body in ('{"data": 7}', '{"data": {"a": 1}}', "[1]", '{"parameters": 3}', "{"):
        status, _, answer = await asked("POST", "/post", body)
        assert status == 422
        assert json.loads(answer)["detail"][0]["loc"]


@row("a network error on `/index`, `/search` and so on is 500")
async def _(folder: Path) -> None:
    down, late = ExecutorUnreachable("a", ["127.0.0.1:1"], "no"), DeadlineExceeded("a", ["127.0.0.1:1"])
    for path in ("/index", "/search", "/post"):
        for error, expected in ((down, 503), (late, 504)):
            status, _, _ = await asked("POST", path, {}, dispatcher=failing(error))
            assert status == expected


@row("0 and 1 in `tags` become booleans")
async def _(folder: Path) -> None:
    _, _, answer = await asked("POST", "/post", {"data": [{"tags": {"a": 0, "b": 1, "c": True}}]})
    tags = json.loads(answer)["data"][0]["tags"]
    assert (tags, [type(value) for value in tags.values()].count(bool)) == ({"a": 0, "b": 1, "c": True}, 1)


@row("an endpoint with characters beyond printable ASCII is never answered")
async def _(folder: Path) -> None:
    real = FakeDispatcher(build(FakePool(), deployment("a")).dispatch)
    for body in (
        {"execEndpoint": "/\u00e9"},
        {"execEndpoint": "/" + "x" * 1000},
        {"targetExecutor": "x" * 1001},
    ):
        status, _, _ = await asked("POST", "/post", body, dispatcher=real)
        assert status == 422


def talk(port: int, sent: bytes, *, ends: bool = False) -> bytes:
    """All that comes back, until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
        return b"".join(parts)


@row("a request without a Host header is served, and one with two")
async def _(folder: Path) -> None:
    async with served() as gateway:
        for hosts in (b"", b"Host: a\r\nHost: b\r\n"):
            answer = await in_thread(talk, gateway.port, b"GET /status HTTP/1.1\r\n" + hosts + b"\r\n")
            assert answer.startswith(b"HTTP/1.1 400 ")


@row("a tensor without dimensions is 500")
async def _(folder: Path) -> None:
    documents = encoded_documents([Document(tensor=np.array(3.5))])
    dispatcher = FakeDispatcher(lambda request: attrs.evolve(answer_to(request), documents=documents))
    status, _, answer = await asked("POST", "/post", {}, dispatcher=dispatcher)
    assert (status, json.loads(answer)["data"][0]["tensor"]) == (200, 3.5)


@row("null among the numbers of an array is 500")
async def _(folder: Path) -> None:
    dispatcher = FakeDispatcher()
    status, _, _ = await asked("POST", "/post", {"data": [{"tensor": [1.5, None]}]}, dispatcher=dispatcher)
    assert status == 200
    assert np.isnan(sent_document(dispatcher).tensor[1])


@row("NaN or an infinity in an answer is 500")
async def _(folder: Path) -> None:
    document = Document(tensor=np.array([1.5, np.nan, -np.inf]), tags={"a": np.nan}, weight=np.nan)

    def answers(request: Request) -> Response:
        return Response(request.request_id, "/", encoded_documents(DocumentArray([document])))

    status, _, answer = await asked("POST", "/post", {}, dispatcher=FakeDispatcher(answers))
    assert status == 200
    (found,) = json.loads(answer)["data"]
    assert (found["tensor"], found["tags"]) == ([1.5, None, None], {"a": None})
    assert found["weight"] == "NaN"


@row("a blob in URL-safe base64 loses bytes")
async def _(folder: Path) -> None:
    dispatcher = FakeDispatcher()
    await asked("POST", "/post", {"data": [{"blob": "-_8="}]}, dispatcher=dispatcher)
    assert sent_document(dispatcher).blob == b"\xfb\xff"


def sent_document(dispatcher: FakeDispatcher) -> Document:
    (document,) = documents_of(dispatcher.requests[0].documents)
    return document


@row("HEAD and OPTIONS are 405")
async def _(folder: Path) -> None:
    assert (await asked("HEAD", "/status"))[0] == 200
    assert (await asked("OPTIONS", "/post"))[0] == 204


@row("headers do not reach executors")
def _(folder: Path) -> None:
    class Headed(Executor):
        @requests
        def tell(self, headers, response_headers, **kwargs):
            response_headers["x-by"] = "me"
            return {"headers": dict(headers)}

    for settings, got, came in (({}, {}, {}), ({"forward_headers": ["x-*"]}, {"x-a": "1"}, {"x-by": "me"})):
        with LocalFlow(Flow(**settings).add(name="h", uses=Headed)) as flow:
            (answer,) = flow.post("/", Document(), headers={"x-a": "1", "y": "2"}, return_responses=True)
        assert answer.parameters["__results__"]["h/rep-0"] == {"headers": got}
        assert answer.headers == came


@row("a misspelt endpoint is answered as if all were well")
async def _(folder: Path) -> None:
    # tests/dispatch: test_a_request_that_no_executor_works_on_has_a_hint
    hinted = FakeDispatcher(lambda request: attrs.evolve(answer_to(request), hint="no executor binds it"))
    status, headers, _ = await asked("POST", "/post", {}, dispatcher=hinted)
    assert (status, headers["x-gatewayd-hint"]) == (200, "no executor binds it")


@row("an exposed endpoint with GET needs a body, which browsers cannot send")
async def _(folder: Path) -> None:
    dispatcher = FakeDispatcher()
    exposed = {"/a": {"methods": ["GET"]}}
    status, _, _ = await asked("GET", "/a", dispatcher=dispatcher, expose_endpoints=exposed)
    assert (status, dispatcher.requests[0].endpoint, dispatcher.requests[0].documents) == (200, "/a", b"")


@row("a 404 has only `detail`")
async def _(folder: Path) -> None:
    known = FakeDispatcher(endpoints=Endpoints({"/classify": ""}))
    status, _, answer = await asked("POST", "/classify", {}, dispatcher=known)
    assert (status, {*json.loads(answer)}) == (404, {"detail", "hint"})


@row("a client that half-closes after its request loses its answer")
async def _(folder: Path) -> None:
    async with served(dispatcher=FakeDispatcher(held=True)) as gateway:
        sent = b"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
        answer = in_thread(talk, gateway.port, sent, ends=True)
        await until(lambda: gateway.dispatcher.requests)
        gateway.dispatcher.settle(gateway.dispatcher.requests[0].request_id)
        assert (await answer).startswith(b"HTTP/1.1 200 ")


@row("an answer has no id in its headers")
async def _(folder: Path) -> None:
    _, headers, answer = await asked("POST", "/post", {})
    assert headers["x-request-id"] == json.loads(answer)["header"]["requestId"]


@row("an id in a body is ignored")
async def _(folder: Path) -> None:
    _, headers, answer = await asked("POST", "/post", {"requestId": "mine"})
    assert headers["x-request-id"] == json.loads(answer)["header"]["requestId"] == "mine"
    ((answer,), _, _) = await frames({"data": [], "requestId": "mine"})
    assert json.loads(answer)["header"]["request_id"] == "mine"


@row("`/docs` needs the internet")
async def _(folder: Path) -> None:
    for path in ("/docs", "/redoc"):
        status, _, page = await asked("GET", path)
        assert status == 200
        assert re.findall(rb"(?:src|href)=[\"'](?:https?:)?//", page) == []


@row("`/status` shows tokens and internal addresses")
def _(folder: Path) -> None:
    versions, variables = status_maps({"JINA_AUTH_TOKEN": "secret", "JINA_STREAMER_ARGS": "10.0.0.1:5"})
    assert (variables["JINA_AUTH_TOKEN"], variables["JINA_STREAMER_ARGS"]) == ("(set)", "(hidden)")
    assert {"jina", "gatewayd", "uptime"} <= versions.keys()


# -- WebSocket ------------------------------------------------------------------------------------------


async def frames(
    *sent: Any, path: str = "/", subprotocol: str | None = None, answers: int = 1
) -> tuple[list[Any], int | None, str | None]:
    """The first answers to these frames, or the close code; and the subprotocol."""

    async def conversation() -> tuple[list[Any], int | None, str | None]:
        offered: Any = None if subprotocol is None else [subprotocol]
        url = gateway.ws_url + path
        async with websockets.connect(url, subprotocols=offered, compression=None, proxy=None) as session:
            for frame in sent:
                await session.send(frame if isinstance(frame, bytes | str) else json.dumps(frame))
            found: list[Any] = []
            try:
                while len(found) < answers:
                    found.append(await session.recv())
            except websockets.ConnectionClosed:
                return found, session.close_code, session.subprotocol
            return found, None, session.subprotocol

    async with served(("websocket",), limits=None) as gateway:
        result: tuple[list[Any], int | None, str | None] = await asyncio_client(conversation)
        return result


@row("mistakes drop the connection")
async def _(folder: Path) -> None:
    for sent, code in ((b"x", 1003), ("{", 1007), ({"data": 7}, 1008)):
        assert (await frames(sent))[:2] == ([], code)
    assert codes_of(TooLarge).websocket == 1009


@row("a missing `data` is a mistake")
async def _(folder: Path) -> None:
    ((answer,), _, _) = await frames({"exec_endpoint": "/a"})
    assert json.loads(answer)["data"] == []
    assert (await asked("POST", "/post", {"execEndpoint": "/a"}))[0] == 200


@row("a frame with a list or a number is ignored")
async def _(folder: Path) -> None:
    for sent in ("[1]", "7"):
        assert (await frames(sent))[:2] == ([], 1008)


@row("answers arrive as they are ready")
async def _(folder: Path) -> None:
    # tests/protocols/websocket: test_answers_come_in_the_order_of_the_requests_where_the_url_asks_for_it
    sent = [{"data": [], "requestId": str(number)} for number in range(5)]
    found, _, _ = await frames(*sent, path="/?results_in_order=true", answers=5)
    assert [json.loads(each)["header"]["request_id"] for each in found] == list("01234")


@row("the subprotocol is not confirmed")
async def _(folder: Path) -> None:
    for name in ("json", "bytes"):
        assert (await frames(subprotocol=name, answers=0))[2] == name


# -- gRPC -----------------------------------------------------------------------------------------------


@row("an empty message fails")
def _(folder: Path) -> None:
    found = decode_request(b"")
    assert (found.endpoint, found.documents) == (Request("", "").endpoint, b"")


@row("mistakes in a request are UNKNOWN")
def _(folder: Path) -> None:
    assert codes_of(BadRequest).grpc == "INVALID_ARGUMENT"


@row("`headers=` of `post` is ignored")
def _(folder: Path) -> None:
    post = Post(on="/", headers={"X-A": "1"}, metadata=[("k", "v")])
    assert ("x-a", "1") in post.sent_metadata()
    assert post.sent_headers() == {"X-A": "1", "k": "v"}


# -- gateway classes ------------------------------------------------------------------------------------


@row("`class MyGateway(Gateway)` with `setup_server` and `run_server`")
def _(folder: Path) -> None:
    class Old(Gateway):
        async def run_server(self) -> None: ...

    with pytest.raises(ConfigError, match="keep the property app"):
        check_class(Old)

    class New(Gateway):
        @property
        def app(self) -> Any:
            return None

    check_class(New)


@row("`self.streamer.stream_docs(docs, exec_endpoint='/x')`")
def _(folder: Path) -> None:
    assert inspect.iscoroutinefunction(Gateway.post)
    inspect.signature(Gateway.post).bind(None, "/x", [Document()])


@row("`self.executor['a'].post(docs, on='/x')`")
def _(folder: Path) -> None:
    inspect.signature(Gateway.post).bind(None, "/x", [Document()], target_executor="a")


# -- the client -----------------------------------------------------------------------------------------


@row("a private authority cannot be trusted")
def _(folder: Path) -> None:
    assert {"tls_ca_certfile", "tls_certfile", "tls_keyfile"} <= ClientKeywords.__annotations__.keys()


@row("unknown protocols end the process")
def _(folder: Path) -> None:
    with pytest.raises(ValueError, match="graphql"):
        Client(protocol="graphql")


@row("a generator that fails gives CancelledError over gRPC")
def _(folder: Path) -> None:
    # tests/client: test_what_a_generator_raises_reaches_the_caller
    def fails() -> Any:
        yield Document()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(batches(fails(), 1))


@row("NaN and infinities in tags: ValueError")
def _(folder: Path) -> None:
    with LocalFlow(Flow()) as flow:
        (answer,) = flow.post("/", Document(tags={"a": float("nan"), "b": float("-inf")}))
    assert np.isnan(answer.tags["a"])
    assert answer.tags["b"] == float("-inf")


@row("each protocol has exceptions of its own")
def _(folder: Path) -> None:
    assert issubclass(client_errors.BadServer, excepts.BadServer)
    assert issubclass(client_errors.NetworkError, ConnectionError)
    assert issubclass(client_errors.BadClientInput, excepts.BadClient)


@row("the waiting client iterates over asynchronous generators")
def _(folder: Path) -> None:
    async def inputs() -> Any:
        yield Document()

    with LocalFlow(Flow()) as flow, pytest.raises(client_errors.BadClientInput, match="asynchronous client"):
        flow.post("/", inputs)


@row("several protocols: `flow.post` cannot be used")
def _(folder: Path) -> None:
    client = Flow(protocol=["http", "grpc"], port=[5, 6]).client
    assert (client.protocol, client.port) == ("http", 5)


@row("docarray's `Document.post(url)` and `DocumentArray.post(url)` use Jina's client")
def _(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "jina", None)
        for documents in (Document(), DocumentArray.empty(1)):
            with pytest.raises(ImportError):
                documents.post("grpc://127.0.0.1:1")


@row("keywords that `post` does not know are passed over silently")
def _(folder: Path) -> None:
    with LocalFlow(Flow()) as flow, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        flow.post("/", Document(), requestsize=3)
    assert "did you mean request_size?" in str(told[0].message)
