"""Laws of files from strangers: they are data. Nothing in or named by one is run, opened or called."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import clipper
from clipper import agent_file
from clipper.checkpoint import (
    dump_json,
    read_checkpoint,
    read_tensors,
    write_checkpoint,
    write_tensors,
)
from clipper.cli.main import main
from clipper.curves import read_curve
from clipper.envs.names import needs_trust
from clipper.errors import ClipperError, ConfigError, FileError
from clipper.fault_file import read_fault
from clipper.files import FORMAT, MAX_JSON_BYTES
from clipper.run_folder import RunFolder, new_run_path, read_config
from commands import TINY, left_in
from failing_disk import in_child

AUDITING = Path(__file__).parents[1] / "auditing"
SMALL: dict[str, Any] = {
    "preset": "none",
    "num_envs": 2,
    "num_steps": 16,
    "minibatch_size": 16,
    "num_epochs": 1,
    "hidden_sizes": (4,),
    "total_timesteps": 64,
    "eval_every": 32,
    "eval_episodes": 1,
}
TRAP = """
import os
from gymnasium.envs.classic_control import CartPoleEnv

class Env(CartPoleEnv):
    pass

open("sprung", "w").close()
"""


def trained(folder: Path, env: str = "CartPole-v1", **options: Any) -> Path:
    """Returns the folder of a short run."""
    run = folder / "run"
    agent = clipper.PPO(env, **SMALL, **options)
    agent.train(progress=False, run_dir=run)
    agent.close()
    return run


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder to be copied."""
    return trained(tmp_path_factory.mktemp("honest"))


@pytest.fixture
def run(honest: Path, tmp_path: Path) -> Path:
    """A run folder to be damaged."""
    return Path(shutil.copytree(honest, tmp_path / "run"))


def fault(env: dict[str, Any], /, **changes: Any) -> str:
    """Returns the text of a fault's file."""
    given = {"name": "CartPole-v1", "kwargs": {}, "max_episode_steps": None, "is_named": True}
    content = {
        "format": FORMAT, "kind": "fault", "env": {**given, **env}, "index": 0, "episode": 0,
        "seed": 1, "step": 1, "how": "raised", "report": "", "actions": [[1]],
    }  # fmt: skip
    return dump_json({**content, **changes})


# ---- code ----------------------------------------------------------------------------------------


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run whose folder names a module, which says so when it is imported; it was not yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "clipper_trap.py").write_text(TRAP)
    run = trained(tmp_path, "clipper_trap:Env")
    (run / "faults").mkdir()
    (run / "faults/fault-0-0.json").write_text(fault({"name": "clipper_trap:Env"}))
    del sys.modules["clipper_trap"]
    (tmp_path / "sprung").unlink()
    yield run
    sys.modules.pop("clipper_trap", None)


