"""Laws of the alarms: silent over healthy runs, raised by a broken setting, exact when resumed."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import clipper
import facts
from clipper.alarm_cures import USUAL, advise
from clipper.alarm_facts import WINDOW, Alarm
from clipper.alarm_watch import AlarmWatch
from clipper.alarms import RULES
from clipper.configs import CONFIGS
from clipper.metrics import DESCRIPTIONS
from clipper.presets import GENERIC, PRESETS
from commands import read_rows
from helpers import DictEnv

RECORDED = sorted((Path(__file__).parents[1] / "golden" / "alarms").glob("*.csv"))


def recorded(file: Path) -> list[dict[str, float]]:
    with open(file, newline="", encoding="utf-8") as lines:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(lines)]


def alarms_over(rows: list[dict[str, float]]) -> list[tuple[int, Alarm]]:
    """Returns the alarms that begin in rows, with the index of the row."""
    watch = AlarmWatch()
    progress = [row.get("progress", (n + 1) / len(rows)) for n, row in enumerate(rows)]
    return [
        (n, alarm)
        for n, row in enumerate(rows)
        for alarm in watch.look(int(row.get("step", n)), row, progress[n])[1]
    ]


def test_runs_were_recorded() -> None:
    """PPO on the four tasks and every other algorithm, with hundreds of rows."""
    names = {file.stem for file in RECORDED}
    assert {
        f"{task}-ppo" for task in ("cartpole", "pendulum", "lunarlander", "halfcheetah")
    } <= names
    assert {f"cartpole-{name}" for name in ("a2c", "acer", "vpg", "trpo", "cem")} <= names
    assert sum(len(recorded(file)) for file in RECORDED) > 1000


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_healthy_runs_raise_no_alarm(file: Path) -> None:
    """From the first row of a preset's run to the last no rule has anything to say."""
    assert alarms_over(recorded(file)) == []
    facts.note("healthy", rows=len(recorded(file)))


def steady(count: int = 60, **changes: Callable[[int], float]) -> list[dict[str, float]]:
    """Returns rows of a run that is fine, but for what is changed in row n."""
    rows = []
    for n in range(count):
        row = {
            "policy/approx_kl": 0.01,
            "policy/entropy": 1.0 - 0.5 * n / count,
            "rollout/episode_return": float(n),
            "rollout/episode_return_std": 2.0,
            "rollout/episodes": 10.0 * (n + 1),
            "rollout/reward_mean": 1.0,
            "rollout/truncated_fraction": 1.0,
            "loss/value": 2.0,
            "value/explained_variance": 0.5,
            "value/target_mean": 0.0,
            "value/target_std": 2.0,
        }
        for name, change in changes.items():
            row[name.replace("__", "/")] = change(n)
        rows.append(row)
    return rows


def the_one_alarm(rows: list[dict[str, float]]) -> tuple[int, Alarm]:
    """Returns the alarm of rows in which no other begins; where returns rest that is told by itself."""
    found = alarms_over(rows)
    ((n, alarm),) = [each for each in found if each[1].name != "no_progress"] or found
    return n, alarm


