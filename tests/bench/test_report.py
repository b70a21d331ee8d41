"""The benchmarks' tables, their plot, and where both stand in the documentation."""

import xml.etree.ElementTree as xml

import attrs
import pytest

from bench import report
from bench.cases import ALONE, CASES, GATEWAYD, JINA, NGHTTPX, Case, Target
from bench.figures import Failed, Figures, Run

UNARY = Case("unary", "gRPC <unary>", "one", "grpc_unary", "small", "grpc", 32, 300, Target(7, 3, "a floor"))
HTTP = Case("http", "HTTP", "one", "http", "small_json", "http", 2, None, Target(12))
JOIN = Case("join", "a join", "join", "grpc_unary", "small", "grpc", 32)
SHOWN = (UNARY, HTTP, JOIN)
UNARY_CPU = {GATEWAYD: 100.0, JINA: 750.0, NGHTTPX: 50.0, ALONE: 200.0}


def figures(cpu_us: float, per_second: float = 1000.0) -> Figures:
    return Figures(cpu_us=cpu_us, per_second=per_second, load_busy=0.25, median_ms=1.5, p99_ms=31.2)


def run(**changes: object) -> Run:
    cases = {
        "unary": {
            GATEWAYD: figures(100.0),
            JINA: figures(750.0),
            NGHTTPX: figures(50.0),
            ALONE: figures(200.0),
        },
        "http": {GATEWAYD: figures(200.0), JINA: figures(1600.0)},
        "join": {GATEWAYD: figures(300.0)},
    }
    return attrs.evolve(Run("2026-01-01", "a machine", 7, 1.0, cases), **changes)


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_cpu_is_shown_with_both_ratios():
    assert rows(report.cpu_table(run(), SHOWN)) == [
        ["gRPC <unary>", "100", "750", "50", "**7.5**", "2.0"],
        ["HTTP", "200", "1600", "", "**8.0**", ""],
        ["a join", "300", "", "", "**-**", ""],
    ]


def test_targets_are_reached_or_missed_with_the_reason():
    assert rows(report.target_table(run(), SHOWN)) == [
        ["gRPC <unary>", "7; at most 3 x nghttpx", "7.5; 2.0 x", "reached"],
        ["HTTP", "12", "8.0", "missed"],
    ]
    cases = {"unary": {GATEWAYD: figures(200.0), JINA: figures(1600.0), NGHTTPX: figures(50.0)}}
    missed = report.target_table(run(cases=cases), SHOWN)

    assert rows(missed)[0][2:] == ["8.0; 4.0 x", "missed: a floor"]


def test_only_cases_with_a_rate_have_latencies():
    assert rows(report.latency_table(run(), SHOWN)) == [
        ["gRPC <unary>", "300", "1.50 / 31", "1.50 / 31", "1.50 / 31", "1.50 / 31"]
    ]


def test_throughput_shows_what_the_load_generator_took():
    assert rows(report.throughput_table(run(), SHOWN))[1] == ["HTTP", "1000", "1000", "", "", "25%"]


def test_what_failed_is_named():
    text = report.markdown(run(failed=[Failed("join", JINA, "a traceback\nit broke")]), SHOWN)

    assert "- join, Jina: it broke\n" in text


def test_a_run_without_any_figures_can_be_shown():
    empty = run(cases={})

    assert "| a join |" in report.markdown(empty, SHOWN)
    xml.fromstring(report.plot(empty, SHOWN))


def test_the_plot_is_well_formed_and_has_a_bar_for_each_ratio():
    drawing = xml.fromstring(report.plot(run(), SHOWN))
    space = "{http://www.w3.org/2000/svg}"
    bars = [float(bar.get("width", "")) for bar in drawing.iter(f"{space}rect")]
    texts = [text.text for text in drawing.iter(f"{space}text")]

    assert len(bars) == 2
    assert bars[1] / bars[0] == pytest.approx(8.0 / 7.5, abs=0.01)
    assert "gRPC <unary>" in texts
    assert "7.5" in texts


def test_nothing_in_the_plot_leaves_it():
    drawing = xml.fromstring(report.plot(run(), CASES[:1] + SHOWN))
    right = float(drawing.get("viewBox", "").split()[2])
    space = "{http://www.w3.org/2000/svg}"

    assert all(float(text.get("x", "")) < right - 20 for text in drawing.iter(f"{space}text"))


def test_only_what_is_between_the_markers_is_replaced():
    begin, end = "<!-- written by python -m bench: begin -->", "<!-- written by python -m bench: end -->"
    page = f"before\n{begin}\nold\n{end}\nafter\n"

    assert report.replace(page, "new\n") == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"


def test_each_writer_has_markers_of_its_own():
    begin, end = "<!-- written by python -m it: begin -->", "<!-- written by python -m it: end -->"

    assert report.replace(begin + end, "new\n", "it") == f"{begin}\n\nnew\n\n{end}"
    with pytest.raises(ValueError, match="lacks the markers"):
        report.replace(begin + end, "new\n")


def test_a_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="lacks the markers"):
        report.replace("nothing", "new")