VERBS = {
    "evaluate": ["evaluate", "run", "--episodes=1"],
    "render": ["render", "run", "--out=x.gif"],
    "resume": ["resume", "run", "--total-timesteps=128", "--quiet"],
    "replay": ["replay", "run/faults/fault-0-0.json"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_module_that_a_file_names_is_imported_by_trust_alone(
    verb: str, trap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --trust-env the verb ends with exit code 2 and names the flag; with it, it runs."""
    assert main(VERBS[verb]) == 2
    said = capsys.readouterr().err
    assert "--trust-env" in said
    assert not (tmp_path / "sprung").exists()
    assert "clipper_trap" not in sys.modules
    code = main([*VERBS[verb], "--trust-env"])
    assert (tmp_path / "sprung").exists()
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("verb", [["inspect", "run"], ["plot", "run", "--out=x.png"]], ids=str)
def test_what_only_looks_imports_nothing(verb: list[str], trap: Path, tmp_path: Path) -> None:
    """Inspecting and plotting need no environment, and ask for no trust."""
    assert main(verb) == 0
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "kwargs", "expected"),
    [
        ("CartPole-v1", {}, False),
        ("HalfCheetah-v5", {"forward_reward_weight": 2.0, "xml_file": "ant.xml"}, False),
        ("FrozenLake-v1", {"desc": ["SFFF", "FFFG"]}, False),
        ("HalfCheetah-v5", {"xml_file": "/etc/passwd"}, True),
        ("HalfCheetah-v5", {"xml_file": "../../x.xml"}, True),
        ("HalfCheetah-v5", {"xml_file": "~/x.xml"}, True),
        ("HalfCheetah-v5", {"xml_file": ".x.xml"}, True),
        ("HalfCheetah-v5", {"a": {"b": [1, "c:d"]}}, True),
        ("HalfCheetah-v5", {"a": {"x/y": 1}}, True),
        ("some.module:Env", {}, True),
        ("./libgame.so", {}, True),
        ("GymV21Environment-v0", {"env_id": "x"}, True),
    ],
)
def test_what_needs_trust(name: str, kwargs: dict[str, Any], expected: bool) -> None:
    """Names that import or load, and arguments that may name a file."""
    assert needs_trust(name, kwargs) is expected


def test_an_argument_that_names_a_file_is_not_handed_on(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent acts, but its environment is made only for who trusts the file."""
    arrays, meta = read_tensors(honest / "agent.safetensors")
    meta["env"]["kwargs"] = {"xml_file": "/etc/passwd"}
    path = tmp_path / "a.safetensors"
    write_tensors(path, arrays, meta)
    agent = clipper.load(path)
    assert agent.act(np.zeros(4, np.float32)) in (0, 1)
    with pytest.raises(ConfigError, match="may name other files") as caught:
        agent.evaluate(1)
    assert "--trust-env" in str(caught.value.hint)
    monkeypatch.chdir(tmp_path)
    Path("fault.json").write_text(fault({"kwargs": {"xml_file": "/etc/passwd"}}))
    assert main(["replay", "fault.json"]) == 2


def audited(tmp_path: Path, script: str, **more: str) -> list[str]:
    """Returns what a process noted, a line for each event; fails if it does."""
    log = tmp_path / "audit.log"
    env = {**os.environ, "PYTHONPATH": str(AUDITING), "AUDIT_LOG": str(log), **more}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return log.read_text().splitlines()


LOADING = """
    import sys, clipper, numpy, sitecustomize
    # all that loading needs is imported by doing it once, with a folder of our own
    for path in ("own/agent.safetensors", "own"):
        agent = clipper.load(path)
        agent.act(numpy.zeros(4, numpy.float32))
    agent = clipper.resume("own"); agent.close()
    sitecustomize.begin()
    agent = clipper.load("run/agent.safetensors")
    agent.act(numpy.zeros(4, numpy.float32))
    try:
        agent.evaluate(1)
    except clipper.ClipperError as error:
        print(error)
    else:
        raise SystemExit("an untrusted module was used")
    agent = clipper.resume("run")
    try:
        agent.train(128, progress=False)
    except clipper.ClipperError as error:
        print(error)
    else:
        raise SystemExit("an untrusted module was used")
    agent.close()
"""


def test_loading_runs_imports_and_opens_nothing_that_is_not_its_own(
    trap: Path, honest: Path, tmp_path: Path
) -> None:
    """Seen by an audit hook: no code from a file, no process, no library, no file outside the folder.

    What is opened lies in the run's folder; what is imported is of Python, of this library or of those
    that it needs, and never what the file names.
    """
    shutil.copytree(honest, tmp_path / "own")
    events = audited(tmp_path, LOADING)
    kinds = {line.split("\t")[0] for line in events}
    assert "open" in kinds, "the hook saw nothing"
    forbidden = {"os.system", "os.exec", "os.posix_spawn", "ctypes.dlopen", "pickle.find_class"}
    assert not kinds & forbidden, events
    # what a resumed run writes down of itself: the state of the working directory, the machine's kind
    started = [line.split("\t")[1] for line in events if line.startswith("subprocess.Popen")]
    assert all(line.startswith(("('git', ['git', ", "('uname', ['uname', ")) for line in started)
    assert not [line for line in events if "clipper_trap" in line]
    assert not (tmp_path / "sprung").exists()
    allowed = (str(trap), "run/", "run'", "/proc/", "/sys/", "/dev/", sys.prefix, sys.base_prefix,
               str(Path(clipper.__file__).parent))  # fmt: skip
    opened = [line for line in events if line.startswith("open\t")]
    outside = [line for line in opened if not any(place in line for place in allowed)]
    numbers = [line for line in outside if line.split("\t")[1][1:].split(",")[0].isdigit()]
    assert set(outside) == set(numbers), outside  # a descriptor that is open already is no file


def test_a_folder_that_is_a_repository_runs_nothing(
    honest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Git asked for what was changed in a stranger's folder would run what its settings name."""
    run = tmp_path / "run"
    shutil.copytree(honest, run)
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    sprung = tmp_path / "sprung"
    for words in (
        ["init", "-q"],
        [*identity, "commit", "-qm", "One", "--allow-empty"],
        ["config", "core.fsmonitor", f"touch {sprung}; false"],
        ["config", "filter.x.clean", f"touch {sprung}; cat"],
    ):
        subprocess.run(["git", *words], cwd=run, check=True, capture_output=True)
    (run / ".gitattributes").write_text("* filter=x\n")
    subprocess.run(["git", "add", "config.json"], cwd=run, check=True, capture_output=True)
    assert sprung.exists(), "the trap does not work"
    sprung.unlink()
    (run / "config.json").touch()
    monkeypatch.chdir(run)
    assert main(["resume", ".", "--total-timesteps=192", "--quiet"]) == 0, capsys.readouterr().err
    assert main(["evaluate", ".", "--episodes=1"]) == 0
    assert not sprung.exists()


def test_the_hook_sees_what_it_is_to_see(tmp_path: Path) -> None:
    """Negative control: a script that does all of this is noted with every bit of it."""
    script = """
    import pickle, socket, subprocess, sitecustomize
    sitecustomize.begin()
    import colorsys
    exec("1")
    open("/etc/hostname").close() if __import__("os").path.exists("/etc/hostname") else None
    subprocess.run(["true"])
    pickle.loads(pickle.dumps(socket.AF_INET))
    with socket.socket() as s:
        s.settimeout(0.1)
        try:
            s.connect(("127.0.0.1", 9))
        except OSError:
            pass
    """
    kinds = {line.split("\t")[0] for line in audited(tmp_path, script)}
    assert {"import", "exec", "subprocess.Popen", "pickle.find_class", "socket.connect"} <= kinds


# ---- network and environment variables -----------------------------------------------------------

SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "HF_TOKEN",
    "WANDB_API_KEY",
    "USER",
    "LOGNAME",
    "HOSTNAME",
    "PASSWORD",
)


def test_no_connection_is_made_and_no_variable_written(tmp_path: Path) -> None:
    """Training, with a worker, and resuming, evaluating, inspecting and plotting stay on the machine.

    Seen by an audit hook in the command's process and its workers. Values of environment variables,
    the names of user and host among them, are in no file of the run.
    """
    values = {name: f"canary-{i}-3f9a0c" for i, name in enumerate(SECRETS)}
    env = {**os.environ, **values, "PYTHONPATH": str(AUDITING), "AUDIT_LOG": str(tmp_path / "log")}
    script = "import sys; from clipper.cli.main import main; sys.exit(main(sys.argv[1:]))"
    run = "runs/CartPole-v1/net-0"
    for words in (
        ["train", "CartPole-v1", *TINY, "--name=net", "--workers=1"],
        ["resume", run, "--total-timesteps=256"],
        ["evaluate", run, "--episodes=1"],
        ["inspect", run],
        ["plot", run, "--out=x.png"],
    ):
        command = [sys.executable, "-c", script, *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").read_text() == ""
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in [*files, tmp_path / "x.png"]:
        content = path.read_bytes()
        assert not [name for name, value in values.items() if value.encode() in content], path


# ---- names ---------------------------------------------------------------------------------------

NAMES = ["../x", "/etc/x", "a/b", "..", "a\nb", "a\0b", "x" * 5000, "-\u202ex", "a b", ""]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_a_run_of_a_hostile_name_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One short error, exit code 2, and nothing is written anywhere."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", "CartPole-v1", *TINY, f"--name={name}"]) == 2
    said = capsys.readouterr().err
    assert "name must be 1 to 100 of the characters" in said
    assert len(said) < 500
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000], ids=["NUL", "5,000 characters"])
def test_a_path_that_no_system_takes_is_our_error(name: str, tmp_path: Path) -> None:
    """Loading, saving, resuming and training there are refused, and leave nothing."""
    agent = clipper.PPO("CartPole-v1", **SMALL)
    place = tmp_path / name
    for attempt in (
        lambda: clipper.load(place),
        lambda: clipper.resume(place),
        lambda: agent.save(tmp_path / f"{name}.safetensors"),
        lambda: agent.train(run_dir=place, progress=False),
        lambda: new_run_path(place, "E", None, 0),
    ):
        with pytest.raises(ClipperError):
            attempt()
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("place", ["", "a\nb", "a/\x1b[2J"])
def test_a_folder_that_breaks_a_line_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name would stand in commands to copy, and in the lines of logs; an empty one is no folder."""
    monkeypatch.chdir(tmp_path)
    agent = clipper.PPO("CartPole-v1", **SMALL)
    with pytest.raises(ClipperError, match="control characters"):
        agent.train(run_dir=place, progress=False)
    if place:
        with pytest.raises(ClipperError, match="control characters"):
            new_run_path(Path(place), "E", None, 0)
    assert left_in(tmp_path) == []


def test_a_folder_of_runs_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """Below --out no link is followed, for it may lead anywhere; --out itself is the user's choice."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / "E").symlink_to(elsewhere)
    (out / "F").mkdir()
    (out / "F" / "x-0").symlink_to(elsewhere)
    (out / "F" / "y-0").symlink_to(tmp_path / "nowhere")
    for env, name in (("E", None), ("E", "x"), ("F", "x"), ("F", "y")):
        with pytest.raises(FileError, match="is a link"):
            new_run_path(out, env, name, 0)
    assert left_in(elsewhere) == []
    (tmp_path / "chosen").symlink_to(elsewhere)
    assert new_run_path(tmp_path / "chosen", "E", None, 0).is_dir()


