"""The server of a sweep's processes as the sweep sees it: jobs in, events out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from clipper import errors
from clipper.errors import ClipperError, ConfigError, InvariantBreach
from clipper.experiments.runs import RunSpec
from clipper.mailbox import readable

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from clipper.experiments.server import serve; serve(int(sys.argv[2]))"
)
# what a library reads when it is loaded: a run has one core
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
Event = dict[str, Any]


class Processes:
    """Starts jobs in processes of their own and hears from them; ends them with itself.

    Args:
        log: File that gets what the server itself says.
        keep_open: Descriptors that every process holds as long as it lives; a lock.

    Raises:
        ConfigError: This is Windows, where one process cannot wait for pipes and others at once.
    """

    def __init__(self, log: Path, keep_open: Sequence[int] = ()) -> None:
        if sys.platform == "win32":
            raise ConfigError(
                "sweeps must be run on Linux or macOS, but this is Windows.",
                hint="run them in the Windows Subsystem for Linux.",
            )
        self._events, there = os.pipe()
        self._pending = b""
        with open(log, "ab") as file:
            # in a session of its own: Ctrl-C reaches the sweep alone, which tells the runs
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(sys.path), str(there)],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                pass_fds=(there, *keep_open),
                env={**os.environ, **_ONE_THREAD},
                start_new_session=True,
            )
        os.close(there)
        self._log = log

    def start(self, number: int, do: str, log: Path, **job: Any) -> None:
        """Starts a job in a new process; `log` gets what it prints."""
        self._ask({"do": "start", "job": {"number": number, "do": do, "log": str(log), **job}})

    def signal(self, number: int) -> None:
        """Sends a signal to all processes that do jobs."""
        self._ask({"do": "signal", "signal": number})

    def _ask(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._death() from error

    def events(self, seconds: float) -> list[Event]:
        """Returns the events that have come, waiting so long for the first.

        Raises:
            InvariantBreach: The server has died.
        """
        if not readable([self._events], seconds):
            return []
        content = os.read(self._events, 1 << 16)
        if not content:
            raise self._death()
        *lines, self._pending = (self._pending + content).split(b"\n")
        return [json.loads(line) for line in lines]

    def _death(self) -> ClipperError:
        """Returns the error that the server's end is; what it said is gone with the log, if at all."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            code = 0  # it closed its pipe and lives: a defect, as an end of its own accord is
        must = "the process that starts the runs must stay alive, but"
        if code < 0:
            return ClipperError(
                f"{must} {signal.Signals(-code).name} ended it.",
                hint="the system does so where memory runs out (--jobs 1 takes less); the same command "
                "goes on from the last checkpoints.",
            )
        said = self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""
        return InvariantBreach(
            f"{must} ended with {code}.",
            hint=f"the same command goes on. What it said: {said.strip() or 'nothing'}",
        )

    def ask_all(self, do: str, specs: Iterable[RunSpec]) -> Any:
        """Returns the answer of a job that looks at many runs; nothing else may be going on.

        Raises:
            ClipperError: What went wrong in it.
        """
        with tempfile.TemporaryDirectory() as place:
            answer, log = Path(place) / "answer.json", Path(place) / "log"
            self.start(-1, do, log, runs=[spec.to_json() for spec in specs], answer=str(answer))
            failure: Event = {"kind": "", "message": "a process died", "hint": None}
            while True:
                for event in self.events(60.0):
                    if event["event"] == "failed":
                        failure = event
                    elif event["event"] == "ended":
                        if event["code"] == 0:
                            return json.loads(answer.read_text(encoding="utf-8"))["answer"]
                        raise as_error(failure, event["code"], log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends all runs, which save first, and the server."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        deadline = time.monotonic() + 60.0
        while self._process.poll() is None and time.monotonic() < deadline:
            # a run that tells how far it is must not wait for us
            if readable([self._events], 0.05) and not os.read(self._events, 1 << 16):
                self._process.wait(5)
        self._process.kill()
        self._process.wait()
        os.close(self._events)


def as_error(failure: Mapping[str, Any], code: int, log: Path) -> ClipperError:
    """Returns the error that ended a job, as it would be in this process."""
    kind = getattr(errors, failure["kind"], None)
    if kind is None:
        return InvariantBreach(
            f"a process of the sweep must not fail, but did with exit code {code}: "
            f"{failure['message']}.",
            hint=log.read_text(errors="replace")[-2000:] if log.exists() else None,
        )
    made: ClipperError = kind(failure["message"], hint=failure["hint"])
    return made
