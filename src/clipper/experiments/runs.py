"""Settings, environments and seeds in, a checked list of runs to be done out; imports nothing heavy."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipper.checkpoint import dump_json
from clipper.config import Config
from clipper.configs import CONFIGS
from clipper.errors import ConfigError, nearest
from clipper.run_folder import folder_name
from clipper.setting_values import setting_to_json
from clipper.settings import read_settings

# what a row's hash takes of the environment; keys of a run's config.json too
ENVIRONMENT = ("env", "env_kwargs", "max_episode_steps")
_LONGEST_NAME = 400
_LIBRARIES = (".so", ".dylib", ".dll")


def run_folder(setting: str, env: str, seed: int) -> str:
    """Returns the path of a run's folder below the folder of all runs."""
    # a library's runs stand together wherever it was named from
    task = Path(env).name if env.endswith(_LIBRARIES) else env
    return f"{folder_name(task)}/{folder_name(setting)}-{seed}"


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run of a sweep: a named setting on an environment with a seed.

    Attributes:
        setting: Name of the setting; runs of one name differ in environment and seed alone.
        env: Gymnasium id, `module:EnvId`, or a library's file.
        seed: The run's seed, from 0.
        settings: Fields of the algorithm's config that are given; the rest is the preset's.
        preset: Name of a preset, `none`, or None for the environment's own.
        env_kwargs: Keyword arguments of the environment.
        max_episode_steps: Truncates episodes, or None for the registered limit.
        algo: Name of the algorithm.
        evaluate: Fresh episodes that the last agent plays at the end, 0 for none.
        vectorization: What steps environments: `auto`, `native` or `gymnasium`.
        device: `cpu`, `cuda` or `cuda:N`.
    """

    setting: str
    env: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    max_episode_steps: int | None = None
    algo: str = "ppo"
    evaluate: int = 0
    vectorization: str = "auto"
    device: str = "cpu"

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells runs of a sweep apart."""
        return self.setting, self.env, self.seed

    @property
    def folder(self) -> str:
        """Path of the run's folder below the folder of all runs."""
        return run_folder(self.setting, self.env, self.seed)

    def config_hash(self, config: Config) -> str:
        """Returns the hash of what the run learns, given its settings in full."""
        return config_hash(self.algo, self.to_json(), config)

    def __str__(self) -> str:
        return f"{self.setting} · {self.env} · seed {self.seed}"

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values that `RunSpec(**...)` takes back."""
        return {**dataclasses.asdict(self), "settings": dict(self.settings)}


def config_class(algo: str) -> type[Config]:
    """Returns the class of an algorithm's settings.

    Raises:
        ConfigError: There is no algorithm of that name.
    """
    if algo not in CONFIGS:
        raise ConfigError(
            f"algo must be one of {', '.join(CONFIGS)}, but is {algo!r}.",
            hint=nearest(algo, CONFIGS),
        )
    return CONFIGS[algo]


def check_runs(specs: Sequence[RunSpec]) -> None:
    """Raises unless every run can be told from every other, and its settings can be read.

    Raises:
        ConfigError: There are no runs, two have one name, or a setting is unknown or wrong.
    """
    if not specs:
        raise ConfigError("a sweep must have at least one run, but has none.")
    by_key: dict[Any, RunSpec] = {}
    by_folder: dict[str, RunSpec] = {}
    by_content: dict[str, RunSpec] = {}
    for spec in specs:
        _check_one(spec)
        if spec.key in by_key:
            raise ConfigError(
                f"every run must have a setting, environment and seed of its own, but {spec} "
                "stands twice.",
                hint="give every setting another name, and every seed once.",
            )
        content = dump_json({**_plain(spec), "setting": None})
        if content in by_content:
            raise ConfigError(
                f"settings must differ in more than their names, but {by_content[content].setting!r} "
                f"and {spec.setting!r} are one.",
                hint="leave one of them out.",
            )
        if spec.folder in by_folder:
            raise ConfigError(
                "names of settings must differ in letters, digits, dots, dashes or underscores, "
                f"but {by_folder[spec.folder].setting!r} and {spec.setting!r} do not."
            )
        by_key[spec.key] = by_folder[spec.folder] = by_content[content] = spec


def _check_one(spec: RunSpec) -> None:
    if (
        not spec.setting.strip()
        or not spec.setting.isprintable()
        or len(spec.setting) > _LONGEST_NAME
    ):
        raise ConfigError(
            f"a setting's name must be 1 to {_LONGEST_NAME} characters that can be printed, "
            f"but is {spec.setting!r}.",
            hint='a study\'s file names settings as you like: [[setting]], then name = "..." and what '
            "is in it."
            if len(spec.setting) > _LONGEST_NAME
            else None,
        )
    config_class(spec.algo).check_values(spec.settings)
    if spec.evaluate < 0:
        raise ConfigError(f"evaluate must be at least 0 episodes, but is {spec.evaluate}.")


def _plain(spec: RunSpec) -> dict[str, Any]:
    """Returns a run as JSON, its settings written in one way whatever way they were given."""
    config = config_class(spec.algo)
    typed = {k: setting_to_json(v) for k, v in read_settings(config, spec.settings).items()}
    return {**spec.to_json(), "settings": typed}


def config_hash(algo: str, env: Mapping[str, Any], config: Config) -> str:
    """Returns a short hash of all that decides what a run learns, but for its seed.

    Settings at their defaults do not enter, so that a version with one more setting has the hashes
    of the versions before it.

    Args:
        algo: Name of the algorithm.
        env: `env`, `env_kwargs` and `max_episode_steps`.
        config: The settings in full, the preset's among them.
    """
    defaults = type(config)().to_json()
    changed = {k: v for k, v in config.to_json().items() if v != defaults[k]}
    content = {"algo": algo, "config": changed, **{k: env[k] for k in ENVIRONMENT}}
    return hashlib.sha256(dump_json(content).encode()).hexdigest()[:12]


def read_seeds(text: str | Iterable[int]) -> list[int]:
    """Returns the seeds that `0-9`, `0,3,5-7` or a list names.

    Raises:
        ConfigError: It is none of these, or names a seed twice.
    """
    found: list[int] = []
    wrong = ConfigError(
        f"seeds must be whole numbers from 0 such as 0-9 or 0,3,5, but are {text!r}."
    )
    for part in text.split(",") if isinstance(text, str) else _parts(text, wrong):
        first, dash, last = str(part).strip().partition("-")
        if not (first.isascii() and first.isdigit()) or (dash and not last.isdigit()):
            raise wrong
        if dash and int(last) < int(first):
            raise ConfigError(
                f"seeds must rise, but {part!r} falls.", hint=f"write {last}-{first}."
            )
        found += range(int(first), int(last or first) + 1)
    if len(set(found)) < len(found):
        twice = next(seed for i, seed in enumerate(found) if seed in found[:i])
        raise ConfigError(f"seeds must be named once, but {twice} stands twice in {text!r}.")
    return found


def _parts(values: Any, wrong: ConfigError) -> list[Any]:
    if isinstance(values, int) and not isinstance(values, bool):
        return [values]
    if not isinstance(values, Iterable):
        raise wrong
    return list(values)
