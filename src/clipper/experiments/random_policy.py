"""Tasks in, what a policy that has learnt nothing scores on them out: measured, and kept in a file.

The random policy is the one that training starts from: Gaussian actions of standard deviation 1 about
a mean near 0. The paper speaks of "the initial random policy" (section 6.1). Actions and episodes are
functions of a seed, so that the same libraries give anyone the same numbers.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from clipper.agents import PPO
from clipper.checkpoint import write_atomically
from clipper.errors import FileError
from clipper.files import file_error

FILE = "random.csv"
EPISODES = 100
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class RandomScore:
    """What the random policy scores on a task.

    Attributes:
        env: The task.
        mean: Mean return of the episodes.
        std: Their sample standard deviation.
        episodes: How many.
        seed: Of the policy, its actions and the episodes' starts.
        gymnasium: Version of Gymnasium.
        mujoco: Version of MuJoCo; empty if it is not installed.
    """

    env: str
    mean: float
    std: float
    episodes: int
    seed: int
    gymnasium: str
    mujoco: str


COLUMNS = tuple(field.name for field in dataclasses.fields(RandomScore))
_KINDS = typing.get_type_hints(RandomScore)


def random_scores(
    envs: Sequence[str], folder: Path, notify: Callable[[str], None]
) -> dict[str, RandomScore]:
    """Returns the scores of tasks, measured where the folder's `random.csv` does not have them.

    Args:
        envs: The tasks.
        folder: A study's; `random.csv` is written into it.
        notify: Called with a line for every task that has to be measured, before it is, or was
            measured with another version of MuJoCo.

    Raises:
        FileError: The file is damaged or cannot be written.
        EnvironmentFault: A task needs packages that are not installed, or failed.
    """
    file = folder / FILE
    known = read_random(file) if file.is_file() else {}
    for env in envs:
        if env not in known:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FileError(file_error(folder, error)) from error
            notify(f"measuring the random policy: {env}, {EPISODES} episodes")
            known[env] = measure_random(env)
            write_atomically(file, _text(known).encode())
        elif (then := known[env].mujoco) != (now := _version("mujoco")):
            notify(f"note: {file} has {env} by MuJoCo {then or 'unknown'}, but {now} is installed")
    return {env: known[env] for env in envs}


def read_random(file: Path) -> dict[str, RandomScore]:
    """Returns what a `random.csv` says, by task.

    Raises:
        FileError: It cannot be read or is something else.
    """
    try:
        with open(file, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        scores = [RandomScore(**{k: kind(row[k]) for k, kind in _KINDS.items()}) for row in rows]
    except OSError as error:
        raise FileError(f"{file} must be readable, but {error.strerror or error}.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{file} must have the columns {', '.join(COLUMNS)}, but {error!r}.",
            hint="remove it; the random policy is then measured again.",
        ) from None
    return {score.env: score for score in scores}


def _text(scores: dict[str, RandomScore]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([COLUMNS, *(dataclasses.astuple(score) for score in scores.values())])
    return buffer.getvalue()


def measure_random(env: str, episodes: int = EPISODES) -> RandomScore:
    """Returns the score of the untrained policy of a task's `paper/...` preset, actions sampled.

    Raises:
        ConfigError: There is no such preset.
        EnvironmentFault: It could not be made, or raised.
    """
    agent = PPO(env, preset=f"paper/{env}", seed=_SEED)
    try:
        played = agent.evaluate(episodes, seed=_SEED, deterministic=False)
    finally:
        agent.close()
    return RandomScore(
        env=env,
        mean=played.mean,
        std=played.std,
        episodes=episodes,
        seed=_SEED,
        gymnasium=metadata.version("gymnasium"),
        mujoco=_version("mujoco"),
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