LINKED = (
    "config.json", "metrics.csv", "episodes.csv", "log.txt", "lock", "agent.safetensors",
    "best.safetensors", "checkpoints", "curve.png",
)  # fmt: skip


@pytest.mark.curve
@pytest.mark.parametrize("name", LINKED)
def test_a_link_in_a_run_folder_is_not_followed(
    name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is read or written through it, by any verb: exit code 5, and its target is as it was."""
    target = tmp_path / "victim"
    if (run / name).exists():
        (run / name).rename(target)
    else:
        target.write_text("mine")
    before = target.read_bytes() if target.is_file() else None
    (run / name).symlink_to(target)
    for words in (
        ["resume", run, "--total-timesteps=128", "--quiet"],
        ["evaluate", run, "--episodes=1"],
        ["inspect", run],
        ["plot", run, f"--out={tmp_path / 'x.png'}"],
    ):
        code = main([str(word) for word in words])
        said = capsys.readouterr().err
        if words[0] == "plot" and code == 0:
            # which takes a folder without its own files for none, and others for what they are
            raise AssertionError("a link was followed")
        assert code == 5, (words[0], said)
        assert repr(name) in said or "must be a run folder" in said, said
    assert before is None or target.read_bytes() == before
    assert (run / name).is_symlink()


@pytest.mark.parametrize("name", ["step-000000000064", *(
    f"step-000000000064/{m}" for m in ("manifest.json", "agent.safetensors", "state.json")
)])  # fmt: skip
def test_a_link_in_a_checkpoint_is_not_followed(name: str, run: Path, tmp_path: Path) -> None:
    """A checkpoint that leads elsewhere is no checkpoint, even if all that is there is as it must be."""
    path = run / "checkpoints" / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    if "/" in name:
        found, problems = read_checkpoint(run / "checkpoints")
        assert found.step == 0
        assert "is a link" in problems[0]
    else:
        with pytest.raises(FileError, match="is a link"):
            read_checkpoint(run / "checkpoints")


# ---- size and time -------------------------------------------------------------------------------


def bounded(work: Callable[[], Any]) -> int:
    """Does some work in a process with 256 MiB more memory and 2 s of CPU; returns its exit code."""

    def limited() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = used + (256 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # one that waits uses no CPU
        work()

    return in_child(limited)


def refused(work: Callable[[], Any]) -> Callable[[], None]:
    """Returns what does some work and fails unless it ends in an error of ours."""

    def attempt() -> None:
        try:
            work()
        except ClipperError:
            return
        raise AssertionError("it was taken")

    return attempt


def header(path: Path, text: bytes, size: int | None = None, body: int = 0) -> Path:
    """Writes a safetensors file of that header; a body of zeros takes no place on the disk."""
    path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text)
    os.truncate(path, 8 + len(text) + body)
    return path


def huge_tensor(path: Path) -> Path:
    """Writes an agent file one tensor of which is a terabyte of zeros, of which the disk has none."""
    size = 1 << 40
    meta = {"clipper": dump_json({"format": 2, "sha256": "0"})}
    tensor = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": meta, "policy.w": tensor})
    return header(path, text.encode(), body=size)


def sparse(path: Path, honest: Path, name: str, kind: str = "U8", **changes: Any) -> Path:
    """Writes a file of tensors with one more or larger, 4 GB of zeros of which the disk has none."""
    content = honest.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    table = json.loads(content[8 : 8 + size])
    meta = json.loads(table["__metadata__"]["clipper"])
    table["__metadata__"]["clipper"] = dump_json({**meta, **changes})
    begin = len(content) - 8 - size
    large = 4 << 30
    width = {"U8": 1, "F32": 4, "F64": 8}[kind]
    shape = [8, large // width // 8]
    table[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, begin + large]}
    text = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    os.truncate(path, path.stat().st_size + large)
    return path


SPARSE: dict[str, tuple[str, dict[str, Any]]] = {
    "an unknown tensor": ("surprise", {}),
    "an unknown one of a policy": ("policy.network.surprise", {}),
    "a large layer": ("policy.network.actor.0.weight", {}),
    "a large space": ("space.obs.low", {}),
    "large examples": ("example.obs", {}),
    "no settings": ("policy.w", {"config": {}, "algorithm": []}),
    "a space of a user's module": ("space.obs.low", {"module": "user"}),
}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to limit memory")
@pytest.mark.parametrize("name", SPARSE)
def test_an_agent_larger_than_what_it_describes_is_not_read(
    name: str, honest: Path, tmp_path: Path
) -> None:
    """Refused by the start of the file, whoever reads it: the tensors are neither read nor hashed."""
    tensor, changes = SPARSE[name]
    path = sparse(tmp_path / "a.safetensors", honest / "agent.safetensors", tensor, **changes)
    try:
        assert bounded(refused(lambda: clipper.load(path))) == 0
        assert bounded(refused(lambda: read_tensors(path))) == 0
    finally:
        path.unlink()


def test_a_network_of_the_users_is_not_read_without_it(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows how large it may be: it is asked for before anything of it is read."""
    honest = honest / "agent.safetensors"
    path = sparse(tmp_path / "a.safetensors", honest, "policy.network.w", module="user")
    monkeypatch.setattr("clipper.agent_file.read_tensors", lambda _: pytest.fail("it was read"))
    try:
        with pytest.raises(ConfigError, match="a module of the user's, which must be given"):
            clipper.load(path)
    finally:
        path.unlink()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to limit memory")
@pytest.mark.parametrize(
    ("member", "tensor"),
    [
        ("agent.safetensors", "surprise"),
        ("training.safetensors", "surprise"),
        ("training.safetensors", "engine.m"),
        ("training.safetensors", "sampler.actions"),
        ("state.json", ""),
    ],
)
def test_a_checkpoint_larger_than_its_agent_needs_is_not_read(
    member: str, tensor: str, run: Path
) -> None:
    """The same for each member, whatever the manifest says: it is refused before it is hashed."""
    for checkpoint in (run / "checkpoints").iterdir():
        file = checkpoint / member
        if tensor:
            sparse(file, file, tensor)
        else:
            os.truncate(file, 4 << 30)
    try:
        assert bounded(refused(lambda: clipper.resume(run))) == 0
    finally:
        shutil.rmtree(run)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to limit memory")
@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "episodes.csv"])
def test_a_run_with_an_enormous_file_is_refused_at_once(name: str, run: Path) -> None:
    """What looks at a run's curves, and what goes on with it, reads no gigabytes of zeros."""
    os.truncate(run / name, 4 << 30)
    try:
        assert bounded(refused(lambda: read_curve(run))) == 0
        assert bounded(refused(lambda: clipper.resume(run))) == 0
    finally:
        shutil.rmtree(run)


