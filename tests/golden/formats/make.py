"""Writes the golden files of the formats that the Clipper at hand writes, beside this script.

Run once per format, by the version that wrote it, and committed; nothing here is ever made anew:

    python tests/golden/formats/make.py v2
    python tests/golden/formats/make.py sweep v1

What they must hold is written down in `test_formats.py`.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

import clipper
from clipper.experiments import RunSpec, run_sweep
from clipper.fault_file import write_fault
from clipper.faults import Fault

HERE = Path(__file__).parent
SETTINGS = {
    "preset": "none",
    "num_envs": 1,
    "num_steps": 16,
    "minibatch_size": 16,
    "num_epochs": 1,
    "hidden_sizes": (2,),
    "total_timesteps": 64,
    "eval_every": 32,
    "eval_episodes": 1,
    "engine": "reference",
}
# what this machine says of itself belongs in no file that is published
DROPPED = ("git", "command", "platform", "started")


def make(name: str) -> None:
    """Writes a run folder with its checkpoint and agents, and a fault's file."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / name
        agent = clipper.PPO("CartPole-v1", seed=7, **SETTINGS)
        agent.train(run_dir=run, progress=False, callback=lambda report: report.step < 32)
        (run / "curve.png").unlink(missing_ok=True)
        shutil.rmtree(sorted((run / "checkpoints").iterdir())[0])
        config = json.loads((run / "config.json").read_text())
        kept = {key: value for key, value in config.items() if key not in DROPPED}
        (run / "config.json").write_text(json.dumps(kept, sort_keys=True) + "\n")
        fault = Fault(
            env=3, episode=41, seed=5, step=2, how="raised ValueError: no", report="Traceback",
            actions=np.array([[1], [0]]), num_lost=1,
        )  # fmt: skip
        env = {"name": "CartPole-v1", "kwargs": {}, "max_episode_steps": None, "is_named": True}
        write_fault(fault, env, run / "faults")
        shutil.copytree(run, HERE / name)


def make_sweep(name: str) -> None:
    """Writes the description of a sweep of two settings, `sweep/NAME.json`."""
    short = {key: value for key, value in SETTINGS.items() if key != "preset"}
    specs = [
        RunSpec(
            setting=f"clip={clip_range}",
            env="CartPole-v1",
            seed=0,
            preset="none",
            settings={**short, "clip_range": clip_range},
        )
        for clip_range in (0.1, 0.3)
    ]
    with tempfile.TemporaryDirectory() as place:
        run_sweep(specs, place, jobs=1)
        (HERE / "sweep").mkdir(exist_ok=True)
        shutil.copy(Path(place) / "sweep.json", HERE / "sweep" / f"{name}.json")


if __name__ == "__main__":
    (make_sweep if sys.argv[1] == "sweep" else make)(sys.argv[-1])
