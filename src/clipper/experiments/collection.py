"""Run folders, sweep folders and result files in; rows, curves and settings to be compared out."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipper.agent_meta import check_meta
from clipper.checkpoint import parameters_sha256, read_tensors
from clipper.configs import CONFIGS
from clipper.curves import find_runs, read_curve
from clipper.errors import ConfigError, FileError
from clipper.experiments.results import (
    CURVES,
    LOGS,
    RESULTS,
    SETTINGS,
    described_settings,
    read_curve_points,
    read_rows,
)
from clipper.experiments.rows import CurvePoint, Row, curve_points
from clipper.experiments.runs import config_hash, run_folder
from clipper.metrics import RecentEpisodes
from clipper.run_folder import read_config


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What is to be compared.

    Attributes:
        rows: One a run.
        points: Of the learning curves.
        settings: Names of the settings in the order in which they are shown.
        envs: Tasks in that order.
        configs: Settings in full by name of the setting and task, where they are known.
        notes: What was left out, and why.
    """

    rows: Sequence[Row]
    points: Sequence[CurvePoint]
    settings: Sequence[str]
    envs: Sequence[str]
    configs: Mapping[tuple[str, str], Mapping[str, Any]]
    notes: Sequence[str]

    def where(self, is_kept: Callable[[Row], bool]) -> Collection:
        """Returns the runs that are kept, with the settings and tasks that they have."""
        rows = [row for row in self.rows if is_kept(row)]
        keys = {row.key for row in rows}
        return dataclasses.replace(
            self,
            rows=rows,
            points=[point for point in self.points if point.key in keys],
            settings=[name for name in self.settings if any(row.setting == name for row in rows)],
            envs=[env for env in self.envs if any(row.env == env for row in rows)],
        )


def collect(paths: Sequence[str | Path]) -> Collection:
    """Returns the runs at or below paths; settings of one name in two of them are told apart.

    Raises:
        FileError: There are no finished runs, or a file is damaged.
        ConfigError: A path is given twice, or one name stands for two settings.
    """
    places = [place for path in paths for place in _sweeps_in(Path(path))]
    resolved = [place.resolve() for place in places]
    for i, place in enumerate(places):
        if resolved[i] in resolved[:i]:
            raise ConfigError(f"every path must be given once, but {place} is given twice.")
    found = [_from_one(place) for place in places]
    apart = _told_apart(found)
    named = [
        _renamed(one, {n: f"{label}: {n}" if n in apart else n for n in one.settings})
        for one, label in zip(found, _labels(places), strict=True)
    ]
    together = Collection(
        rows=[row for one in named for row in one.rows],
        points=[point for one in named for point in one.points],
        settings=list(dict.fromkeys(name for one in named for name in one.settings)),
        envs=list(dict.fromkeys(env for one in named for env in one.envs)),
        configs={key: config for one in named for key, config in one.configs.items()},
        notes=[note for one in named for note in one.notes],
    )
    _check_settings(together)
    return together


def _sweeps_in(place: Path) -> list[Path]:
    """Returns the sweeps' folders in a folder of sweeps, or else the path itself."""
    # os.path's, for pathlib's raise at names that are too long
    if os.path.exists(place / RESULTS) or not os.path.isdir(place):
        return [place]
    return [file.parent for file in sorted(place.glob(f"*/{RESULTS}"))] or [place]


def _told_apart(found: Sequence[Collection]) -> set[str]:
    """Returns the names that mean several things: with other settings, or with a seed in common.

    A setting whose seeds were trained in several places is one.
    """
    apart = set()
    hashes: dict[tuple[str, str], tuple[int, str]] = {}
    seeds: dict[tuple[str, str, int], int] = {}
    for number, one in enumerate(found):
        for row in one.rows:
            first, known = hashes.setdefault((row.setting, row.env), (number, row.config_hash))
            if first != number and known != row.config_hash:
                apart.add(row.setting)
            if seeds.setdefault(row.key, number) != number:
                apart.add(row.setting)
    return apart


def _labels(places: Sequence[Path]) -> list[str]:
    """Returns a short name for every path: of the folder, or the whole path where that is not enough."""
    short = [
        place.resolve().parent.name if place.name == RESULTS else place.resolve().stem
        for place in places
    ]
    return [
        name if short.count(name) == 1 else str(place)
        for name, place in zip(short, places, strict=True)
    ]


def _renamed(one: Collection, names: Mapping[str, str]) -> Collection:
    return dataclasses.replace(
        one,
        rows=[dataclasses.replace(row, setting=names[row.setting]) for row in one.rows],
        points=[dataclasses.replace(p, setting=names[p.setting]) for p in one.points],
        settings=[names[name] for name in one.settings],
        configs={(names[name], env): config for (name, env), config in one.configs.items()},
    )


def _from_one(place: Path) -> Collection:
    if not os.path.exists(place):
        raise FileError(
            f"{place} must be a results file, a sweep's folder or a run folder, but does not exist.",
            hint="`clipper sweep` and `clipper train` make them.",
        )
    if place.is_file():
        return _from_results(place)
    if (place / RESULTS).is_file():
        return _from_results(place / RESULTS)
    return _from_runs(place)


def _from_results(file: Path) -> Collection:
    rows = read_rows(file)
    if not rows:
        raise FileError(
            f"{file} must have a finished run, but has none.", hint="wait until a run has ended."
        )
    curves = file.with_name(CURVES)
    keys = {row.key for row in rows}
    points = [p for p in read_curve_points(curves) if p.key in keys]
    entries = described_settings(file.with_name(SETTINGS))
    settings = _in_order({row.setting for row in rows}, [entry["setting"] for entry in entries])
    envs = _in_order({row.env for row in rows}, [entry["env"] for entry in entries])
    return _complete(
        rows,
        points,
        settings,
        envs,
        {
            (entry["setting"], entry["env"]): entry["config"]
            for entry in entries
            if entry["setting"] in settings  # others have no run that has finished
        },
        _without_result(file.with_name(LOGS), rows) if entries else [],
    )


