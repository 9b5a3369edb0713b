"""A source of environments in, what a check in another process finds out; whatever becomes of that.

An environment may end its process or never return. What was found until then has arrived, and where
it was is written in shared memory before every call. How processes are started and why not by
multiprocessing: docs/decisions/0005-workers.md.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from clipper import errors
from clipper.envs.check_findings import FINDINGS, Coverage, Finding, Findings, Severity
from clipper.envs.check_look import Budget, look_at
from clipper.envs.check_subject import replay
from clipper.envs.make import EnvSource
from clipper.errors import ClipperError, EnvironmentFault
from clipper.mailbox import Mailbox, mailbox, readable

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from clipper.mailbox import end_with; end_with(int(sys.argv[-1])); "
    "from clipper.envs.check_apart import main; main([int(word) for word in sys.argv[2:]])"
)
# what the process does: since when, seed, step, episodes, steps, instances, length of the words
_NOTE = struct.Struct("<dqqqqqq")
_NOTE_SIZE = 1024
_GLANCE_SECONDS = 0.2
_START_SECONDS = 60.0
_PATIENCE_SECONDS = 2.0


def look_apart(source: EnvSource, budget: Budget, seed: int, timeout: float) -> Findings:
    """Returns what `look_at` finds in another process.

    Args:
        source: Where environments come from; not an instance.
        budget: How much is looked at.
        seed: Decides the episodes.
        timeout: Seconds that one call of the environment may take.

    Raises:
        ClipperError: What was raised there and is not the environment's fault.
        pickle.PicklingError: The source cannot be sent there.
    """
    try:
        content = bytes(cloudpickle.dumps((source, budget, seed)))
    except Exception as error:
        raise pickle.PicklingError(f"{type(error).__name__}: {error}") from error
    with tempfile.TemporaryFile() as file:
        file.truncate(_NOTE_SIZE)
        with mmap.mmap(file.fileno(), _NOTE_SIZE) as notes:
            return _Apart(source, content, timeout, file.fileno(), notes).run()


class _Apart:
    """The process and what has come from it."""

    def __init__(
        self, source: EnvSource, content: bytes, timeout: float, file: int, notes: mmap.mmap
    ) -> None:
        self._source = source
        self._content = content
        self._timeout = timeout
        self._file = file
        self._notes = notes
        self._found: list[Finding] = []
        self._coverage: Coverage | None = None
        self._error: ClipperError | None = None
        self._rest = b""

    def run(self) -> Findings:
        """Starts the process, listens until it ends or hangs, and returns what was found."""
        started = time.monotonic()
        questions, there = mailbox()
        answers, back = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", _START, json.dumps(sys.path)]
            + [str(word) for word in (there.file, there.pipe, back, self._file, os.getpid())],
            pass_fds=(there.file, there.pipe, back, self._file),
            stdin=subprocess.DEVNULL,
            stdout=2,  # results alone go to stdout
            start_new_session=True,
        )
        try:
            there.close()
            os.close(back)
            with contextlib.suppress(BrokenPipeError):
                questions.write(1, self._content)
            how = self._listen(answers, started) or self._ending(process)
        finally:
            # with what the environment has started, if it is not at its end
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            questions.close()
            os.close(answers)
        if self._error is not None:
            raise self._error
        if self._coverage is None:
            self._coverage = self._broken_off(*how)
            self._coverage.seconds = time.monotonic() - started
        return Findings(self._source.name, self._found, self._coverage)

    def _listen(self, answers: int, started: float) -> tuple[str, str] | None:
        """Reads until the process closes its end; returns what to tell if a call does not return."""
        while True:
            if readable([answers], _GLANCE_SECONDS):
                content = os.read(answers, 1 << 16)
                if not content:
                    return None
                *lines, self._rest = (self._rest + content).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
                continue
            since = _NOTE.unpack_from(self._notes)[0]
            patience = self._timeout if since else max(self._timeout, _START_SECONDS)
            if time.monotonic() - (since or started) > patience:
                return "call_hangs", f"has not returned after {self._timeout:g} s"

    def _take(self, message: dict[str, Any]) -> None:
        if "finding" in message:
            self._found.append(Finding(**message["finding"]))
        elif "coverage" in message:
            self._coverage = Coverage(**message["coverage"])
        else:
            kind, text, hint = message["error"]
            self._error = getattr(errors, kind)(text, hint=hint)

    def _ending(self, process: subprocess.Popen[bytes]) -> tuple[str, str]:
        """Returns what to tell of a process that has closed its end before it was done."""
        try:
            code = process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            return "call_hangs", "does not end"
        if code == -signal.SIGKILL:
            return "process_crashes", "its process was killed (memory may have run out)"
        if code < 0:
            return "process_crashes", f"ended its process with {signal.Signals(-code).name}"
        return "process_crashes", f"ended its process with exit code {code}"

    def _broken_off(self, name: str, how: str) -> Coverage:
        """Tells in which call the check was broken off, and returns what was looked at."""
        since, seed, step, episodes, steps, instances, length = _NOTE.unpack_from(self._notes)
        if not since:
            raise EnvironmentFault(
                f"{self._source.name} must be importable in another process, but that {how} before "
                "the environment was made."
            )
        what = self._notes[_NOTE.size : _NOTE.size + length].decode(errors="replace")
        where = f" (step {step}, seed {seed})" if step else f" (seed {seed})" if seed >= 0 else ""
        # what training does not need does not harm it
        severity: Severity = "warning" if what.startswith("rendering") else FINDINGS[name][0]
        if what in ("step", "reset"):
            again = replay(self._source, seed, step)
        else:
            count = 2 if what.startswith("making") and instances else 1
            again = "\n".join(self._source.as_code() * count)
        if name == "call_hangs":
            mend = (
                "give whatever it waits for (a socket, a simulator, a lock, a loop) a time limit, and "
                "raise when it is over. If it is only slow, give --timeout SECONDS."
            )
        else:
            mend = (
                "look at what stderr shows of it. Until it is mended, train with --isolate, so that the "
                "run outlives it."
            )
        if what.startswith("making") and instances:
            mend += " If only one can be in a process: --num-envs N --workers N-1 --eval-every 0."
        self._found.append(
            Finding(
                name=name,
                severity=severity,
                message=f"{what} must return, but {how}{where}.",
                mend=mend,
                evidence={"call": what, "seed": seed, "step": step},
                reproduce=again,
            )
        )
        skipped = [f"what comes after {what} (the process was lost)"]
        return Coverage(episodes=episodes, steps=steps, instances=instances, skipped=skipped)


def main(words: list[int]) -> None:
    """Looks at the environment that is asked about, and says at once what is found.

    Args:
        words: Descriptors of the question's file and pipe, of the answers' pipe and of the notes'
            file; more is not read.
    """
    question, answers = Mailbox(*words[:2]), words[2]

    def say(**message: Any) -> None:
        rest = memoryview(json.dumps(message).encode() + b"\n")
        with contextlib.suppress(BrokenPipeError):  # nobody listens any more: the end is near
            while rest:
                rest = rest[os.write(answers, rest) :]

    with mmap.mmap(words[3], _NOTE_SIZE) as notes:

        def note(what: str, seed: int, step: int, coverage: Coverage) -> None:
            text = what.encode()[: _NOTE_SIZE - _NOTE.size]
            counts = coverage.episodes, coverage.steps, coverage.instances
            _NOTE.pack_into(notes, 0, time.monotonic(), seed, step, *counts, len(text))
            notes[_NOTE.size : _NOTE.size + len(text)] = text

        try:
            _, content = question.read()
        except EOFError:  # whoever asked was stopped while this process started
            os._exit(0)
        try:
            source, budget, seed = pickle.loads(content)
            found = look_at(source, budget, seed, note, lambda f: say(finding=f.to_json()))
            say(coverage=asdict(found.coverage))
        except ClipperError as error:
            say(error=[type(error).__name__, error.message, error.hint])
    sys.stdout.flush()
    sys.stderr.flush()
    # threads that the environment left behind must not keep the process
    os._exit(0)
