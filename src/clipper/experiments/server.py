"""Requests of a sweep in, runs started as processes out; it has imported torch so that they need not.

The server is a process of its own with one thread, started by `sweep`. It imports what a run needs
once and forks a process per run, which shares nothing else: no environment, agent or generator has
been made in it. Where there is no safe fork (outside Linux, or if a library has started threads) a
run is a fresh process. It ends when the sweep does, however that ends, and its runs with it.

A request is a line of JSON on stdin, an event one on the descriptor that the command line names.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Any, NoReturn

from clipper.errors import ClipperError
from clipper.interrupts import Interrupt, asking
from clipper.mailbox import readable

_START_ALONE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from clipper.experiments.server import run_job; "
    "run_job(json.loads(sys.argv[2]), int(sys.argv[3]))"
)
_GRACE_SECONDS = 20.0
_STOPS = asking()


class _Stop(BaseException):
    """A signal came while a run was not training."""


def serve(events: int) -> NoReturn:
    """Starts and ends runs until nobody asks any more."""
    # the sweep says when it ends, whoever else is told to
    for number in _STOPS:
        signal.signal(number, _nothing)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _nothing)
    _preload()
    server = _Server(events, (wake_read, wake_write))
    pending = b""
    os.set_blocking(0, False)
    while True:
        ready = readable([0, wake_read], None)
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            server.reap()
        if 0 in ready:
            content = os.read(0, 1 << 16)
            if not content:
                server.end()
                os._exit(0)
            *lines, pending = (pending + content).split(b"\n")
            for line in lines:
                server.answer(json.loads(line))


def _nothing(number: int, frame: FrameType | None) -> None:
    """Takes a signal whose arrival alone matters."""


def _preload() -> None:
    """Imports what runs need; nothing is computed, no environment made and no thread started."""
    import clipper.algorithms

    names = [
        f"clipper.algorithms.{m.name}" for m in pkgutil.iter_modules(clipper.algorithms.__path__)
    ]
    # a run draws its curve at the end
    names += ["matplotlib.backends.backend_agg", "matplotlib.figure", "PIL.Image"]
    for name in ("clipper.experiments.jobs", *names):
        importlib.import_module(name)
    sys.modules["PIL.Image"].preinit()
    gc.collect()
    gc.freeze()  # a run's collections do not touch, and so copy, what all runs share


class _Server:
    """The runs that are going on, by the number their request gave them."""

    def __init__(self, events: int, wake: tuple[int, int]) -> None:
        self._events = events
        self._wake = wake
        self._children: dict[int, int] = {}
        self._spawned: dict[int, subprocess.Popen[bytes]] = {}

    def answer(self, request: Mapping[str, Any]) -> None:
        """Does what a request asks for: start a job, or send a signal to all."""
        if request["do"] == "start":
            pid = self._start(request["job"])
            self._children[pid] = request["job"]["number"]
        else:
            self._signal(request["signal"])

    def _start(self, job: Mapping[str, Any]) -> int:
        if not can_fork():
            words = [json.dumps(sys.path), json.dumps(job), str(self._events)]
            child = subprocess.Popen(
                [sys.executable, "-c", _START_ALONE, *words],
                pass_fds=(self._events,),
                stdin=subprocess.DEVNULL,
            )
            self._spawned[child.pid] = child
            return child.pid
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
            return pid
        try:
            for number in _STOPS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
            signal.set_wakeup_fd(-1)
            for descriptor in self._wake:
                os.close(descriptor)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.close(nothing)
            run_job(job, self._events)
        finally:
            os._exit(70)

    def reap(self) -> None:
        """Reports the runs that have ended."""
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number = self._children.pop(pid, None)
            code = os.waitstatus_to_exitcode(status)
            if pid in self._spawned:
                self._spawned.pop(pid).returncode = code  # Popen must not wait for it again
            if number is not None:
                tell(self._events, {"number": number, "event": "ended", "code": code})

    def _signal(self, number: int) -> None:
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self) -> None:
        """Ends every run: asks it to save, and kills it if it does not."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while self._children and time.monotonic() < deadline:
            with contextlib.suppress(BrokenPipeError):
                self.reap()
            time.sleep(0.02)
        self._signal(signal.SIGKILL)


def can_fork() -> bool:
    """True if this process can fork safely: on Linux, where its only thread is this one."""
    try:
        return sys.platform == "linux" and len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def tell(events: int, event: Mapping[str, Any]) -> None:
    """Writes an event; short ones of several processes do not mix."""
    os.write(events, _line(event))


def _line(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


def run_job(job: Mapping[str, Any], events: int) -> NoReturn:
    """Does a job in this process, which ends with it; what it prints goes to the job's log."""
    for name in _STOPS:
        signal.signal(name, _stopped)
    # the whole machine may be told to stop, and the sweep tells its runs again
    Interrupt.is_patient = True
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _be_fresh()
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    code, number = 1, job["number"]
    try:
        from clipper.experiments import jobs

        code = jobs.JOBS[job["do"]](job, lambda event: tell(events, {**event, "number": number}))
    except (_Stop, BrokenPipeError):
        code = 128 + signal.SIGTERM
    except ClipperError as error:
        code = error.exit_code
        sys.stderr.write(f"error: {error}\n")
        for note in getattr(error, "__notes__", []):
            sys.stderr.write(f"note: {note}\n")
        _tell_failure(events, job, type(error).__name__, error.message, error.hint)
    except BaseException as error:
        traceback.print_exc()
        _tell_failure(events, job, "", f"{type(error).__name__}: {error}", None)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        # what environments left behind, threads and windows, must not keep the process
        os._exit(code)


def _tell_failure(
    events: int, job: Mapping[str, Any], kind: str, message: str, hint: str | None
) -> None:
    """Tells why a job failed, where others may write short enough to go in one piece."""
    event = {"event": "failed", "number": job["number"], "kind": kind}
    event |= {"message": message, "hint": hint}
    while job["do"] == "train" and len(_line(event)) > select.PIPE_BUF:
        event |= {"message": event["message"][: len(event["message"]) * 3 // 4], "hint": None}
    with contextlib.suppress(BrokenPipeError):
        tell(events, event)


def _stopped(number: int, frame: FrameType | None) -> NoReturn:
    raise _Stop


def _be_fresh() -> None:
    """Gives this process what a new one has: random states of its own, one thread for torch."""
    import random

    import numpy as np
    import torch

    random.seed()
    np.random.seed()
    torch.set_num_threads(1)


def _end_with(parent: int) -> None:
    """Ends this process soon after the server has, saved if it can."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)
