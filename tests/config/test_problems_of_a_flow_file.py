"""What is refused, and how the refusal reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatewayd import Flow
from gatewayd.config import flow_from_mapping, load_flow, load_flow_text
from gatewayd.errors import ConfigError
from gatewayd.flow.flow import FlowError


def problems(text: str, **variables: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_flow_text(text, environ=variables, name="flow.yml")
    return str(raised.value).splitlines()


def executors(text: str) -> str:
    return f"jtype: Flow\nexecutors: [{text}]\n"


def test_all_problems_of_a_file_are_reported_at_once_in_the_order_of_the_file() -> None:
    text = """\
jtype: Flow
with: {timeout_sned: 5}
gateway:
  port: 70000
  cors: maybe
executors:
  - name: a
    replicas: 0
"""
    assert problems(text) == [
        "flow.yml:2:8: with.timeout_sned: unknown key of the with; did you mean timeout_send?",
        "flow.yml:4:3: gateway.port: found 70000; accepted: a port from 0 (any free one) to 65535",
        "flow.yml:5:3: gateway.cors: found 'maybe'; accepted: true, false, or a list of origins such as https://example.org",
        "flow.yml:8:5: executors[0].replicas: found 0; accepted: an integer from 1 to 1024, or a map such as "
        "{min: 1, max: 3, target_in_flight: 2}",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("jtype: [\n", "flow.yml:2:1: this is not YAML: "),
        ("jtype: Flow\ngateway: {port: 1}\ngateway: {port: 2}\n", "gateway: given twice, in lines 2 and 3"),
        ("jtype: Flow\ngateway: !!python/object:os.system {}\n", "the tag !!python/object:os.system is not"),
        ("jtype: Flow\ngateway: {port: !!python/name:os.system x}\n", "is not accepted with the tag"),
        ("jtype: Flow\nwith: &a {x: *a}\n", "an anchor is used inside itself"),
        ("jtype: Flo\n", "jtype: found 'Flo'; accepted: Flow; did you mean flow?"),
        (
            "jtype: Flow\nexecuters: []\n",
            "flow.yml:2:1: executers: unknown key of the Flow file; did you mean executors?",
        ),
        ("jtype: Flow\ngateway: {port: 1, ports: 2}\n", "means the same as port, which is given too"),
        ("jtype: Flow\ngateway: {protocol: [grpc, http], port: [1, 1]}\n", "the port 1 is given twice"),
        (
            "jtype: Flow\ngateway: {protocol: grpc+http}\n",
            "found 'grpc+http'; accepted: grpc, http, websocket",
        ),
        (
            "jtype: Flow\ngateway: {ssl_certfile: a.pem}\n",
            "a.pem is given without gateway.ssl_keyfile: you can't pass a ssl_keyfile without a ssl_certfile",
        ),
        (
            "jtype: Flow\ngateway: {ssl_certfile: /nowhere/a.pem, ssl_keyfile: /nowhere/b.pem}\n",
            "gateway.ssl_certfile: /nowhere/a.pem cannot be read: No such file or directory",
        ),
        ("jtype: Flow\ngateway: {uvicorn_kwargs: {}}\n", "gateway.uvicorn_kwargs: not supported yet"),
        (
            "jtype: Flow\nwith: {uvicorn_kwargs: {a: 1}}\n",
            "with.uvicorn_kwargs: not supported yet",
        ),
        ("jtype: Flow\nwith: {uses_with: {a: 1}}\n", "this key is set in the gateway or in an executor"),
        ("jtype: Flow\ngateway: {pool: {max_queud: 1}}\n", "gateway.pool.max_queud: unknown key"),
        ("jtype: Flow\ngateway: {compression: brotli}\n", "found 'brotli'; accepted: none, gzip, deflate"),
        ("jtype: Flow\ngateway: {expose_endpoints: '{'}\n", "gateway.expose_endpoints: this is not JSON"),
        (
            "jtype: Flow\ngateway: {expose_endpoints: {/a: {methods: [GTE]}}}\n",
            "expose_endpoints./a.methods: found",
        ),
        ("jtype: Flow\ngateway: {expose_endpoints: {/a: {http_pth: /b}}}\n", "did you mean http_path?"),
        (
            "jtype: Flow\ngateway: {expose_endpoints: {'*': {http_path: /b}}}\n",
            "expose_endpoints.*.http_path: is of one endpoint only",
        ),
        ("jtype: Flow\ngateway: {expose_endpoints: every}\n", "accepted: all, a map of endpoints"),
        ("jtype: Flow\ngateway: {port: '${{ CONTEXT.zz }}'}\n", "the context has no zz"),
        ("jtype: Flow\ngateway: {port: '${{ 1 + 1 }}'}\n", "${{ 1 + 1 }} is not understood"),
        (
            "jtype: Flow\nwith: {name: '${{root.with.title}}', title: '${{root.with.name}}'}\n",
            "refer to each other",
        ),
        (executors("{uses: 'docker://x'}"), "executors from docker:// are not supported yet"),
        (executors("{uses: 'jinahub+docker://x'}"), "executors from jinahub+docker:// are not supported yet"),
        (executors("{uses: 'a b'}"), "executors[0].uses: found 'a b'; accepted: a class such as"),
        (executors("{uses: executor.py}"), "put it into py_modules and the name of its class here"),
        (executors("{shards: 0}"), "executors[0].shards: found 0"),
        (executors("{shards: 2, uses_before: a b}"), "executors[0].uses_before.uses: found 'a b'"),
        (
            executors("{shards: 2, uses_before_address: h}"),
            "uses_before_address: an external executor needs a port: 'h' has no port; give h:8080",
        ),
        (executors("{shards: 2, uses_after_address: 'ftp://h:1'}"), "the scheme ftp:// is not accepted"),
        (executors("{method: needs, needs: [gateway]}"), "method: needs wants at least two names"),
        (executors("{name: a}, {name: b, needs: aa}"), "no executor is called 'aa'; did you mean a?"),
        (
            executors("{name: a, needs: b}, {name: b, needs: c}, {name: c, needs: a}"),
            "a needs b needs c needs a",
        ),
        (executors("{name: a, needs: a}"), "a needs itself"),
        (executors("{when: {tags__k: {$eqq: 1}}}"), "executors[0].when: tags__k.$eqq: no such operator"),
        (
            executors("{when: {$and: 5}}"),
            "executors[0].when: $and: 5 is not an object",
        ),
        (executors("{replicas: 2, port: 5000}"), "found 1 port(s) for 2 replica(s)"),
        (executors("{tls: true}"), "only an external executor can have this"),
        (executors("{host: 'grpc://h:1'}"), "those need external: true"),
        (executors("{external: true}"), "an external executor needs a port"),
        (executors("{external: true, host: 'h:1', port: 2}"), "given in host as well as in port"),
        (executors("{external: true, host: 'ftp://h:1'}"), "the scheme ftp:// is not accepted"),
        (executors("{external: true, host: 'grpc://h:1,grpcs://h:2'}"), "some hosts have a scheme with TLS"),
        (executors("{external: true, host: 'unix:/s', port: 2}"), "a Unix socket has no port"),
        (executors("{external: true, host: 'unix:/s,h:2'}"), "some hosts are Unix sockets and some are not"),
        (
            executors("{external: true, host: 'unix:s'}"),
            "found 'unix:s'; accepted: unix: and an absolute path",
        ),
        (executors("{external: true, host: 'unix:/s', tls: true}"), "the host's scheme is one without TLS"),
        (executors(f"{{external: true, host: 'unix:/{'s' * 200}'}}"), "a path of 201 bytes; accepted: 103"),
        (executors("{host: 'unix:/s', replicas: 2}"), "at a Unix socket of its own there is one replica"),
        (executors("{host: 'unix:/s', port: 7}"), "at a Unix socket of its own there is one replica"),
        (executors("{host: 'unix:s'}"), "found 'unix:s'; accepted: unix: and an absolute path"),
        (executors("{external: true, host: 'h:1,h:2', replicas: 3}"), "host and port give 2 address(es)"),
        (executors("{env: {A: [1]}}"), "executors[0].env.A: found a list; accepted: text"),
        (executors("{uses_dynamic_batching: {/x: {timeout: 1}}}"), "preferred_batch_size is missing"),
        (
            executors("5"),
            "executors[0]: found a number; accepted: a map, or the name of a Deployment's YAML file",
        ),
        (executors("{jtype: Deployment, wiht: {}}"), "did you mean with?"),
        (executors("{jtype: Deploymnt}"), "found 'Deploymnt'; accepted: Deployment"),
    ],
)
def test_a_mistake_is_refused_by_name(text: str, problem: str) -> None:
    assert any(problem in line for line in problems(text)), problems(text)


@pytest.mark.parametrize("key", ["uses", "py_modules"])
def test_a_missing_file_is_reported_with_its_path(key: str, tmp_path: Path) -> None:
    (tmp_path / "flow.yml").write_text(executors(f"{{{key}: no/file.yml}}"))
    with pytest.raises(
        ConfigError, match=f"{key}: can not find no/file.yml, looked for {tmp_path}/no/file.yml"
    ):
        load_flow(tmp_path / "flow.yml")


def test_a_problem_in_an_executor_s_own_file_names_that_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("jtype: Mine\nwiht: {a: 1}\n")
    (tmp_path / "flow.yml").write_text(executors("{uses: config.yml}"))
    with pytest.raises(ConfigError, match=r"config\.yml:2:1: wiht: unknown key .* did you mean with\?"):
        load_flow(tmp_path / "flow.yml")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"jtype: \x00"])
def test_a_file_that_is_no_text_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "flow.yml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"flow\.yml: "):
        load_flow(tmp_path / "flow.yml")


def test_a_folder_is_not_a_flow(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        load_flow(tmp_path)


def test_values_of_secret_keys_are_not_quoted() -> None:
    assert "hunter2" not in "".join(
        problems(executors("{env: [hunter2], uses_with: hunter2, grpc_metadata: hunter2}"))
    )


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (
            "[x-a, content-type]",
            "gateway.forward_headers[1]: 'content-type' belongs to one connection",
        ),
        ("te", "gateway.forward_headers: 'te' belongs to one connection or call, and cannot be forwarded"),
        ("'*'", "gateway.forward_headers: would forward every header; name them, or give a prefix"),
        ("[x-a, 'x a']", "gateway.forward_headers[1]: 'x a' is no header's name; accepted: letters"),
        ("[x-a, 1]", "gateway.forward_headers[1]: found 1"),
    ],
)
def test_headers_that_cannot_be_forwarded_are_refused_by_name(names: str, problem: str) -> None:
    for text in (f"gateway: {{forward_headers: {names}}}", f"with: {{forward_headers: {names}}}"):
        (found,) = problems(f"jtype: Flow\n{text}\n")
        assert problem.replace("gateway.", "") in found.replace("gateway.", "").replace("with.", "")


@pytest.mark.parametrize("names", [["Host"], "grpc-*", ("x-a", "cookie x")])
def test_headers_are_refused_in_python_as_well(names: Any) -> None:
    with pytest.raises(FlowError, match="forward_headers"):
        Flow(forward_headers=names)._description.config()


def test_anchors_that_multiply_are_refused() -> None:
    lines = ["x-0: &a0 [1, 1]"] + [f"x-{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "are anchors repeated?" in problems("jtype: Flow\n" + "\n".join(lines))[0]


def test_references_that_multiply_are_refused() -> None:
    lines = [f"x-{i}: '{f'${{{{root.x-{i - 1}}}}}' * 10}'" for i in range(1, 9)]
    assert "too many or too long" in problems("jtype: Flow\nx-0: aaaaaaaaaa\n" + "\n".join(lines))[-1]


def test_deep_nesting_is_refused() -> None:
    assert "nested too deeply" in problems("[" * 5000 + "]" * 5000)[0]


def test_a_mapping_built_in_python_is_refused_without_lines() -> None:
    with pytest.raises(ConfigError, match=r"^Flow: executors\[0\]\.replicas: found 0; accepted"):
        flow_from_mapping({"executors": [{"replicas": 0}]})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "gateway: {port: 1234}\nexecutors: [{name: a, port: 1234}]",
            "executors[0].port: the port 1234 is that of the gateway",
        ),
        (
            "executors: [{name: a, port: [5000, 5001], replicas: 2}, {name: b, port: 5001}]",
            "executors[1].port: the port 5001 is that of executor a",
        ),
        (
            "gateway: {port: 1234, host: '::'}\nexecutors: [{name: a, port: 1234}]",
            "executors[0].port: the port 1234 is that of the gateway",
        ),
        ("executors: [Ok]", "executors[0]: found 'Ok'; a map is wanted, such as {uses: Ok}"),
        ("gateway: {prot: 1}", "gateway.prot: unknown key of the gateway; did you mean protocol or"),
        ("executors: [{zzz: 1}]", "executors[0].zzz: unknown key of the executor; the page Flow file"),
    ],
)
def test_a_flow_that_cannot_work_is_refused_before_it_starts(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_flow_text(f"jtype: Flow\n{text}\n", environ={}).check_conflicts()
    assert problem in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "gateway: {port: 1234, host: 127.0.0.2}\nexecutors: [{name: a, port: 1234}]",
        "gateway: {port: 1234}\nexecutors: [{name: a, port: 1234, external: true}]",
        "executors: [{name: a, port: 0}, {name: b, port: 0}]",
    ],
)
def test_ports_that_do_not_meet_are_taken(text: str) -> None:
    load_flow_text(f"jtype: Flow\n{text}\n", environ={}).check_conflicts()


@pytest.mark.parametrize("uses", ["'!Custom'", r'"\njtype: Custom\nwith: {}\n"', "'{jtype: Custom}'"])
def test_the_text_of_a_configuration_may_stand_in_uses(uses: str) -> None:
    (found,) = load_flow_text(f"jtype: Flow\nexecutors: [{{uses: {uses}}}]\n", environ={}).deployments
    assert found.executor.uses == "Custom"


def test_a_module_by_its_dotted_name_may_stand_in_py_modules(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "deep.py").write_text("raise RuntimeError('run while the Flow file was read')")
    (found,) = load_flow_text(
        "jtype: Flow\nexecutors: [{uses: M, py_modules: [pack.deep, gatewayd.status]}]\n",
        base_dir=tmp_path,
        environ={},
    ).deployments
    assert found.executor.py_modules == ("pack.deep", "gatewayd.status")