def test_tables_of_many_megabytes_are_read(run: Path) -> None:
    """Negative control: a long run has long tables, of which only the lines are short."""
    episodes = run / "episodes.csv"
    head = episodes.read_text().splitlines(keepends=True)[0]
    lines = "".join(f"{i},0,{i},1.5,2,0,0.125\r\n" for i in range(1, 400_001))
    episodes.write_text(head + lines, newline="")
    assert episodes.stat().st_size > 10 << 20
    curve = read_curve(run)
    assert (len(curve.returns), curve.steps[-1], set(curve.returns)) == (400_000, 400_000.0, {1.5})
    folder = RunFolder(run)
    assert folder.num_rows["episodes"] == 400_000
    folder.close()


BIG_AGENTS: dict[str, Callable[[Path], Path]] = {
    "a header of 2^63 bytes": lambda p: header(p, b"{}", size=2**63),
    "a header of 100 MB": lambda p: header(p, b"", size=100 << 20, body=100 << 20),
    "a header of lists": lambda p: header(p, b'{"a":' + b"[]," * 2_500_000 + b"1}"),
    "a deep header": lambda p: header(p, b'{"a":' + b"[" * 200_000),
    "a million tensors": lambda p: header(
        p, b"{" + b",".join(b'"%d":{}' % i for i in range(500_000)) + b"}"
    ),
    "5 MB of metadata": lambda p: header(
        p, json.dumps({"__metadata__": {"clipper": "x" * (5 << 20)}}).encode()
    ),
    "metadata of lists": lambda p: header(
        p, json.dumps({"__metadata__": {"clipper": '{"a":[' + "[]," * 1_000_000}}).encode()
    ),
    "a tensor of a terabyte": huge_tensor,
    "a pipe": lambda p: os.mkfifo(p) or p,
    "a folder": lambda p: p.mkdir() or p,
    "a device": lambda p: Path("/dev/zero"),
}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to limit memory")
@pytest.mark.parametrize("name", BIG_AGENTS)
def test_a_file_out_of_proportion_is_refused_at_once(name: str, tmp_path: Path) -> None:
    """Within 2 s of CPU and 256 MiB an agent file that claims to be enormous is one error of ours."""
    path = BIG_AGENTS[name](tmp_path / "agent.safetensors")
    try:
        assert bounded(refused(lambda: clipper.load(path))) == 0
    finally:
        if path.is_file() and str(path).startswith(str(tmp_path)):
            path.unlink()


