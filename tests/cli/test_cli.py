"""The command ``gatewayd``, as a process: what it prints and its exit codes."""

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
from xml.etree import ElementTree

import pytest

from tests.certificates import make
from tests.paths import ROOT
from tests.processes import Child, Gateway, environment, free_ports, runs
from tests.waiting import until

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "gatewayd"]


def run(*arguments, cwd=None, **env):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(**env), cwd=cwd, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """What ``gatewayd new`` made, on free ports."""
    folder = tmp_path_factory.mktemp("cli") / "my-flow"
    done = run("new", folder)
    assert done.returncode == 0, done.stderr
    text = (folder / "flow.yml").read_text()
    ports = free_ports(3)
    (folder / "flow.yml").write_text(text.replace("[12345, 12346, 12347]", str(ports)))
    return folder


@pytest.fixture(scope="module")
def gateway():
    running = Gateway({"executors": [{"name": "a"}]})
    yield running
    running.stop()


KEY = "a-key-of-this-test"


@pytest.fixture(scope="module")
def guarded():
    """A gateway that knows the caller of KEY, and lets it call nothing that these tests ask for."""
    keys = {"someone": "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()}
    rules = [{"endpoints": ["/search"], "allow": ["someone"]}]
    running = Gateway({"gateway": {"auth": {"api_keys": keys, "rules": rules}}, "executors": [{"name": "a"}]})
    yield running
    running.stop()


@pytest.fixture
def start():
    started = []

    def start(*arguments, cwd=None):
        started.append(Child([*COMMAND, *map(str, arguments)], cwd=cwd))
        return started[-1]

    yield start
    for child in started:
        child.stop()


def test_help_names_every_command():
    done = run("--help")

    for name in ("serve", "executor", "check", "status", "ping", "plot", "new", "completion"):
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (["flow", "--uses", "flow.yml"], "use: gatewayd serve FLOW.yml"),
        (["gateway"], "use: gatewayd serve FLOW.yml"),
        (["pod"], "use: gatewayd executor"),
        (["client"], "from gatewayd import Client"),
        (["hub", "pull"], "there is no Hub"),
        (["serv"], "did you mean serve?"),
        (["zzz"], "No such command 'zzz'"),
    ],
)
def test_a_command_that_is_not_there_says_what_to_use(arguments, instead):
    done = run(*arguments)

    assert done.returncode == 2
    assert instead in done.stderr


def test_help_loads_neither_twisted_nor_grpc():
    text = (
        "import sys, gatewayd.cli; print({'twisted', 'grpc', 'yaml', 'docarray', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", text], env=environment(), capture_output=True, text=True)

    assert done.stdout == "set()\n"


def test_check_says_what_a_flow_will_do(project):
    done = run("check", project / "flow.yml")

    assert done.returncode == 0, done.stderr
    assert "gateway -> shout" in done.stdout
    assert "Shout" in done.stdout
    assert "\x1b" not in done.stdout


def test_check_prints_every_problem_and_fails(tmp_path):
    path = tmp_path / "flow.yml"
    path.write_text("jtype: Flow\ngateway:\n  porrt: 1\nexecutors:\n  - replicas: 0\n")

    done = run("check", path)

    assert done.returncode == 1
    assert "flow.yml:3:3: gateway.porrt: unknown key" in done.stderr
    assert "flow.yml:5:5: executors[0].replicas" in done.stderr
    assert done.stdout == ""


def test_check_reads_the_files_that_say_who_may_call(tmp_path):
    path, keys = tmp_path / "flow.yml", tmp_path / "keys"
    path.write_text(f"jtype: Flow\ngateway: {{auth: {{api_keys_file: {keys}}}}}\n")
    missing = run("check", path)
    assert missing.returncode == 1
    assert f"gateway.auth.api_keys_file: {keys}: it cannot be read" in missing.stderr
    keys.write_text(f"team-a:sha256:{'0' * 64}\n")
    there = run("check", path)
    assert there.returncode == 0
    assert "for callers that show who they are" in there.stdout


