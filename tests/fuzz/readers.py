"""Bytes in, what Clipper's readers make of them out: an error of ours, or something that is whole.

Each target puts bytes where a reader finds them. It returns True if they were taken and False if they
were refused by an error of ours; anything else, a crash or a hang among it, is a defect. Where a sum
stands in the way it is made good again, so that what lies behind it is reached too.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import clipper
from clipper.checkpoint import dump_json, parameters_sha256, read_tensors
from clipper.configs import CONFIGS
from clipper.curves import read_curve
from clipper.errors import ClipperError
from clipper.fault_file import read_fault
from clipper.run_folder import RunFolder, read_config
from clipper.tensor_files import tensor_bytes, with_sum

SETTINGS: dict[str, Any] = {
    "preset": "none",
    "num_envs": 2,
    "num_steps": 8,
    "minibatch_size": 16,
    "num_epochs": 1,
    "hidden_sizes": (2,),
    "total_timesteps": 32,
    "eval_every": 0,
    "engine": "reference",
}
MEMBERS = ("agent.safetensors", "training.safetensors", "state.json", "manifest.json")


class Place:
    """A folder with an honest run in it, to be damaged and made good again; a context."""

    def __enter__(self) -> Place:
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name)
        agent = clipper.PPO("CartPole-v1", seed=1, **SETTINGS)
        agent.train(run_dir=self.path / "honest", progress=False)
        shutil.rmtree(self.path / "honest/checkpoints/step-000000000000")
        self.run = self.path / "run"
        self.checkpoint = self.run / "checkpoints/step-000000000032"
        shutil.copytree(self.path / "honest", self.run)
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def again(self) -> None:
        """Puts the honest run back."""
        shutil.rmtree(self.run)
        shutil.copytree(self.path / "honest", self.run)

    def honest(self, name: str) -> bytes:
        """Returns the content of a file of the honest run."""
        return (self.path / "honest" / name).read_bytes()


def agent(place: Place, data: bytes) -> bool:
    """A file whose table and metadata are as given; its sum is made good where it can be."""
    path = place.path / "fuzzed.safetensors"
    path.write_bytes(data)
    try:
        found = clipper.load(_summed(path))
    except ClipperError:
        return False
    # what was taken acts, and comes back as it was
    assert found.act(found.policy.obs_layout.space.sample()) is not None
    arrays, _ = read_tensors(path)
    found.save(place.path / "again.safetensors")
    again, _ = read_tensors(place.path / "again.safetensors")
    assert parameters_sha256(again) == parameters_sha256(arrays)
    return True


def _summed(path: Path) -> Path:
    """Makes the sum of a file good, if it is one that can be read as far as its tensors."""
    from safetensors.numpy import load

    content = path.read_bytes()
    try:
        size = int.from_bytes(content[:8], "little")
        meta = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["clipper"])
        arrays = load(content)
        meta.pop("sha256", None)
        path.write_bytes(tensor_bytes(arrays, with_sum(arrays, meta)))
    except Exception:  # whatever it is, it is the reader's to find out
        path.write_bytes(content)
    return path


def checkpoint(place: Place, data: bytes) -> bool:
    """A member of a checkpoint, the first byte says which, under a manifest of good sums."""
    place.again()
    if not data:
        return False
    name = MEMBERS[data[0] % len(MEMBERS)]
    (place.checkpoint / name).write_bytes(data[1:])
    if name == "agent.safetensors":
        _summed(place.checkpoint / name)
    if name != "manifest.json":
        sums = {
            member: hashlib.sha256((place.checkpoint / member).read_bytes()).hexdigest()
            for member in MEMBERS[:3]
        }
        manifest = {"format": 1, "step": 32, "members": sums}
        (place.checkpoint / "manifest.json").write_text(dump_json(manifest))
    try:
        found = clipper.resume(place.run)
    except ClipperError:
        return False
    assert found.step == 32
    found.close()
    return True


def config(place: Place, data: bytes) -> bool:
    """The `config.json` of a run folder, and the settings in it."""
    place.again()
    (place.run / "config.json").write_bytes(data)
    taken = True
    for read in (_read_settings, read_curve, lambda run: clipper.resume(run).close()):
        try:
            read(place.run)
        except ClipperError:
            taken = False
    return taken


def _read_settings(run: Path) -> None:
    found = read_config(run)
    if isinstance(found.get("config"), dict):
        settings = CONFIGS["ppo"].from_json(found["config"])
        assert CONFIGS["ppo"].from_json(settings.to_json()) == settings


def metrics(place: Place, data: bytes) -> bool:
    """The rows of a run, `metrics.csv` or `episodes.csv` as the first byte says."""
    place.again()
    if not data:
        return False
    name = ("metrics.csv", "episodes.csv")[data[0] % 2]
    (place.run / name).write_bytes(data[1:])
    taken = True
    try:
        read_curve(place.run)
    except ClipperError:
        taken = False
    try:
        folder = RunFolder(place.run)
        try:
            folder.cut_back({"metrics": 1, "episodes": 1})
            folder.write_iteration(64, {"loss/a": 1.0}, [], 1.0)
            rows = folder.rows()
        finally:
            folder.close()
    except ClipperError:
        return False
    assert rows["metrics"] <= 2
    return taken


def fault(place: Place, data: bytes) -> bool:
    """The file of a fault."""
    path = place.path / "fault.json"
    path.write_bytes(data)
    try:
        found = read_fault(path)
    except ClipperError:
        return False
    assert found.actions.ndim == 2
    assert np.isfinite(found.actions).all()
    return True


TARGETS: Mapping[str, Callable[[Place, bytes], bool]] = {
    "agent": agent,
    "checkpoint": checkpoint,
    "config": config,
    "metrics": metrics,
    "fault": fault,
}


def seeds(place: Place) -> dict[str, list[bytes]]:
    """Returns honest bytes for each target, to begin with."""
    step = "checkpoints/step-000000000032"
    one = {
        "format": 1, "kind": "fault",
        "env": {"name": "CartPole-v1", "kwargs": {}, "max_episode_steps": 9, "is_named": True},
        "index": 0, "episode": 3, "seed": 1, "step": 2, "how": "raised", "report": "here",
        "actions": [[1], [0]],
    }  # fmt: skip
    return {
        "agent": [place.honest("agent.safetensors")],
        "checkpoint": [
            bytes([i]) + place.honest(f"{step}/{name}") for i, name in enumerate(MEMBERS)
        ],
        "config": [place.honest("config.json")],
        "metrics": [b"\0" + place.honest("metrics.csv"), b"\1" + place.honest("episodes.csv")],
        "fault": [dump_json(one).encode()],
    }


def quiet() -> None:
    """Lets no library's warning about odd spaces stand in the way."""
    warnings.simplefilter("ignore")


__all__ = ["TARGETS", "Place", "quiet", "seeds"]
