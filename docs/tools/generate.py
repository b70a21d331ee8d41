"""
Writes docs/reference/ from what the program itself goes by, so that the two cannot differ.

    python docs/tools/generate.py            # after a change of keys, commands or errors
    python docs/tools/generate.py --check    # exit code 1 if the pages are not up to date

A test does the check too.
"""

from __future__ import annotations

import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from gatewayd import cli, errors
from gatewayd.config import keys
from gatewayd.config.keys import IGNORED, NOT_YET, SUPPORTED, Key, Section
from gatewayd.service.plugin import Options
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.outcomes import OUTCOMES

FOLDER: Final = Path(__file__).resolve().parents[1] / "reference"

_NOTE: Final = "<!-- Made by docs/tools/generate.py; edit what it reads, not this file. -->\n"

# What each section is, in the order of the page: the title, and a sentence or two before its table.
_SECTIONS: Final[Mapping[Section, tuple[str, str]]] = {
    keys.TOP: (
        "The file",
        "The keys at the top. Keys that begin with `x-` are yours: nothing reads them, so that anchors can "
        "have a home. Every other unknown key is refused.",
    ),
    keys.FLOW: (
        "with",
        "Settings of the Flow itself. Besides these, `with` takes the keys of the gateway and of executors "
        "that are marked *with* below: they then go to the gateway, and to every executor that does not set "
        "them itself.",
    ),
    keys.GATEWAY: (
        "gateway",
        "Also the keywords of `Flow.config_gateway()`.",
    ),
    keys.POOL: (
        "gateway.pool",
        "A map within `gateway`: bounds and rules of the calls to executors.",
    ),
    keys.AUTH: (
        "gateway.auth",
        "A map within `gateway`: who may call what. [Who may call](../guide/access.md) explains it.",
    ),
    keys.AUTH_JWT: (
        "gateway.auth.jwt",
        "A map within `auth`.",
    ),
    keys.AUTH_HOOK: (
        "gateway.auth.hook",
        "A map within `auth`.",
    ),
    keys.EXECUTOR: (
        "executors",
        "Each item of the list is a map with these keys, which are also the keywords of `Flow.add()`; or a "
        "map with `jtype: Deployment` and these keys under `with`; or the name of a file with such a map.",
    ),
    keys.CONFIG_FILE: (
        "An executor's config.yml",
        "A file that `uses` names, or a map that stands in its place. Paths in it begin at its own folder.",
    ),
}


def pages() -> dict[str, str]:
    """Every generated page by its file name."""
    return {
        "flow-file.md": _page("Flow file", _flow_file()),
        "command-line.md": _page("Command line", _command_line()),
        "errors.md": _page("Errors", _errors()),
        "metrics.md": _page("Metrics", _metrics()),
    }


def _page(title: str, paragraphs: Iterable[str]) -> str:
    return "\n".join([_NOTE, f"# {title}\n", *paragraphs])


# -- keys of a Flow file -----------------------------------------------------------------------------


def _flow_file() -> Iterator[str]:
    yield (
        "Every key that a Flow file may have. `gatewayd check flow.yml` tells all mistakes of a file at "
        "once, each with its line.\n"
    )
    yield (
        "Keys *not supported yet* are known and refused when they are set to anything but their default. "
        "*Ignored* ones have no meaning here; a warning says so.\n"
    )
    for section, (title, about) in _SECTIONS.items():
        yield f"## {title}\n\n{about}\n"
        yield _table(
            ("Key", "Value", "Default", "Meaning"),
            (_key_row(section, key) for key in section.keys if key.status == SUPPORTED),
        )
        for status in (NOT_YET, IGNORED):
            found = [key for key in section.keys if key.status == status]
            if found:
                yield f"### {status[0].upper()}{status[1:]} in {title}\n"
                yield _table(
                    ("Key", "Default", "Meaning"),
                    ((_code(key.name), _default(key), key.doc) for key in found),
                )