def texts() -> dict[str, str]:
    """Returns texts of JSON that are too large, or parsed take far more than they seem to."""
    return {
        "too long": '{"a": "' + "x" * MAX_JSON_BYTES + '"}',
        "empty lists": '{"a": [' + "[]," * (MAX_JSON_BYTES // 4) + "[]]}",
        "deep": '{"a": ' * 100_000,
        "a long number": '{"a": ' + "9" * (MAX_JSON_BYTES - 10) + "}",
        "many keys": "{" + ",".join(f'"{i}":{{}}' for i in range(MAX_JSON_BYTES // 12)) + "}",
    }


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to limit memory")
@pytest.mark.parametrize("name", texts())
def test_a_text_out_of_proportion_is_refused_at_once(name: str, run: Path, tmp_path: Path) -> None:
    """The same for config.json, a checkpoint's manifest and counters, and a fault's file."""
    text = texts()[name]
    (tmp_path / "fault.json").write_text(text)
    assert bounded(refused(lambda: read_fault(tmp_path / "fault.json"))) == 0
    for checkpoint in (run / "checkpoints").iterdir():
        (checkpoint / "manifest.json").write_text(text)
    assert bounded(refused(lambda: read_checkpoint(run / "checkpoints"))) == 0
    (run / "config.json").write_text(text)
    for work in (lambda: read_config(run), lambda: read_curve(run), lambda: clipper.resume(run)):
        assert bounded(refused(work)) == 0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to limit memory")
@pytest.mark.parametrize("what", ["[],", "0,", "1.5,", "[1.5],", "{},", '"",'])
def test_a_fault_out_of_proportion_is_refused_at_once(what: str, tmp_path: Path) -> None:
    """Up to the 16 MiB it may have, whatever stands in the place of the actions."""
    path = tmp_path / "fault.json"
    whole = fault({})
    inside = what * ((16 << 20) // len(what) - len(whole))
    path.write_text(whole.replace("[[1]]", f"[{inside}[1]]"))
    assert bounded(refused(lambda: read_fault(path))) == 0


@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "episodes.csv", "log.txt", "lock"])
def test_a_pipe_in_a_run_folder_is_not_waited_for(name: str, run: Path) -> None:
    """What would wait for ever is refused: by those that write the folder and by those that read it."""
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)

    def attempts() -> None:
        signal.alarm(20)
        for work in (
            lambda: RunFolder(run),
            lambda: clipper.resume(run),
            lambda: clipper.load(run),
            lambda: read_curve(run),
        ):
            refused(work)()

    assert in_child(attempts) == 0


# ---- what a checkpoint may hold ------------------------------------------------------------------


def rewritten(
    run: Path, change: Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], Any]
) -> Path:
    """Returns the run with its checkpoints changed by somebody who makes the sums good again.

    Args:
        run: Its folder.
        change: Called with the tensors of the training, the counters and the agent's tensors.
    """
    found = read_checkpoint(run / "checkpoints")[0]
    training, agent = dict(found.training), dict(found.agent)
    state = json.loads(json.dumps(dict(found.state)))
    change(training, state, agent)
    state.pop("format", None)
    shutil.rmtree(run / "checkpoints")
    write_checkpoint(
        run / "checkpoints", replace(found, training=training, state=state, agent=agent)
    )
    return run