# what is changed, the row in which the alarm begins, its number
MADE: dict[str, tuple[dict[str, Callable[[int], float]], int, float]] = {
    # the median of three rows: two of them must be above the limit
    "kl": ({"policy__approx_kl": lambda n: 0.5 if n >= 30 else 0.01}, 31, 0.5),
    # 1 % of the first entropy in two of three rows; the return stays at 3, base 10 +- 2
    "entropy": (
        {
            "policy__entropy": lambda n: 0.01 if n >= 30 else 1.0,
            "rollout__episode_return": lambda n: 3.0,
            "rollout__truncated_fraction": lambda n: 0.0,
        },
        31,
        0.01,
    ),
    # the base is row 1, the best of returns row 39, and a twentieth of the rise is lost in row 42
    "saturation": (
        {
            "policy__action_saturation": lambda n: 0.4 if n >= 20 else 0.1,
            "policy__action_std": lambda n: 0.6 if n >= 30 else 0.4,
            "rollout__episode_return": lambda n: float(n if n < 40 else 79 - n),
        },
        42,
        0.4,
    ),
    "reward": ({"rollout__reward_mean": lambda n: -350.0 if n == 30 else 1.0}, 30, 350.0),
    # a constant's loss is 0.5 x 2^2 = 2; five of ten rows make the median of ten (1 + 40) / 2
    "value_loss": ({"loss__value": lambda n: 80.0 if n >= 30 else 2.0}, 34, 20.5),
    # row 10 is the first of 20 below 0
    "explained_variance": (
        {"value__explained_variance": lambda n: -0.2 if n >= 10 else 0.5},
        29,
        -0.2,
    ),
    # ten rows without a share of the variance; targets of sqrt(120^2 + 160^2), and the loss of a
    # value of 0: 20000, where 1.5 x (120^2 + 16^2) / 2 is allowed
    "scale": (
        {
            "value__explained_variance": lambda n: 0.01 if n >= 30 else 0.5,
            "loss__value": lambda n: 20_000.0,
            "value__target_mean": lambda n: -160.0,
            "value__target_std": lambda n: 120.0,
        },
        39,
        200.0,
    ),
    # 200 episodes are over in row 19
    "flat_return": ({"rollout__episode_return": lambda n: -200.0}, 19, -200.0),
    # and a third of the run
    "same_return": (
        {
            "rollout__episode_return": lambda n: 3.0,
            "rollout__episode_return_std": lambda n: 0.0,
            "rollout__truncated_fraction": lambda n: 0.5,
        },
        19,
        3.0,
    ),
    # the median of ten rows: six of them must be below the limit
    "still": (
        {
            "policy__approx_kl": lambda n: 1e-7 if n >= 30 else 0.01,
            "rollout__episode_return": lambda n: 3.0,
            "rollout__truncated_fraction": lambda n: 0.0,
        },
        35,
        1e-7,
    ),
    # 200 episodes are over in row 19
    "small_rewards": (
        {
            "rollout__episode_return": lambda n: 4e-4,
            "rollout__episode_return_std": lambda n: 3e-4,
        },
        19,
        5e-4,
    ),
    # more than a quarter of 60 rows
    "no_episode": ({"rollout__episodes": lambda n: 0.0}, 14, 0.25),
    # half of 60 rows; the standard error of the difference is 2 / 10 from row 9 on, before it is more
    "no_progress": (
        {
            "rollout__episode_return": lambda n: 3.0 + 0.1 * (n % 3),
            "rollout__truncated_fraction": lambda n: 0.5,
        },
        29,
        3.1,
    ),
    # the median of three rows
    "complete": ({"rollout__complete_fraction": lambda n: 0.1 if n >= 30 else 0.9}, 31, 0.1),
}


@pytest.mark.parametrize("name", MADE)
def test_each_rule_speaks_when_it_should(name: str) -> None:
    """Worked by hand: one alarm, in that row, with that number in its text and its cure."""
    changes, row, value = MADE[name]
    found_row, alarm = the_one_alarm(steady(**changes))
    assert (alarm.name, found_row) == (name, row)
    assert alarm.value == pytest.approx(value)
    assert str(alarm).startswith(f"alarm {name}: ")
    assert f"alarm/{name}" in DESCRIPTIONS


def test_what_is_fine_is_silent() -> None:
    """The rows that the others are made from raise nothing, and every rule has a test."""
    assert alarms_over(steady()) == []
    assert {rule.__name__ for rule in RULES} == {f"{name}_alarm" for name in MADE}


def test_an_entropy_that_falls_while_returns_rise_is_learning() -> None:
    """The same entropy is no alarm where the return is above its first spread."""
    changes, _, _ = MADE["entropy"]
    rows = steady(**{**changes, "rollout__episode_return": lambda n: 3.0 if n < 25 else 6.0})
    assert alarms_over(rows) == []


