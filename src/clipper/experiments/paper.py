"""The studies of the PPO paper (Schulman et al. 2017, arXiv 1707.06347) as lists of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clipper.errors import ConfigError, nearest
from clipper.experiments.printed import printed_rows
from clipper.experiments.runs import RunSpec, config_class
from clipper.presets import MUJOCO_TASKS, PRESETS
from clipper.presets_images import ATARI

NUM_SEEDS = 3
"""Seeds of every setting on every task, section 6.1."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of a study is run.

    Attributes:
        tasks: Environments with a `paper/...` preset.
        num_seeds: Seeds 0, 1, ... of every setting on every task.
        total_timesteps: Steps of each run, or None for the paper's million.
        about: In words, for the command line.
    """

    tasks: Sequence[str]
    num_seeds: int
    total_timesteps: int | None
    about: str


SCALES: Mapping[str, Scale] = {
    "smoke": Scale(
        tasks=("InvertedPendulum-v5",),
        num_seeds=1,
        total_timesteps=4096,
        about="1 task, 1 seed, 4,096 steps: does it run?",
    ),
    "small": Scale(
        tasks=("InvertedPendulum-v5", "Reacher-v5", "HalfCheetah-v5"),
        num_seeds=NUM_SEEDS,
        total_timesteps=None,
        about="3 tasks, 3 seeds, 1 M steps",
    ),
    "full": Scale(
        tasks=MUJOCO_TASKS,
        num_seeds=NUM_SEEDS,
        total_timesteps=None,
        about="7 tasks, 3 seeds, 1 M steps: the paper's study",
    ),
}

TABLE1: Mapping[str, Mapping[str, Any]] = {
    "no clipping or penalty": {"objective": "cpi"},
    "clip 0.1": {"objective": "clip", "clip_range": 0.1},
    "clip 0.2": {"objective": "clip", "clip_range": 0.2},
    "clip 0.3": {"objective": "clip", "clip_range": 0.3},
    **{
        f"adaptive KL {target:g}": {"objective": "kl_adaptive", "adaptive_kl_target": target}
        for target in (0.003, 0.01, 0.03)
    },
    **{
        f"fixed KL {coef:g}": {"objective": "kl_fixed", "kl_coef": coef}
        for coef in (0.3, 1.0, 3.0, 10.0)
    },
}
"""The eleven settings of Table 1."""

TABLE1_BEST = "clip 0.2"
"""The setting that the paper chose by Table 1."""

RAW: Mapping[str, Mapping[str, Any]] = {
    "clip 0.2, not normalised": {
        **TABLE1[TABLE1_BEST],
        "normalize_obs": False,
        "normalize_reward": False,
    }
}
"""The other choice for one row: the paper does not say whether observations are normalised."""


def table1_runs(
    tasks: Sequence[str] = MUJOCO_TASKS,
    num_seeds: int = NUM_SEEDS,
    total_timesteps: int | None = None,
    *,
    has_raw: bool = False,
) -> list[RunSpec]:
    """Returns the runs of Table 1: 11 settings x 7 tasks x 3 seeds, all settings on a seed first.

    Args:
        tasks: Environments with a `paper/...` preset.
        num_seeds: Seeds 0, 1, ... of every setting on every task.
        total_timesteps: Steps of each run, or None for the paper's million.
        has_raw: With one setting more, `RAW`.
    """
    shared: dict[str, Any] = {"eval_every": 0}
    if total_timesteps is not None:
        shared["total_timesteps"] = total_timesteps
    settings = {**TABLE1, **(RAW if has_raw else {})}
    return [
        RunSpec(
            setting=name, env=task, seed=seed, preset=f"paper/{task}", settings={**shared, **values}
        )
        for seed in range(num_seeds)
        for task in tasks
        for name, values in settings.items()
    ]


@dataclass(frozen=True)
class Contender:
    """An algorithm of Figure 3.

    Attributes:
        algo: Its name in Clipper.
        family: Its preset on a task is `family/TASK`.
        settings: What is given beside the preset.
        read_as: Its name among the readings of the printed figure; empty if nobody read it.
    """

    algo: str
    family: str
    settings: Mapping[str, Any]
    read_as: str = ""


_DISCOUNT = {"gamma": 0.99}
FIGURE3: Mapping[str, Contender] = {
    "PPO (clip 0.2)": Contender(
        algo="ppo", family="paper", settings=TABLE1[TABLE1_BEST], read_as="ppo"
    ),
    "A2C": Contender(algo="a2c", family="a2c", settings=_DISCOUNT, read_as="a2c"),
    "A2C + trust region": Contender(
        algo="a2c",
        family="a2c",
        settings={**_DISCOUNT, "trust_region": True},
        read_as="a2c_trust_region",
    ),
    "CEM": Contender(algo="cem", family="cem", settings={}),
    "vanilla PG, adaptive step": Contender(algo="vpg", family="vpg", settings=_DISCOUNT),
    "TRPO": Contender(algo="trpo", family="trpo", settings=_DISCOUNT, read_as="trpo"),
}
"""The six algorithms of Figure 3, all with the discount 0.99 of PPO's; CEM has none."""