def _key_row(section: Section, key: Key) -> tuple[str, str, str, str]:
    name = _code(key.name)
    if key.aliases:
        name += " (also " + ", ".join(map(_code, key.aliases)) + ")"
    marked = " *with*" if section in (keys.GATEWAY, keys.EXECUTOR) and key.spreads else ""
    return name, key.kind.accepted, _default(key), key.doc + marked


def _default(key: Key) -> str:
    if key.default is None:
        return "not set"
    default = _code(key.default if isinstance(key.default, str) else json.dumps(key.default))
    if key.in_production is None:
        return default
    return f"{default}, in production {_code(json.dumps(key.in_production))}"


# -- the command line --------------------------------------------------------------------------------


def _command_line() -> Iterator[str]:
    yield "What `--help` says, of each command. [The command](../guide/command.md) tells what they are for.\n"
    yield f"## gatewayd\n\n{_help(cli.main)}\n"
    yield _table(
        ("Command", "Does"),
        (
            (f"[`{name}`](#gatewayd-{name})", _help(command).splitlines()[0])
            for name, command in sorted(cli.main.commands.items())
        ),
    )
    yield _options(cli.main)
    for name, command in sorted(cli.main.commands.items()):
        arguments = "".join(
            f" {_argument(each)}" for each in command.params if isinstance(each, click.Argument)
        )
        yield f"## gatewayd {name}\n\n`gatewayd {name} [OPTIONS]{arguments}`\n\n{_help(command)}\n"
        yield _options(command)
    yield f"## twistd gateway\n\n`twistd [TWISTD'S OPTIONS] gateway [OPTIONS]`\n\n{Options.longdesc}\n"
    yield _table(("Option", "Default", "Meaning"), _twistd_options())


def _argument(argument: click.Argument) -> str:
    name = (argument.name or "").upper()
    if isinstance(argument.type, click.Choice):
        name = "{" + "|".join(str(choice) for choice in argument.type.choices) + "}"
    if argument.nargs == -1:
        return f"[{name.removesuffix('S')}]..."
    return name if argument.required else f"[{name}]"


def _options(command: click.Command) -> str:
    rows = [_option(each) for each in command.params if isinstance(each, click.Option)]
    return _table(("Option", "Default", "Meaning"), [*rows, (_code("-h, --help"), "", "Show this and exit.")])


def _option(option: click.Option) -> tuple[str, str, str]:
    value = ""
    if not option.is_flag:
        choices = option.type.choices if isinstance(option.type, click.Choice) else ()
        value = " " + (option.metavar or "|".join(map(str, choices)) or _type_name(option.type))
    told = isinstance(option.default, str | int | float) and not option.is_flag
    return (
        _code(", ".join(option.opts) + value),
        _code(str(option.default)) if told else "",
        option.help or "",
    )


def _type_name(kind: click.ParamType) -> str:
    if isinstance(kind, click.IntRange):
        return f"{kind.min}-{kind.max}"
    return "FILE" if isinstance(kind, click.Path) else "TEXT"


def _twistd_options() -> Iterator[tuple[str, str, str]]:
    yield (
        _code("-c, --config="),
        _code("flow.yml"),
        " ".join(inspect.cleandoc(Options.opt_config.__doc__ or "").split()),
    )
    yield _code("--context="), "", inspect.cleandoc(Options.opt_context.__doc__ or "")
    yield _code("--version"), "", inspect.cleandoc(Options.opt_version.__doc__ or "")
    yield _code("--help"), "", "Show this and exit."


def _help(command: click.Command) -> str:
    """Its help as Markdown: what stands after a ``\\b`` keeps its lines."""
    paragraphs = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):
            lines = inspect.cleandoc(paragraph.removeprefix("\b\n")).splitlines()
            paragraphs.append("\n".join(["```text", *lines, "```"]))
        else:
            paragraphs.append(" ".join(paragraph.split()))
    return "\n\n".join(paragraphs)