@pytest.mark.parametrize(
    ("share", "last_std", "last_return"),
    [(0.9, 0.5, 20.0), (0.2, 5.0, 20.0), (0.9, 5.0, 38.0)],
    ids=["full effort", "noise that is felt", "returns that hold"],
)
def test_full_effort_and_growing_noise_may_be_what_a_task_wants(
    share: float, last_std: float, last_return: float
) -> None:
    """The best policy may be at its bounds, and find it by noise: two of three are no alarm."""
    rows = steady(
        policy__action_saturation=lambda n: share,
        policy__action_std=lambda n: last_std if n >= 30 else 0.4,
        rollout__episode_return=lambda n: n if n < 40 else last_return,
    )
    assert alarms_over(rows) == []


def test_a_watch_of_before_goes_on() -> None:
    """Checkpoints written before the best return was kept have none, and are read."""
    data = AlarmWatch().to_json()
    del data["best_return"], data["begins_trained"]
    assert AlarmWatch.from_json(data).to_json() == AlarmWatch().to_json()


def test_targets_that_hardly_differ_prove_nothing() -> None:
    """Around 100 with a deviation of 0.1 an error of 1 is 1 %, though 100 times their variance."""
    rows = steady(
        value__target_mean=lambda n: 100.0,
        value__target_std=lambda n: 0.1,
        value__explained_variance=lambda n: -99.0,
        loss__value=lambda n: 0.5,
    )
    assert alarms_over(rows) == []
    # with an error of 150 it is another matter: 1 - 22500 / (0.1^2 + 10^2) = -224
    rows = steady(
        value__target_mean=lambda n: 100.0,
        value__target_std=lambda n: 0.1,
        value__explained_variance=lambda n: 1.0 - 22500.0 / 0.01,
        loss__value=lambda n: 0.5 * 22500.0,
    )
    found = {alarm.name: alarm.value for _, alarm in alarms_over(rows)}
    assert found == {
        "explained_variance": pytest.approx(-224.0, rel=1e-3),
        "value_loss": pytest.approx(225.0, rel=1e-3),
    }


def test_a_value_function_that_is_not_there_yet_does_not_diverge() -> None:
    """Targets of 40 +- 3 and a value of 0: 150 times a constant's loss, but the one it begins with."""
    changes: dict[str, Callable[[int], float]] = {
        "value__target_mean": lambda n: 40.0,
        "value__target_std": lambda n: 3.0,
        "value__explained_variance": lambda n: 0.01,
    }
    assert alarms_over(steady(**changes, loss__value=lambda n: 0.5 * 1609.0)) == []
    ((_, alarm),) = alarms_over(steady(**changes, loss__value=lambda n: 0.5 * 2.1 * 1609.0))
    assert alarm.name == "value_loss"


@pytest.mark.parametrize(
    "change",
    [
        {"rollout__episode_return": lambda n: 4.0 if n == 5 else 3.0},
        {"rollout__episode_return_std": lambda n: 1.0 if n < 3 else 0.0},
        {"rollout__episode_return_std": lambda n: 1.0 if n == 15 else 0.0},
        {"rollout__episodes": lambda n: 3.0 * n},
    ],
    ids=["another return", "another at first", "another just now", "few episodes"],
)
def test_returns_that_were_ever_others_are_not_all_the_same(
    change: dict[str, Callable[[int], float]],
) -> None:
    """One other return, and there is something to learn from."""
    rows = steady(**{**MADE["same_return"][0], **change})
    assert [alarm for n, alarm in alarms_over(rows) if n < 29] == []


