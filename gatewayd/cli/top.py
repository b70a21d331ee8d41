"""
``gatewayd top``: what a gateway does now, in a terminal, from its admin site.

Rates and quantiles are those of the time between two looks, as on the site's own page.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gatewayd import __version__
from gatewayd.cli.asking import Pairs
from gatewayd.cli.output import fail
from gatewayd.messages.generations import NOT_KNOWN_YET
from gatewayd.redaction import redacted_url

State = Mapping[str, Any]

_TIMEOUT_S: Final = 5.0
# States of large Flows have some hundred KB.
_MOST_BYTES: Final = 1 << 26
_FAILURES: Final = 8
_NUMBERS: Final = {
    *("rate", "p50", "p99", "in flight", "queued", "errors", "retries"),
    *("pid or node", "restarts", "memory", "CPU"),
}
_WORDS: Final = {"last words", "why", "failed since the start"}
# Of lines that go to a file or another program, unless COLUMNS says it.
_PIPED_WIDTH: Final = 200
_COLOURS: Final = {"ok": "green", "strained": "yellow", "down": "red"}


def show_top(url: str, period_s: float, once: bool, headers: Pairs = ()) -> int:
    """
    Show the gateway whose admin site is at ``url`` until Ctrl-C, or ``once``. Returns the exit code.

    ``headers`` are sent, such as an administrator's key.

    A site that does not answer later on is asked again.
    """
    address = f"{url if '://' in url else f'http://{url}'}".rstrip("/") + "/api/state"
    shown = redacted_url(url)
    try:
        state = _ask(address, headers)
    except (OSError, ValueError) as error:
        return fail(f"{shown} does not answer as an admin site: {_reason(error)} (gateway.admin_port)")
    console, at_s = Console(), time.monotonic()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=_PIPED_WIDTH)
    if once:
        time.sleep(period_s)
        try:
            later = _ask(address, headers)
        except (OSError, ValueError) as error:
            return fail(f"{shown} does not answer any more: {_reason(error)}")
        console.print(picture(state, later, time.monotonic() - at_s))
        return 0
    try:
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            live.update(picture(state, state, 1.0), refresh=True)
            while True:
                time.sleep(period_s)
                try:
                    later = _ask(address, headers)
                except (OSError, ValueError) as error:
                    live.update(Text(f"{shown} does not answer: {_reason(error)}", "red"), refresh=True)
                    continue
                now_s = time.monotonic()
                live.update(picture(state, later, now_s - at_s), refresh=True)
                state, at_s = later, now_s
    except KeyboardInterrupt:
        return 0


def picture(before: State, now: State, lasted_s: float) -> RenderableType:
    """What happened between two states of a gateway, and how it is."""
    parts = (
        _title(before, now, lasted_s),
        _deployments(before, now, lasted_s),
        _replicas(before, now, lasted_s),
        _requests(before, now, lasted_s),
        *_failures(now),
    )
    return Group(*(each for part in parts for each in (part, "")))


def _title(before: State, now: State, lasted_s: float) -> Text:
    asked, failed = (_asked(now) - _asked(before), _failed(now) - _failed(before))
    verdict = "ready" if now["ready"] else "not ready" if now["phase"] == "serving" else now["phase"]
    line = Text(f"{now['flow'] or 'Flow'}  ", "bold")
    line.append(verdict, "green" if now["ready"] else "red")
    line.append(
        f"  {_rate(asked, lasted_s)}, {_rate(failed, lasted_s)} failed, {now['under_way']} under way, "
        f"{sum(port['connections'] for port in now['ports'])} connections  "
        f"documents: {now.get('documents') or NOT_KNOWN_YET}  gatewayd {now['version']}",
        "not bold",
    )
    for reason in now["reasons"]:
        line.append(f"\n{reason['detail']}", "red")
    return line


def _deployments(before: State, now: State, lasted_s: float) -> Table:
    then = {each["name"]: each for each in before["deployments"]}
    table = _table("deployment", "rate", "p50", "p99", "in flight", "queued", "errors", "retries", "replicas")
    for each in now["deployments"]:
        old = then.get(each["name"], {})
        replicas = [one for one in now["replicas"] if one["deployment"] == each["name"]]
        fit = sum(one["connected"] and not one["ejected"] for one in replicas)
        errors = each["errors"] - old.get("errors", 0)
        retries = sum(each["retries"].values()) - sum(old.get("retries", {}).values())
        count = len(replicas) if each.get("wanted") is None else each["wanted"]
        strained = fit < count or each["queued"] or errors or retries
        colour = _COLOURS["down" if not fit and each.get("wanted") != 0 else "strained" if strained else "ok"]
        _add_row(
            table,
            Text(each["name"], colour),
            _rate(each["attempts"] - old.get("attempts", 0), lasted_s),
            *_quantiles(each["times"], old.get("times")),
            str(each["in_flight"]),
            str(each["queued"]),
            _rate(errors, lasted_s),
            _rate(retries, lasted_s),
            Text(f"{fit} of {count}", colour),
        )
    return table


def _replicas(before: State, now: State, lasted_s: float) -> Table:
    def name(one: State) -> tuple[Any, ...]:
        return one["deployment"], one["shard"], one["replica"]

    then = {name(each): each for each in before["replicas"]}
    table = _table("replica", "state", "in flight", "pid or node", "restarts", "memory", "CPU", "last words")
    for each in now["replicas"]:
        kind = "down" if not each["connected"] else "strained" if each["ejected"] else "ok"
        state = "ejected" if each["ejected"] else each["state"] or ("connected" if kind == "ok" else "lost")
        cpu = None
        if each["cpu_s"] is not None:
            cpu = each["cpu_s"] - (then.get(name(each), {}).get("cpu_s") or 0.0)
        _add_row(
            table,
            f"{each['deployment']} {each['shard']}/{each['replica']}",
            Text(state, _COLOURS[kind]),
            str(each["in_flight"]),
            _where(each),
            _known(each["restarts"]),
            "-" if each["memory_bytes"] is None else f"{each['memory_bytes'] / 2**20:.0f} MiB",
            "-" if cpu is None else f"{max(0.0, cpu) / lasted_s:.0%}",
            Text(each["last_words"] or "", no_wrap=True, overflow="ellipsis"),
        )
    return table


def _where(replica: State) -> str:
    """Its process; or the engine and the node, of one that is placed elsewhere."""
    node = replica.get("node")
    return _known(replica["pid"]) if node is None else f"{replica['placement']} {node}"


def _requests(before: State, now: State, lasted_s: float) -> Table:
    then = {(each["protocol"], each["endpoint"]): each for each in before["requests"]}
    table = _table("protocol", "endpoint", "rate", "p50", "p99", "failed since the start")
    for each in now["requests"]:
        old = then.get((each["protocol"], each["endpoint"]), {})
        failed = {word: count for word, count in each["outcomes"].items() if count and word != "ok"}
        _add_row(
            table,
            each["protocol"],
            each["endpoint"] or "(none)",
            _rate(sum(each["outcomes"].values()) - sum(old.get("outcomes", {}).values()), lasted_s),
            *_quantiles(each["times"], old.get("times")),
            Text(", ".join(f"{count} {word}" for word, count in failed.items()), "red"),
        )
    return table


def _failures(now: State) -> Iterable[RenderableType]:
    if now["failures"]:
        table = _table("failed at", "request", "outcome", "why")
        for each in now["failures"][-_FAILURES:][::-1]:
            at = time.strftime("%H:%M:%S", time.localtime(each["at_s"]))
            why = Text(each["reason"], no_wrap=True, overflow="ellipsis")
            _add_row(table, at, each["request_id"], Text(each["outcome"], "red"), why)
        yield table


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for head in heads:
        # Where the terminal is narrow, words are cut before names and ids, with which others are searched.
        table.add_column(head, justify="right" if head in _NUMBERS else "left", no_wrap=head not in _WORDS)
    return table


def _add_row(table: Table, *cells: str | Text) -> None:
    # Names and ids may be a client's, and rich reads a plain text as markup.
    table.add_row(*(each if isinstance(each, Text) else Text(each) for each in cells))


def _asked(state: State) -> int:
    asked: int = sum(count for each in state["requests"] for count in each["outcomes"].values())
    return asked


def _failed(state: State) -> int:
    succeeded: int = sum(each["outcomes"].get("ok", 0) for each in state["requests"])
    return _asked(state) - succeeded


def _quantiles(now: State | None, before: State | None) -> tuple[str, str]:
    """The median and the 99th percentile of what was observed in between, as texts."""
    if now is None:
        return "-", "-"
    old = before["counts"] if before is not None else [0] * len(now["counts"])
    grown = [count - was for count, was in zip(now["counts"], old, strict=True)]
    return _time(_quantile(0.5, grown, now["bounds_s"])), _time(_quantile(0.99, grown, now["bounds_s"]))


def _quantile(share: float, counts: list[int], bounds: list[float]) -> float | None:
    rank, seen = share * sum(counts), 0
    for at, count in enumerate(counts):
        if count > 0 and seen + count >= rank:
            low = bounds[at - 1] if at else 0.0
            high = bounds[at] if at < len(bounds) else low
            return low + (high - low) * max(0.0, rank - seen) / count
        seen += count
    return None


def _rate(count: float, lasted_s: float) -> str:
    # Counts that fell were begun anew.
    each_s = max(0.0, count) / lasted_s
    return f"{each_s:.0f}/s" if each_s >= 10 or not each_s else f"{each_s:.1f}/s"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _known(value: int | None) -> str:
    return "-" if value is None else str(value)


def _ask(address: str, headers: Pairs) -> State:
    """Raises OSError or ValueError."""
    asked = urllib.request.Request(address, headers=dict(headers))
    try:
        with urllib.request.urlopen(asked, timeout=_TIMEOUT_S) as answer:
            found = json.loads(answer.read(_MOST_BYTES))
    except http.client.HTTPException as error:
        raise ValueError(f"its answer is broken off ({type(error).__name__})") from error
    if not isinstance(found, dict) or "deployments" not in found:
        raise ValueError("what it answers is no state of a gateway")
    if found["version"] != __version__:
        raise ValueError(f"it is gatewayd {found['version']}, and this command {__version__}")
    state: State = found
    return state


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        with error:
            return f"{error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, json.JSONDecodeError):
        return "what it answers is no JSON"
    return str(error) or type(error).__name__