# -- errors ------------------------------------------------------------------------------------------


def _errors() -> Iterator[str]:
    yield (
        "What a client learns of each kind of error, by protocol. What an executor raises is not an error of "
        "the gateway: the answer is a normal one, with the failure in its `header.status`.\n"
    )
    shared = [kind for kind in errors.TABLE if not issubclass(kind, errors.ProtocolRefusal)]
    rows = [
        _error_row(kind)
        for kind in (*shared, errors.TooLarge, errors.TooManyDocuments)
        if kind is not errors.GatewayError
    ]
    yield _table(("Error", "HTTP status", "gRPC code", "WebSocket close code", "Meaning"), rows)
    yield (
        "`ExecutorNetworkError` ends a gRPC call with the executor's own code where none of its kinds fits. "
        "A 503 for want of room has the header `Retry-After`.\n"
    )
    yield "## Refused by one protocol\n"
    yield (
        "Some mistakes are refused before there is a request to the Flow. Over HTTP "
        "([more](../guide/http.md#errors)):\n"
    )
    yield _table(
        ("Error", "HTTP status", "Meaning"),
        (
            (_code(kind.__name__), str(errors.codes_of(kind).http), _first_sentence(kind))
            for kind in errors.TABLE
            if issubclass(kind, errors.HttpRefusal)
        ),
    )
    frame = errors.UnsupportedFrame
    yield (
        f"Over WebSocket {errors.codes_of(frame).websocket}, `{frame.__name__}`, is a binary message where "
        "the subprotocol wants text, or the other way round, and 1002 a client that does not speak WebSocket "
        "([more](../guide/websocket.md#errors)).\n"
    )
    yield "## The tree\n"
    tree = (errors.__doc__ or "").split("\n\n")[1]
    yield f"```text\n{textwrap.dedent(tree)}\n```\n"
    yield (
        "A `ConfigError` never reaches a client: it is shown on the terminal before anything starts, and the "
        "exit code is 1.\n"
    )


def _error_row(kind: type[errors.GatewayError]) -> tuple[str, ...]:
    codes = errors.codes_of(kind)
    return (
        _code(kind.__name__),
        str(codes.http),
        _code(codes.grpc),
        str(codes.websocket),
        _first_sentence(kind),
    )


def _first_sentence(kind: Callable[..., Any]) -> str:
    paragraph = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("``limit_bytes``", "the limit").replace("``", "`")


# -- Markdown ----------------------------------------------------------------------------------------


# -- metrics -----------------------------------------------------------------------------------------


def _metrics() -> Iterator[str]:
    yield (
        "What a gateway shows at `/metrics` of its [admin site](../guide/operating.md#the-admin-site) and at "
        "`port_monitoring`. A counter is shown with `_total`, a histogram as `_bucket`, `_count` and `_sum`. "
        "With several processes, the values of all are added; where the last column says so, it is the "
        "largest.\n"
    )
    yield _table(("Metric", "Kind", "Means", "Labels", "Several processes"), map(_metric_row, table.METRICS))
    outcomes = ", ".join(map(_code, OUTCOMES))
    yield f"The label `outcome` is one of {outcomes}.\n"


def _metric_row(metric: table.Metric) -> tuple[str, ...]:
    labels = ", ".join(map(_code, metric.labels))
    return _code(metric.name), metric.kind, metric.doc, labels, "" if metric.united == "sum" else "largest"


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(titles)
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`"


def main(arguments: list[str]) -> int:
    """Write the pages, or say which of them are not up to date."""
    stale = []
    for name, text in pages().items():
        path = FOLDER / name
        if arguments == ["--check"]:
            if not path.exists() or path.read_text() != text:
                stale.append(str(path))
        else:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
    for name in stale:
        sys.stderr.write(f"{name} is not up to date: run python docs/tools/generate.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
