"""When changed files are taken up, refused, or left alone, with a clock and a wall clock of the test's."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from gatewayd.tls.credentials import PairFiles, TlsCredentials, TlsFiles
from gatewayd.tls.files import load_credentials
from gatewayd.tls.renewal import Renewal, Watched
from tests.certificates import Party, make

INTERVAL_S = 5.0


@pytest.fixture
def lines():
    """What is logged: levels and texts."""
    seen: list[tuple[str, str]] = []

    def observe(event):
        if event.get("log_namespace") == "gatewayd.tls.renewal":
            seen.append((event["log_level"].name, formatEvent(event)))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


@attrs.define
class Files:
    """A pair and a bundle of authorities in a folder; each write has a time of its own."""

    folder: Path
    writes: int = 0

    @property
    def tls(self) -> TlsFiles:
        pairs = (PairFiles(str(self.folder / "cert.pem"), str(self.folder / "key.pem")),)
        return TlsFiles(pairs, client_ca=str(self.folder / "clients.pem"))

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.write_bytes(content)
        self.writes += 1
        os.utime(path, ns=(self.writes, self.writes))

    def pair(self, party: Party) -> None:
        self.write("cert.pem", party.pem)
        self.write("key.pem", party.key_pem())


@attrs.define
class Bench:
    files: Files
    clock: Clock
    renewal: Renewal
    renewed: list[TlsCredentials]
    day: list[datetime]

    def looks(self, count: int = 1) -> None:
        for _ in range(count):
            self.clock.advance(INTERVAL_S)

    @property
    def subjects(self) -> list[str]:
        """Whose certificates were taken up."""
        return [each.pairs[0].subject for each in self.renewed]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    files = Files(tmp_path)
    files.pair(make("first", end_days=100))
    files.write("clients.pem", make("authority", authority=True).pem)
    return files


def bench_of(files: Files, **more) -> Bench:
    clock, renewed, day = Clock(), [], [datetime.now(UTC)]
    settings = {"interval_s": INTERVAL_S, "warning_days": 14, "offload": maybeDeferred, **more}
    watched = Watched.of(files.tls)
    credentials = load_credentials(files.tls)
    renewal = Renewal(watched, credentials, renewed.append, clock=clock, now=lambda: day[0], **settings)
    renewal.start()
    return Bench(files, clock, renewal, renewed, day)


@pytest.fixture
def bench(files: Files, lines: list) -> Bench:
    return bench_of(files)


def test_nothing_is_done_while_nothing_changes(bench: Bench, lines: list) -> None:
    bench.looks(5)

    assert (bench.renewed, lines) == ([], [])


def test_a_new_pair_is_taken_up_once_it_has_stayed_for_an_interval(bench: Bench, lines: list) -> None:
    bench.files.pair(make("second", end_days=100))
    bench.looks(1)
    assert bench.renewed == []
    bench.looks(3)

    assert bench.subjects == ["CN=second"]
    ((level, text),) = lines
    assert level == "info"
    assert "cert.pem: the certificate of CN=second is renewed; it is valid until 20" in text


def test_the_authorities_are_renewed_by_themselves(bench: Bench, lines: list) -> None:
    before = bench.renewal.credentials
    two = make("second", authority=True).pem + make("third", authority=True).pem
    bench.files.write("clients.pem", two)
    bench.looks(3)

    (found,) = bench.renewed
    assert found.authorities is not None
    assert (found.pairs, found.authorities.count) == (before.pairs, 2)
    assert ["there are 2" in text for _, text in lines] == [True]


def test_a_pair_that_is_still_being_written_is_left_alone(bench: Bench, lines: list) -> None:
    party = make("second", end_days=100)
    whole = party.pem
    for end in range(0, len(whole), len(whole) // 4):
        bench.files.write("cert.pem", whole[:end])
        bench.looks(1)
    bench.files.write("cert.pem", whole)
    bench.looks(1)
    bench.files.write("key.pem", party.key_pem())
    assert (bench.renewed, lines) == ([], [])
    bench.looks(2)

    assert bench.subjects == ["CN=second"]


def test_a_certificate_without_its_key_is_refused_once_until_the_key_comes(bench: Bench, lines: list) -> None:
    party = make("second", end_days=100)
    bench.files.write("cert.pem", party.pem)
    bench.looks(6)

    assert bench.renewed == []
    ((level, text),) = lines
    assert level == "error"
    assert "key.pem is not the key of the certificate in " in text
    assert text.endswith("; what was read before stays in use")

    bench.files.write("key.pem", party.key_pem())
    bench.looks(2)
    assert bench.subjects == ["CN=second"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cert.pem", b"", "cert.pem holds no PEM certificate"),
        ("key.pem", b"-----BEGIN", "key.pem holds no PEM private key"),
        ("key.pem", make("other").key_pem(), "key.pem is not the key of"),
        ("cert.pem", make("old", begin_days=-9, end_days=-8).pem, "the certificate CN=old expired on"),
        ("clients.pem", b"nothing", "clients.pem holds no PEM certificate"),
    ],
    ids=["an empty certificate", "half a key", "another's key", "expired", "no authorities"],
)
def test_a_bad_file_is_refused_with_one_line_for_each_change(
    bench: Bench, lines: list, name: str, content: bytes, said: str
) -> None:
    for _ in range(2):
        bench.files.write(name, content)
        bench.looks(5)

    assert bench.renewed == []
    assert [(level, said in text) for level, text in lines] == [("error", True)] * 2


def test_a_file_that_is_missing_is_refused_and_taken_up_when_it_is_back(bench: Bench, lines: list) -> None:
    (bench.files.folder / "cert.pem").unlink()
    bench.looks(5)
    assert ["cannot be read: No such file" in text for _, text in lines] == [True]

    bench.files.pair(make("second", end_days=100))
    bench.looks(2)

    assert bench.subjects == ["CN=second"]


def test_a_file_that_was_only_touched_is_no_news(bench: Bench, lines: list) -> None:
    path = bench.files.folder / "cert.pem"
    bench.files.write("cert.pem", path.read_bytes())
    bench.looks(3)

    assert (bench.renewed, lines) == ([], [])


def test_one_pair_is_renewed_though_the_other_is_bad(files: Files, lines: list) -> None:
    files.write("b.pem", make("b").pem)
    files.write("b.key", make("b").key_pem())
    other = make("b", end_days=100)
    files.write("b.pem", other.pem)
    files.write("b.key", other.key_pem())
    two = attrs.evolve(
        files.tls, pairs=(*files.tls.pairs, PairFiles(*(str(files.folder / n) for n in ("b.pem", "b.key"))))
    )
    clock, renewed = Clock(), []
    renewal = Renewal(
        Watched.of(two),
        load_credentials(two),
        renewed.append,
        clock=clock,
        offload=maybeDeferred,
        interval_s=INTERVAL_S,
        warning_days=0,
    )
    renewal.start()

    files.write("b.key", b"")
    files.pair(make("second", end_days=100))
    clock.pump([INTERVAL_S] * 3)

    (found,) = renewed
    assert [each.subject for each in found.pairs] == ["CN=second", "CN=b"]
    assert sorted(level for level, _ in lines) == ["error", "info"]


@pytest.mark.parametrize("how", ["certbot", "kubernetes"])
def test_links_that_are_turned_to_other_files_are_followed(tmp_path: Path, lines: list, how: str) -> None:
    for number, party in ((1, make("first", end_days=100)), (2, make("second", end_days=100))):
        folder = tmp_path / f"v{number}"
        folder.mkdir()
        (folder / "cert.pem").write_bytes(party.pem)
        (folder / "key.pem").write_bytes(party.key_pem())
        (folder / "clients.pem").write_bytes(make("authority", authority=True).pem)
    live = tmp_path / "live"
    live.mkdir()
    if how == "kubernetes":
        (live / "..data").symlink_to(tmp_path / "v1")
    for name in ("cert.pem", "key.pem", "clients.pem"):
        (live / name).symlink_to(Path("..data", name) if how == "kubernetes" else tmp_path / "v1" / name)
    bench = bench_of(Files(live))

    for name in ("..data",) if how == "kubernetes" else ("cert.pem", "key.pem"):
        target = tmp_path / "v2" if name == "..data" else tmp_path / "v2" / name
        (live / "new").symlink_to(target)
        (live / "new").replace(live / name)
        bench.looks(1)
    bench.looks(1)

    assert bench.subjects[-1:] == ["CN=second"]
    assert all(level == "info" for level, _ in lines)


def test_an_interval_of_zero_never_looks(files: Files, lines: list) -> None:
    bench = bench_of(files, interval_s=0.0)
    bench.files.pair(make("second", end_days=100))
    bench.clock.pump([3600.0] * 5)

    assert (bench.renewed, lines) == ([], [])


def test_a_look_that_takes_long_is_waited_for(files: Files) -> None:
    asked: list[Deferred] = []

    def offload(function, *args):
        asked.append(Deferred())
        return asked[-1]

    bench = bench_of(files, offload=offload)
    bench.looks(5)
    assert len(asked) == 1

    asked[0].callback(())
    bench.looks(1)
    assert len(asked) == 2

    bench.renewal.stop()
    assert not bench.clock.getDelayedCalls()


def test_it_goes_on_after_a_failure_of_its_own(bench: Bench, monkeypatch, caught_failures: list) -> None:
    monkeypatch.setattr(Renewal, "_judge", lambda *_: 1 / 0)
    bench.files.pair(make("second", end_days=100))
    bench.looks(2)
    monkeypatch.undo()
    bench.files.pair(make("third", end_days=100))
    bench.looks(2)

    assert bench.subjects == ["CN=third"]
    assert [failure.type for failure in caught_failures] == [ZeroDivisionError]
    caught_failures.clear()


def test_what_expires_soon_is_warned_of_once_a_day(files: Files, lines: list) -> None:
    files.pair(make("short", begin_days=-80, end_days=20))
    bench = bench_of(files)
    for _ in range(60):
        bench.day[0] += timedelta(hours=6)
        bench.looks(1)

    # On each day from the sixth to the fifteenth.
    assert [level for level, _ in lines] == ["warn"] * 10
    assert "cert.pem: the certificate of CN=short expires on 20" in lines[0][1]


def test_what_has_expired_is_said_to_have(files: Files, lines: list) -> None:
    bench = bench_of(files)
    bench.day[0] += timedelta(days=101)
    bench.looks(1)

    assert "CN=first expired on 20" in lines[0][1]


def test_a_certificate_of_a_day_is_not_warned_of_all_its_life(files: Files, lines: list) -> None:
    files.pair(make("short", begin_days=-0.5, end_days=0.5))
    bench = bench_of(files)
    bench.looks(2)
    assert lines == []

    bench.day[0] += timedelta(hours=7)
    bench.looks(1)
    assert [level for level, _ in lines] == [LogLevel.warn.name]


def test_a_renewed_certificate_is_no_longer_warned_of(files: Files, lines: list) -> None:
    files.pair(make("short", begin_days=-80, end_days=5))
    bench = bench_of(files)
    files.pair(make("long", end_days=100))
    bench.looks(2)
    bench.day[0] += timedelta(days=2)
    bench.looks(2)

    assert [level for level, _ in lines] == ["warn", "info"]
