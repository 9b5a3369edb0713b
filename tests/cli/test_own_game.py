"""The tutorial's game in C compiles without a warning, is trained to dock, and goes on."""

from __future__ import annotations

import re
from pathlib import Path

from commands import Clip, assert_refused, read_rows
from libraries import NEEDS_ENGINE, compiled

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "own-game-in-c.md"
pytestmark = NEEDS_ENGINE


def test_the_game_of_the_tutorial(clip: Clip) -> None:
    """60 lines; its commands; far better than at the start; trusted only when told to be."""
    (game,) = re.findall(r"```c\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(game.strip().splitlines()) <= 60
    Path("dock.c").write_text(game)
    compiled(Path("dock.c"), Path("libdock.so"))
    said = clip("train", "./libdock.so", "--total-timesteps", "100000", "--quiet")
    assert said.code == 0, said.err
    assert "stepped by the engine" in said.err
    run = Path("runs/libdock.so/run1-0")
    rows = read_rows(run / "metrics.csv")
    assert float(rows[-1]["rollout/episode_return"]) > 5
    assert_refused(clip("evaluate", str(run)), 2, "--trust-env")
    evaluated = clip("evaluate", str(run), "--trust-env", "--episodes", "20")
    assert evaluated.code == 0, evaluated.err
    said = clip("resume", str(run), "--trust-env", "--total-timesteps", "104000", "--quiet")
    assert said.code == 0, said.err


def test_gymnasiums_door_gives_the_same_run(clip: Clip) -> None:
    """`--vectorization gymnasium` writes the same episodes as the engine."""
    (game,) = re.findall(r"```c\n(.*?)```", PAGE.read_text(), re.DOTALL)
    Path("dock.c").write_text(game)
    compiled(Path("dock.c"), Path("libdock.so"))
    found = []
    for way in ("native", "gymnasium"):
        said = clip(
            "train", "./libdock.so", "--total-timesteps", "6000", "--quiet", "--name", way,
            "--vectorization", way,
        )  # fmt: skip
        assert said.code == 0, said.err
        rows = read_rows(Path("runs/libdock.so") / f"{way}-0" / "episodes.csv")
        found.append([{k: v for k, v in row.items() if k != "wall_seconds"} for row in rows])
    assert found[0] == found[1]
    assert found[0]
