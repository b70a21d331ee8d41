"""
``python -m gatewayd.executor [name]``: the process of one replica.

It reads one line of JSON (an ``ExecutorSpec``) from standard input, and later ones that change the level of
its log, or the secret of its callers; it writes one line of JSON to
descriptor 3: ``{"event": "ready", "address": ...}`` or ``{"event": "failed", "error": ...}``. It stops
gracefully on SIGTERM, and when standard input ends, because its supervisor has gone then. What the
executor prints goes to the supervisor's log. The name is ignored; it is shown by ``ps``.

Heavy imports are inside functions, because signals must be set up before them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from gatewayd.executor import group
from gatewayd.executor.priorities import begin_logging, set_level
from gatewayd.executor.tracebacks import user_traceback
from gatewayd.loops import new_event_loop

if TYPE_CHECKING:
    from gatewayd.executor.callers import Callers
    from gatewayd.executor.executor import Executor
    from gatewayd.executor.spec import ExecutorSpec
    from gatewayd.executor.tracing import Tracing

SendEvent = Callable[[dict[str, str]], None]

REPORT_FD = 3
# How long close() may take, an estimate. A supervisor kills earlier; this is for when it is gone.
CLOSE_LIMIT_S = 60
# SIGALRM is for a process whose threads are all held up.
_ALARM_MARGIN_S = 5

# That the supervisor is gone.
_abandoned = threading.Event()


def main() -> int:
    """Run one replica. Returns the exit code: 0 after a graceful stop, 1 if it cannot start or has to end."""
    # Ctrl-C and other signals to a whole process group are for the supervisor, which stops its executors in
    # order. If it is gone, standard input ends.
    group.lead()
    group.reset_signals_of_children()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # It has log files opened anew, of which there are none here; sent to a whole service it must end nobody.
    # A handler, because children would inherit that a signal is ignored.
    signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        return _run()
    finally:
        if _abandoned.is_set():
            group.end()


def _run() -> int:
    begin_logging()
    try:
        # Every executor needs these; import them while the supervisor is still starting.
        import gatewayd.executor.loading
        import gatewayd.executor.runtime  # noqa: F401
    except Exception:
        _send_event({"event": "failed", "error": traceback.format_exc()})
        return 1
    line, rest = _first_line(0)
    # Neither the executor's code nor its child processes may read our pipes or keep them open.
    lifeline, null = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.set_inheritable(REPORT_FD, False)
    try:
        from gatewayd.executor.callers import Callers
        from gatewayd.executor.devices import gpu_count, take_turns
        from gatewayd.executor.spec import ExecutorSpec

        spec = ExecutorSpec.from_line(line)
        set_level(spec.log_level)
        # Of the environment, which may be this executor's own, as in the reference.
        set_level(os.environ.get("JINA_LOG_LEVEL", ""))
        callers = Callers(spec.secret)
        partial = _obey(rest, callers)
    except Exception as error:
        _send_event({"event": "failed", "error": "".join(user_traceback(error))})
        return 1
    follower = threading.Thread(
        target=_follow_supervisor, args=(lifeline, partial, callers), name="lifeline", daemon=True
    )
    follower.start()
    try:
        # Before the executor's code is imported: CUDA reads this once.
        take_turns(os.environ, spec.replica, gpu_count)
        tracing = tracing_of(spec)
        executor = _load(spec, tracing)
    except Exception as error:
        _send_event({"event": "failed", "error": "".join(user_traceback(error))})
        return 1
    # Imported modules stay: the garbage collector need not traverse them.
    gc.freeze()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_serve(executor, spec, _send_event, tracing=tracing, callers=callers))


def _first_line(descriptor: int) -> tuple[bytes, bytes]:
    """The first line, and what came after it; without a whole line, what there was."""
    pieces = [os.read(descriptor, 1 << 16)]
    while pieces[-1] and b"\n" not in pieces[-1]:
        pieces.append(os.read(descriptor, 1 << 16))
    line, _, rest = b"".join(pieces).partition(b"\n")
    return line, rest


def _obey(data: bytes, callers: Callers) -> bytes:
    """Do what its lines say. Returns what comes after them."""
    *lines, partial = data.split(b"\n")
    for line in lines:
        told = json.loads(line)
        if "log_level" in told:
            set_level(str(told["log_level"]))
        if "secret" in told:
            callers.secret = told["secret"]
    return partial


def _follow_supervisor(lifeline: int, partial: bytes, callers: Callers) -> None:
    """
    Do what the lines of the supervisor say, and end when it has gone.

    A line is ``{"log_level": ..., "secret": ...}``, or one of them; ``partial`` is the
    beginning of one. Runs in its own thread, because
    ``__init__`` or a method may block the main one.

    SIGTERM ends a process that is still loading at once, with its children, and one that serves gracefully.
    One that does neither in time is killed.
    """
    while data := os.read(lifeline, 1 << 16):
        partial = _obey(partial + data, callers)
    _abandoned.set()
    # Nothing handles SIGALRM.
    signal.alarm(CLOSE_LIMIT_S + _ALARM_MARGIN_S)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        os.killpg(0, signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(CLOSE_LIMIT_S)
    os.killpg(0, signal.SIGKILL)


def serve_alone(
    executor: Executor, spec: ExecutorSpec, send_event: SendEvent, tracing: Tracing | None = None
) -> int:
    """
    Serve an executor in this process, without a supervisor, until SIGTERM or Ctrl-C. Returns the exit code.

    ``send_event`` gets the events that a supervisor would get.
    """
    group.reset_signals_of_children()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_serve(executor, spec, send_event, alone=True, tracing=tracing))


def tracing_of(spec: ExecutorSpec) -> Tracing | None:
    """What traces the executor's methods; None for one that is not traced. Raises ImportError."""
    if not spec.executor.tracing:
        return None
    from gatewayd.executor.tracing import Tracing

    return Tracing.of(spec)