@pytest.mark.parametrize(
    "change",
    [
        {"rollout__episode_return": float},
        {"policy__approx_kl": lambda n: 1e-7 if n >= 55 else 0.01},
        {"policy__approx_kl": lambda n: 1e-7 if n % 2 else 0.01},
        {"rollout__reward_mean": lambda n: 0.0},
    ],
    ids=["returns that rise", "the end of a schedule", "every other iteration", "no reward"],
)
def test_a_policy_may_rest(change: dict[str, Callable[[int], float]]) -> None:
    """It is an alarm only where it should move, and something tells it where to."""
    rows = steady(**{**MADE["still"][0], **change})
    assert {alarm.name for _, alarm in alarms_over(rows)} <= {"no_progress"}


def test_without_any_reward_nothing_is_said_of_the_value_function() -> None:
    """Its targets are its own first guesses: their scale is none, and what is missing is a reward."""
    changes: dict[str, Callable[[int], float]] = {
        "loss__value": lambda _: 2e-7,
        "value__explained_variance": lambda _: -44.0,
        "value__target_std": lambda _: 8e-5,
        "value__target_mean": lambda _: 0.0,
    }
    rows = steady(**changes, rollout__reward_mean=lambda _: 0.0)
    assert not {alarm.name for _, alarm in alarms_over(rows)} & {"value_loss", "explained_variance"}
    rewarded = steady(**changes, rollout__reward_mean=lambda n: float(n == 3))
    assert {alarm.name for _, alarm in alarms_over(rewarded)} >= {
        "value_loss",
        "explained_variance",
    }


def test_an_alarm_that_comes_and_goes_is_told_of_once() -> None:
    """Only after a window of silence it is news again; the row has it all the same."""
    rows = steady(90, policy__approx_kl=lambda n: 0.5 if n in (30, 31, 40, 41, 80, 81) else 0.01)
    assert [n for n, _ in alarms_over(rows)] == [31, 81]
    watch = AlarmWatch()
    on = [n for n, row in enumerate(rows) if watch.look(n, row, 0.5)[0]]
    # the median of three: one row longer than it lasts
    assert on == [31, 32, 41, 42, 81, 82]


def test_numbers_that_are_missing_or_not_finite_are_passed_over() -> None:
    """NaN, as an explained variance of constant targets is, counts as not reported."""
    rows = steady(
        value__explained_variance=lambda n: float("nan"), policy__approx_kl=lambda n: 0.01
    )
    assert alarms_over(rows) == []
    assert alarms_over([{} for _ in range(50)]) == []


@pytest.mark.parametrize("name", MADE)
def test_a_watch_goes_on_where_it_was_saved(name: str) -> None:
    """Taken through JSON after any row, it says what the one that was never saved does."""
    changes, _, _ = MADE[name]
    rows = steady(**changes)
    straight, resumed = AlarmWatch(), AlarmWatch()
    for n, row in enumerate(rows):
        resumed = AlarmWatch.from_json(json.loads(json.dumps(resumed.to_json(), allow_nan=False)))
        progress = (n + 1) / len(rows)
        assert straight.look(n, row, progress) == resumed.look(n, row, progress)
    assert straight.raised == resumed.raised != []


class Near(gymnasium.Env[Any, Any]):
    """Wants two numbers near 0.8; noise costs, but for what is beyond the bounds."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))
    action_space = spaces.Box(-1.0, 1.0, (2,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.clock = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.clock += 1
        obs = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        return obs, -float(np.square(action - 0.8).sum()), False, self.clock == 20, {}


class Growing(DictEnv):
    """Rewards are `factor` times as large from the 2,000th step on."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.count = factor, 0

    def step(self, action: int) -> Any:
        obs, reward, *rest = super().step(action)
        self.count += 1
        return obs, reward * (self.factor if self.count > 2000 else 1.0) + 0.05, *rest


class Pointless(DictEnv):
    """Rewards that no action changes."""

    def step(self, action: int) -> Any:
        obs, _, _, _, info = super().step(action)
        return obs, float(self.np_random.normal()), self.clock == 20, False, info


