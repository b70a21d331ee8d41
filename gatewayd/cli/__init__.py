"""
The command ``gatewayd``: its sub-commands, their options and help.

Each sub-command is implemented in a module of its own, which is imported when it runs: ``gatewayd --help``
loads only this module. Exit codes: 0 for success, 1 for a failure (stderr says why), 2 for wrong usage.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from gatewayd import __version__

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_file = click.argument("flow", type=click.Path(path_type=Path), default="flow.yml")
_context = click.option(
    "--context", "-c", "variables", metavar="NAME=VALUE", multiple=True,
    help="A variable for ${{ CONTEXT.NAME }} in the Flow file. May be given several times.",
)  # fmt: skip
_url = click.argument("url")
_timeout = click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True,
    metavar="SECONDS", help="How long to wait for the answer.",
)  # fmt: skip
_header = click.option(
    "--header", "-H", "headers", metavar="'NAME: VALUE'", multiple=True,
    help="A header or gRPC metadata to send, such as 'x-api-key: KEY'. May be given several times; the "
    "environment variable GATEWAYD_HEADER has one that other users cannot see.",
)  # fmt: skip
_ca = click.option(
    "--ca", "ca_file", type=click.Path(exists=True, dir_okay=False),
    help="PEM file of authorities to trust instead of the system's (with grpcs, https, wss).",
)  # fmt: skip
_cert = click.option(
    "--cert", "certfile", type=click.Path(exists=True, dir_okay=False),
    help="PEM certificate to show, where clients have to; with its key, unless --key names that.",
)  # fmt: skip
_key = click.option(
    "--key", "keyfile", type=click.Path(exists=True, dir_okay=False), help="PEM key of the certificate.",
)  # fmt: skip


# What the command `jina` calls its sub-commands, and what does their work here.
_ELSEWHERE: Final = {
    "flow": "use: gatewayd serve FLOW.yml",
    "gateway": "use: gatewayd serve FLOW.yml; a Flow file without executors is a gateway alone",
    "deployment": "use: gatewayd executor, for one executor; gatewayd serve, for one with replicas or shards",
    "pod": "use: gatewayd executor",
    "worker-runtime": "use: gatewayd executor",
    "head": "the gateway asks shards itself, without a process before them; use: gatewayd serve FLOW.yml",
    "client": "use a Client in Python: from gatewayd import Client",
    "hub": "executors come from Python files and modules; there is no Hub",
    "cloud": "it serves on this machine; use: gatewayd serve FLOW.yml",
    "auth": "it serves on this machine and needs no account; keys of callers: gatewayd api-key NAME",
    "login": "it serves on this machine and needs no account",
    "logout": "it serves on this machine and needs no account",
    "help": "use: gatewayd --help, or gatewayd COMMAND --help",
}


class _Commands(click.Group):
    """Sub-commands; for one that is not there, says what to use instead."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = _ELSEWHERE.get(name) or (f"did you mean {near[0]}?" if near else "")
            if hint:
                ctx.fail(f"there is no command {name!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="gatewayd")
def main() -> None:
    """
    Serve machine-learning executors behind one gateway: gRPC, HTTP and WebSocket.

    A Flow file says which executors there are and how requests travel through them. To begin:

    \b
      gatewayd new my-flow       create a small project
      cd my-flow
      gatewayd check             say what its flow.yml will do
      gatewayd serve             serve it, until Ctrl-C
    """


@main.command()
@click.argument("flows", metavar="[FLOW]...", nargs=-1, type=click.Path(path_type=Path))
@_context
def serve(flows: tuple[Path, ...], variables: tuple[str, ...]) -> None:
    """
    Serve a Flow in the foreground, until Ctrl-C; or several, in one process.

    FLOW is a Flow file, flow.yml if omitted. The same as twistd -n gateway --config FLOW; use twistd
    itself for a daemon, a log file or another reactor. Of several, each has ports of its own.
    """
    from gatewayd.cli.serving import serve_flows

    serve_flows(flows or (Path("flow.yml"),), variables)


@main.command()
@click.argument("flow", required=False, type=click.Path(path_type=Path))
@click.option("--pid", type=click.IntRange(1), help="The number of the service's process.")
@click.option(
    "--pidfile", type=click.Path(path_type=Path), default="twistd.pid", show_default=True,
    help="The file that has this number, without --pid.",
)  # fmt: skip
def reload(flow: Path | None, pid: int | None, pidfile: Path) -> None:
    """
    Have a service on this machine take up its Flow file, without losing a request.

    Of one that serves several, FLOW names the file that is to be taken up; without it, all are.
    Waits until that is done, and says what has changed. A mistake in the file, or an executor that cannot
    start, changes nothing: it is printed, and the exit code is 1.
    """
    from gatewayd.cli.reloading import reload_service

    sys.exit(reload_service(flow, pid, pidfile))


@main.command()
@click.option(
    "--flow",
    type=click.Path(path_type=Path),
    help="A Flow file with one executor: its settings, in place of the options below.",
)
@click.option("--uses", help="module:Class, a class in --py-modules, or an executor's config.yml.")
@click.option("--name", default="executor0", show_default=True, help="Its name in routes and logs.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on; a free one if omitted."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True,
    help="Address to listen on. 0.0.0.0 lets other machines in: calls to executors are not encrypted. "
    "unix:/path is a socket, for callers that can enter its folder.",
)  # fmt: skip
@click.option(
    "--py-modules", multiple=True, help="A Python file to import first. May be given several times."
)
@click.option(
    "--uses-with", multiple=True, metavar="NAME=VALUE",
    help="An argument of the class; the value is read as YAML. May be given several times.",
)  # fmt: skip
@click.option("--workspace", help="Base folder of its files.")
@click.option("--output-array-type", type=click.Choice(["numpy", "list"]), help="Convert arrays in answers.")
@click.option("--exit-on-exceptions", multiple=True, help="An exception class that stops the executor.")
@click.option("--tracing", is_flag=True, help="Send traces to an OpenTelemetry collector.")
@click.option(
    "--traces-exporter-host", help="The collector's host, localhost if omitted; https://... for TLS."
)
@click.option(
    "--traces-exporter-port", type=click.IntRange(1, 65535), help="Its port, the protocol's own if omitted."
)
@click.option(
    "--traces-exporter-protocol", type=click.Choice(["grpc", "http"]), help="How spans are sent; grpc."
)
def executor(**settings: object) -> None:
    """
    Serve one executor by itself, on this or another machine.

    A Flow calls it as an external executor: {external: true, host: ..., port: ...}. It answers gRPC
    health checks and reflection.
    """
    from gatewayd.cli.serving import serve_executor

    flow = settings.pop("flow")
    assert flow is None or isinstance(flow, Path)
    sys.exit(serve_executor(settings, flow))


@main.command()
@_file
@_context
def check(flow: Path, variables: tuple[str, ...]) -> None:
    """
    Check a Flow file and say what it will do; nothing is started.

    Exits with 1 if the file cannot be used, after printing every problem. Executors' code is not
    imported: only the files of py_modules are looked for.
    """
    from gatewayd.cli.checking import check_flow

    sys.exit(check_flow(flow, variables))


@main.command()
@_file
@_context
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="File to write, .svg or .png; FLOW's name with .svg.",
)
def plot(flow: Path, variables: tuple[str, ...], output: Path | None) -> None:
    """Draw a Flow as a picture."""
    from gatewayd.cli.checking import plot_flow

    sys.exit(plot_flow(flow, variables, output))


