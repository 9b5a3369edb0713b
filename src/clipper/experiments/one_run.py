"""One run of a sweep in, its row and learning curve out: trained, or gone on with, in its folder."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clipper import __version__
from clipper.agent import Agent
from clipper.agents import AGENTS
from clipper.checkpoint import checkpoints_in, parameters_sha256, prefixed
from clipper.curves import Curve, read_curve
from clipper.errors import FileError
from clipper.experiments.results import write_result
from clipper.experiments.rows import CurvePoint, Row, curve_points
from clipper.experiments.runs import ENVIRONMENT, RunSpec, config_hash
from clipper.loading import resume
from clipper.run_folder import read_config
from clipper.training_report import Outcome, Report

CPU_SECONDS = "time/cpu_seconds"
_PROGRESS_SECONDS = 0.5


def agent_of(spec: RunSpec) -> Agent:
    """Returns a new agent for a run.

    Raises:
        ClipperError: Its environment or a setting is wrong.
    """
    return AGENTS[spec.algo](
        spec.env,
        seed=spec.seed,
        preset=spec.preset,
        env_kwargs=dict(spec.env_kwargs),
        max_episode_steps=spec.max_episode_steps,
        device=spec.device,
        vectorization=spec.vectorization,
        **spec.settings,
    )


def train_run(
    spec: RunSpec, folder: Path, notify: Callable[[dict[str, Any]], None]
) -> tuple[Row, list[CurvePoint]] | None:
    """Trains a run to its end, from its last checkpoint if there is one, and keeps its result.

    Args:
        spec: The run.
        folder: Its run folder.
        notify: Called about twice a second with step, total_timesteps, seconds and return.

    Returns:
        Row and curve, written to `result.json` in the folder too; None if a signal stopped it.

    Raises:
        FileError: The folder holds a run with other settings, or cannot be written.
        ClipperError: The run failed; what was learnt is kept.
    """
    agent, is_new = _opened(spec, folder)
    progress = _Progress(agent, 0.0 if is_new else _cpu_seconds(folder, agent.step), notify)
    outcome = agent.train(
        run_dir=folder if is_new else None, progress=False, callback=progress.observe
    )
    if outcome.signal is not None:
        return None
    curve = read_curve(folder)
    result = (
        _row(spec, agent, outcome, folder, curve, progress),
        curve_points(spec.key, curve, outcome.step),
    )
    agent.close()
    write_result(folder, *result)
    return result


def _opened(spec: RunSpec, folder: Path) -> tuple[Agent, bool]:
    """Returns the agent at the run's last checkpoint, or a new one and True."""
    if checkpoints_in(folder / "checkpoints"):
        # the environment is the one asked for, whatever the folder names
        agent = resume(folder, env=spec.env, device=spec.device, vectorization=spec.vectorization)
        try:
            _check_same(spec, agent, folder)
        except BaseException:
            agent.close()
            raise
        return agent, False
    if (folder / "config.json").exists():
        read_config(folder)
        shutil.rmtree(folder)  # killed before its first checkpoint, at step 0
    return agent_of(spec), True


def _check_same(spec: RunSpec, agent: Agent, folder: Path) -> None:
    """Raises unless the run in a folder is the one that is asked for."""
    written = read_config(folder)
    wanted = agent_of(spec)
    wanted.close()
    if config_hash(agent.algorithm, written, agent.config) == spec.config_hash(wanted.config):
        return
    before = {**agent.config.to_json(), **{k: written[k] for k in ENVIRONMENT}}
    now = {**wanted.config.to_json(), **{k: spec.to_json()[k] for k in ENVIRONMENT}}
    before["algo"], now["algo"] = agent.algorithm, spec.algo
    name = next(name for name in ("algo", *now) if before.get(name) != now[name])
    raise FileError(
        f"{folder} must hold a run with the settings of {spec.setting!r}, but its {name} is "
        f"{before.get(name)} in place of {now[name]}.",
        hint="choose another --out, or remove that folder.",
    )


def _cpu_seconds(folder: Path, step: int) -> float:
    """Returns the CPU time a resumed run had used at its checkpoint, NaN if that is not known."""
    if step == 0:
        return 0.0
    steps, values = read_curve(folder).measured(CPU_SECONDS)
    at = np.flatnonzero(steps == step)
    return float(values[at[-1]]) if len(at) else math.nan


class _Progress:
    """Tells how far a run is, and logs its CPU time."""

    def __init__(
        self, agent: Agent, cpu_before: float, notify: Callable[[dict[str, Any]], None]
    ) -> None:
        self._agent = agent
        self._before = cpu_before - time.process_time()
        self._notify = notify
        self._told_at = -math.inf

    def cpu_seconds(self) -> float:
        """Returns the CPU time of the run, resumed parts together."""
        return self._before + time.process_time()

    def observe(self, report: Report) -> None:
        """Is called after every iteration."""
        report.log(CPU_SECONDS, self.cpu_seconds())
        now = time.monotonic()
        if now - self._told_at < _PROGRESS_SECONDS:
            return
        self._told_at = now
        self._notify(
            {
                "event": "progress",
                "step": report.step,
                "total_timesteps": self._agent.config.total_timesteps,
                "seconds": report.metrics["time/wall_seconds"],
                "return": report.metrics.get("rollout/episode_return"),
            }
        )


def _row(
    spec: RunSpec, agent: Agent, outcome: Outcome, folder: Path, curve: Curve, progress: _Progress
) -> Row:
    """Returns the row of a finished run; plays the final evaluation."""
    exam = agent.evaluate(spec.evaluate, seed=0).mean if spec.evaluate else math.nan
    returns = curve.returns
    state = {k: v.numpy(force=True) for k, v in agent.policy.state_dict().items()}
    git = read_config(folder)["git"]
    return Row(
        setting=spec.setting,
        env=spec.env,
        seed=spec.seed,
        algo=spec.algo,
        score=outcome.metrics.get("rollout/episode_return", math.nan),
        score_all=math.fsum(returns) / len(returns) if len(returns) else math.nan,
        episodes=len(returns),
        eval_mean=exam,
        eval_episodes=spec.evaluate,
        steps=outcome.step,
        wall_seconds=round(outcome.wall_seconds, 3),
        cpu_seconds=round(progress.cpu_seconds(), 3),
        config_hash=spec.config_hash(agent.config),
        parameters_sha256=parameters_sha256(prefixed("policy", state)),
        engine=agent.engine,
        exact=agent.inexact is None,
        version=__version__,
        commit="" if git is None else git["commit"] + "+" * git["dirty"],
    )