class Unpaid(DictEnv):
    """Forgets its reward; episodes end by themselves."""

    def step(self, action: int) -> Any:
        obs, _, _, _, info = super().step(action)
        return obs, 0.0, self.clock == 20, False, info


class Faint(DictEnv):
    """Rewards that are a millionth of what they were."""

    def step(self, action: int) -> Any:
        obs, reward, *rest = super().step(action)
        return obs, 1e-6 * reward, *rest


class Endless(DictEnv):
    """Goes on whatever is done."""

    def step(self, action: int) -> Any:
        obs, reward, _, _, info = super().step(action)
        return obs, reward, False, False, info


BROKEN: dict[str, tuple[Any, dict[str, Any]]] = {
    "kl": ("CartPole-v1", {"learning_rate": 0.1, "num_epochs": 20}),
    "entropy": (
        Pointless,
        {"learning_rate": 0.1, "ent_coef": 0.0, "num_epochs": 20, "total_timesteps": 40_000},
    ),
    "saturation": (Near, {"ent_coef": 1.0, "learning_rate": 0.003, "log_std_init": -1.0}),
    "reward": (lambda: Growing(-1e4), {}),
    "scale": ("Pendulum-v1", {"total_timesteps": 30_000, "num_steps": 256}),
    "value_loss": ("CartPole-v1", {"learning_rate": "linear:1e-4:1e3", "max_grad_norm": None}),
    "explained_variance": ("CartPole-v1", {"learning_rate": 0.0, "value_gain": 30.0}),
    "flat_return": ("MountainCar-v0", {"total_timesteps": 60_000}),
    "same_return": (Unpaid, {}),
    "small_rewards": (Faint, {"learning_rate": 0.0}),
    "no_episode": (Endless, {}),
    "no_progress": (Pointless, {}),
    "still": ("CartPole-v1", {"learning_rate": 1e-7}),
    "complete": (
        "CartPole-v1",
        {"advantage": "total_return", "num_steps": 16, "minibatch_size": 16},
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_setting_raises_its_alarm(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A real run: the number is in the row, the line in the log, and the agent tells of it."""
    env, settings = BROKEN[name]
    agent = clipper.PPO(
        env, preset="none", seed=3, eval_every=0,
        **{"num_envs": 4, "num_steps": 64, "minibatch_size": 64, "hidden_sizes": (16,),
           "total_timesteps": 20_000, **settings},
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, "clipper"):
        agent.train(progress=False, run_dir=tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    raised = [n for n, row in enumerate(rows) if row.get(f"alarm/{name}")]
    assert raised
    first = next(text for text in agent.alarms if f"alarm {name}: " in text)
    assert first.startswith(f"step {int(rows[raised[0]]['step']):,}: ")
    assert first.partition(": ")[2] in caplog.text
    assert first in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("change", "is_told"),
    [
        ({}, True),
        # the loss of the right constant, as in a bandit whose observations tell nothing
        ({"loss__value": lambda n: 7200.0}, False),
        # small numbers, to which a network gets in time
        (
            {
                "value__target_mean": lambda n: -40.0,
                "value__target_std": lambda n: 30.0,
                "loss__value": lambda n: 1250.0,
            },
            False,
        ),
        ({"value__explained_variance": lambda n: 0.2 if n % 10 == 0 else 0.01}, False),
        # targets that do not differ, and a value that is there
        ({"value__target_std": lambda n: 0.0, "loss__value": lambda n: 1.0}, False),
    ],
)
def test_large_targets_alone_are_no_fault(
    change: dict[str, Callable[[int], float]], is_told: bool
) -> None:
    """Only those that the value function does not get to are; what follows from it is not told too."""
    changes = {
        **MADE["scale"][0],
        "value__explained_variance": lambda n: 0.01,
        "rollout__episode_return": lambda n: -200.0,
        **change,
    }
    found = {alarm.name for _, alarm in alarms_over(steady(**changes))}
    assert ("scale" in found) == is_told
    assert ("flat_return" in found) == (not is_told)


def test_returns_of_0_and_1_can_rise() -> None:
    """From 0.54 +- 0.5 to 1: more than the standard error of the means, less than the spread."""
    changes: dict[str, Callable[[int], float]] = {
        "policy__entropy": lambda n: 0.01 if n >= 30 else 1.0,
        "rollout__episode_return": lambda n: 0.54 if n < 20 else 1.0,
        "rollout__episode_return_std": lambda n: 0.5 if n < 20 else 0.0,
        "rollout__episodes": lambda n: 500.0 * (n + 1),
        "rollout__truncated_fraction": lambda n: 0.0,
    }
    assert alarms_over(steady(**changes)) == []
    lost = {**changes, "rollout__episode_return": lambda n: 0.54}
    _, alarm = the_one_alarm(steady(**{**lost, "rollout__episode_return_std": lambda n: 0.5}))
    assert alarm.name == "entropy"
    assert "(0.54 at first, 0.54 now)" in alarm.text


def test_no_progress_is_the_last_thing_to_say() -> None:
    """Not while another alarm comes and goes; twenty rows after it, if returns still rest."""
    changes: dict[str, Callable[[int], float]] = {
        **MADE["no_progress"][0],
        "policy__approx_kl": lambda n: 0.5 if n in (20, 21, 40, 41) else 0.01,
    }
    # the median of three is above the limit in rows 21, 22, 41 and 42
    assert [(n, alarm.name) for n, alarm in alarms_over(steady(80, **changes))] == [
        (21, "kl"),
        (63, "no_progress"),
    ]


@pytest.mark.parametrize(
    "name", ["no_progress", "flat_return", "still", "entropy", "small_rewards"]
)
def test_a_policy_that_was_trained_before_need_not_rise(name: str) -> None:
    """It may be as good as it gets from the first row on; that is kept in checkpoints."""
    watch = AlarmWatch()
    watch.begins_trained = True
    watch = AlarmWatch.from_json(json.loads(json.dumps(watch.to_json())))
    rows = steady(**MADE[name][0])
    assert not [a for n, row in enumerate(rows) for a in watch.look(n, row, (n + 1) / 60)[0]]


@pytest.mark.parametrize("is_begun", [False, True])
def test_an_agent_that_starts_from_another_is_known_as_such(is_begun: bool, tmp_path: Path) -> None:
    """Rewards that no action changes: told to a fresh agent, not to one that may have learnt all."""
    settings = BROKEN["no_progress"][1]
    small = {"preset": "none", "num_envs": 4, "num_steps": 64, "minibatch_size": 64,
             "hidden_sizes": (16,), "total_timesteps": 20_000, "eval_every": 0, **settings}  # fmt: skip
    agent = clipper.PPO(Pointless, seed=3, **small)
    if is_begun:
        agent.save(tmp_path / "a.safetensors")
        agent = clipper.PPO(Pointless, seed=3, **small)
        agent.init_from(tmp_path / "a.safetensors")
    agent.train(progress=False)
    assert any("alarm no_progress" in text for text in agent.alarms) == (not is_begun)


def test_a_fall_within_chance_is_no_fall() -> None:
    """Means of 100 episodes with a deviation of 20 differ by 2.8 from one to the next."""
    changes: dict[str, Callable[[int], float]] = {
        **MADE["saturation"][0],
        "rollout__episode_return": lambda n: 1.0 + (n % 7) / 3,
        "rollout__episode_return_std": lambda n: 20.0,
        "rollout__truncated_fraction": lambda n: 0.5,
    }
    assert {alarm.name for _, alarm in alarms_over(steady(**changes))} == {"no_progress"}


def test_a_loss_that_falls_does_not_diverge() -> None:
    """Values begin far beyond targets of a millionth, and come down."""
    rows = steady(
        value__target_std=lambda n: 1e-6,
        loss__value=lambda n: 1e-3 * 0.7**n,
        rollout__reward_mean=lambda n: 1e-6,
    )
    assert alarms_over(rows) == []


def test_a_rise_that_is_lost_is_told_as_such() -> None:
    """From 3 to 20 and back; a rise within what chance makes of 100 episodes is none."""

    def returns(top: float) -> dict[str, Callable[[int], float]]:
        return {
            "rollout__episode_return": lambda n: top if 10 <= n < 25 else 3.0,
            "rollout__truncated_fraction": lambda n: 0.5,
        }

    ((row, alarm),) = alarms_over(steady(**returns(20.0)))
    # six of ten rows are back in row 30
    assert (row, alarm.name) == (30, "no_progress")
    assert "the 20 that they had risen to is lost" in alarm.text
    assert "lower learning_rate" in alarm.cures
    ((_, alarm),) = alarms_over(steady(**returns(3.2)))
    assert "have not risen (3 at first, 3.1 now)" in alarm.text


@pytest.mark.parametrize(
    ("share", "said", "cure"),
    [
        (0.9, "though the value function foresees 90 %", "see that actions have an effect"),
        (-0.02, "and the value function foresees 0 %", "see that observations tell"),
        (0.3, "3.1 now)", "look at the task"),
    ],
)
def test_what_is_foreseen_tells_where_to_look(share: float, said: str, cure: str) -> None:
    """Values that are right while returns rest: actions; values that are not: observations."""
    rows = steady(**{**MADE["no_progress"][0], "value__explained_variance": lambda n: share})
    ((_, alarm),) = alarms_over(rows)
    assert said in alarm.text
    assert alarm.cures[0].startswith(cure)


@pytest.mark.parametrize(
    ("name", "settings", "first"),
    [
        ("still", {"vf_coef": 1e5}, "lower vf_coef, which is 100000 (usual: 0.1 to 2)"),
        ("still", {"clip_range": 1e-3}, "raise clip_range, which is 0.001 (usual: 0.05 to 0.5)"),
        ("still", {"learning_rate": 1e-6}, "raise learning_rate, which is 1e-06 (usual: 1e-05 to 0.01)"),
        ("no_progress", {"gamma": 0.0}, "raise gamma, which is 0 (usual: 0.9 to 1)"),
        ("no_progress", {"ent_coef": 10}, "lower ent_coef, which is 10 (usual: 0 to 0.1)"),
        ("kl", {"learning_rate": "linear:1e-4:0.5"}, "lower learning_rate, which is 0.5 (usual: "),
        ("kl", {"gamma": 0.0}, "lower learning_rate"),
        ("kl", {"log_std_init": -8.0}, "raise log_std_init, which is -8 (usual: -3 to 1)"),
        ("kl", {"num_epochs": 1, "max_grad_norm": 1e-3}, "lower learning_rate"),
        ("still", {"max_grad_norm": 1e-3}, "raise max_grad_norm, which is 0.001 (usual: at least 0.1)"),
    ],
)  # fmt: skip
def test_settings_that_stand_out_are_named_first(
    name: str, settings: dict[str, Any], first: str
) -> None:
    """With their number, once; what has nothing to do with an alarm is not."""
    _, alarm = the_one_alarm(steady(**MADE[name][0]))
    mine = advise(alarm, vars(CONFIGS["ppo"]().replace(**settings)))
    assert mine.cures[0].startswith(first)
    word = first.split()[1].rstrip(",")
    assert sum(f" {word}" in f" {cure}" for cure in mine.cures) == 1
    assert not {f"raise {word}", f"lower {word}"} & set(mine.cures[1:])
    assert ("lower num_epochs" in mine.cures) == (name == "kl" and "num_epochs" not in settings)


def test_rewards_that_are_scaled_are_not_small() -> None:
    """Where the networks see other numbers something else is wrong."""
    watch = AlarmWatch()
    rows = steady(**MADE["small_rewards"][0])
    settings = vars(clipper.PPOConfig(normalize_reward=True))
    told = [watch.look(n, row, (n + 1) / 60, settings)[1] for n, row in enumerate(rows)]
    assert {alarm.name for alarms in told for alarm in alarms} == {"flat_return"}


@pytest.mark.parametrize("field", ["normalize_obs", "normalize_reward"])
def test_no_cure_asks_for_what_there_is(field: str) -> None:
    """A run that has it already is not told to set it."""
    _, alarm = the_one_alarm(steady(**MADE["explained_variance"][0]))
    for value in (False, True):
        mine = advise(alarm, vars(clipper.PPOConfig(**{field: value})))
        assert (f"set {field} true" in mine.cures) == (not value)


def test_what_is_usual_holds_defaults_and_presets() -> None:
    """No default or preset of any algorithm is told to be out of the way."""
    quiet = Alarm("no_progress", 0.0, "", ())
    presets = [preset.config() for preset in (*PRESETS.values(), *GENERIC.values())]
    for config in (*presets, *(config() for config in CONFIGS.values())):
        assert advise(quiet, vars(config)).cures == ("look at the task with `clipper check-env`",)
    known = {field.name for config in CONFIGS.values() for field in dataclasses.fields(config)}
    assert known >= set(USUAL)


@pytest.mark.parametrize(("name", "cut"), [("same_return", 0.0), ("flat_return", 1.0)])
def test_a_solved_task_is_told_of_once_and_so(name: str, cut: float) -> None:
    """Where every return is one number, which may be the best there is, one alarm says so."""
    changes: dict[str, Callable[[int], float]] = {
        "rollout__episode_return": lambda n: 500.0,
        "rollout__episode_return_std": lambda n: 0.0,
        "rollout__truncated_fraction": lambda n: cut,
    }
    ((_, alarm),) = alarms_over(steady(**changes))
    assert alarm.name == name
    assert "unless that is the best there is" in alarm.text


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("algorithm", CONFIGS)
def test_no_cure_names_a_setting_that_the_algorithm_lacks(name: str, algorithm: str) -> None:
    """Those that are left are of its own; where there are none, a look at the task is."""
    fields = {field.name for field in dataclasses.fields(CONFIGS[algorithm])}
    _, alarm = the_one_alarm(steady(**MADE[name][0]))
    mine = advise(alarm, vars(CONFIGS[algorithm]()))
    assert mine.cures
    known = {field.name for config in CONFIGS.values() for field in dataclasses.fields(config)}
    named = {word for word in known if "_" in word and word in str(mine.cures)}
    assert named <= fields
    if algorithm == "trpo" and name == "still":
        assert mine.cures[0] == "raise max_kl"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1001, 1002])
def test_the_cure_of_large_targets_mends_them(seed: int) -> None:
    """Pendulum without a preset learns nothing and says why; with what it names it learns."""
    returns = {}
    for normalize in (False, True):
        agent = clipper.PPO(
            "Pendulum-v1", preset="none", seed=seed, eval_every=0, normalize_reward=normalize
        )
        agent.train(100_000, progress=False)
        names = {text.split()[3].rstrip(":") for text in agent.alarms}
        assert names == (set() if normalize else {"scale"})
        assert normalize or "set normalize_reward true" in agent.alarms[0]
        returns[normalize] = agent.evaluate(20).mean
        agent.close()
    assert returns[True] > returns[False] + 500


def test_the_window_is_long_enough_for_every_rule() -> None:
    """A rule never asks for more rows than are kept."""
    watch = AlarmWatch()
    for n, row in enumerate(steady(3 * WINDOW)):
        watch.look(n, row, 0.5)
    assert {len(series) for series in watch.to_json()["series"].values()} == {WINDOW}