@main.group()
def export() -> None:
    """
    Write a Flow for an engine that runs containers.

    Each executor becomes a container of its own, and so does the gateway.
    """


def _exported(function: Callable[..., None]) -> Callable[..., None]:
    """The options that all exports have."""
    for option in reversed((
        _file,
        click.option(
            "--image", default=f"gatewayd:{__version__}", show_default=True,
            help="Image of the gateway, and of executors whose uses is no docker://IMAGE.",
        ),
        click.option(
            "--project", type=click.Path(path_type=Path, file_okay=False, exists=True),
            help="The folder that images hold at /app; the Flow file's if omitted.",
        ),
        click.option(
            "--secret", "secrets", multiple=True, metavar="NAME",
            help="A variable of ${{ ENV.NAME }} that is written nowhere: containers get it from the engine. "
            "May be given several times.",
        ),
        click.option("--without-gateway", is_flag=True, help="Export the executors only."),
        _context,
    )):  # fmt: skip
        function = option(function)
    return function


@export.command()
@_exported
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, file_okay=False), default="k8s", show_default=True,
    help="Folder to write to: a folder in it for each executor, and gateway.",
)  # fmt: skip
@click.option("--namespace", help="The Flow's name if omitted, or flow.")
@click.option(
    "--secret-name", default="gatewayd", show_default=True, help="The Secret that has the --secret variables."
)
@click.option("--tls-secret", help="The Secret (kubernetes.io/tls) with the gateway's certificate.")
@click.option("--gateways", type=click.IntRange(1), default=1, show_default=True, help="Gateways to run.")
@click.option(
    "--max-gateways", type=click.IntRange(1), metavar="N",
    help="Scale gateways up to N, with the requests under way at them.",
)  # fmt: skip
@click.option("--service-monitor", is_flag=True, help="Write PodMonitors for the Prometheus operator.")
@click.option("--cpu", default="250m", show_default=True, help="What each container requests.")
@click.option("--memory", default="512Mi", show_default=True, help="What each container requests.")
def kubernetes(flow: Path, output: Path, variables: tuple[str, ...], **settings: Any) -> None:
    """
    Write manifests of Kubernetes.

    \b
      gatewayd export kubernetes flow.yml -o k8s/
      kubectl apply -R -f k8s/
    """
    from gatewayd.cli.exporting import export_kubernetes

    sys.exit(export_kubernetes(flow, output, variables, settings))


