"""Applies one bug at a time to a copy of the sources and tells whether the tests find it.

    python tests/mutants/try_mutants.py                 all of them
    python tests/mutants/try_mutants.py Adam "C++"      those whose names contain one of these
    python tests/mutants/try_mutants.py --list          what there is

The working tree is never changed. The tests run against the copy, which has the installed extension;
for bugs in C++ the extension is built from a copy too. First every test that is named must pass on
the copy as it is. A bug is found if a test fails (not if it cannot even be imported), within 10
seconds of CPU time.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "mutants")]

from facts import note  # noqa: E402
from mutants import MUTANTS, Mutant  # noqa: E402

MOST_SECONDS = 10.0
# of wall time, on a machine that is busy with other things
PATIENCE_SECONDS = 120.0
_FAILED = 1  # pytest's exit code if it is a test that failed


@dataclass(frozen=True)
class Finding:
    """What became of a mutant.

    Attributes:
        verdict: `killed`, `survived`, `slow`, `timeout` or `broken`.
        seconds: CPU time of the tests.
        said: What they printed.
    """

    verdict: str
    seconds: float
    said: str = ""


class Copy:
    """A copy of the package that imports in place of the installed one.

    Args:
        place: A new folder.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self.package = place / "clipper"
        shutil.copytree(
            ROOT / "src" / "clipper", self.package, ignore=shutil.ignore_patterns("__pycache__")
        )
        engine = _installed_engine()
        for built in (*engine.glob("*.so"), *engine.glob("*/*.so")):
            target = self.package / "engine" / built.relative_to(engine)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(built, target)
        # an editable install puts a finder of its own before all paths; an empty module in the
        # place of the one that does it leaves them to Python
        for site in map(Path, sys.path):
            for finder in site.glob("_editable*clipper*.py"):
                (place / finder.name).touch()
        # by content and not by date: an edit within the same second must be seen
        compileall.compile_dir(
            self.package, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH
        )

    def edit(self, mutant: Mutant) -> Callable[[], None]:
        """Puts a bug in and returns what takes it out again."""
        file = self.package / mutant.file
        before = file.read_text(encoding="utf-8")
        file.write_text(mutated(before, mutant), encoding="utf-8")
        return lambda: _write(file, before)

    def run(self, tests: str) -> Finding:
        """Returns what tests say of the copy as it is."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self._place),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "100",
        }
        options = ("-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist")
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, f"tests/{tests}"],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            killer = threading.Timer(PATIENCE_SECONDS, process.kill)
            killer.start()
            _, status, usage = os.wait4(process.pid, 0)
            killer.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            said = output.read()
        seconds = usage.ru_utime + usage.ru_stime
        if process.returncode < 0:
            return Finding("timeout", seconds, said)
        if process.returncode == 0:
            return Finding("survived", seconds, said)
        if process.returncode != _FAILED or "ERROR collecting" in said:
            return Finding("broken", seconds, said)
        return Finding("killed" if seconds <= MOST_SECONDS else "slow", seconds, said)


def mutated(text: str, mutant: Mutant) -> str:
    """Returns a source with a bug.

    Raises:
        ValueError: A text that the bug replaces does not stand in it exactly once.
    """
    for old, new in mutant.edits:
        if text.count(old) != 1:
            raise ValueError(
                f"{mutant.name}: {mutant.file} must hold this text once, but holds it "
                f"{text.count(old)} times:\n{old}"
            )
        text = text.replace(old, new)
    return text


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _installed_engine() -> Path:
    """Returns the folder that the compiled files of the installed package lie in."""
    spec = importlib.util.find_spec("clipper.engine._native")
    if spec is None or spec.origin is None:
        return ROOT / "src" / "clipper" / "engine"
    return Path(spec.origin).parent


class Extension:
    """The extension, built from a copy of its sources again and again.

    Args:
        place: A new folder.
    """

    def __init__(self, place: Path) -> None:
        self._sources = place / "clipper" / "engine" / "native"
        self._build = place / "build"
        for part in ("engine/native", "include"):
            shutil.copytree(ROOT / "src" / "clipper" / part, place / "clipper" / part)
        tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": tools}
        ninja = ("-G", "Ninja") if shutil.which("ninja", path=tools) else ()
        self._call(
            "cmake", *ninja, "-S", self._sources, "-B", self._build,
            f"-DPython_EXECUTABLE={sys.executable}",
        )  # fmt: skip
        self._call("cmake", "--build", self._build, "--parallel", "2")

    def build(self, mutant: Mutant) -> Path:
        """Returns the extension with a bug in it."""
        file = self._sources / Path(mutant.file).name
        before = file.read_text(encoding="utf-8")
        file.write_text(mutated(before, mutant), encoding="utf-8")
        try:
            self._call("cmake", "--build", self._build, "--parallel", "2")
        finally:
            file.write_text(before, encoding="utf-8")
        (extension,) = self._build.glob("_native*.so")
        return extension

    def _call(self, *command: object) -> None:
        done = subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            text=True,
            env=self._environment,
        )
        if done.returncode:
            raise RuntimeError(f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def check_tests(copies: queue.Queue[Copy], tests: Iterable[str], jobs: int) -> list[str]:
    """Returns what is wrong with tests that fail on the copy without a bug."""

    def check(name: str) -> str | None:
        copy = copies.get()
        try:
            found = copy.run(name)
        finally:
            copies.put(copy)
        return None if found.verdict == "survived" else f"{name}: {found.verdict}\n{found.said}"

    with ThreadPoolExecutor(jobs) as pool:
        return [wrong for wrong in pool.map(check, tests) if wrong is not None]


def try_mutant(copies: queue.Queue[Copy], mutant: Mutant, extension: Extension | None) -> Finding:
    """Returns what tests say of the copy with a bug in it."""
    copy = copies.get()
    try:
        if extension is None:
            undo = copy.edit(mutant)
        else:
            built = extension.build(mutant)
            (installed,) = (copy.package / "engine").glob("_native*.so")
            kept = installed.read_bytes()
            shutil.copy(built, installed)
            undo = lambda: _replace(installed, kept)  # noqa: E731
        try:
            return copy.run(mutant.tests)
        finally:
            undo()
    finally:
        copies.put(copy)


def _replace(file: Path, content: bytes) -> None:
    file.unlink()
    file.write_bytes(content)


def why_not_native() -> str | None:
    """Returns why bugs in C++ cannot be tried here, or None."""
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if shutil.which("cmake", path=tools) is None:
        return "there is no cmake"
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return "there is no C++ compiler"
    return None if any(_installed_engine().glob("_native*.so")) else "no extension is installed"


def main(words: Sequence[str]) -> int:
    """Tries the mutants that are asked for and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; none for all")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("--list", action="store_true", help="say what there is")
    args = parser.parse_args(words)
    chosen = [m for m in MUTANTS if not args.names or any(n in m.name for n in args.names)]
    if not chosen:
        print(f"no name contains {' or '.join(args.names)}", file=sys.stderr)
        return 2
    if args.list:
        for mutant in chosen:
            print(f"{mutant.name}  ({mutant.file}; tests/{mutant.tests})")
        return 0
    why_not = why_not_native()
    native = [m for m in chosen if m.is_native]
    if native and why_not is not None:
        print(f"{len(native)} bugs in C++ are not tried: {why_not}", file=sys.stderr)
        chosen = [m for m in chosen if not m.is_native]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clipper-mutants-") as place:
        findings = _try_all(chosen, Path(place), args.jobs)
    if findings is None:
        return 1
    bad = {m.name: f for m, f in findings.items() if f.verdict != "killed"}
    print(
        f"{len(findings) - len(bad)} of {len(findings)} bugs were found "
        f"in {time.monotonic() - started:.0f} s"
    )
    if not args.names:
        note(
            "mutants",
            number=len(findings),
            killed=len(findings) - len(bad),
            native=sum(m.is_native for m in findings),
            most_seconds=round(max(f.seconds for f in findings.values()), 1),
        )
    return 1 if bad else 0


def _try_all(chosen: list[Mutant], place: Path, jobs: int) -> dict[Mutant, Finding] | None:
    copies: queue.Queue[Copy] = queue.Queue()
    for number in range(jobs):
        copies.put(Copy(place / f"copy{number}"))
    wrong = check_tests(copies, sorted({m.tests for m in chosen}), jobs)
    if wrong:
        print("these tests fail without a bug:", *wrong, sep="\n", file=sys.stderr)
        return None
    findings: dict[Mutant, Finding] = {}
    lock = threading.Lock()

    def attempt(mutant: Mutant, extension: Extension | None = None) -> None:
        found = try_mutant(copies, mutant, extension)
        with lock:
            findings[mutant] = found
            print(f"{found.verdict:8} {found.seconds:5.1f} s  {mutant.name}", flush=True)
            if found.verdict in ("broken", "timeout"):
                print(found.said[-2000:], file=sys.stderr)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(attempt, [m for m in chosen if not m.is_native]))
    native = [m for m in chosen if m.is_native]
    if native:
        extension = Extension(place / "native")
        for mutant in native:
            attempt(mutant, extension)
    return findings


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
