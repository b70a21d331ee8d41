"""The documentation is true: its examples run, its links lead somewhere, its reference is the program's."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from bench import report
from bench.cases import CASES
from bench.figures import from_json
from gatewayd import errors
from gatewayd.config.keys import SECTIONS
from gatewayd.errors import GatewayError
from tests.doc_pages import Page, blocks_of
from tests.paths import ROOT
from tests.processes import environment

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_EXAMPLES = [
    page for page in PAGES if any(block.language in ("python", "yaml", "sh") for block in blocks_of(page))
]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGES.md"]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[Path, Future[None]]]:
    """The examples of every page, run two pages at a time."""

    def run(page: Path, folder: Path) -> None:
        running = Page(page, folder)
        try:
            running.run()
        finally:
            running.close()

    with ThreadPoolExecutor(2) as two:
        yield {page: two.submit(run, page, tmp_path_factory.mktemp(page.stem)) for page in WITH_EXAMPLES}


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name)
def test_the_examples_of_a_page_do_what_it_says(page: Path, ran: Mapping[Path, Future[None]]) -> None:
    ran[page].result()


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    broken = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


def test_every_page_can_be_reached_by_links_from_readme_or_index() -> None:
    """The site has a menu; who reads the files follows links."""
    reached, ahead = set(), [ROOT / "README.md", ROOT / "docs" / "index.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached:
            reached.add(page)
            ahead += [
                found
                for target in links(page)
                if (found := (page.parent / target.partition("#")[0]).resolve()).suffix == ".md"
            ]
    decisions = ROOT / "docs" / "decisions"
    assert [name(page) for page in PAGES if page not in reached and decisions not in page.parents] == []


@pytest.mark.slow
def test_the_example_with_types_runs() -> None:
    command = [sys.executable, "examples/typed/greeting.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)

    assert done.stdout.splitlines() == [
        "['Good day, Ada!', 'Good day, Alan!']",
        "['gateway', 'greeter']",
        "7",
    ], done.stderr


def test_the_reference_is_what_the_program_goes_by() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "tools" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    stale = [file for file, text in generate.pages().items() if (generate.FOLDER / file).read_text() != text]

    assert stale == [], "run python docs/tools/generate.py"


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the site is built with the extra docs (make docs)")
    pytest.importorskip("material", reason="the site is built with the extra docs (make docs)")
    site = tmp_path / "site"
    for command in (
        ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        ["docs/tools/check_site.py", str(site)],
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def links(page: Path) -> list[str]:
    """The targets of a page's links, but for those that lead out of the project."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]*`", "`code`", text)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as MkDocs makes them."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def table_rows(page: Path, *columns: str) -> list[tuple[str, ...]]:
    """The cells of these columns, of the page's tables that have them all."""
    found, heads = [], []
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            heads = []
        elif not heads:
            heads = cells
        elif set(columns) <= set(heads) and not set(line) <= set("|- "):
            found.append(tuple(cells[heads.index(column)] for column in columns))
    return found


def test_the_pages_and_their_plot_show_the_saved_figures_of_the_benchmarks() -> None:
    """After a change to what they say, ``python -m bench --redraw`` writes them anew."""
    run = from_json((ROOT / "bench" / "figures.json").read_text())
    docs = ROOT / "docs"
    written = {"performance.md": report.markdown(run, CASES), "index.md": report.summary(run, CASES)}

    for name, text in written.items():
        page = (docs / name).read_text()
        assert report.replace(page, text) == page
    assert (docs / "images" / "benchmark.svg").read_text() == report.plot(run, CASES)


def test_the_guide_lists_every_key_that_production_changes() -> None:
    listed = table_rows(ROOT / "docs" / "guide" / "production.md", "Key", "In production")

    changed = {
        (f"`{key.name}`", f"`{json.dumps(key.in_production)}`")
        for section in SECTIONS
        for key in section.keys
        if key.in_production is not None
    }
    assert set(listed) == changed


# -- what each protocol says of errors -------------------------------------------------------------------


def errors_with_own_codes() -> set[type[GatewayError]]:
    """Those of the table, but for the bases that are only raised as one of their subclasses."""
    return {*errors.TABLE} - {errors.ProtocolRefusal}


@pytest.mark.parametrize(
    ("page", "column", "attribute", "of_the_protocol"),
    [
        ("http.md", "Status", "http", set()),
        # Of calls to executors, whose code is passed on; any other can come, too.
        ("grpc.md", "Code", "grpc", {"others"}),
        # What Autobahn itself says of frames that are not WebSocket's.
        ("websocket.md", "Code", "websocket", {"1002"}),
    ],
)
def test_the_guide_lists_the_codes_of_the_table_of_errors(
    page: str, column: str, attribute: str, of_the_protocol: set[str]
) -> None:
    listed = {
        code.strip("` ")
        for (cell,) in table_rows(ROOT / "docs" / "guide" / page, column)
        for code in cell.split(",")
    }
    of_errors = {
        str(getattr(errors.codes_of(error), attribute))
        for error in errors_with_own_codes()
        if attribute == "http" or not issubclass(error, errors.HttpRefusal)
    }

    assert listed == of_errors | of_the_protocol
