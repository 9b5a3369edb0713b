"""Table 1 of the PPO paper from rows: the arithmetic by hand, and the printed numbers."""

from __future__ import annotations

import csv
import io

import pytest
from scipy import stats

from clipper.errors import ConfigError, FileError
from clipper.experiments.paper import TABLE1, table1_runs
from clipper.experiments.printed import printed_rows, printed_table1
from clipper.experiments.rows import Row
from clipper.experiments.table1 import Table1Row, draw_table1, table1_csv, table1_of, table1_text
from clipper.presets import MUJOCO_TASKS, find_preset
from made_rows import collection, row

RANDOM = {"A": 10.0, "B": -100.0}
ROWS = [
    # A: random 10, best run 110; B: random -100, best run -50
    *(row("no clipping or penalty", "A", s, x) for s, x in enumerate((10, 0, -40))),
    *(row("no clipping or penalty", "B", s, x) for s, x in enumerate((-200, -100, -75))),
    *(row("clip 0.2", "A", s, x) for s, x in enumerate((110, 90, 100))),
    *(row("clip 0.2", "B", s, x) for s, x in enumerate((-50, -60, -55))),
    *(row("fixed KL 3", "A", s, x) for s, x in enumerate((60, 60, 60))),
    *(row("fixed KL 3", "B", s, x) for s, x in enumerate((-75, -75, -75))),
]


def by_setting(*rows: Row) -> dict[str, Table1Row]:
    return {r.setting: r for r in table1_of(collection(*rows), RANDOM).rows}


def test_scores_are_shifted_and_scaled_as_worked_out_by_hand() -> None:
    """Random is 0 and the best run 1 on every task; a setting's score is the mean of its runs.

    clip 0.2 on A: (100 + 80 + 90) / 3 / 100 = 0.9; on B: (50 + 40 + 45) / 3 / 50 = 0.9.
    No clipping on A: (0 - 10 - 50) / 3 / 100 = -0.2; on B: (-100 + 0 + 25) / 3 / 50 = -0.5.
    Fixed KL: 50 / 100 and 25 / 50. The best setting's means are 0.9 and 0.9: all else over 0.9.
    """
    found = by_setting(*ROWS)
    assert found["clip 0.2"].score.value == pytest.approx(0.9)
    assert found["no clipping or penalty"].score.value == pytest.approx(-0.35)
    assert found["fixed KL 3"].score.value == pytest.approx(0.5)
    assert [r.rank for r in found.values()] == [3, 1, 2]
    assert [r.num_runs for r in found.values()] == [6, 6, 6]
    means = [r.score_to_mean for r in found.values()]
    assert means == pytest.approx([-0.35 / 0.9, 1.0, 0.5 / 0.9])
    clip = found["clip 0.2"].score
    # s = 0.1 on both tasks, four degrees of freedom: 0.9 -+ 2.776 * 0.1 / sqrt(6)
    assert (clip.low, clip.high) == pytest.approx((0.7867, 1.0133), abs=0.003)
    flat = found["fixed KL 3"].score  # equal runs: nothing varies
    assert (flat.low, flat.high) == pytest.approx((0.5, 0.5))


def test_a_setting_that_is_not_the_papers_moves_nothing() -> None:
    """With a better row of our own the others keep their scores and ranks; it has no rank."""
    raw = [row("clip 0.2, not normalised", e, s, 210.0) for e in "AB" for s in range(3)]
    before, after = by_setting(*ROWS), by_setting(*ROWS, *raw)
    extra = after.pop("clip 0.2, not normalised")
    assert after == before
    # (210 - 10) / 100 = 2 on A, (210 + 100) / 50 = 6.2 on B
    assert extra.score.value == pytest.approx(4.1)
    assert (extra.rank, extra.printed, extra.printed_rank) == (None, None, None)


def test_tasks_without_a_scale_are_left_out_and_named() -> None:
    """Where no run beats the random policy there is no 1: the task does not count, and it is said."""
    bad = [row(s, "C", 0, -5.0) for s in ("no clipping or penalty", "clip 0.2", "fixed KL 3")]
    table = table1_of(collection(*ROWS, *bad), {**RANDOM, "C": -5.0})
    assert list(table.tasks) == ["A", "B"]
    assert [r.score.value for r in table.rows] == pytest.approx([-0.35, 0.9, 0.5])
    assert any("C is left out" in note for note in table.notes)
    with pytest.raises(FileError):
        table1_of(collection(*bad), {"C": 0.0})


def test_only_tasks_that_all_settings_have_count() -> None:
    """In a study that was cut short a setting is not better for having skipped a hard task."""
    some = [r for r in ROWS if (r.setting, r.env) != ("fixed KL 3", "B")]
    table = table1_of(collection(*some), RANDOM)
    assert list(table.tasks) == ["A"]
    assert [r.score.value for r in table.rows] == pytest.approx([-0.2, 0.9, 0.5])
    with pytest.raises(ConfigError, match="in common"):
        table1_of(collection(row("clip 0.1", "A", 0, 20.0), row("clip 0.2", "B", 0, 20.0)), RANDOM)