@export.command()
@_exported
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), default="docker-compose.yml",
    show_default=True, help="File to write.",
)  # fmt: skip
@click.option("--network", default="gatewayd", show_default=True, help="Name of the network.")
@click.option("--tls-secret", help="Folder, beside the output, with the gateway's tls.crt and tls.key.")
def compose(flow: Path, output: Path, variables: tuple[str, ...], **settings: Any) -> None:
    """
    Write a file of Docker Compose, 2.23.1 or later.

    \b
      gatewayd export compose flow.yml -o docker-compose.yml
      docker compose up
    """
    from gatewayd.cli.exporting import export_compose

    sys.exit(export_compose(flow, output, variables, settings))


@main.command()
@_url
@_timeout
@_ca
@_cert
@_key
@_header
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def status(
    url: str,
    timeout: float,
    ca_file: str | None,
    certfile: str | None,
    keyfile: str | None,
    headers: tuple[str, ...],
    as_json: bool,
) -> None:
    """
    Show versions, platform and environment of a running gateway or executor.

    URL is, for example, grpc://localhost:12345, http://localhost:12346 or wss://example.org.
    """
    from gatewayd.cli.asking import show_status
    from gatewayd.client.address import Certificates

    sys.exit(show_status(url, timeout, Certificates(ca_file, certfile, keyfile), headers, as_json))


@main.command()
@_url
@_timeout
@_ca
@_cert
@_key
@_header
@click.option("--quiet", "-q", is_flag=True, help="Print nothing; only the exit code counts.")
def ping(
    url: str,
    timeout: float,
    ca_file: str | None,
    certfile: str | None,
    keyfile: str | None,
    headers: tuple[str, ...],
    quiet: bool,
) -> None:
    """
    Is it ready? Asks a gateway and all executors behind it, or one executor.

    URL is, for example, grpc://localhost:12345, http://localhost:12346 or wss://example.org. Exits with 0
    if it is ready, with 1 if not.
    """
    from gatewayd.cli.asking import ping_url
    from gatewayd.client.address import Certificates

    sys.exit(ping_url(url, timeout, Certificates(ca_file, certfile, keyfile), headers, quiet))


@main.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_url
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), metavar="N",
    help="Send N requests a second, whether or not they are answered meanwhile.",
)  # fmt: skip
@click.option("--recorded", is_flag=True, help="Send each request when it came, counted from the first.")
@click.option(
    "--speed", type=click.FloatRange(min=0, min_open=True), default=1.0, metavar="FACTOR",
    help="With --recorded: so many times as fast.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Send the first N requests only.")
