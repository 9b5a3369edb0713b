"""Made-up rows of runs, for tests of what is computed from them."""

from __future__ import annotations

import math

from clipper.experiments.collection import Collection
from clipper.experiments.rows import Row


def row(setting: str, env: str, seed: int, score: float) -> Row:
    """Returns the row of a run that scored so."""
    return Row(
        setting=setting,
        env=env,
        seed=seed,
        algo="ppo",
        score=score,
        score_all=score,
        episodes=100,
        eval_mean=math.nan,
        eval_episodes=0,
        steps=1000,
        wall_seconds=1.0,
        cpu_seconds=1.0,
        config_hash=setting,
        parameters_sha256="",
        engine="native avx2",
        exact=True,
        version="0",
        commit="",
    )


def collection(*rows: Row) -> Collection:
    """Returns the runs of a study, without curves."""
    return Collection(
        rows=rows,
        points=[],
        settings=list(dict.fromkeys(r.setting for r in rows)),
        envs=list(dict.fromkeys(r.env for r in rows)),
        configs={},
        notes=[],
    )