def test_check_says_where_operators_look_and_who_else_could(tmp_path):
    path = tmp_path / "flow.yml"
    path.write_text("jtype: Flow\ngateway: {admin_port: 9000}\n")
    done = run("check", path)
    assert "the admin site on 127.0.0.1:9000, with no keys, and no actions" in done.stdout
    assert "admin" not in done.stderr

    path.write_text("jtype: Flow\ngateway: {admin_port: 0, admin_host: 0.0.0.0, monitoring: true}\n")
    done = run("check", path)
    assert done.returncode == 0
    assert "the admin site on 0.0.0.0:(a free port)" in done.stdout
    assert "metrics on " in done.stdout
    assert "gateway.admin_host: 0.0.0.0 lets other machines reach the admin site" in done.stderr

    path.write_text(
        "jtype: Flow\ngateway:\n  admin_port: 9000\n  admin_host: 0.0.0.0\n"
        f"  admin_keys: {{alice: 'sha256:{'0' * 64}'}}\n"
    )
    done = run("check", path)
    assert "with 1 key for actions" in done.stdout
    assert "admin" not in done.stderr


def test_check_names_a_file_of_code_that_is_not_there(tmp_path):
    path = tmp_path / "flow.yml"
    path.write_text("jtype: Flow\nexecutors:\n  - {name: a, uses: A, py_modules: nowhere.py}\n")

    done = run("check", path)

    assert done.returncode == 1
    assert f"py_modules: can not find nowhere.py, looked for {tmp_path / 'nowhere.py'}" in done.stderr


def test_variables_of_the_command_line_reach_the_file(tmp_path):
    path = tmp_path / "flow.yml"
    path.write_text("jtype: Flow\ngateway: {port: '${{ CONTEXT.port }}'}\n")

    assert ":4321" in run("check", path, "--context", "port=4321").stdout
    assert run("check", path, "--context", "port").returncode == 2


def test_plot_writes_png_where_the_name_says_so(project, tmp_path):
    assert run("plot", project / "flow.yml", "-o", tmp_path / "x.png").returncode == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_plot_writes_svg_beside_the_flow(project):
    assert run("plot", project / "flow.yml").returncode == 0

    assert ElementTree.parse(project / "flow.svg").getroot().tag.endswith("svg")
    assert run("plot", project / "flow.yml", "-o", "x.gif").returncode == 2


def test_a_new_project_serves_and_answers_and_passes_its_own_test(project, start):
    start("serve", cwd=project).line("ready")
    port = (project / "flow.yml").read_text().split("port: [")[1].split(",")[1].strip()

    assert run("ping", f"http://127.0.0.1:{port}").returncode == 0
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        env=environment(), cwd=project, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout


def test_a_new_project_that_streams_is_checked_and_tested(tmp_path):
    folder = tmp_path / "talk"

    made, checked = run("new", "--streaming", folder), run("check", folder / "flow.yml")

    assert (made.returncode, checked.returncode) == (0, 0), made.stderr + checked.stderr
    readme = (folder / "README.md").read_text()
    assert '''curl -sN localhost:12346/talk -H 'Content-Type: application/json' -d '{"data"''' in readme
    python = readme.partition("In Python")[2].partition("\n\n")[2].partition("\n| file")[0]
    compile(textwrap.dedent(python), "README.md", "exec")
    assert 'stream_doc("/talk", Document(text="hello you"))' in python
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        env=environment(), cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout


def test_new_does_not_write_into_a_folder_with_files(project):
    done = run("new", project)

    assert done.returncode == 1
    assert "not empty" in done.stderr


@pytest.mark.parametrize(("scheme", "protocol"), [("grpc", "grpc"), ("http", "http"), ("ws", "websocket")])
def test_a_running_gateway_is_ready_and_reports_its_status(gateway, scheme, protocol):
    url = f"{scheme}://127.0.0.1:{gateway.ports[protocol]}"

    ready, told = run("ping", url), run("status", url, "--json")

    assert (ready.returncode, told.returncode) == (0, 0), ready.stderr + told.stderr
    assert "is ready" in ready.stdout
    assert '"jina-proto"' in told.stdout


