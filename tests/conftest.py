"""What every test runs under: checked shapes, one thread, no display, reproducible examples."""

import os
import signal
import sys
from collections.abc import Generator

# a shell that starts this in the background has it ignore Ctrl-C, and all commands that tests start too
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# before pygame, matplotlib or a renderer is imported
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import pytest
import torch
from jaxtyping import install_import_hook

import facts

# the shapes and types in the annotations of these files are laws while tests run
CHECKED = ("clipper.advantages", "clipper.losses")
assert not set(CHECKED) & set(sys.modules), "imported before their annotations are checked"
install_import_hook(CHECKED, "beartype.beartype")

# small networks are slower on two threads, and far slower when the other core is busy
torch.set_num_threads(1)

hypothesis.settings.register_profile("clipper", derandomize=True, deadline=None)
# who only asks whether a test fails need not wait for the smallest example
hypothesis.settings.register_profile(
    "unshrunk",
    derandomize=True,
    deadline=None,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)
hypothesis.settings.load_profile("clipper")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keeps how each test ended, where numbers of tests are asked for."""
    report = yield
    is_end = report.when == "call" or (report.when == "setup" and not report.passed)
    if is_end:
        facts.note_outcome(report.nodeid.partition("[")[0], report.outcome)
    return report


@pytest.fixture(autouse=True)
def no_curve(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no curve, which takes longer than most runs of tests; `curve` marks those that do."""
    if request.node.get_closest_marker("curve") is None:
        monkeypatch.setattr("clipper.run_keeper.plot_run", lambda *_: None)
