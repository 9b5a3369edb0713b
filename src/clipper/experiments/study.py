"""A TOML file, or a grid from the command line, in; the runs it names out, checked.

The file: `envs`, `seeds` and the rest of `_TOP` at the top, `[settings]` for what all runs share,
`[grid]` with a list of values for each key, `[[setting]]` for every setting with a name of its own.
A named setting is run in every combination of the grid.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipper.configs import CONFIGS
from clipper.errors import ConfigError, FileError, nearest
from clipper.experiments.runs import RunSpec, check_runs, config_class, read_seeds
from clipper.foreign_names import name_hint
from clipper.setting_values import read_value, show
from clipper.settings import read_settings

_TOP = (
    "name",
    "env",
    "envs",
    "seeds",
    "evaluate",
    "device",
    "vectorization",
    "settings",
    "grid",
    "setting",
)
# what a setting may say beside the settings of its algorithm, and how it is read
_BESIDE: Mapping[str, Any] = {
    "algo": str,
    "preset": str,
    "env_kwargs": dict,
    "max_episode_steps": int,
}

# a comma outside of brackets
_COMMA = re.compile(r",(?![^\[]*\])(?![^(]*\))(?![^{]*\})")


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is to be run: settings x environments x seeds.

    Attributes:
        name: Of the study, and of its one setting where none has a name.
        envs: Environments.
        seeds: Seeds, from 0.
        shared: What all runs have in common: settings of the algorithm, `algo`, `preset`,
            `env_kwargs`, `max_episode_steps`.
        grid: Values to combine, by key; keys as in `shared`.
        named: Settings by name, which change what is shared.
        evaluate: Fresh episodes of the final evaluation, 0 for none.
        vectorization: What steps environments.
        device: `cpu`, `cuda` or `cuda:N`.
    """

    name: str
    envs: Sequence[str]
    seeds: Sequence[int]
    shared: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    named: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    evaluate: int = 0
    vectorization: str = "auto"
    device: str = "cpu"

    def runs(self) -> list[RunSpec]:
        """Returns the runs: all settings on all environments for the first seed, then the next.

        A study that is cut short has so compared all settings on some seeds. Periodic evaluations,
        which have no place in the rows, are left out unless `eval_every` is given.

        Raises:
            ConfigError: A key is unknown or given twice, a value is wrong, or two runs are one.
        """
        self._check_keys()
        settings = list(self._settings())
        runs = [
            self._run(name, values, env, seed)
            for seed in self.seeds
            for env in self.envs
            for name, values in settings
        ]
        check_runs(runs)
        return runs

    def _settings(self) -> Iterable[tuple[str, dict[str, Any]]]:
        """Yields name and values of every setting."""
        for name, values in (self.named or {"": {}}).items():
            for point in itertools.product(*self.grid.values()):
                combination = dict(zip(self.grid, point, strict=True))
                merged = {**self.shared, **values, **combination}
                config = config_class(str(merged.get("algo", "ppo")))
                words = [f"{k}={_shown(config, k, v)}" for k, v in combination.items()]
                yield " ".join([name, *words]).strip() or self.name, merged

    def _run(self, name: str, values: Mapping[str, Any], env: str, seed: int) -> RunSpec:
        beside = {k: _read_beside(k, values[k]) for k in _BESIDE if k in values}
        settings = {"eval_every": 0, **{k: v for k, v in values.items() if k not in _BESIDE}}
        return RunSpec(
            setting=name,
            env=env,
            seed=seed,
            settings=settings,
            evaluate=self.evaluate,
            vectorization=self.vectorization,
            device=self.device,
            **beside,
        )

    def _check_keys(self) -> None:
        """Raises unless every key is known and stands in one place, the grid's with its values."""
        for key, values in self.grid.items():
            if not isinstance(values, list | tuple) or not values:
                raise ConfigError(
                    f"the grid must have a list of values for {key}, but has {values!r}.",
                    hint=f"write {key} = [{_toml(values)}]." if _toml(values) else None,
                )
        algos = {str(v) for v in self.grid.get("algo", ())}
        algos |= {str(part.get("algo", "ppo")) for part in (self.shared, *self.named.values())}
        known = _known(algos)
        for part in (self.shared, self.grid, *self.named.values()):
            for key in part:
                if key not in known:
                    raise ConfigError(
                        f"there is no setting {key!r}.",
                        hint=_place(key)
                        or name_hint(key, known)
                        or "`clipper train --help` lists the settings.",
                    )
        for key in self.grid:
            places = [f"the setting {n!r}" for n, part in self.named.items() if key in part]
            places += ["what all runs share"] * (key in self.shared)
            if places:
                raise ConfigError(
                    f"{key} must be given once, but stands in the grid and in {places[0]}.",
                    hint=f"leave {key} out of one of them.",
                )


def _known(algos: Iterable[str] = tuple(CONFIGS)) -> set[str]:
    """Returns the settings of algorithms, and what may stand beside them."""
    return {
        *_BESIDE,
        *(name for algo in algos for name in typing.get_type_hints(config_class(algo))),
    }