@pytest.mark.parametrize("scheme", ["grpc", "http", "ws"])
def test_ping_and_status_exit_with_1_if_nothing_listens(scheme):
    url = f"{scheme}://127.0.0.1:{free_ports(1)[0]}"

    assert run("ping", url).returncode == 1
    assert run("status", url).returncode == 1
    quiet = run("ping", "-q", url)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (1, "", "")


def test_an_unknown_scheme_is_wrong_usage():
    done = run("ping", "ftp://127.0.0.1:1")

    assert done.returncode == 2
    assert "the scheme 'ftp'" in done.stderr


@pytest.mark.parametrize(("scheme", "protocol"), [("grpc", "grpc"), ("http", "http"), ("ws", "websocket")])
def test_ping_names_the_executor_that_is_missing(scheme, protocol):
    port = free_ports(1)[0]
    flow = {"executors": [{"name": "gone", "external": True, "host": "127.0.0.1", "port": port}]}
    gateway = Gateway(flow)
    try:
        done = run("ping", f"{scheme}://127.0.0.1:{gateway.ports[protocol]}")
    finally:
        gateway.stop()

    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr


def test_what_a_gateway_in_production_lacks_is_named_by_its_key():
    closed = Gateway({"gateway": {"production": True}})
    try:
        for scheme, protocol in (("grpc", "grpc"), ("http", "http"), ("ws", "websocket")):
            url = f"{scheme}://127.0.0.1:{closed.ports[protocol]}"
            status, ping = run("status", url), run("ping", url)
            assert status.returncode == 1
            assert "gateway.expose_status" in status.stderr
            # gRPC has health checks for it.
            assert ping.returncode == 0 if protocol == "grpc" else "gateway.expose_dry_run" in ping.stderr
    finally:
        closed.stop()


@pytest.mark.parametrize(("scheme", "protocol"), [("grpc", "grpc"), ("http", "http"), ("ws", "websocket")])
def test_a_refusal_is_shown_in_the_gateways_own_words(guarded, scheme, protocol):
    url = f"{scheme}://127.0.0.1:{guarded.ports[protocol]}"
    for command in ("status", "ping"):
        # Clients of WebSocket do not get to see what comes with a refusal of the handshake.
        handshake = "give a valid key or token as --header" if (scheme, command) == ("ws", "ping") else None

        unknown = run(command, url)
        assert unknown.returncode == 1
        assert (handshake or "send an API key in the header X-API-Key") in unknown.stderr

        wrong = run(command, url, "-H", "x-api-key: other")
        assert wrong.returncode == 1
        assert (handshake or "the API key is not valid; check it") in wrong.stderr

        other = run(command, url, "-H", f"x-api-key: {KEY}")
        assert other.returncode == 1
        assert "you may not call" in other.stderr


def test_a_certificate_and_its_key_go_together(tmp_path):
    party = make("someone")
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    certificate.write_bytes(party.pem)
    key.write_bytes(party.key_pem())
    for command in ("status", "ping"):
        no_key = run(command, "https://127.0.0.1:1", "--cert", certificate)
        assert no_key.returncode == 2
        assert (
            f"--cert: {certificate} has no private key; name the file of its key with --key" in no_key.stderr
        )

        no_certificate = run(command, "https://127.0.0.1:1", "--key", key)
        assert no_certificate.returncode == 2
        assert "--key: a key needs its certificate; name that with --cert" in no_certificate.stderr

        no_tls = run(command, "http://127.0.0.1:1", "--cert", certificate, "--key", key)
        assert no_tls.returncode == 2
        assert "without TLS: use grpcs://, https:// or wss://" in no_tls.stderr


def test_status_has_one_order_over_every_protocol(gateway):
    told = [
        json.loads(run("status", "--json", f"{scheme}://127.0.0.1:{gateway.ports[scheme]}").stdout)
        for scheme in ("grpc", "http")
    ]

    assert [list(each["jina"]) for each in told[:1]] == [list(each["jina"]) for each in told[1:]]
    assert list(told[0]["envs"]) == list(told[1]["envs"])


