"""How far a sweep is, in words: the time left, plain lines, and what is said once."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from clipper.experiments.display import SweepDisplay, duration, seconds_left
from clipper.experiments.rows import Row
from clipper.experiments.runs import RunSpec
from clipper.experiments.states import RunState, SweepOutcome


def row(score: float = 1.0) -> Row:
    """Returns the row of 100 steps in 1.5 s."""
    return Row(
        setting="a",
        env="E-v0",
        seed=0,
        algo="ppo",
        score=score,
        score_all=score,
        episodes=1,
        eval_mean=math.nan,
        eval_episodes=0,
        steps=100,
        wall_seconds=1.5,
        cpu_seconds=1.5,
        config_hash="0",
        parameters_sha256="0",
        engine="reference",
        exact=True,
        version="0",
        commit="",
    )


def state(setting: str = "a", env: str = "E-v0", seed: int = 0, **changes: object) -> RunState:
    spec = RunSpec(setting=setting, env=env, seed=seed)
    config = {"total_timesteps": 1000}
    return RunState(spec=spec, config=config, config_hash="0", **changes)  # type: ignore[arg-type]


def running(step: int, seconds: float, **changes: object) -> RunState:
    return state(
        status="running", step=step, seconds=seconds, first_step=0, first_seconds=0.0, **changes
    )


def test_time_left_goes_by_what_is_alike() -> None:
    """A waiting run is as slow as others of its setting and task, else of its task, else all.

    Running: a on E, 500 of 1000 steps in 5 s: 0.01 s a step, 5 s left. Waiting: a on E 10 s, b on E
    10 s (by its task), a on F 10 s (by all). One at a time: 35 s; three: the longest and a third.
    """
    runs = [running(500, 5.0), state(seed=1), state("b"), state(env="F-v0")]
    assert seconds_left(runs, 1) == pytest.approx(35.0)
    assert seconds_left(runs, 2) == pytest.approx(17.5)
    assert seconds_left(runs, 8) == pytest.approx(10.0)
    faster = [*runs, running(500, 2.5, setting="b", seed=2)]
    # b on E is now 5 s, what is left of it 2.5 s; a on F goes by the mean of both, 7.5 s
    assert seconds_left(faster, 1) == pytest.approx(5 + 10 + 5 + 7.5 + 2.5)


def test_time_left_counts_the_ends_of_a_process() -> None:
    """A finished run of 100 steps that took 3 s, 1.5 s of them training: 0.03 s a step."""
    done = state(status="finished", row=row(), step=100, elapsed_seconds=3.0)
    assert seconds_left([done, state(seed=1)], 1) == pytest.approx(30.0)
    old = state(status="finished", row=row(), step=100, is_old=True)
    assert seconds_left([old, state(seed=1)], 1) == pytest.approx(15.0)


def test_time_left_is_not_guessed() -> None:
    """Nothing is known at first; nothing is left at the end; failed runs are not waited for."""
    assert seconds_left([state(), running(0, 0.0)], 1) is None
    assert seconds_left([state(status="failed"), running(1000, 1.0)], 1) == 0.0
    assert seconds_left([state(), state(seed=1)], 2, [0.5, None]) == pytest.approx(500.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "-"), (0.4, "0 s"), (59.4, "59 s"), (61, "1:01 min"), (3660, "1:01 h")],
)
def test_durations(seconds: float | None, words: str) -> None:
    """Seconds below a minute, then minutes, then hours."""
    assert duration(seconds) == words


def test_plain_lines_say_everything_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal: what there is to do, then a line for every run that ends, once."""
    runs = [state(), state(seed=1), state(seed=2, status="finished", row=row(), is_old=True)]
    with SweepDisplay(2) as display:
        display(runs)
        runs[0].status, runs[0].row = "finished", row(score=math.nan)
        runs[1].status, runs[1].message = "failed", "a gear is broken"
        display(runs)
        display(runs)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "3 runs, 1 finished, 2 waiting, 2 at a time",
        "finished: a · E-v0 · seed 0, no episode ended in 2 s",
        "failed: a · E-v0 · seed 1, a gear is broken",
    ]
    with SweepDisplay(2, is_quiet=True) as display:
        display(runs)
    assert capsys.readouterr().err == "failed: a · E-v0 · seed 1, a gear is broken\n"


def test_a_terminal_gets_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every run has a line, those going on and failed first; brackets in names are no markup."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LINES", "40")
    monkeypatch.setenv("COLUMNS", "100")
    failed = state("[b]", seed=1, status="failed", message="a gear [is] broken")
    runs = [state("waits", seed=2), failed, running(500, 5.0, setting="goes")]
    with SweepDisplay(1) as display:
        display(runs)
    shown = capsys.readouterr().err
    assert shown.index("goes") < shown.index("[b]") < shown.index("waits")
    assert "3 runs, 1 running, 1 failed, 1 waiting, 15 s left" in shown
    assert "a gear [is] broken" in shown


@pytest.mark.parametrize(
    ("codes", "signal", "code"),
    [
        ((None, None), None, 0),
        ((3, 3), None, 3),
        ((3, 4), None, 1),
        ((-9, None), None, 1),
        ((3,), 2, 130),
    ],
)
def test_exit_codes(codes: tuple[int | None, ...], signal: int | None, code: int) -> None:
    """0; what failed runs agree on; 1 if they do not, or a signal killed one; 128 and our signal."""
    runs = [
        state(seed=i, status="finished" if c is None else "failed", code=c)
        for i, c in enumerate(codes)
    ]
    outcome = SweepOutcome(folder=Path(), runs=runs, signal=signal, wall_seconds=0)
    assert outcome.exit_code == code
