"""Laws of files of other versions: older ones are read to the same content, newer ones refused.

`formats/v1` was written by the first version of all formats, `formats/v2` with the sums of agent files.
Both are of one run of `formats/make.py`, stopped at step 32 of 64.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clipper
from clipper import __version__
from clipper.checkpoint import (
    FORMAT,
    TENSOR_FORMAT,
    dump_json,
    parameters_sha256,
    read_checkpoint,
    read_tensors,
    write_tensors,
)
from clipper.cli.main import main
from clipper.curves import read_curve
from clipper.errors import FormatError
from clipper.experiments import RunSpec, run_sweep
from clipper.experiments.results import described_settings
from clipper.fault_file import read_fault
from clipper.run_folder import read_config

FORMATS = Path(__file__).parent / "formats"
VERSIONS = sorted(p.name for p in FORMATS.iterdir() if p.is_dir() and p.name.startswith("v"))
TENSOR_FORMATS = {"v1": 1, "v2": 2}


@pytest.fixture(params=VERSIONS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a run folder of some version."""
    return Path(shutil.copytree(FORMATS / request.param, tmp_path / request.param))


def wanted() -> dict[str, Any]:
    """Returns what all versions' files hold, as it was written down when the first were made."""
    return json.loads((FORMATS / "content.json").read_text())  # type: ignore[no-any-return]