def test_what_cannot_be_read_or_written_is_named_with_the_reason(project, tmp_path):
    folder = run("check", tmp_path)
    picture = run("plot", project / "flow.yml", "-o", tmp_path / "nowhere" / "x.svg")

    assert (folder.returncode, picture.returncode) == (1, 1)
    assert "is a folder" in folder.stderr
    assert f"{tmp_path / 'nowhere' / 'x.svg'} cannot be written: No such file" in picture.stderr


def test_an_executor_serves_alone_until_it_is_stopped(project, start):
    child = start(
        "executor", "--uses", "Shout", "--py-modules", "executors.py", "--uses-with", "mark=?", cwd=project
    )
    (match,) = child.line(r"serves at 127\.0\.0\.1:(\d+)")
    url = f"grpc://127.0.0.1:{match[1]}"

    assert run("ping", url).returncode == 0
    assert run("status", url).returncode == 0
    assert child.stop() == 0


def test_an_executor_serves_as_a_flow_file_says(project, start):
    (project / "one.yml").write_text(
        "jtype: Flow\nexecutors: [{name: a, uses: Shout, py_modules: executors.py, uses_with: {mark: '?'}}]\n"
    )
    child = start("executor", "--flow", "one.yml", cwd=project)
    child.line(r"a/rep-0 serves at 127\.0\.0\.1:(\d+)")

    assert child.stop() == 0


@pytest.mark.parametrize(
    "items", ["", "{name: a}, {name: b}", "{name: a, replicas: 2}", "{name: a, external: true, host: h:1}"]
)
def test_a_flow_file_of_an_executor_has_one(tmp_path, items):
    (tmp_path / "flow.yml").write_text(f"jtype: Flow\nexecutors: [{items}]\n")

    done = run("executor", "--flow", str(tmp_path / "flow.yml"))

    assert done.returncode == 1
    assert "accepted: one, without replicas and shards, that is not external" in done.stderr


def with_child(pids, kind):
    parents = ROOT / "tests" / "parents.py"
    arguments = ["--uses-with", f"pids={pids}", "--uses-with", f"kind={kind}"]
    return ["executor", "--uses", "Parent", "--py-modules", str(parents), *arguments]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("kind", ["popen", "stubborn", "fork"])
def test_what_an_executor_alone_has_started_ends_with_it(start, tmp_path, kind, number):
    child = start(*with_child(tmp_path / "pids", kind))
    child.line("serves at")
    pid = int((tmp_path / "pids").read_text())
    assert runs(pid)
    assert os.getpgid(pid) == child.pid

    os.kill(child.pid, number)

    until(lambda: not runs(pid))
    assert child.stop() == (-signal.SIGKILL if number == signal.SIGKILL else 0)


IN_A_TERMINAL = "import os, pty, sys; print('ended:', os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@pytest.mark.parametrize("behind_a_shell", [False, True])
def test_ctrl_c_in_a_terminal_ends_an_executor_alone_and_its_children(tmp_path, behind_a_shell):
    command = [*COMMAND, *with_child(tmp_path / "pids", "popen")]
    if behind_a_shell:
        command = ["sh", "-c", f"{shlex.join(command)}; exit $?"]
    child = Child([sys.executable, "-c", IN_A_TERMINAL, *command])
    try:
        child.line("serves at")
        pid = int((tmp_path / "pids").read_text())
        assert runs(pid)

        child.tell("\x03")

        until(lambda: not runs(pid))
        child.line(r"ended: (0|-2|130)$" if behind_a_shell else "ended: 0$")  # a shell may end by the signal
    finally:
        child.kill()


def test_an_executor_that_cannot_be_loaded_says_why():
    done = run("executor", "--uses", "nowhere:Nothing")

    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert run("executor", "--name", "a-b").returncode == 1


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_is_shell_text_that_calls_the_command(shell):
    done = run("completion", shell)

    assert "_GATEWAYD_COMPLETE" in done.stdout