def _place(key: str) -> str | None:
    """Returns where something stands that is no setting, or None."""
    if key in ("seed", "seeds"):
        return "seeds are no setting: --seeds 0-9, or seeds = [0, 1, 2] at the top of a file."
    if key in _TOP:
        return f"--{key} on the command line, or {key} = ... at the top of a file."
    return None


def _toml(value: object) -> str:
    """Returns a text or a number as TOML has it; "" for anything else."""
    return json.dumps(value) if isinstance(value, str | int | float) else ""


def _shown(config: Any, key: str, value: Any) -> str:
    """Returns a value of the grid as it stands in names."""
    if key in _BESIDE:
        return show(_read_beside(key, value))
    return show(read_settings(config, {key: value})[key])


def _read_beside(key: str, value: Any) -> Any:
    kind = _BESIDE[key]
    if kind is int:
        return read_value(key, int, value)
    if kind is dict and isinstance(value, str):
        with contextlib.suppress(json.JSONDecodeError):
            value = json.loads(value)
    if not isinstance(value, kind):
        words = "a table" if kind is dict else "a name"
        raise ConfigError(
            f"{key} must be {words}, but is {value!r}.",
            hint='as JSON on the command line: --grid \'env_kwargs={"gravity":-9},{"gravity":-5}\'.'
            if kind is dict
            else None,
        )
    return value


def read_grid(words: Iterable[str]) -> dict[str, list[str]]:
    """Returns the keys and values that `key=a,b,c` texts name; lists stand in brackets, `[64,64]`.

    Raises:
        ConfigError: A text is something else, or a key stands twice.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        key = key.strip().removeprefix("--").replace("-", "_")
        values = [v.strip() for v in _COMMA.split(text)]
        if equals and key and text.strip(" ,") and not all(values):
            raise ConfigError(
                f"--grid must have a value on both sides of every comma, but is {word!r}.",
                hint=f"write --grid {key}={','.join(v for v in values if v)}, or what is missing.",
            )
        if not equals or not key or not all(values):
            raise ConfigError(
                f"--grid must be KEY=A,B,C, but is {word!r}.",
                hint="for example --grid clip_range=0.1,0.2,0.3; lists go in brackets: "
                "--grid 'hidden_sizes=[64,64],[256,256]'.",
            )
        if key in found:
            raise ConfigError(f"a key of the grid must be given once, but {key} is given twice.")
        found[key] = values
    return found


def read_study(file: str | Path) -> Study:
    """Returns the study that a TOML file describes.

    Raises:
        FileError: The file cannot be read or is no TOML.
        ConfigError: A key is unknown, missing or given in two ways.
    """
    path = Path(file)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path} must be readable, but {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileError(f"{path} must be TOML, but {error}.") from None
    for key in data:
        if key not in _TOP:
            raise ConfigError(
                f"{path} has no place for {key!r} at the top.",
                hint=("write it under [settings]." if key in _known() else nearest(key, _TOP))
                or "settings of all runs stand under [settings]; at the top: "
                + ", ".join(_TOP)
                + ".",
            )
    shared, grid = _table(data, "settings", path), _table(data, "grid", path)
    return Study(
        name=str(data.get("name", path.stem)),
        envs=_envs(data, grid.pop("env", None), path),
        seeds=read_seeds(data.get("seeds", [0])),
        shared=shared,
        grid=grid,
        named=_named(data, path),
        evaluate=read_value("evaluate", int, data.get("evaluate", 0)),
        vectorization=str(data.get("vectorization", "auto")),
        device=str(data.get("device", "cpu")),
    )


def _table(data: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    found = data.get(key, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must have a table [{key}], but {key} is {found!r}.")
    return dict(found)


def _envs(data: Mapping[str, Any], of_grid: Any, path: Path) -> list[str]:
    """Returns the environments, which may be given in one of three ways."""
    given = [v for v in (data.get("env"), data.get("envs"), of_grid) if v is not None]
    if len(given) != 1:
        raise ConfigError(
            f"{path} must name its environments once, but does so {len(given)} times.",
            hint='write envs = ["CartPole-v1", "Acrobot-v1"] at the top.',
        )
    envs = [given[0]] if isinstance(given[0], str) else given[0]
    if not isinstance(envs, list) or not envs or not all(isinstance(e, str) for e in envs):
        raise ConfigError(f"envs must be a list of names, but is {given[0]!r}.")
    return envs


def _named(data: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """Returns the `[[setting]]` tables by their names."""
    found = data.get("setting", [])
    tables = [found] if isinstance(found, dict) else found
    if not isinstance(tables, list):
        raise ConfigError(
            f"{path} must have a table [[setting]] for every named setting, but setting is {found!r}.",
            hint='write [[setting]], and name = "..." and its values below it.',
        )
    named: dict[str, dict[str, Any]] = {}
    for table in tables:
        if not isinstance(table, dict) or not isinstance(table.get("name"), str):
            raise ConfigError(
                f"every [[setting]] of {path} must have a name, but one has none.",
                hint='write name = "..." below [[setting]].',
            )
        values = dict(table)
        name = values.pop("name")
        if name in named:
            raise ConfigError(f"names of settings must differ, but {path} has {name!r} twice.")
        named[name] = values
    return named