def _training(name: str, to: Callable[[Any], Any]) -> Callable[..., None]:
    def change(training: dict[str, Any], state: Any, agent: Any) -> None:
        training[name] = to(training[name])

    return change


def _counter(name: str, to: Any) -> Callable[..., None]:
    def change(training: Any, state: dict[str, Any], agent: Any) -> None:
        state["training"][name] = to

    return change


def _alarm(name: str, to: Any) -> Callable[..., None]:
    def change(training: Any, state: dict[str, Any], agent: Any) -> None:
        state["training"]["alarms"][name] = to

    return change


CHANGES: dict[str, Callable[..., Any]] = {
    "moments of another size": _training("engine.m", lambda a: a[:-1].copy()),
    "moments of another type": _training("engine.m", lambda a: a.astype(np.float64)),
    "moments of NaN": _training("engine.v", lambda a: a * np.nan),
    "fewer than no updates": _training("engine.num_updates", lambda a: a * 0 - 1),
    "a moment missing": lambda t, s, a: t.pop("engine.m"),
    "a tensor too many": lambda t, s, a: t.update({"engine.x": np.zeros(1)}),
    "a part too many": lambda t, s, a: t.update({"surprise": np.zeros(1)}),
    "no counters of iterations": lambda t, s, a: t.pop("counters.num_iterations"),
    "no steps": lambda t, s, a: t.pop("sampler.steps"),
    "another number of environments": _training("sampler.episodes", lambda a: np.append(a, 1)),
    "an episode before the first": _training("sampler.episodes", lambda a: a * 0 - 2),
    "an episode beyond all": _training("sampler.episodes", lambda a: a * 0 + 2**62 + 1),
    "a return of infinity": _training("sampler.returns", lambda a: a + np.inf),
    "observations of another size": _training("sampler.obs", lambda a: a[:, :-1].copy()),
    "actions that are none": _training("sampler.actions", lambda a: a + 7),
    "actions below the first": _training("sampler.actions", lambda a: a - 7),
    "actions of another type": _training("sampler.actions", lambda a: a.astype(np.float32)),
    "fewer actions than steps": _training("sampler.actions", lambda a: a[:-1].copy()),
    "more steps replayed than done": _training("sampler.lengths", lambda a: a * 0 + 1),
    "endlessly many replayed": _training("sampler.replayed", lambda a: a * 0 + 2**61),
    "a sampler of another kind": lambda t, s, a: t.update({"sampler.x": np.zeros(1)}),
    "another step": _counter("step", 63),
    "a step that is true": _counter("step", True),
    "a negative iteration": _counter("iteration", -1),
    "a time that is text": _counter("wall_seconds", "long"),
    "a best that is a list": _counter("best", [1]),
    "a best beyond all floats": _counter("best", 10**400),
    "a time beyond all floats": _counter("wall_seconds", 10**400),
    "a fault beyond all floats": _counter("faults", {"0": [10**400]}),
    "an alarm beyond all floats": _alarm("largest_reward", 10**400),
    "a reason that is a number": _counter("inexact", 3),
    "an unknown counter": _counter("surprise", 1),
    "no counters": lambda t, s, a: s.pop("training"),
    "counters that are a list": lambda t, s, a: s.update(training=[1]),
    "recent that is a list": _counter("recent", [1]),
    "recent without a count": _counter("recent", {"episodes": []}),
    "an episode of text": _counter("recent", {"count": 1, "episodes": [["x"] * 7]}),
    "a short episode": _counter("recent", {"count": 1, "episodes": [[0, 0]]}),
    "an extra of text": _counter(
        "recent", {"count": 1, "episodes": [[0, 0, 1.0, 1, True, 1, {"a": "b"}]]}
    ),
    "fewer episodes than shown": _counter(
        "recent", {"count": 0, "episodes": [[0, 0, 1.0, 1, True, 1, {}]]}
    ),
    "episodes beyond all counts": _counter("recent", {"count": 2**63, "episodes": []}),
    "an episode beyond all counts": _counter(
        "recent", {"count": 1, "episodes": [[0, 2**63, 1.0, 1, True, 1, {}]]}
    ),
    "an extra beyond all floats": _counter(
        "recent", {"count": 1, "episodes": [[0, 0, 1.0, 1, True, 1, {"a": 10**400}]]}
    ),
    "a thousand episodes": _counter(
        "recent", {"count": 1000, "episodes": [[0, 0, 1.0, 1, True, 1, {}]] * 1000}
    ),
    "rows that are negative": lambda t, s, a: s.update(rows={"metrics": -1, "episodes": 0}),
    "rows of another file": lambda t, s, a: s["rows"].update({"../x": 1}),
    "no device": lambda t, s, a: s.pop("device"),
    "a device that writes on the terminal": lambda t, s, a: s.update(device="\x1b[2J"),
    "a key too many": lambda t, s, a: s.update(surprise=1),
    "a policy of NaN": lambda t, s, a: a.update(
        {k: v * np.nan for k, v in a.items() if k.startswith("policy.network")}
    ),
    "a policy of another type": lambda t, s, a: a.update(
        {k: v.astype(np.float64) for k, v in a.items() if k.startswith("policy.network")}
    ),
    "a tensor of no part of an agent": lambda t, s, a: a.update(surprise=np.zeros(1)),
}  # fmt: skip