def header_of(path: Path) -> dict[str, Any]:
    """Returns the metadata of a safetensors file, by its definition: a length, then JSON."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["clipper"])  # type: ignore[no-any-return]


def test_every_format_has_its_golden_files() -> None:
    """A new number comes with files of it, made by the script beside them."""
    assert [f"v{number}" for number in range(1, len(VERSIONS) + 1)] == VERSIONS
    for name in VERSIONS:
        assert header_of(FORMATS / name / "agent.safetensors")["format"] == TENSOR_FORMATS[name]
        assert json.loads((FORMATS / name / "config.json").read_text())["format"] == 1
    assert max(TENSOR_FORMATS.values()) == TENSOR_FORMAT
    assert FORMAT == 1
    sweeps = sorted(p.name for p in (FORMATS / "sweep").iterdir())
    assert sweeps == [f"v{number}.json" for number in range(1, FORMAT + 1)]
    total = sum(p.stat().st_size for p in FORMATS.rglob("*") if p.is_file())
    assert total < 100_000, "golden files are small"


def test_agents_of_all_versions_act_as_they_did(run: Path) -> None:
    """The parameters have the hash, and an observation the value and action, that they had then."""
    for name in ("agent", "best"):
        expected = wanted()[name]
        arrays, meta = read_tensors(run / f"{name}.safetensors")
        assert parameters_sha256(arrays) == expected["parameters_sha256"]
        assert meta["step"] == expected["step"]
        agent = clipper.load(run / f"{name}.safetensors")
        assert agent.env == "CartPole-v1"
        assert agent.seed == 7
        obs = np.array(expected["obs"], np.float32)
        assert agent.act(obs) == expected["action"]


def test_checkpoints_of_all_versions_are_gone_on_from(run: Path) -> None:
    """Counters, rows and parameters are those of then; the run goes on from them to its end."""
    expected = wanted()["checkpoint"]
    checkpoint, problems = read_checkpoint(run / "checkpoints")
    assert problems == []
    assert checkpoint.step == 32
    assert parameters_sha256(checkpoint.agent) == expected["parameters_sha256"]
    assert checkpoint.state["rows"] == expected["rows"]
    assert checkpoint.state["training"]["iteration"] == 2
    assert checkpoint.training["engine.num_updates"].tolist() == [2]
    agent = clipper.resume(run)
    assert agent.step == 32
    agent.train(progress=False)
    assert agent.step == 64


def test_run_folders_of_all_versions_are_read(run: Path) -> None:
    """Settings and rows are those of then."""
    config, expected = read_config(run), wanted()["run"]
    assert clipper.PPOConfig.from_json(config["config"]).hidden_sizes == (2,)
    assert (config["seed"], config["env"]) == (7, "CartPole-v1")
    curve = read_curve(run)
    assert curve.returns.tolist() == expected["returns"]
    assert curve.metrics["step"].tolist() == [16.0, 32.0]
    assert curve.metrics["loss/value"].tolist() == expected["value_losses"]


def test_faults_of_all_versions_are_played(run: Path) -> None:
    """Environment, episode, seed and actions are those of then."""
    file = run / "faults/fault-3-41.json"
    fault = read_fault(file)
    assert (fault.index, fault.episode, fault.seed, fault.step) == (3, 41, 5, 2)
    assert fault.actions.tolist() == [[1.0], [0.0]]
    assert main(["replay", str(file)]) == 0


@pytest.mark.parametrize("name", [f"v{number}" for number in range(1, FORMAT + 1)])
def test_sweeps_of_all_versions_are_read(name: str) -> None:
    """The settings are those of then, in their order, and make the configs that they made."""
    entries = described_settings(FORMATS / "sweep" / f"{name}.json")
    assert [(entry["setting"], entry["env"]) for entry in entries] == [
        ("clip=0.1", "CartPole-v1"),
        ("clip=0.3", "CartPole-v1"),
    ]
    configs = [clipper.PPOConfig.from_json(entry["config"]) for entry in entries]
    assert [config.clip_range.at(0.0) for config in configs] == [0.1, 0.3]
    assert all(config.hidden_sizes == (2,) for config in configs)
    assert [entry["config_hash"] for entry in entries] == wanted()["sweep"]["config_hashes"]


def sweep_file(run: Path, number: int) -> Path:
    """Puts the description of a sweep of another format number into a folder."""
    shutil.copy(FORMATS / "sweep" / "v1.json", run / "sweep.json")
    return json_file("sweep.json")(run, number)


def json_file(name: str) -> Callable[[Path, int], Path]:
    """Returns what gives a file of JSON another format number."""

    def change(run: Path, number: int) -> Path:
        content = json.loads((run / name).read_text())
        content.pop("sum", None)  # a newer version may have another
        (run / name).write_text(dump_json({**content, "format": number, "versions": NEWER}))
        return run / name

    return change


def agent_file(run: Path, number: int) -> Path:
    """Gives the agent file another format number."""
    arrays, meta = read_tensors(run / "agent.safetensors")
    write_tensors(run / "agent.safetensors", arrays, {**meta, "format": number, "versions": NEWER})
    return run / "agent.safetensors"


SPEC = RunSpec(setting="a", env="CartPole-v1", seed=0)
NEWER = {"clipper-rl": "9.8.7"}
STEP = "checkpoints/step-000000000032"
NEWER_FILES: dict[str, tuple[Any, int, Callable[[Path], Any]]] = {
    "agent file": (
        agent_file,
        TENSOR_FORMAT + 1,
        lambda run: clipper.load(run / "agent.safetensors"),
    ),
    "checkpoint": (
        json_file(f"{STEP}/manifest.json"),
        FORMAT + 1,
        lambda run: clipper.resume(run),
    ),
    "run folder": (json_file("config.json"), FORMAT + 1, lambda run: clipper.resume(run)),
    "fault file": (
        json_file("faults/fault-3-41.json"),
        FORMAT + 1,
        lambda run: read_fault(run / "faults/fault-3-41.json"),
    ),
    "sweep": (sweep_file, FORMAT + 1, lambda run: described_settings(run / "sweep.json")),
    "sweep that is gone on with": (
        sweep_file,
        FORMAT + 1,
        lambda run: run_sweep([SPEC], run, jobs=1),
    ),
}


@pytest.mark.parametrize("kind", NEWER_FILES)
def test_a_newer_format_is_refused_with_both_versions(kind: str, run: Path) -> None:
    """The message has both formats, the version that wrote it and the one that reads; it is left."""
    change, number, read = NEWER_FILES[kind]
    file = change(run, number)
    before = file.read_bytes()
    with pytest.raises(FormatError) as caught:
        read(run)
    text = str(caught.value)
    assert f"but has {number}" in text
    assert "format 1," in text or f"from 1 to {number - 1}," in text
    assert "which Clipper 9.8.7 wrote" in text
    assert f"this is Clipper {__version__}" in text
    assert file.read_bytes() == before


@pytest.mark.parametrize("number", [0, -1, True, 1.0, "1", None, [1]], ids=str)
def test_what_is_no_format_is_no_newer_one(number: Any, run: Path) -> None:
    """A number that no version has written is damage."""
    file = json_file("config.json")(run, number)
    with pytest.raises(clipper.ClipperError) as caught:
        read_config(run)
    assert not isinstance(caught.value, FormatError)
    assert str(file) in str(caught.value)
