"""A share of environments in, a worker process with them out: questions there, answers back."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from clipper import errors
from clipper.board import Board
from clipper.errors import ClipperError, ConfigError, EnvironmentFault, FileError
from clipper.mailbox import Mailbox, mailbox, unnamed_file
from clipper.worker_process import START, TELL

# a worker that was asked to end gets this long
_PATIENCE_SECONDS = 2.0
# a worker that hangs gets this long to say where, and so many bytes
_TELLING_SECONDS, _MOST_WORDS = 0.5, 8_000


class WorkerLost(Exception):
    """A worker died, was killed for not moving, or failed in an environment.

    Attributes:
        how: What happened, in words.
        report: The traceback, where there is one.
        error: The worker's own error, where it could tell it.
        is_death: Its process ended, which nobody here wanted.
    """

    def __init__(
        self,
        how: str,
        report: str = "",
        error: ClipperError | None = None,
        is_death: bool = False,
    ) -> None:
        super().__init__(how)
        self.how = how
        self.report = report
        self.error = error
        self.is_death = is_death


class Worker:
    """A process with a share of the environments, a mailbox there and one back, and a board.

    Args:
        number: Of the worker, from 1, for messages.
        share: Indices of its environments.
        content: What `worker_process.Share` is made from.

    Attributes:
        name: For messages.
        board: What it is collecting, as far as it has come.

    Raises:
        FileError: The system refuses the process or the files it needs.
    """

    def __init__(self, number: int, share: range, content: bytes) -> None:
        self.name = f"worker {number}, with the environments {share.start} to {share.stop - 1},"
        self._number = 0
        try:
            self._start()
        except OSError as error:
            raise FileError(
                f"worker {number} must be a process of its own, but the system refuses one: "
                f"{error.strerror}.",
                hint="use fewer --workers; `ulimit -a` shows how many files and processes may be open.",
            ) from error
        try:
            self._send(content)
        except WorkerLost:
            pass  # whoever waits for its environments finds it dead
        except BaseException:
            self.ask_to_end()
            self.end()
            raise

    def _start(self) -> None:
        """Opens mailboxes and board and starts the process."""
        self._questions, there = mailbox()
        back, self._answers = mailbox()
        self.board = Board()
        self._last_words = unnamed_file()
        descriptors = (
            there.file, there.pipe, back.file, back.pipe, self.board.file, self._last_words
        )  # fmt: skip
        # not by multiprocessing, whose children run an unguarded script a second time; in a session
        # of its own, so that Ctrl-C reaches the parent alone
        is_main = threading.current_thread() is threading.main_thread()
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    START,
                    json.dumps([p for p in sys.path if isinstance(p, str)]),
                ]
                + [str(word) for word in (*descriptors, os.getpid(), int(is_main))],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                start_new_session=True,
            )
        except BaseException:
            _close(self._questions, self._answers, self.board, self._last_words)
            raise
        finally:
            there.close()
            back.close()
        # of an agent that nobody has any more; as the interpreter ends workers see it themselves
        parts = self._questions, self._answers, self.board, self._last_words
        self._leave = weakref.finalize(self, _leave, os.getpid(), self._process, *parts)
        self._leave.atexit = False

    def ask(self, *question: Any) -> None:
        """Sends a question: its name and its arguments.

        Raises:
            WorkerLost: The worker is dead.
        """
        self._send(pickle.dumps(question, protocol=pickle.HIGHEST_PROTOCOL))

    def _send(self, content: bytes) -> None:
        self._number += 1
        try:
            self._questions.write(self._number, content)
        except BrokenPipeError as error:
            raise self._death() from error

    def receive(self, is_well: Callable[[], str | None] | None = None) -> Any:
        """Returns the answer to the last question.

        Args:
            is_well: Asked a few times a second while there is none: what is wrong, or None; then the
                worker is killed.

        Raises:
            WorkerLost: It is dead, was killed, or failed in an environment.
            ClipperError: Anything else that went wrong in the worker.
        """
        while not self._answers.wait(0.1):
            # what an environment started may hold the pipe's other end open
            if self._process.poll() is not None and not self._answers.wait(0.0):
                raise self._death()
            wrong = None if is_well is None else is_well()
            if wrong is not None:
                report = self._where_it_is()
                self._process.kill()
                self._process.wait()
                raise WorkerLost(wrong, report)
        try:
            _, content = self._answers.read(self._number)
        except EOFError as error:
            raise self._death() from error
        kind, *answer = pickle.loads(content)
        if kind == "answer":
            return answer[0]
        name, message, hint, report = answer
        told = getattr(errors, name)(message or f"{self.name} must not fail, but did.", hint=hint)
        if isinstance(told, EnvironmentFault):
            raise WorkerLost("raised", report, told)
        raise told

    def _death(self) -> WorkerLost:
        try:
            code = self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            return WorkerLost("does not answer any more")
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return WorkerLost(f"ended with {name}", self._said(), is_death=True)

    def _where_it_is(self) -> str:
        """Returns the lines of Python that a hanging worker is in, which it says even from within C."""
        before = self._said()
        with contextlib.suppress(OSError):
            self._process.send_signal(TELL)
        until = time.monotonic() + _TELLING_SECONDS
        while self._said() == before and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.02)  # it writes line by line
        return self._said()[len(before) :]

    def _said(self) -> str:
        """Returns what the worker's fault handler has written."""
        return os.pread(self._last_words, _MOST_WORDS, 0).decode(errors="replace")

    def as_error(self, lost: WorkerLost) -> ClipperError:
        """Returns the error that ends a run for want of this worker."""
        if lost.error is not None:
            return lost.error
        return EnvironmentFault(
            f"{self.name} must stay alive, but {lost.how}.",
            hint="an environment may have crashed it, or memory ran out; with workers 0 the "
            "environments are stepped in this process.",
        )

    def ask_to_end(self) -> None:
        """Closes the mailboxes, which a worker takes as the end."""
        self._leave.detach()
        _close(self._questions, self._answers, self.board, self._last_words)

    def end(self, until: float | None = None) -> None:
        """Waits a moment for the process, then kills it; `until` is by the monotonic clock."""
        left = _PATIENCE_SECONDS if until is None else max(until - time.monotonic(), 0.0)
        try:
            self._process.wait(left)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _close(questions: Mailbox, answers: Mailbox, board: Board, last_words: int) -> None:
    """Closes this process's ends of all that it shares with a worker."""
    questions.close()
    answers.close()
    board.close()
    os.close(last_words)


def _leave(owner: int, process: subprocess.Popen[bytes], *parts: Any) -> None:
    """Ends a worker that nobody can ask any more, but for a fork of the process that could."""
    if os.getpid() != owner:
        return
    _close(*parts)
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def portable(payload: tuple[Any, ...]) -> bytes:
    """Returns a pickle that a worker can read, classes of notebooks included."""
    try:
        return bytes(cloudpickle.dumps(payload))
    except Exception as error:
        raise ConfigError(
            "workers need an environment and a policy that can be sent to another process, but "
            f"that raised {type(error).__name__}: {error}.",
            hint="open files, locks and connections within the callable; or set workers to 0.",
        ) from error


def end_all(workers: Sequence[Worker]) -> None:
    """Ends workers, all within the time that one is given."""
    for worker in workers:
        worker.ask_to_end()
    until = time.monotonic() + _PATIENCE_SECONDS
    for worker in workers:
        worker.end(until)