def figure3_runs(
    tasks: Sequence[str] = MUJOCO_TASKS,
    num_seeds: int = NUM_SEEDS,
    total_timesteps: int | None = None,
) -> list[RunSpec]:
    """Returns the runs of Figure 3: 6 algorithms x 7 tasks x 3 seeds, all algorithms on a seed first.

    Args:
        tasks: Environments for which every algorithm has a preset.
        num_seeds: Seeds 0, 1, ... of every algorithm on every task.
        total_timesteps: Steps of each run, or None for the paper's million.

    Raises:
        ConfigError: An algorithm or one of its presets is not in this version.
    """
    _check_registered(tasks)
    shared = {"eval_every": 0, "total_timesteps": total_timesteps or FIGURE3_TIMESTEPS}
    return [
        RunSpec(
            setting=name,
            env=task,
            seed=seed,
            algo=one.algo,
            preset=f"{one.family}/{task}",
            settings={**shared, **one.settings},
        )
        for seed in range(num_seeds)
        for task in tasks
        for name, one in FIGURE3.items()
    ]


FIGURE3_TIMESTEPS = 1_000_000
"""Steps of every run, caption of Figure 3."""


TABLE2: Mapping[str, str] = {"A2C": "a2c", "ACER": "acer", "PPO": "ppo"}
"""The algorithms of Table 2, as the paper calls them and as Clipper does."""


def atari_games() -> list[str]:
    """Returns the 49 games of the paper's Table 6, as it calls them and as their ids do."""
    return [row["game"] for row in printed_rows("table6.csv")]


@dataclass(frozen=True, kw_only=True)
class AtariScale:
    """How much of Table 2 is run.

    Attributes:
        games: Those of `atari_games`, or None for all.
        num_seeds: Seeds 0, 1, ... of every algorithm on every game.
        total_timesteps: Steps of each run, four frames each.
    """

    games: Sequence[str] | None
    num_seeds: int
    total_timesteps: int


ATARI_SCALES: Mapping[str, AtariScale] = {
    "smoke": AtariScale(games=("Breakout",), num_seeds=1, total_timesteps=4096),
    "small": AtariScale(games=("Pong", "Breakout"), num_seeds=1, total_timesteps=1_000_000),
    "full": AtariScale(games=None, num_seeds=NUM_SEEDS, total_timesteps=10_000_000),
}


def game_of(env: str) -> str:
    """Returns the game that an id of `table2_runs` names: Pong of ALE/Pong-v5."""
    return env.removeprefix("ALE/").removesuffix("-v5")


def table2_runs(games: Sequence[str], num_seeds: int, total_timesteps: int) -> list[RunSpec]:
    """Returns the runs of Table 2: 3 algorithms x games x seeds, all algorithms on a game first.

    Args:
        games: Names in `atari_games`.
        num_seeds: Seeds 0, 1, ... of every algorithm on every game.
        total_timesteps: Steps of each run; the paper has 10 M.

    Raises:
        ConfigError: A game is not the paper's, or stands twice.
    """
    known = atari_games()
    for game in games:
        if game not in known:
            raise ConfigError(
                f"games must be those of the paper's Table 6, but there is no {game!r}.",
                hint=nearest(game, known) or f"there are {', '.join(known)}.",
            )
    if len(set(games)) < len(games):
        raise ConfigError(f"games must be named once, but are {', '.join(games)}.")
    return [
        RunSpec(
            setting=name,
            env=f"ALE/{game}-v5",
            seed=seed,
            algo=algo,
            preset=ATARI if algo == "ppo" else f"{algo}/{ATARI}",
            # the paper's games did not repeat actions by chance
            env_kwargs={"repeat_action_probability": 0.0},
            settings={"eval_every": 0, "total_timesteps": total_timesteps},
        )
        for seed in range(num_seeds)
        for game in games
        for name, algo in TABLE2.items()
    ]


def _check_registered(tasks: Sequence[str]) -> None:
    """Raises unless every algorithm of Figure 3 and its presets exist."""
    missing = []
    for algo in dict.fromkeys(one.algo for one in FIGURE3.values()):
        try:
            config_class(algo)
        except ConfigError:
            missing.append(algo)
    if missing:
        raise ConfigError(
            "figure3 compares PPO with its relatives, which must be registered, but this version of "
            f"Clipper has no {', '.join(missing)}.",
            hint="`clipper train --help` lists the algorithms under --algo; table1 needs PPO alone.",
        )
    names = [f"{one.family}/{task}" for one in FIGURE3.values() for task in tasks]
    absent = [name for name in dict.fromkeys(names) if name not in PRESETS]
    if absent:
        raise ConfigError(
            f"figure3 needs a preset of every algorithm on every task, but there is no {absent[0]}"
            + (f" (and {len(absent) - 1} more)." if len(absent) > 1 else "."),
            hint="`clipper presets` lists them.",
        )
