"""Table 2 of the PPO paper from rows: who wins which game, beside what is printed."""

from __future__ import annotations

import csv
import dataclasses
import io

import pytest

from clipper.configs import CONFIGS
from clipper.errors import ConfigError, FileError
from clipper.experiments.collection import Collection
from clipper.experiments.paper import ATARI_SCALES, TABLE2, atari_games, table2_runs
from clipper.experiments.rows import CurvePoint
from clipper.experiments.runs import check_runs
from clipper.experiments.table2 import reproduce_table2, winners
from clipper.presets import PRESETS
from made_rows import collection, row

# last 100 episodes, all of training: PPO wins Pong at last, ACER over all; on Breakout two are alike
SCORES = {
    ("A2C", "Pong"): (-20.0, -21.0),
    ("ACER", "Pong"): (18.0, 5.0),
    ("PPO", "Pong"): (20.0, 3.0),
    ("A2C", "Breakout"): (300.0, 100.0),
    ("ACER", "Breakout"): (300.0, 90.0),
    ("PPO", "Breakout"): (200.0, 80.0),
}


def study() -> Collection:
    """Returns runs of three seeds each, whose means are SCORES."""
    rows = [
        dataclasses.replace(
            row(name, f"ALE/{game}-v5", seed, last + seed - 1), score_all=over + seed - 1
        )
        for (name, game), (last, over) in SCORES.items()
        for seed in range(3)
    ]
    points = [
        CurvePoint(
            setting=r.setting,
            env=r.env,
            seed=r.seed,
            step=250 * k,
            wall_seconds=float(k),
            mean_return=r.score * k / 4,
        )
        for r in rows
        for k in range(1, 5)
    ]
    return dataclasses.replace(collection(*rows), points=points)


def test_both_metrics_stand_beside_the_printed_numbers() -> None:
    """Means over seeds of both metrics; Table 6 prints 20.7 for PPO on Pong, 274.8 on Breakout."""
    found = reproduce_table2(study(), 3)
    lines = {(r["game"], r["algorithm"]): r for r in csv.DictReader(io.StringIO(found.csv))}
    assert len(lines) == len(found.table.rows) == 6
    for key, (last, over) in SCORES.items():
        line = lines[key[1], key[0]]
        assert float(line["score_last_100"]) == pytest.approx(last)
        assert float(line["score_all"]) == pytest.approx(over)
    assert lines["Pong", "PPO"]["printed"] == "20.7"
    assert lines["Breakout", "PPO"]["printed"] == "274.8"
    assert "20.7" in str(found.table)
    assert len(found.figure.axes) == 2


def test_wins_are_counted_by_both_metrics() -> None:
    """Over all of training ACER and A2C win a game each; at last PPO wins one, and one is a tie."""
    whole, last = reproduce_table2(study(), 3).lines
    assert "A2C 1, ACER 1, PPO 0, tie 0 of 2 games" in whole
    assert "the paper: A2C 1, ACER 18, PPO 30, tie 0 of 49" in whole
    assert "A2C 0, ACER 0, PPO 1, tie 1 of 2 games" in last
    assert "the paper: A2C 1, ACER 28, PPO 19, tie 1 of 49" in last


def test_a_game_that_not_all_have_played_is_nobodys() -> None:
    """Without a score of ACER on Pong, Breakout alone is counted."""
    made = study()
    rows = [r for r in made.rows if (r.setting, r.env) != ("ACER", "ALE/Pong-v5")]
    whole, _ = reproduce_table2(dataclasses.replace(made, rows=rows), 3).lines
    assert "A2C 1, ACER 0, PPO 0, tie 0 of 1 game;" in whole


def test_the_printed_games_have_the_printed_winners() -> None:
    """Counting a made-up table: a single best wins, two bests are a tie."""
    games = {"a": {"A2C": 1.0, "ACER": 2.0, "PPO": 2.0}, "b": {"A2C": 3.0, "ACER": 2.0, "PPO": 1.0}}
    assert winners(games) == {"A2C": 1, "ACER": 0, "PPO": 0, "tie": 1}


def test_a_study_without_curves_is_refused() -> None:
    """The picture is half of it."""
    with pytest.raises(FileError, match=r"curves\.csv"):
        reproduce_table2(dataclasses.replace(study(), points=[]), 3)


def test_the_runs_are_the_papers() -> None:
    """49 games x 3 algorithms x 3 seeds of 10 M steps, settings that exist, no repeated actions."""
    full = ATARI_SCALES["full"]
    runs = table2_runs(atari_games(), full.num_seeds, full.total_timesteps)
    assert len(runs) == 49 * 3 * 3
    check_runs(runs)
    assert {run.setting for run in runs} == set(TABLE2)
    for run in runs[:3]:
        assert run.preset in PRESETS
        config = PRESETS[str(run.preset)].config(**run.settings)
        assert isinstance(config, CONFIGS[run.algo])
        assert config.total_timesteps == 10_000_000
        assert (config.clip_reward, config.terminal_on_life_loss) == (True, True)
        assert run.env_kwargs == {"repeat_action_probability": 0.0}
    ppo = PRESETS["ALE/*"].config()
    # table 5
    assert (ppo.num_envs, ppo.num_steps, ppo.num_epochs, ppo.minibatch_size) == (8, 128, 3, 256)
    assert (str(ppo.learning_rate), str(ppo.clip_range)) == ("linear:0.00025:0", "linear:0.1:0")
    assert (ppo.gamma, ppo.gae_lambda, ppo.vf_coef / 2, ppo.ent_coef) == (0.99, 0.95, 1.0, 0.01)


@pytest.mark.parametrize(
    ("games", "words"), [(["Pnog"], "no 'Pnog'"), (["Pong", "Pong"], "named once")]
)
def test_games_are_the_papers_and_named_once(games: list[str], words: str) -> None:
    """A game that is not in Table 6 has no printed number to stand beside."""
    with pytest.raises(ConfigError, match=words):
        table2_runs(games, 1, 1000)
