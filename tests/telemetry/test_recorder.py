"""Requests are recorded by a pool thread, and never waited for."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, globalLogPublisher

from gatewayd.config.recording import RecordConfig
from gatewayd.errors import Overloaded
from gatewayd.messages.request import Request, Response
from gatewayd.pb import DataRequestProto
from gatewayd.recording import Answers, Recorded, heading_of, recorded_of
from gatewayd.telemetry.observed import Exchange
from gatewayd.telemetry.recorder import Recorder

REQUEST = Request("r1", "/search", documents=b"\x0a\x00", headers=(("authorization", "s3cret"),))
RESPONSE = Response("r1", "/search", b"\x0a\x00", headers=(("x-token", "s3cret"),))


class ByHand:
    """An ``offload`` whose jobs run when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def __call__(self, function: Callable[..., Any], /, *args: Any, **_: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.jobs.append((lambda: function(*args), done))
        return done

    def run(self) -> None:
        while self.jobs:
            function, done = self.jobs.pop(0)
            try:
                result = function()
            except Exception as error:
                done.errback(error)
            else:
                done.callback(result)


class Recording:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.path = folder / "requests.jsonl"
        self.clock = Clock()
        self.offload = ByHand()
        self.config = RecordConfig(str(self.path), **settings)
        self.rolls = iter([0.05, 0.5] * 100)
        self.recorder = Recorder(
            self.config,
            "shop",
            self.offload,
            self.clock,
            wall_clock=lambda: 1000.0 + self.clock.seconds(),
            dice=lambda: next(self.rolls),
        )

    def ask(
        self, request: Request = REQUEST, response: Response | None = RESPONSE, error: Any = None
    ) -> None:
        exchange = Exchange("http", request, self.clock.seconds())
        self.recorder.began(exchange)
        self.clock.advance(0.5)
        exchange.ended_s = self.clock.seconds()
        exchange.response = None if error else response
        exchange.error = error
        self.recorder.ended(exchange)

    def begin(self, protocol: str) -> Exchange:
        exchange = Exchange(protocol, REQUEST, self.clock.seconds())
        exchange.answers = 0
        self.recorder.began(exchange)
        return exchange

    def stream(self, *texts: str, error: Any = None, status: bytes = b"") -> None:
        """A stream of documents, one a second, the last of which has the ``status``."""
        exchange = self.begin("grpc")
        for number, text in enumerate(texts):
            self.clock.pump([1.0])
            content = DataRequestProto.DataContentProto()
            content.docs.docs.add(text=text)
            last = number == len(texts) - 1
            response = Response("r1", "/words", content.SerializeToString(), status=status if last else b"")
            exchange.response = response
            if exchange.answered is not None:
                exchange.answered(response, self.clock.seconds())
        exchange.ended_s = self.clock.seconds()
        exchange.error = error
        if error is not None:
            exchange.response = None
        self.recorder.ended(exchange)

    def write(self) -> None:
        """Let all that waits be written."""
        while self.offload.jobs or self.clock.getDelayedCalls():
            self.clock.advance(0.1)
            self.offload.run()

    def read(self, suffix: str = "") -> list[Recorded]:
        lines = Path(f"{self.path}{suffix}").read_bytes().splitlines(keepends=True)
        assert heading_of(lines[0]).flow == "shop"
        return [*recorded_of(lines[1:])]


def texts(recorded: Recorded) -> list[str]:
    assert recorded.answers is not None
    messages = [DataRequestProto.FromString(answer) for _, answer in recorded.answers.kept]
    return [document.text for message in messages for document in message.data.docs.docs]


@pytest.fixture
def lines() -> Any:
    seen: list[LogEvent] = []
    globalLogPublisher.addObserver(seen.append)
    yield seen
    globalLogPublisher.removeObserver(seen.append)


def test_a_request_and_its_answer_without_their_headers(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.ask()
    assert not recording.path.exists()
    recording.write()

    (found,) = recording.read()
    assert (found.at, found.took_s, found.protocol, found.endpoint) == (1000.0, 0.5, "http", "/search")
    assert (found.request_id, found.outcome, found.error) == ("r1", "ok", None)
    assert DataRequestProto.FromString(found.request).header.exec_endpoint == "/search"
    assert found.response is not None
    assert b"s3cret" not in found.request + found.response
    assert stat.S_IMODE(recording.path.stat().st_mode) == 0o600
    assert recording.recorder.written == 1


def test_a_stream_has_its_answers_and_their_times(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.stream("a", "b")
    recording.ask()
    recording.write()

    (found, other) = recording.read()
    assert (found.protocol, found.outcome, found.response, other.answers) == ("grpc", "ok", None, None)
    assert found.answers is not None
    assert [at_s for at_s, _ in found.answers.kept] == [1.0, 2.0]
    assert texts(found) == ["a", "b"]
    assert (found.answers.first_s, found.answers.left_out, found.took_s) == (1.0, 0, 2.0)
    assert (recording.recorder.written, recording.recorder.dropped) == (2, 0)


def test_how_a_stream_ended(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.stream()
    recording.stream("a", error=CancelledError())
    recording.stream("a", error=Overloaded("no room"))
    recording.stream("a", status=b"\x08\x01")
    recording.write()

    found = recording.read()
    assert [(each.outcome, each.error, texts(each)) for each in found] == [
        ("ok", None, []),
        ("cancelled", None, ["a"]),
        ("overloaded", "Overloaded: no room", ["a"]),
        ("executor_error", None, ["a"]),
    ]
    assert found[0].answers == Answers()


def test_a_long_stream_is_cut_and_says_so(tmp_path: Path) -> None:
    recording = Recording(tmp_path, max_bytes=100_000)
    recording.stream(*["x" * 1000] * 200)
    recording.write()

    (found,) = recording.read()
    assert found.answers is not None
    assert found.answers.count == 200
    assert 20 < len(found.answers.kept) < 60
    assert found.took_s == 200.0
    assert recording.path.stat().st_size <= 100_000


def test_streams_under_way_share_what_is_held(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    several = [recording.begin("grpc") for _ in range(6)]
    for exchange in several:
        for _ in range(3):
            assert exchange.answered is not None
            exchange.answered(attrs.evolve(RESPONSE, documents=bytes(1 << 20)), 0.0)
        assert recording.recorder._held_bytes <= 16 << 20
    for exchange in several:
        exchange.response = RESPONSE
        recording.recorder.ended(exchange)

    assert (recording.recorder._held_bytes, recording.recorder._streams) == (0, {})
    recording.write()
    assert [each.answers.left_out for each in recording.read() if each.answers] == [0, 0, 0, 0, 0, 3]


def test_the_answers_of_a_stream_that_is_not_drawn_are_not_held(tmp_path: Path) -> None:
    assert Recording(tmp_path, sample=0.0).begin("grpc").answered is None

    recording = Recording(tmp_path, sample=0.0, keep="errors")
    recording.stream("a")
    recording.stream("a", error=Overloaded("no room"))
    recording.write()
    assert [each.outcome for each in recording.read()] == ["overloaded"]


def test_streams_are_redacted(tmp_path: Path) -> None:
    recording = Recording(tmp_path, redact=("text",))
    recording.stream("s3cret", "s3cret", error=Overloaded("s3cret"))
    recording.write()

    (found,) = recording.read()
    assert found.answers is not None
    assert [b"s3cret" in answer for _, answer in found.answers.kept] == [False, False]
    assert found.error == "Overloaded"


def test_a_request_that_is_longer_than_the_file_may_be_is_left_out(
    tmp_path: Path, lines: list[LogEvent]
) -> None:
    recording = Recording(tmp_path, max_bytes=65536)
    recording.ask(attrs.evolve(REQUEST, documents=bytes(65536)))
    recording.ask()
    recording.write()

    assert (recording.recorder.written, recording.recorder.dropped) == (1, 1)
    assert any("longer than max_bytes (65536)" in str(event.get("why")) for event in lines)


def test_a_file_of_other_rules_is_kept_and_another_begun(tmp_path: Path) -> None:
    for rules in ((), ("text",)):
        recording = Recording(tmp_path, redact=rules)
        recording.ask()
        recording.write()

    for suffix, rules in ((".1", ()), ("", ("text",))):
        assert len(recording.read(suffix)) == 1
        line = Path(f"{recording.path}{suffix}").read_bytes().splitlines()[0]
        assert heading_of(line).redacted == rules


def test_what_has_no_answer(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.ask(error=Overloaded("no room"))
    recording.ask(error=CancelledError())
    recording.write()

    assert [(each.outcome, each.error, each.response) for each in recording.read()] == [
        ("overloaded", "Overloaded: no room", None),
        ("cancelled", None, None),
    ]


def test_a_share(tmp_path: Path) -> None:
    recording = Recording(tmp_path, sample=0.1)
    for _ in range(10):
        recording.ask()
    recording.write()

    assert len(recording.read()) == 5


def test_errors_and_slow_requests_are_kept_besides(tmp_path: Path) -> None:
    for settings, errors in (({}, 0), ({"keep": "errors"}, 3)):
        folder = tmp_path / str(errors)
        folder.mkdir()
        recording = Recording(folder, sample=0.0, **settings)
        recording.ask()
        recording.ask(error=Overloaded("no room"))
        recording.ask(error=CancelledError())
        recording.ask(response=attrs.evolve(RESPONSE, status=b"\x08\x01"))
        recording.write()
        assert (len(recording.read()) if recording.path.exists() else 0) == errors
    for limit_s, count in ((0.4, 1), (0.6, 0)):
        folder = tmp_path / str(limit_s)
        folder.mkdir()
        recording = Recording(folder, sample=0.0, slower_than_s=limit_s)
        recording.ask()  # takes half a second
        recording.write()
        assert recording.path.exists() == bool(count)


def test_what_is_redacted(tmp_path: Path) -> None:
    asked = DataRequestProto()
    asked.data.docs.docs.add(id="d", text="s3cret")
    documents = asked.data.SerializeToString()
    recording = Recording(tmp_path, redact=("text",))
    recording.ask(attrs.evolve(REQUEST, documents=documents), attrs.evolve(RESPONSE, documents=documents))
    recording.ask(error=Overloaded("s3cret"))
    recording.write()

    assert [each.error for each in recording.read()] == [None, "Overloaded"]
    (first, _) = recording.read()
    assert b"s3cret" not in first.request + (first.response or b"")
    assert heading_of(recording.path.read_bytes().splitlines()[0]).redacted == ("text",)


def test_a_rule_that_finds_nothing_in_many_requests_is_told_of_once(tmp_path: Path) -> None:
    asked = DataRequestProto()
    asked.data.docs.docs.add(id="d", text="s3cret")
    request = attrs.evolve(REQUEST, documents=asked.data.SerializeToString())
    recording = Recording(tmp_path, redact=("text", "fields.custmer"))
    with capturedLogs() as logged:
        for count in (99, 1, 100):
            told = [each["log_format"].format(**each) for each in logged]
            assert not told
            for _ in range(count):
                recording.ask(request)
            recording.write()
            if count == 1:
                (text,) = (each["log_format"].format(**each) for each in logged)
                logged.clear()

    assert not logged
    assert text.startswith("gateway.record.redact: fields.custmer has found nothing in the first 100 ")


def test_a_full_file_begins_anew_and_the_one_before_is_kept(tmp_path: Path) -> None:
    recording = Recording(tmp_path, max_bytes=2000)
    for number in range(20):
        recording.ask(attrs.evolve(REQUEST, request_id=str(number)))
    recording.write()

    kept = [int(each.request_id) for suffix in (".1", "") for each in recording.read(suffix)]
    assert kept == [*range(kept[0], 20)]
    assert len(kept) >= 5
    for each in tmp_path.iterdir():
        assert each.stat().st_size <= 2000
    assert len([*tmp_path.iterdir()]) == 2


def test_a_gateway_that_starts_again_appends(tmp_path: Path) -> None:
    for _ in range(2):
        recording = Recording(tmp_path)
        recording.ask()
        recording.write()

    assert len(recording.read()) == 2


def test_a_folder_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        recording.recorder.open()

    recording = Recording(tmp_path)
    recording.recorder.open()
    recording.ask()
    recording.write()
    assert len(recording.read()) == 1


@pytest.mark.parametrize("content", [b"a model", b"a model\n" * 100_000, b'{"at": 1}\n'])
def test_a_file_that_is_no_recording_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    recording = Recording(tmp_path)
    recording.path.write_bytes(content)

    with pytest.raises(FileExistsError, match="no recording"):
        recording.recorder.open()
    assert recording.path.read_bytes() == content


@pytest.mark.parametrize("half", [b'{"at":', b"x" * 100_000])
def test_half_a_line_of_a_gateway_that_was_killed_is_taken_away(tmp_path: Path, half: bytes) -> None:
    recording = Recording(tmp_path)
    recording.ask()
    recording.write()
    with recording.path.open("ab") as file:
        file.write(half)

    again = Recording(tmp_path)
    again.ask()
    again.write()

    assert [each.outcome for each in again.read()] == ["ok", "ok"]


def test_documents_that_cannot_be_read_are_not_recorded_where_they_would_be_redacted(tmp_path: Path) -> None:
    recording = Recording(tmp_path, redact=("text",))
    recording.ask(attrs.evolve(REQUEST, documents=b"\xff"))
    recording.ask()
    recording.write()

    assert (recording.recorder.dropped, recording.recorder.written) == (1, 1)
    assert len(recording.read()) == 1


def test_what_comes_faster_than_it_is_written_is_left_out(tmp_path: Path, lines: list[LogEvent]) -> None:
    recording = Recording(tmp_path)
    large = attrs.evolve(REQUEST, documents=bytes(5 << 20))
    for _ in range(10):
        recording.ask(large)
    assert recording.recorder.dropped == 7
    recording.write()
    recording.ask()
    recording.write()

    assert recording.recorder.written == 4
    (told, *_) = (event for event in lines if "so far" in (event.get("log_format") or ""))
    assert told["why"] == "they come faster than they can be written"


def test_a_full_disk_is_told_and_tried_again_later(tmp_path: Path, lines: list[LogEvent]) -> None:
    recording = Recording(tmp_path)
    offload, recording.recorder._offload = recording.offload, _full
    recording.ask()
    recording.write()
    recording.recorder._offload = offload
    recording.ask()
    recording.write()
    assert (recording.recorder.dropped, recording.recorder.written) == (2, 0)
    recording.clock.advance(10.0)
    recording.ask()
    recording.write()

    assert (recording.recorder.dropped, recording.recorder.written) == (2, 1)
    assert any("No space left" in str(event.get("why")) for event in lines)


def test_many_requests_share_a_job(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    for _ in range(5):
        exchange = Exchange("http", REQUEST, 0.0)
        exchange.response = RESPONSE
        recording.recorder.ended(exchange)
    assert not recording.offload.jobs
    recording.clock.advance(0.1)
    assert len(recording.offload.jobs) == 1
    recording.write()

    assert len(recording.read()) == 5


def test_empty_requests_count_as_well(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    exchange = Exchange("http", attrs.evolve(REQUEST, documents=b""), 0.0)
    exchange.response = Response("r", "/", b"")
    for _ in range(20_000):
        recording.recorder.ended(exchange)

    assert recording.recorder.dropped > 3000


def _full(*_: Any) -> Deferred[Any]:
    return fail(OSError(errno.ENOSPC, "No space left on device"))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.path.symlink_to(tmp_path / "elsewhere")
    recording.ask()
    recording.write()

    assert recording.recorder.dropped == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_stop_writes_what_waits_and_does_not_wait_for_ever(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.ask()
    stopped = ensureDeferred(recording.recorder.stop())
    assert not stopped.called
    recording.write()
    assert stopped.called

    recording.ask()
    stopped = ensureDeferred(recording.recorder.stop())
    recording.clock.advance(2.0)
    assert stopped.called
