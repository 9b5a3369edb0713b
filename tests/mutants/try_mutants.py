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
import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "mutants")]

from facts import VARIABLE, note  # noqa: E402
from mutants import MUTANTS, Mutant  # noqa: E402

MOST_SECONDS = 10.0
# of wall time, on a machine that is busy with other things
PATIENCE_SECONDS = 300.0
# imported once, before the processes that run tests are forked; nothing of Clipper's
PRELOADED = ("torch", "gymnasium", "scipy.stats", "stable_baselines3")
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
    said: str


class Copy:
    """A copy of the package that is imported in place of the installed one.

    Args:
        place: A new folder.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.package = place / "clipper"
        shutil.copytree(
            ROOT / "src" / "clipper", self.package, ignore=shutil.ignore_patterns("__pycache__")
        )
        engine = installed_engine()
        for built in (*engine.glob("*.so"), *engine.glob("*/*.so")):
            target = self.package / "engine" / built.relative_to(engine)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(built, target)
        # by content and not by date: an edit within the same second must be seen
        compileall.compile_dir(
            self.package, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH
        )

    @contextmanager
    def edited(self, mutant: Mutant) -> Iterator[None]:
        """Has a bug in it for the length of the block."""
        file = self.package / mutant.file
        before = file.read_text(encoding="utf-8")
        file.write_text(mutated(before, mutant), encoding="utf-8")
        try:
            yield
        finally:
            file.write_text(before, encoding="utf-8")

    @contextmanager
    def with_extension(self, extension: Path) -> Iterator[None]:
        """Has another extension for the length of the block."""
        (installed,) = (self.package / "engine").glob("_native*.so")
        kept = installed.rename(installed.with_suffix(".kept"))
        shutil.copy(extension, installed)
        try:
            yield
        finally:
            kept.replace(installed)

    def run(self, tests: str) -> Finding:
        """Returns what tests say of the copy as it is, in a process that is forked for them."""
        with tempfile.TemporaryFile("w+") as output:
            pid = os.fork()
            if not pid:
                self._test(tests, output.fileno())
            _, status, usage = os.wait4(pid, 0)
            output.seek(0)
            said = output.read()
        code = os.waitstatus_to_exitcode(status)
        seconds = usage.ru_utime + usage.ru_stime
        if code == -signal.SIGALRM:
            return Finding("timeout", seconds, said)
        if code == 0:
            return Finding("survived", seconds, said)
        if code != _FAILED or "ERROR collecting" in said:
            return Finding("broken", seconds, said)
        return Finding("killed" if seconds <= MOST_SECONDS else "slow", seconds, said)

    def _test(self, tests: str, output: int) -> None:
        """Runs tests and ends this process with pytest's exit code."""
        code = 70
        try:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(ROOT)
            os.environ["PYTHONPATH"] = str(self.place)
            os.environ.pop(VARIABLE, None)  # what these tests say is not of the sources
            sys.dont_write_bytecode = True
            # an editable install has a finder of its own before all paths
            sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in type(f).__module__]
            sys.path.insert(0, str(self.place))
            import pytest

            options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
            options.append("--hypothesis-profile=unshrunk")
            code = int(pytest.main([*options, f"tests/{tests}"]))
            found = Path(sys.modules["clipper"].__file__ or "")
            if not found.is_relative_to(self.place):
                print(f"the tests ran against {found}")
                code = 70
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(code)


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
        self._environment = {**os.environ, "PATH": tools()}
        ninja = ("-G", "Ninja") if shutil.which("ninja", path=tools()) else ()
        python = f"-DPython_EXECUTABLE={sys.executable}"
        self._call("cmake", *ninja, "-S", self._sources, "-B", self._build, python)
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


def tools() -> str:
    """Returns the search path for programs, with those of this Python's environment."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def installed_engine() -> Path:
    """Returns the folder that the compiled files of the installed package lie in."""
    code = "import clipper.engine._native as native; print(native.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    found = Path(done.stdout.strip()) if done.returncode == 0 else ROOT / "src/clipper/engine/_"
    return found.parent


def why_not_native() -> str | None:
    """Returns why bugs in C++ cannot be tried here, or None."""
    if shutil.which("cmake", path=tools()) is None:
        return "there is no cmake"
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return "there is no C++ compiler"
    found = any(installed_engine().glob("_native*.so"))
    return None if found else "no extension is installed"


def check_tests(copy: Copy, chosen: Sequence[Mutant]) -> list[str]:
    """Returns what is wrong with tests that fail on the copy without a bug."""
    wrong = []
    for tests in dict.fromkeys(mutant.tests for mutant in chosen):
        found = copy.run(tests)
        print(f"{'passes' if found.verdict == 'survived' else 'FAILS':8} ", end="")
        print(f"{found.seconds:5.1f} s  tests/{tests}, without a bug", flush=True)
        if found.verdict != "survived":
            wrong.append(f"{tests} fails without a bug:\n{found.said[-3000:]}")
    return wrong


def try_all(chosen: Sequence[Mutant], copy: Copy, place: Path) -> dict[Mutant, Finding]:
    """Returns what the tests say of each bug; those in C++ come last."""
    findings: dict[Mutant, Finding] = {}
    extension: Extension | None = None
    for mutant in sorted(chosen, key=lambda m: m.is_native):
        if mutant.is_native:
            extension = extension or Extension(place / "native")
            built = extension.build(mutant)
            with copy.with_extension(built):
                found = copy.run(mutant.tests)
        else:
            with copy.edited(mutant):
                found = copy.run(mutant.tests)
        findings[mutant] = found
        print(f"{found.verdict:8} {found.seconds:5.1f} s  {mutant.name}", flush=True)
        if found.verdict in ("broken", "timeout"):
            print(found.said[-2000:], file=sys.stderr)
    return findings


def main(words: Sequence[str]) -> int:
    """Tries the mutants that are asked for and returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; none for all")
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
    for name in PRELOADED:
        importlib.import_module(name)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clipper-mutants-") as folder:
        copy = Copy(Path(folder) / "copy")
        wrong = check_tests(copy, chosen)
        if wrong:
            print(*wrong, sep="\n", file=sys.stderr)
            return 1
        findings = try_all(chosen, copy, Path(folder))
    killed = sum(found.verdict == "killed" for found in findings.values())
    seconds = time.monotonic() - started
    print(f"{killed} of {len(findings)} bugs were found in {seconds:.0f} s")
    for mutant, found in findings.items():
        is_killed = found.verdict == "killed"
        note("mutants", killed=is_killed, native=mutant.is_native, most_seconds=found.seconds)
    return 0 if killed == len(findings) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