def _without_result(logs: Path, rows: Sequence[Row]) -> list[str]:
    """Returns a note of the runs that a sweep has begun and that have no row."""
    begun = [log.relative_to(logs).as_posix()[: -len(".log")] for log in logs.glob("*/*.log")]
    missing = set(begun) - {run_folder(*row.key) for row in rows}
    if not missing:
        return []
    runs = "1 run that has" if len(missing) == 1 else f"{len(missing)} runs that have"
    return [
        f"left out, {runs} no result, failed or not finished ({logs} tells why): "
        f"{first_three(sorted(missing, key=_natural))}"
    ]


def first_three(names: Sequence[str]) -> str:
    """Returns the first three of some names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return "; ".join(names[:3]) + more


def _in_order(found: set[str], order: Sequence[str]) -> list[str]:
    """Returns names in the order of a description; those it does not know as people would list them."""
    known = [name for name in dict.fromkeys(order) if name in found]
    return known + sorted(found - set(known), key=_natural)


def _natural(text: str) -> list[tuple[float, str]]:
    """Returns a key that sorts by the numbers in a text where there are some: 0.3 before 0.25."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e-?\d+)?)", text)
    return [(float(p), "") if i % 2 else (-1.0, p) for i, p in enumerate(parts)]


def _from_runs(place: Path) -> Collection:
    rows, points, configs, unfinished = [], [], {}, []
    for folder in find_runs(place):
        config = read_config(folder)
        curve = read_curve(folder)
        if not _has_ended(folder):
            unfinished.append(folder)
            continue
        row = _row_of(folder, config)
        rows.append(row)
        points += curve_points(row.key, curve, row.steps)
        configs[row.setting, row.env] = config["config"]
    if not rows:
        raise FileError(
            f"{place} must hold a finished run, but none of its {len(unfinished)} has come to its end.",
            hint=f"the last line of {unfinished[0] / 'log.txt'} says how one ended, and "
            f"`clipper resume {unfinished[0]}` goes on with it.",
        )
    twice = [key for key, number in Counter(row.key for row in rows).items() if number > 1]
    if twice:
        name, env, seed = twice[0]
        raise ConfigError(
            f"{place} must have every run once, but has {name}, {env}, seed {seed} twice.",
            hint="compare the folders one level below it, each as a word of its own.",
        )
    notes = [f"left out, not finished: {', '.join(map(str, unfinished))}"] if unfinished else []
    settings = list(dict.fromkeys(row.setting for row in rows))
    envs = list(dict.fromkeys(row.env for row in rows))
    return _complete(rows, points, settings, envs, configs, notes)


def _has_ended(folder: Path) -> bool:
    """True if a run has reached one of its ends, and was not stopped by a signal."""
    try:
        lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    last = lines[-1] if lines else ""
    return " ended at step " in last and "stopped by" not in last


def _row_of(folder: Path, config: Mapping[str, Any]) -> Row:
    """Returns the row of a run folder that no sweep made one of.

    Without its last agent nothing is known of its parameters, and nothing said against its exactness.
    """
    curve = read_curve(folder)
    file = folder / "agent.safetensors"
    arrays, meta = read_tensors(file) if file.exists() else ({}, None)
    algo = config.get("algorithm", "ppo")
    steps, seconds = curve.measured("time/wall_seconds")
    cpu = curve.measured("time/cpu_seconds")[1]
    git = config.get("git") or {}
    recent = curve.returns[-RecentEpisodes.WINDOW :]
    return Row(
        setting=curve.name,
        env=curve.env,
        seed=curve.seed,
        algo=algo,
        score=float(recent.mean()) if len(recent) else math.nan,
        score_all=float(curve.returns.mean()) if len(curve.returns) else math.nan,
        episodes=len(curve.returns),
        eval_mean=math.nan,
        eval_episodes=0,
        steps=int(steps[-1]) if len(steps) else 0,
        wall_seconds=float(seconds[-1]) if len(seconds) else math.nan,
        cpu_seconds=float(cpu[-1]) if len(cpu) else math.nan,
        config_hash=config_hash(algo, config, CONFIGS[algo].from_json(config["config"])),
        parameters_sha256="" if meta is None else parameters_sha256(arrays),
        engine=str(config.get("engine", "")),
        exact=meta is None or check_meta(meta, str(file))["exact"],
        version=str(config.get("versions", {}).get("clipper-rl", "")),
        commit=str(git.get("commit", "")) + "+" * bool(git.get("dirty")),
    )


def _complete(
    rows: Sequence[Row],
    points: Sequence[CurvePoint],
    settings: Sequence[str],
    envs: Sequence[str],
    configs: Mapping[tuple[str, str], Mapping[str, Any]],
    notes: Sequence[str],
) -> Collection:
    return Collection(
        rows=rows, points=points, settings=settings, envs=envs, configs=configs, notes=notes
    )


def _check_settings(together: Collection) -> None:
    """Raises unless every name stands for one setting on a task."""
    hashes: dict[tuple[str, str], str] = {}
    for row in together.rows:
        known = hashes.setdefault((row.setting, row.env), row.config_hash)
        if known != row.config_hash:
            raise ConfigError(
                f"a setting must be one and the same for all its seeds, but {row.setting!r} on "
                f"{row.env} has the hashes {known} and {row.config_hash}.",
                hint="runs of other settings need another name: compare their folders apart.",
            )
