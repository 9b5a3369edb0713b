"""The runs of a sweep in, a session file for tmuxp out: a pane per job, each training its share."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipper.checkpoint import write_atomically
from clipper.experiments.runs import RunSpec, config_class
from clipper.run_folder import folder_name
from clipper.setting_values import setting_to_json
from clipper.settings import read_settings


def train_command(spec: RunSpec, folder: Path) -> str:
    """Returns the command that trains a run in its folder, or goes on with it."""
    path = folder / "runs" / spec.folder
    words = ["clipper", "train", spec.env, "--seed", str(spec.seed)]
    words += ["--name", folder_name(spec.setting), "--out", str(folder / "runs")]
    if spec.algo != "ppo":
        words += ["--algo", spec.algo]
    if spec.preset is not None:
        words += ["--preset", spec.preset]
    if spec.env_kwargs:
        words += ["--env-kwargs", json.dumps(spec.env_kwargs)]
    if spec.max_episode_steps is not None:
        words += ["--max-episode-steps", str(spec.max_episode_steps)]
    if spec.vectorization != "auto":
        words += ["--vectorization", spec.vectorization]
    if spec.device != "cpu":
        words += ["--device", spec.device]
    config = config_class(spec.algo)
    for name, value in read_settings(config, spec.settings).items():
        words += [f"--{name.replace('_', '-')}={_exact(setting_to_json(value))}"]
    resume = ["clipper", "resume", str(path), "--trust-env", "--device", spec.device]
    resume += ["--vectorization", spec.vectorization]
    checkpoints = shlex.quote(str(path / "checkpoints"))
    return f"if [ -d {checkpoints} ]; then {shlex.join(resume)}; else {shlex.join(words)}; fi"


def _exact(value: Any) -> str:
    """Returns a setting's JSON value as a flag takes it, every digit kept."""
    if isinstance(value, list):
        return ",".join(map(_exact, value))
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def write_session(
    file: str | Path, specs: Sequence[RunSpec], folder: Path, num_jobs: int, again: str
) -> None:
    """Writes a session whose panes train the runs, each its share of them one after the other.

    Args:
        file: Where.
        specs: The runs.
        folder: The sweep's folder.
        num_jobs: Panes.
        again: The command of the sweep, which makes rows of runs that are finished.

    Raises:
        FileError: The file cannot be written.
    """
    panes = []
    for job in range(min(num_jobs, len(specs))):
        commands = [train_command(spec, folder) for spec in specs[job::num_jobs]]
        panes.append("    - shell_command:\n" + "".join(f"      - {_text(c)}\n" for c in commands))
    lines = [
        f"# `tmuxp load {file}` trains; `{again}` makes the rows of what has finished",
        f"session_name: {_text(re.sub('[.:]', '-', folder.name))}",  # tmux takes neither
        f"start_directory: {_text(str(Path.cwd()))}",
        "environment:",
        '  OMP_NUM_THREADS: "1"',
        "windows:",
        "  - window_name: runs",
        "    layout: tiled",
        "    panes:",
    ]
    write_atomically(Path(file), ("\n".join(lines) + "\n" + "".join(panes)).encode())


def _text(text: str) -> str:
    """Returns a text as YAML takes it: JSON's strings are YAML's."""
    return json.dumps(text, ensure_ascii=False)