def test_the_control_of_the_changes(run: Path) -> None:
    """Negative control: rewritten without a change a checkpoint is taken, and goes on."""
    agent = clipper.resume(rewritten(run, lambda t, s, a: None))
    agent.train(128, progress=False)
    assert agent.step == 128


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_of_good_sums_and_other_content_is_refused(name: str, run: Path) -> None:
    """Whoever can write a checkpoint can make its sums good: what it holds is looked at as well."""
    rewritten(run, CHANGES[name])
    with pytest.raises(FileError):
        clipper.resume(run)
    # the folder is free again, and nothing in it was changed
    RunFolder(run).close()


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {"name": "CartPole-v1"}},
        {"seed": -1},
        {"seed": 2**63},
        {"step": True},
        {"actions": [[1], [2, 3]]},
        {"actions": [["x"]]},
        {"actions": [[True]]},
        {"actions": [[]]},
        {"actions": [1]},
        {"actions": [[10**400]]},
        {"kind": "agent"},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_fault_that_is_none_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    """A key missing, unknown, of another type or out of range is one error of ours."""
    (tmp_path / "fault.json").write_text(fault({}))
    assert read_fault(tmp_path / "fault.json").seed == 1
    (tmp_path / "fault.json").write_text(fault({}, **changes))
    with pytest.raises(FileError):
        read_fault(tmp_path / "fault.json")


