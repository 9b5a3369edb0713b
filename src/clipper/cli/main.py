"""The command `clipper`: a verb and its arguments in, an exit code out.

Every verb is a file here with `HELP`, `add_arguments(parser)` and `run(args) -> int`; only the one
that is asked for is imported, and none imports torch before it has work to do.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import stat
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FrameType, ModuleType
from typing import NoReturn, TextIO

from clipper import __version__
from clipper.cli.arguments import Parser, UsageError
from clipper.errors import ClipperError, FileError, nearest
from clipper.interrupts import HANGUP, asking, handled

VERBS = {
    "train": "train an agent on an environment",
    "resume": "go on with a run from its last checkpoint",
    "evaluate": "play fresh episodes with a trained agent and report the returns",
    "render": "write a GIF or MP4 of a trained agent",
    "sweep": "train settings over environments and seeds, and keep a row for every run",
    "compare": "say which of some settings is better, and how sure that is",
    "report": "write tables, pictures and a page about a sweep",
    "reproduce": "run a study of the PPO paper and show it beside the printed numbers",
    "plot": "draw learning curves of runs",
    "check-env": "say what is wrong with an environment",
    "inspect": "say what a run or an agent file is",
    "replay": "play the episode again in which an environment failed",
    "presets": "list tuned settings",
}
LONG = ("train", "resume", "sweep", "reproduce", "render")
"""Verbs that are not done when nobody reads what they print."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
EXIT_CODES = """exit codes: 0 done; 1 unexpected error; 2 wrong usage, setting, space or environment
name; 3 an environment failed; 4 a number is not finite; 5 a file or folder; 6 a law of the algorithm
was broken; 129, 130 or 143 stopped by a closed terminal, Ctrl-C or SIGTERM (what was learnt is
kept)"""


def main(argv: list[str] | None = None) -> int:
    """Runs a command line and returns its exit code.

    Args:
        argv: Words after `clipper`; None for those of the process.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except ClipperError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)
        for note in getattr(error, "__notes__", []):
            print(f"\nnote: {note}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return 128 + signal.SIGINT
    except Terminated as stop:
        with contextlib.suppress(OSError):
            print("stopped.", file=sys.stderr)
        return 128 + stop.number
    except BrokenPipeError:
        # the reader of our output has gone: no harm in `clipper presets | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1 if words[:1] and words[0] in LONG else 0
    except OSError as error:
        if error.errno not in _FULL:
            raise
        if error.errno == errno.EIO and _is_gone(sys.stdout):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + (HANGUP or 0)
        # most often what is printed goes to a file on a full disk; all else is an error of ours
        with contextlib.suppress(OSError):
            print(
                f"error: what is printed must be writable, but {error.strerror}.", file=sys.stderr
            )
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FileError.exit_code


def _is_gone(stream: TextIO) -> bool:
    """Returns True for a terminal that was closed: a character device that is no terminal any more."""
    return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode) and not stream.isatty()


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"clipper {__version__}")
        return 0
    for word in words:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            raise UsageError(
                f"what is given must be text, but {word!a} has bytes that are not.",
                hint="the system's character set must be UTF-8: LC_ALL=C.UTF-8.",
            )
    verb = words[0]
    if verb not in VERBS:
        hint = nearest(verb, VERBS) or "the verbs are " + ", ".join(VERBS) + "."
        raise UsageError(f"there is no verb {verb!r}.", hint=hint)
    module = import_module(f"clipper.cli.{module_of(verb)}")
    parser = Parser(
        words=words[1:],
        prog=f"clipper {verb}",
        description=module.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXIT_CODES,
    )
    module.add_arguments(parser)
    try:
        args = parser.parse(words[1:])
    except SystemExit as request:
        # argparse has printed the help and wants to leave
        return int(request.code or 0)
    code: int = module.run(args)
    return code


def module_of(verb: str) -> str:
    """Returns the name of the file here that a verb is in."""
    return verb.replace("-", "_")


def _overview() -> str:
    lines = [
        "usage: clipper VERB ...",
        "",
        "Trains agents with Proximal Policy Optimization on Gymnasium environments.",
        "",
    ]
    lines += [f"  {verb:<10} {text}" for verb, text in VERBS.items()]
    lines += [
        "",
        "  clipper train CartPole-v1                 the quickest start",
        "  clipper VERB --help                       its arguments, with units and ranges",
        "  clipper --version",
        "",
        EXIT_CODES,
    ]
    return "\n".join(lines)


class Terminated(BaseException):
    """A signal came where no training handles it; files that are half written are removed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _terminate(number: int, frame: FrameType | None) -> None:
    """Lets the first signal run through what must be cleaned up; a second SIGTERM ends the process."""
    if HANGUP in asking():
        signal.signal(HANGUP, lambda *_: None)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated(number)


class _WaitsForTorch(PathFinder):
    """Has signals wait until torch is loaded: raised within its C++, they end in SIGABRT."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = super().find_spec(name, path, target) if name == "torch" else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            load = spec.loader.exec_module

            def load_undisturbed(module: ModuleType) -> None:
                heard: list[int] = []
                with handled(lambda number, frame: heard.append(number)):
                    load(module)
                for number in heard:
                    signal.raise_signal(number)

            vars(spec.loader)["exec_module"] = load_undisturbed
        return spec


def entry() -> NoReturn:
    """Runs the process's command line and exits."""
    for number in asking():
        if number != signal.SIGINT:
            signal.signal(number, _terminate)
    sys.meta_path.insert(0, _WaitsForTorch)
    sys.exit(main())