def _load(spec: ExecutorSpec, tracing: Tracing | None) -> Executor:
    from gatewayd.executor.loading import load

    return load(spec, tracer_provider=None if tracing is None else tracing.provider)


async def _serve(
    executor: Executor,
    spec: ExecutorSpec,
    send_event: SendEvent,
    *,
    alone: bool = False,
    tracing: Tracing | None = None,
    callers: Callers | None = None,
) -> int:
    from gatewayd.executor.runtime import Runtime

    stopping = asyncio.Event()
    reasons: list[str] = []

    def end(reason: str) -> None:
        reasons.append(reason)
        stopping.set()

    try:
        runtime = Runtime(executor, spec, end, tracing, callers)
        address = await runtime.start()
    except (RuntimeError, TypeError):  # the port is taken; a type of documents has no schema
        send_event({"event": "failed", "error": traceback.format_exc()})
        return 1
    ready = {"event": "ready", "address": address}
    if spec.monitoring_port is not None:
        from gatewayd.executor.metrics import serve_metrics

        try:
            ready["monitoring"] = serve_metrics(executor, spec)
        except OSError as error:
            at = f"{spec.host}:{spec.monitoring_port}"
            text = f"port_monitoring: cannot listen on {at}: {error.strerror}. Give another port, or none"
            send_event({"event": "failed", "error": text})
            return 1
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    if alone:
        loop.add_signal_handler(signal.SIGINT, stopping.set)
    send_event(ready)
    await stopping.wait()
    # SIGALRM has no handler: it ends a process that hangs in close().
    signal.alarm(math.ceil(spec.grace_s) + CLOSE_LIMIT_S)
    await runtime.stop()
    for reason in reasons:
        logging.error("%s ends, as exit_on_exceptions says: %s", spec.runtime_name, reason)
    code = 1 if reasons else 0
    if runtime.busy:
        # A method that does not return would keep the interpreter from exiting.
        logging.warning("%s ends while a method still runs: the grace is over", spec.runtime_name)
        logging.shutdown()
        sys.stdout.flush()
        if _abandoned.is_set():
            group.end()
        os._exit(code)
    return code


def _send_event(event: dict[str, str]) -> None:
    # If the supervisor has gone, the lifeline ends this process.
    with contextlib.suppress(BrokenPipeError), open(REPORT_FD, "wb") as pipe:
        pipe.write(json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