@pytest.mark.parametrize("actions", [[[2]], [[-1]], [[0.5]], [[0, 0]]], ids=str)
def test_actions_that_are_none_are_not_played(
    actions: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An environment in C would read beyond its memory: replay refuses them with exit code 5."""
    (tmp_path / "fault.json").write_text(fault({}, actions=actions))
    assert main(["replay", str(tmp_path / "fault.json")]) == 5
    assert "actions that the environment takes" in capsys.readouterr().err


@pytest.mark.parametrize("minutes", ["1" + "0" * 400, "1" + "0" * 5000], ids=["400", "5,000"])
def test_rules_with_a_number_beyond_all_floats_are_refused(minutes: str, run: Path) -> None:
    """Whole numbers have no end in JSON: one of so many zeros is one error of ours, and not Python's."""
    config = run / "config.json"
    honest = json.loads(config.read_text())
    honest["checkpoints"]["checkpoint_minutes"] = "HERE"
    config.write_text(dump_json(honest).replace('"HERE"', minutes))
    with pytest.raises(FileError, match=re.escape(str(config))):
        clipper.resume(run)


def test_a_disk_that_says_no_is_not_damage(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be read now is said with the system's reason, and keeps its name."""

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", refuse)
        with pytest.raises(FileError, match="Input/output error"):
            read_config(run)
        with pytest.raises(FileError, match="Input/output error"):
            read_checkpoint(run / "checkpoints")
    assert read_checkpoint(run / "checkpoints")[1] == []


def test_arguments_of_a_file_are_trusted_for_no_environment_unasked(tmp_path: Path) -> None:
    """Naming the environment oneself is no trust in a path that the file hands to it."""
    agent = clipper.PPO("CartPole-v1", preset="none", num_envs=1)
    meta = agent._run.describe()
    meta["env"]["kwargs"] = {"xml_file": "/etc/passwd"}
    agent_file.write(tmp_path / "a.safetensors", agent.policy, meta)
    agent.close()
    with pytest.raises(ConfigError, match="is not taken unasked") as caught:
        clipper.load(tmp_path / "a.safetensors", env="CartPole-v1")
    assert "--trust-env" in str(caught.value.hint)
    # a callable of one's own is not given the arguments of what the file names
    other = clipper.load(tmp_path / "a.safetensors", env=lambda: gymnasium.make("CartPole-v1"))
    assert other.evaluate(1).episodes == 1
    other.close()