@click.option(
    "--ignore", multiple=True, metavar="FIELD",
    help="A field that may differ, such as data.docs[].id. May be given several times.",
)  # fmt: skip
@click.option(
    "--tolerance", type=click.FloatRange(min=0), default=0.0, metavar="SHARE",
    help="By how much numbers may differ, such as 1e-5.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True,
    metavar="SECONDS", help="How long to wait for each answer; for a stream, beyond what it took before.",
)  # fmt: skip
@_ca
@_cert
@_key
@_header
def replay(
    file: Path,
    url: str,
    rate: float | None,
    recorded: bool,
    speed: float,
    limit: int | None,
    ignore: tuple[str, ...],
    tolerance: float,
    timeout: float,
    ca_file: str | None,
    certfile: str | None,
    keyfile: str | None,
    headers: tuple[str, ...],
) -> None:
    """
    Send recorded requests again, and show which answers differ.

    FILE is what gateway.record has written. URL is, for example, grpc://localhost:12345,
    http://localhost:12346 or ws://localhost:12347, whatever protocol the requests came by. Requests are
    sent one after the other, unless --rate or --recorded says when. Streams are read as far as before.
    Exits with 1 if an answer differs, with 2 as soon as no connection can be made, and with 3 if all that was
    sent is answered the same, and not all can be sent over this protocol.
    """
    if rate is not None and recorded:
        raise click.UsageError("--rate and --recorded both say when; give one of them")
    from gatewayd.cli.asking import address_of, pairs_of
    from gatewayd.cli.replaying import Pace, replay
    from gatewayd.client.address import Certificates

    sys.exit(
        replay(
            file,
            address_of(url, Certificates(ca_file, certfile, keyfile)),
            Pace(rate, recorded, speed),
            headers=pairs_of(headers),
            timeout_s=timeout,
            ignore=ignore,
            tolerance=tolerance,
            limit=limit,
        )
    )


@main.command()
@click.argument("url")
@_header
@click.option("--period", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Print one picture, of the first period, and end.")
def top(url: str, headers: tuple[str, ...], period: float, once: bool) -> None:
    """
    Show what a gateway does now: its deployments, replicas, requests and failures.

    URL is its admin site, the admin_host and admin_port of its Flow file, such as localhost:9300. The site
    has a page of its own for browsers. Ctrl-C ends it. From another machine it wants an administrator's key:
    -H 'x-api-key: KEY'.
    """
    from gatewayd.cli.asking import pairs_of
    from gatewayd.cli.top import show_top

    sys.exit(show_top(url, period, once, pairs_of(headers)))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--streaming", is_flag=True, help="With an executor that answers with a stream.")
def new(folder: Path, streaming: bool) -> None:
    """
    Create a small project: a Flow file, an executor, a test and a README.

    It is written for the docarray that is installed: 0.21, or 0.40 and later. With --streaming the executor
    answers one document with a stream of them, as language models do.
    """
    from gatewayd.cli.scaffold import make_project

    sys.exit(make_project(folder, streaming))


@main.command("api-key")
@click.argument("name")
def api_key(name: str) -> None:
    """
    Make a new API key for the caller NAME.

    Prints the key, which is kept nowhere, and the line for api_keys in the Flow file. The line for a file
    of keys is that with NAME:sha256:... instead.
    """
    from gatewayd.cli.keys import print_key

    sys.exit(print_key(name))


@main.command()
@click.argument("flow", type=click.Path(path_type=Path), default="/etc/gatewayd/flow.yml")
@click.option("--user", default="gatewayd", show_default=True, help="User and group that it runs as.")
@click.option(
    "--socket",
    "sockets",
    is_flag=True,
    help="Print the unit of its ports instead, with which systemd holds them while it is restarted.",
)
@_context
def unit(flow: Path, user: str, sockets: bool, variables: tuple[str, ...]) -> None:
    """
    Print a systemd unit that serves FLOW with this installation.

    \b
      gatewayd unit /etc/gatewayd/flow.yml | sudo tee /etc/systemd/system/gatewayd.service
      sudo systemctl enable --now gatewayd
    """
    from gatewayd.cli.installed import print_socket_unit, print_unit

    sys.exit(print_socket_unit(flow, variables) if sockets else print_unit(flow, user))


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """
    Print the script that makes SHELL complete this command when Tab is pressed.

    \b
      bash:  gatewayd completion bash >> ~/.bashrc
      zsh:   gatewayd completion zsh >> ~/.zshrc
      fish:  gatewayd completion fish > ~/.config/fish/completions/gatewayd.fish
    """
    from click.shell_completion import get_completion_class

    completion_class = get_completion_class(shell)
    assert completion_class is not None
    click.echo(completion_class(main, {}, "gatewayd", "_GATEWAYD_COMPLETE").source())