def test_the_rank_correlation_is_spearmans() -> None:
    """It agrees with scipy's, ties among the printed scores included."""
    scores = dict(
        zip(TABLE1, (0.1, 0.9, 0.8, 0.7, 0.65, 0.6, 0.2, 0.3, 0.75, 0.4, 0.5), strict=True)
    )
    rows = [row(s, "A", 0, 10 + 100 * x) for s, x in scores.items()]
    table = table1_of(collection(*rows), RANDOM)
    printed = [printed_table1()[s] for s in scores]
    assert len(set(printed)) < len(printed)
    expected = stats.spearmanr(list(scores.values()), printed).statistic
    assert table.rank_correlation == pytest.approx(expected)


def test_the_text_and_the_file_show_the_same_table() -> None:
    """The difference is ours less the printed one; the file has all digits and names the source."""
    table = table1_of(collection(*ROWS), RANDOM)
    text = str(table1_text(table, 3))
    lines = {line.strip()[:10]: line.split() for line in text.splitlines()}
    assert lines["clip 0.2  "][2:] == [
        "6",
        "0.90",
        *lines["clip 0.2  "][4:7],
        "0.82",
        "+0.08",
        "1",
        "1",
    ]
    cells = {r["setting"]: r for r in csv.DictReader(io.StringIO(table1_csv(table)))}
    clip = cells["clip 0.2"]
    assert float(clip["difference"]) == pytest.approx(0.9 - 0.82)
    assert clip["source"] == "arXiv 1707.06347v2, Table 1"
    assert float(cells["no clipping or penalty"]["difference"]) == pytest.approx(-0.35 + 0.39)
    assert cells["fixed KL 3"]["printed_rank"] == "4"


def test_the_picture_shows_both_tables() -> None:
    """Our scores and the printed ones stand in the line of their setting."""
    table = table1_of(collection(*ROWS), RANDOM)
    (axes,) = draw_table1(table).axes
    assert [t.get_text() for t in axes.get_yticklabels()] == list(
        dict.fromkeys(r.setting for r in ROWS)
    )
    (printed,) = [line for line in axes.lines if line.get_marker() == "D"]
    assert list(printed.get_xdata()) == [-0.39, 0.82, 0.72]
    assert list(printed.get_ydata()) == [0, 1, 2]


def test_the_printed_table_is_the_papers() -> None:
    """Eleven settings with the names of our runs; every row of every file names its source."""
    assert printed_table1() == {
        "no clipping or penalty": -0.39,
        "clip 0.1": 0.76,
        "clip 0.2": 0.82,
        "clip 0.3": 0.70,
        "adaptive KL 0.003": 0.68,
        "adaptive KL 0.01": 0.74,
        "adaptive KL 0.03": 0.71,
        "fixed KL 0.3": 0.62,
        "fixed KL 1": 0.71,
        "fixed KL 3": 0.72,
        "fixed KL 10": 0.69,
    }
    assert set(printed_table1()) == set(TABLE1)
    names = ("table1", "table2", "table6", "figure3", "settings", "environments")
    for name in names:
        rows = printed_rows(f"{name}.csv")
        assert rows
        for r in rows:
            assert all((r["paper"], r["table"]))
            assert r["url"].startswith("https://")


def test_the_study_is_the_papers() -> None:
    """Table 1 is 11 settings x 7 tasks x 3 seeds of a million steps with the paper's table 3."""
    runs = table1_runs()
    assert len(runs) == 231
    assert {run.env for run in runs} == set(MUJOCO_TASKS)
    assert len(table1_runs(has_raw=True)) == 252
    printed = {
        r["setting"]: r["value"] for r in printed_rows("settings.csv") if r["table"] == "Table 3"
    }
    assert len(printed) == 6
    for run in runs:
        config = find_preset(str(run.preset)).config(**run.settings)
        data = config.to_json()
        assert data["num_steps"] * data["num_envs"] == int(printed["horizon_T"])
        assert data["minibatch_size"] == int(printed["minibatch_size"])
        assert data["num_epochs"] == int(printed["num_epochs"])
        assert data["gamma"] == float(printed["discount_gamma"])
        assert data["gae_lambda"] == float(printed["gae_lambda"])
        step_size = float(printed["adam_stepsize"])
        assert (config.learning_rate.at(0.0), config.learning_rate.at(1.0)) == (
            step_size,
            step_size,
        )
        # section 6.1: a million steps, 64 and 64 tanh units, nothing shared, no entropy bonus
        assert (data["total_timesteps"], data["ent_coef"]) == (10**6, 0)
        assert (data["hidden_sizes"], data["activation"]) == ([64, 64], "tanh")
        assert not data["shared_torso"]


def test_the_printed_atari_tables_agree() -> None:
    """Counting the best of each game in Table 6 gives Table 2's wins, but for Pong's rounding.

    A2C 1, ACER 28, PPO 19 and 1 tie are printed; from the rounded scores Pong is a tie more and an
    ACER win less.
    """
    wins = {"a2c": 0, "acer": 0, "ppo": 0, "tie": 0}
    for r in printed_rows("table6.csv"):
        scores = {name: float(r[name]) for name in ("a2c", "acer", "ppo")}
        best = [name for name in scores if scores[name] == max(scores.values())]
        wins[best[0] if len(best) == 1 else "tie"] += 1
    (last,) = [r for r in printed_rows("table2.csv") if r["metric"] == "last"]
    assert {name: int(last[name]) for name in wins} == {"a2c": 1, "acer": 28, "ppo": 19, "tie": 1}
    assert wins == {"a2c": 1, "acer": 27, "ppo": 19, "tie": 2}
