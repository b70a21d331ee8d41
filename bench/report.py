"""A run of the benchmarks as tables and as a plot (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Final

from bench.cases import ALONE, GATEWAYD, JINA, NGHTTPX, Case
from bench.figures import Figures, Run

_MARKER: Final = "<!-- written by python -m {}: {} -->"
_PICTURE: Final = "![How many times less CPU a request costs gatewayd than Jina](images/benchmark.svg)\n"
SIDES: Final = (GATEWAYD, JINA, NGHTTPX, ALONE)


def line(case: Case, figures: Mapping[str, Figures]) -> str:
    """One case as it is done: CPU of each side."""
    sides = ", ".join(f"{side} {figures[side].cpu_us:.0f}" for side in SIDES if side in figures)
    return f"{case.title}: {sides or 'no figures'} (µs of CPU a request)"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _of_sides(figures: Mapping[str, Figures], value: Callable[[Figures], float]) -> list[str]:
    return [_number(value(figures[side])) if side in figures else "" for side in SIDES]


def cpu_table(run: Run, cases: Sequence[Case]) -> str:
    rows = []
    for case in cases:
        figures = run.cases.get(case.key, {})
        cpu = _of_sides(figures, lambda one: one.cpu_us)[:3]
        proxy = _times(run.times(case.key, GATEWAYD, NGHTTPX))
        rows.append([case.title, *cpu, f"**{_times(run.times(case.key)) or '-'}**", proxy])
    return table(
        ["case", "gatewayd, µs", "Jina, µs", "nghttpx, µs", "Jina / gatewayd", "gatewayd / nghttpx"], rows
    )


def throughput_table(run: Run, cases: Sequence[Case]) -> str:
    rows = []
    for case in cases:
        figures = run.cases.get(case.key, {})
        busiest = max((one.load_busy for one in figures.values()), default=0.0)
        rows.append([case.title, *_of_sides(figures, lambda one: one.per_second), f"{busiest:.0%}"])
    return table(["case", *SIDES, "load generator, of a CPU"], rows)


def latency_table(run: Run, cases: Sequence[Case]) -> str:
    rows = []
    for case in cases:
        figures = run.cases.get(case.key, {})
        if case.rate is not None:
            cells = [
                f"{_number(figures[side].median_ms)} / {_number(figures[side].p99_ms)}"
                if side in figures
                else ""
                for side in SIDES
            ]
            rows.append([case.title, f"{case.rate:g}", *cells])
    return table(["case", "requests a second", *SIDES], rows)


def target_table(run: Run, cases: Sequence[Case]) -> str:
    rows = []
    for case in cases:
        target, times = case.target, run.times(case.key)
        if target is None or times is None:
            continue
        proxy = run.times(case.key, GATEWAYD, NGHTTPX)
        wanted, found = f"{target.times:g}", f"{times:.1f}"
        reached = round(times, 1) >= target.times
        if target.proxy is not None and proxy is not None:
            wanted += f"; at most {target.proxy:g} x nghttpx"
            found += f"; {proxy:.1f} x"
            reached = reached and round(proxy, 1) <= target.proxy
        rows.append(
            [case.title, wanted, found, "reached" if reached else f"missed: {target.floor}".rstrip(": ")]
        )
    return table(["case", "target", "measured", ""], rows)


def summary(run: Run, cases: Sequence[Case]) -> str:
    """What stands between the markers of docs/index.md: the plot and its figures."""
    rows = []
    for case in cases:
        times, figures = run.times(case.key), run.cases.get(case.key, {})
        if times is not None:
            cpu = [_number(figures[side].cpu_us) for side in (GATEWAYD, JINA)]
            rows.append([case.title, *cpu, f"**{_times(times)}**"])
    return f"{_PICTURE}\n" + table(["case", "gatewayd, µs", "Jina, µs", "Jina / gatewayd"], rows)


def markdown(run: Run, cases: Sequence[Case]) -> str:
    """What stands between the markers of docs/performance.md."""
    failed = [f"- {one.case}, {one.side}: {one.reason.splitlines()[-1]}" for one in run.failed if one.reason]
    parts = [
        f"Measured {run.date} ({run.machine}): medians of {run.rounds} rounds of {run.seconds:g} s.\n",
        _PICTURE,
        "CPU of the gateway's process (or, in the last two cases, the executor's) per request:\n",
        cpu_table(run, cases),
        "The targets, in times less CPU than Jina:\n",
        target_table(run, cases),
        "Requests a second, as many at once as the case says:\n",
        throughput_table(run, cases),
        "Milliseconds at a fixed rate, median / 99th percentile:\n",
        latency_table(run, cases),
        *(["Without figures:\n", "\n".join(failed) + "\n"] if failed else []),
    ]
    return "\n".join(parts)


def replace(page: str, text: str, writer: str = "bench") -> str:
    """The page with ``text`` between the markers of ``writer``. Raises ValueError if it has none."""
    begin, end = (_MARKER.format(writer, side) for side in ("begin", "end"))
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"the page lacks the markers {begin} and {end}")
    return f"{before}{begin}\n\n{text}\n{end}{after}"


# Colours that can be read on a light and on a dark page.
_STYLE: Final = (
    "text{font:13px system-ui,'Segoe UI',Roboto,sans-serif;fill:#747d8f}.n{font-weight:600}"
    ".b{fill:#3f7fbf}"
    ".j{stroke:#747d8f;stroke-width:1.5;stroke-dasharray:3 3}.t{stroke:#ef6c00;stroke-width:2.5}"
)
_LEFT, _WIDTH, _ROW, _TOP = 270, 560, 26, 44


def plot(run: Run, cases: Sequence[Case]) -> str:
    """Bars of how many times less CPU than Jina a request costs; a mark where the target is."""
    shown = [(case, times) for case in cases if (times := run.times(case.key)) is not None]
    scale = _WIDTH / max(
        [1.0, *(max(times, case.target.times if case.target else 0) for case, times in shown)]
    )
    height = _TOP + _ROW * len(shown) + 12
    title = "How many times less CPU a request costs gatewayd than Jina"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 60} {height}" role="img" '
        f'aria-label="{title}">',
        f"<title>{title}</title>",
        f"<style>{_STYLE}</style>",
        f'<text x="{_LEFT}" y="16" class="n">Jina&#8217;s CPU per request over gatewayd&#8217;s</text>',
        f'<line x1="{_LEFT + _WIDTH - 92}" y1="5" x2="{_LEFT + _WIDTH - 92}" y2="19" class="t"/>'
        f'<text x="{_LEFT + _WIDTH - 84}" y="16">target</text>',
        f'<text x="{_LEFT + scale:.1f}" y="{_TOP - 8}" text-anchor="middle">1</text>'
        f'<path d="M{_LEFT + scale:.1f} {_TOP - 4}V{height - 8}" class="j"/>',
    ]
    for number, (case, times) in enumerate(shown):
        y, end = _TOP + _ROW * number, _LEFT + times * scale
        text = escape(case.title.replace("`", ""))
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{text}</text>'
            f'<rect x="{_LEFT}" y="{y}" width="{times * scale:.1f}" height="18" rx="2" class="b"/>'
            f'<text x="{end + 7:.1f}" y="{y + 14}" class="n">{times:.1f}</text>'
        )
        if case.target is not None:
            x = _LEFT + case.target.times * scale
            parts.append(f'<line x1="{x:.1f}" y1="{y - 3}" x2="{x:.1f}" y2="{y + 21}" class="t"/>')
    return "\n".join([*parts, "</svg>", ""])
