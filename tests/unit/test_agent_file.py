"""Laws of the agent file: all of an agent in, the same agent out, and anything else refused."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.numpy import load_file, save
from torch import nn

import clipper
from clipper.checkpoint import Arrays, dump_json, read_tensors, write_tensors
from clipper.errors import ClipperError, ConfigError, FileError, SpaceError

SMALL: dict[str, Any] = {
    "preset": "none",
    "num_envs": 2,
    "num_steps": 16,
    "minibatch_size": 16,
    "num_epochs": 2,
    "hidden_sizes": (4,),
    "total_timesteps": 64,
    "eval_every": 0,
}


class Spaces(gymnasium.Env[Any, Any]):
    """An environment of any two spaces, with random observations of moderate size.

    Args:
        obs: Observation space.
        action: Action space.
    """

    def __init__(self, obs: spaces.Space[Any], action: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = obs, action

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        reward = float(self.np_random.normal())
        return self.observation_space.sample(), reward, self.np_random.random() < 0.2, False, {}


BOX = spaces.Box(-np.inf, np.inf, (3,))
OBS_SPACES: dict[str, spaces.Space[Any]] = {
    "infinite": BOX,
    "half infinite": spaces.Box(
        np.array([-np.inf, 0.1], np.float32), np.array([0.3, np.inf], np.float32)
    ),
    "double": spaces.Box(-1e30, 1e30, (2,), dtype=np.float64),
    "bytes": spaces.Box(0, 255, (2,), dtype=np.uint8),
    "matrix": spaces.Box(-1.0, 1.0, (2, 3)),
    "discrete": spaces.Discrete(5, start=-2),
    "multi discrete": spaces.MultiDiscrete([2, 3], start=[1, -1]),
    "multi binary": spaces.MultiBinary([2, 2]),
    "dict": spaces.Dict(
        {
            "b.c": spaces.Box(-1.0, np.inf, (2,)),
            "a": spaces.Tuple((spaces.Discrete(2), spaces.Dict({"ä": spaces.MultiBinary(2)}))),
        }
    ),
    "tuple": spaces.Tuple((spaces.Discrete(3), spaces.Box(-np.inf, 0.0, (1,)))),
}
ACTION_SPACES: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(np.array([0.0, -2.0], np.float32), np.array([9.0, 2.0], np.float32)),
    "unbounded": spaces.Box(-np.inf, np.inf, (2,)),
    "half bounded": spaces.Box(0.0, np.inf, (1,)),
    "double": spaces.Box(-1.0, 1.0, (2, 2), dtype=np.float64),
    "discrete": spaces.Discrete(3, start=-1),
    "multi discrete": spaces.MultiDiscrete([2, 3], start=[1, 7]),
    "int32": spaces.MultiDiscrete([2, 3], dtype=np.int32),
    "multi binary": spaces.MultiBinary(3),
}
PAIRS = [
    *((obs, ACTION_SPACES["discrete"]) for obs in OBS_SPACES.values()),
    *((BOX, action) for action in ACTION_SPACES.values()),
]


def agent_for(obs: spaces.Space[Any], action: spaces.Space[Any], **options: Any) -> clipper.PPO:
    return clipper.PPO(lambda: Spaces(obs, action), **{**SMALL, **options})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of an agent with a normaliser, trained for a little."""
    path = tmp_path_factory.mktemp("agent") / "agent.safetensors"
    agent = clipper.PPO("CartPole-v1", seed=3, normalize_obs=True, **SMALL)
    agent.train(progress=False)
    agent.save(path)
    return path


def changed(
    saved: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any], Arrays], Any],
) -> Path:
    """Returns a copy of the file with changed metadata or tensors, otherwise well written."""
    arrays, meta = read_tensors(saved)
    change(meta, arrays)
    path = tmp_path / "changed.safetensors"
    write_tensors(path, arrays, meta)
    return path


def raw(saved: Path, tmp_path: Path, text: Callable[[str], str]) -> Path:
    """Returns a copy of the file whose metadata text was edited."""
    arrays, meta = read_tensors(saved)
    path = tmp_path / "raw.safetensors"
    # the first format has no sum that would be wrong now
    path.write_bytes(save(arrays, metadata={"clipper": text(dump_json({**meta, "format": 1}))}))
    return path


def test_the_control_of_the_changes(saved: Path, tmp_path: Path) -> None:
    """Negative control: a copy without a change is read, so what is refused below is the change."""
    for path in (
        changed(saved, tmp_path, lambda meta, arrays: None),
        raw(saved, tmp_path, lambda text: text),
    ):
        assert clipper.load(path).step == 64


# ---- round trip ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("obs", "action"), PAIRS, ids=str)
def test_every_kind_of_space_comes_back(
    obs: spaces.Space[Any], action: spaces.Space[Any], tmp_path: Path
) -> None:
    """Spaces with their bounds and types, settings, counters, and the same action for all it sees."""
    agent = agent_for(obs, action, seed=5, normalize_obs=True)
    agent.train(32, progress=False)
    agent.save(tmp_path / "a.safetensors")
    found = clipper.load(tmp_path / "a.safetensors")
    assert found.policy.obs_layout.space == obs
    assert found.policy.action_layout.space == action
    assert found.policy.action_layout.space.dtype == action.dtype
    assert (found.config, found.seed, found.step, found.preset) == (agent.config, 5, 32, "none")
    ours, theirs = agent.policy.state_dict(), found.policy.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    obs.seed(0)
    for _ in range(10):
        seen = obs.sample()
        first, second = agent.act(seen), found.act(seen)
        assert np.array_equal(first, second)
        assert action.contains(second)


def test_a_file_is_canonical(saved: Path, tmp_path: Path) -> None:
    """Saving what was loaded gives the same bytes: nothing is lost and nothing is unordered."""
    clipper.load(saved).save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_a_file_is_plain_safetensors(saved: Path) -> None:
    """Any safetensors reader opens it; its one metadata key is strict JSON without surprises."""
    arrays = load_file(saved)
    assert any(name.startswith("policy.network.") for name in arrays)
    size = struct.unpack("<Q", saved.read_bytes()[:8])[0]
    header = json.loads(saved.read_bytes()[8 : 8 + size])
    assert set(header["__metadata__"]) == {"clipper"}
    meta = json.loads(header["__metadata__"]["clipper"])
    assert meta["env"]["name"] == "CartPole-v1"
    assert meta["versions"]["torch"] == torch.__version__


def test_a_mid_run_agent_says_whether_it_is_exact(saved: Path, tmp_path: Path) -> None:
    """`exact` is false once a run was bent, here by another budget."""
    assert read_tensors(saved)[1]["exact"] is True
    agent = clipper.PPO("CartPole-v1", **SMALL)
    agent.train(32, progress=False)
    agent.train(96, progress=False)
    agent.save(tmp_path / "a.safetensors")
    meta = read_tensors(tmp_path / "a.safetensors")[1]
    assert meta["exact"] is False
    assert meta["inexact"] == agent.inexact
    assert "total_timesteps changed" in meta["inexact"]
    assert meta["inexact"] in str(clipper.load(tmp_path / "a.safetensors").inexact)


@pytest.mark.parametrize("reason", ["two\nlines", "a \x1b[31m colour", "long " * 500])
def test_why_a_run_is_not_exact_is_kept_as_a_short_line(reason: str, tmp_path: Path) -> None:
    """Whatever an environment's error said, the file that quotes it can be read again."""
    agent = clipper.PPO("CartPole-v1", **SMALL)
    agent._run.state.note_inexact(reason)
    agent.save(tmp_path / "a.safetensors")
    kept = read_tensors(tmp_path / "a.safetensors")[1]["inexact"]
    assert kept.isprintable()
    assert len(kept) <= 500
    assert kept[:5] == reason.replace("\n", " ")[:5].replace("\x1b", "?")
    assert kept[:5] in str(clipper.load(tmp_path / "a.safetensors").inexact)


@pytest.mark.parametrize("name", ["agent.pt", "agent", "agent.zip", "agent.safetensors.bak"])
def test_another_suffix_is_refused_with_the_right_one(
    saved: Path, tmp_path: Path, name: str
) -> None:
    """A file that says .pt would be opened as something else."""
    with pytest.raises(ConfigError, match=r"must end in \.safetensors") as caught:
        clipper.load(saved).save(tmp_path / name)
    assert ".safetensors" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())


# ---- the strict reader ---------------------------------------------------------------------------


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any], Arrays], None]:
    def change(meta: dict[str, Any], arrays: Arrays) -> None:
        target: Any = meta
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = to

    return change


def _drop(key: str) -> Callable[[dict[str, Any], Arrays], None]:
    return lambda meta, arrays: meta.pop(key)


KEYS = (
    "format",
    "kind",
    "algorithm",
    "env",
    "preset",
    "seed",
    "config",
    "module",
    "step",
    "exact",
    "observation_space",
    "action_space",
    "versions",
)
META_CHANGES: dict[str, Callable[[dict[str, Any], Arrays], Any]] = {
    **{f"without {key}": _drop(key) for key in KEYS},
    **{f"{key} a list": _set(key, to=[1]) for key in KEYS},
    **{f"{key} null": _set(key, to=None) for key in KEYS},
    "an unknown key": _set("surprise", to=1),
    "a newer format": _set("format", to=3),
    "another kind": _set("kind", to="checkpoint"),
    "another algorithm": _set("algorithm", to="sac"),
    "another network": _set("module", to="rnn"),
    "an unknown setting": _set("config", "gama", to=0.9),
    "a setting of the wrong type": _set("config", "gamma", to="high"),
    "a setting out of range": _set("config", "gamma", to=2.0),
    "a network of another size": _set("config", "hidden_sizes", to=[8]),
    "another activation in name": _set("config", "activation", to="swish"),
    "a negative seed": _set("seed", to=-1),
    "a seed that is true": _set("seed", to=True),
    "a huge seed": _set("seed", to=2**64),
    "a negative step": _set("step", to=-5),
    "a step that is true": _set("step", to=True),
    "a reason of an exact run": _set("inexact", to="the weather"),
    "a reason of two lines": _set("inexact", to="a\nb"),
    "a reason that is a number": _set("inexact", to=3),
    "an unknown key of env": _set("env", "shell", to="rm"),
    "an env without a name": lambda meta, arrays: meta["env"].pop("name"),
    "an env name that is a number": _set("env", "name", to=3),
    "kwargs that are a list": _set("env", "kwargs", to=[1]),
    "kwargs that are null": _set("env", "kwargs", to=None),
    "a limit that is text": _set("env", "max_episode_steps", to="many"),
    "a limit below 1": _set("env", "max_episode_steps", to=0),
    "is_named that is text": _set("env", "is_named", to="yes"),
    "an env name that writes on the terminal": _set("env", "name", to="\x1b[2JCartPole-v1"),
    "an env name of two lines": _set("env", "name", to="CartPole-v1\nall is well"),
    "an env name that runs backwards": _set("env", "name", to="\u202eCartPole-v1"),
    "a preset that writes on the terminal": _set("preset", to="\x1b]0;x\x07"),
    "a version that is a number": _set("versions", "torch", to=2),
    "a version that writes on the terminal": _set("versions", "torch", to="\x1b[2J"),
    "an enormous network": _set("config", "hidden_sizes", to=[100_000, 100_000]),
    "an enormous value network": _set("config", "value_hidden_sizes", to=[2**40]),
    "enormously many environments": _set("config", "num_envs", to=2**50),
    "enormously many actions": _set("action_space", "n", to=2**50),
    "more actions than numbers": _set("action_space", "n", to=2**70),
    "an enormous observation": _set(
        "observation_space", to={"type": "Discrete", "n": 2**50, "start": 0, "dtype": "int64"}
    ),
    "enormously many bits": _set("observation_space", to={"type": "MultiBinary", "n": 2**40}),
    "a space of another type": _set("observation_space", "type", to="Cube"),
    "a space without a type": lambda meta, arrays: meta["observation_space"].clear(),
    "fewer actions": _set("action_space", "n", to=1),
    "actions that are no number": _set("action_space", "n", to="two"),
    "bounds elsewhere": _set("observation_space", "key", to="policy"),
    "a type that is none": _set("observation_space", "dtype", to="float31"),
}


@pytest.mark.parametrize("name", META_CHANGES)
def test_metadata_that_is_wrong_is_refused(saved: Path, tmp_path: Path, name: str) -> None:
    """A key that is missing, unknown, of another type or out of range is one error of ours."""
    with pytest.raises(ClipperError) as caught:
        clipper.load(changed(saved, tmp_path, META_CHANGES[name]))
    assert isinstance(caught.value, (FileError, ConfigError))


def _array(name: str, to: Callable[[Any], Any]) -> Callable[[dict[str, Any], Arrays], None]:
    def change(meta: dict[str, Any], arrays: Arrays) -> None:
        arrays[name] = to(arrays[name])

    return change


def _without(name: str) -> Callable[[dict[str, Any], Arrays], Any]:
    return lambda meta, arrays: arrays.pop(name)


def _weight(arrays: Arrays) -> str:
    """Returns the name of a weight whose effect no small output layer hides."""
    return [n for n in sorted(arrays) if n.startswith("policy.") and n.endswith("weight")][-1]


def _on_weight(to: Callable[[Any], Any]) -> Callable[[dict[str, Any], Arrays], None]:
    def change(meta: dict[str, Any], arrays: Arrays) -> None:
        arrays[_weight(arrays)] = to(arrays[_weight(arrays)])

    return change


def _swap_weights(meta: dict[str, Any], arrays: Arrays) -> None:
    """Gives policy and value networks each other's first layer: the same shapes, another agent."""
    names = [n for n in sorted(arrays) if n.startswith("policy.") and arrays[n].shape == (4, 4)]
    assert len(names) >= 2
    arrays[names[0]], arrays[names[1]] = arrays[names[1]], arrays[names[0]]


ARRAY_CHANGES: dict[str, Callable[[dict[str, Any], Arrays], Any]] = {
    **{
        f"without {name}": _without(name)
        for name in (
            "example.obs",
            "example.params",
            "example.values",
            "space.obs.low",
            "space.obs.high",
            "policy.normalizer.moments",
        )
    },
    "without a weight": lambda meta, arrays: arrays.pop(_weight(arrays)),
    "a weight too many": lambda meta, arrays: arrays.update({"policy.extra": np.zeros(1)}),
    "a tensor of no part": lambda meta, arrays: arrays.update({"surprise": np.zeros(1)}),
    "a weight transposed": _on_weight(lambda a: a.reshape(-1)),
    "a weight of NaN": _on_weight(lambda a: a * np.nan),
    "a weight of infinity": _on_weight(lambda a: a + np.inf),
    "a weight a little off": _on_weight(lambda a: a + np.float32(0.1)),
    "weights swapped": _swap_weights,
    "a normaliser that is off": _array("policy.normalizer.moments", lambda a: a * 2 + 1),
    "a normaliser of NaN": _array("policy.normalizer.moments", lambda a: a * np.nan),
    "examples of another width": _array("example.obs", lambda a: a[:, :-1].copy()),
    "examples of another type": _array("example.obs", lambda a: a.astype(np.int64)),
    "examples of NaN": _array("example.obs", lambda a: a * np.nan),
    "fewer examples": _array("example.obs", lambda a: a[:-1].copy()),
    "no examples": lambda meta, arrays: arrays.update(
        {n: a[:0].copy() for n, a in arrays.items() if n.startswith("example.")}
    ),
    "outputs of another width": _array("example.params", lambda a: a[:, :1].copy()),
    "outputs that are off": _array("example.params", lambda a: a + np.float32(0.1)),
    "outputs of NaN": _array("example.params", lambda a: a * np.nan),
    "values that are off": _array("example.values", lambda a: a + np.float32(0.1)),
    "bounds of another shape": _array("space.obs.low", lambda a: a[:-1].copy()),
    "bounds the wrong way round": _array("space.obs.low", lambda a: -a + 1),
    "bounds of NaN": _array("space.obs.low", lambda a: a * np.nan),
}


@pytest.mark.parametrize("name", ARRAY_CHANGES)
def test_tensors_that_are_wrong_are_refused(saved: Path, tmp_path: Path, name: str) -> None:
    """A tensor missing, unknown, of another shape or of other numbers is one error of ours.

    Other numbers are found by the examples: observations with the outputs they gave when saved.
    """
    with pytest.raises(FileError):
        clipper.load(changed(saved, tmp_path, ARRAY_CHANGES[name]))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.replace('"seed": 3', '"seed": 3, "seed": 4'), "stands twice"),
        (lambda t: t.replace('"gamma": 0.99', '"gamma": NaN'), "NaN"),
        (lambda t: t.replace('"gamma": 0.99', '"gamma": Infinity'), "Infinity"),
        (lambda t: t.replace('"gamma": 0.99', '"gamma": 1e999'), "1e999"),
        (lambda t: t[:-1], "JSON"),
        (lambda t: t + " ", None),
        (lambda t: t[:-1] + ', "x": "' + "y" * 2_000_000 + '"}', "no other metadata"),
        (lambda t: "[" * 50_000, "JSON"),
        (lambda t: "", "JSON"),
    ],
)
def test_metadata_that_is_no_strict_json_is_refused(
    saved: Path, tmp_path: Path, edit: Callable[[str], str], words: str | None
) -> None:
    """Repeated keys, numbers that are none, cut or endless text; only blanks do not matter."""
    path = raw(saved, tmp_path, edit)
    assert words is None or path.read_bytes() != raw(saved, tmp_path / "..", str).read_bytes()
    if words is None:
        assert clipper.load(path).step == 64
        return
    with pytest.raises(FileError, match=words):
        clipper.load(path)


class Evil:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("kind", ["pickle", "torch", "zip"])
@pytest.mark.parametrize("suffix", [".pt", ".pkl", ".zip", ".pth", ".safetensors", ""])
def test_a_pickle_is_never_opened(tmp_path: Path, kind: str, suffix: str) -> None:
    """Files of other libraries, whatever their name, are a typed error with a hint; no code runs."""
    trace, path = tmp_path / "trace", tmp_path / f"model{suffix}"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Evil(trace)))
    elif kind == "torch":
        torch.save({"evil": Evil(trace)}, path)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data", pickle.dumps(Evil(trace)))
    with pytest.raises(FileError, match="must be a safetensors file") as caught:
        clipper.load(path)
    assert "execute code" in str(caught.value.hint)
    assert not trace.exists()


def test_every_cut_of_a_file_is_refused(saved: Path, tmp_path: Path) -> None:
    """A download that broke off, wherever, is a typed error."""
    content = saved.read_bytes()
    path = tmp_path / "cut.safetensors"
    for size in [*range(64), *range(64, len(content), 397), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(FileError):
            clipper.load(path)


class Wide(nn.Module):
    """Would be enormous if it were made as large as a file says."""

    def __init__(self, obs_size: int, num_outputs: int) -> None:
        super().__init__()
        assert max(obs_size, num_outputs) < 10
        self.heads = nn.Linear(obs_size, num_outputs + 1)

    def forward(self, obs: torch.Tensor) -> Any:
        out = self.heads(obs)
        return out[:, :-1], out[:, -1]


@pytest.mark.parametrize("change", ["enormously many actions", "an enormous observation"])
def test_a_users_module_is_not_made_as_large_as_a_file_says(tmp_path: Path, change: str) -> None:
    """The examples in the file must have the sizes of its spaces before anything is built."""
    clipper.PPO("CartPole-v1", module=Wide, **SMALL).save(tmp_path / "wide.safetensors")
    path = tmp_path / "wide.safetensors"
    assert clipper.load(path, module=Wide).step == 0
    with pytest.raises(FileError):
        clipper.load(changed(path, tmp_path, META_CHANGES[change]), module=Wide)


def test_the_metadata_is_checked_without_torch() -> None:
    """What only describes a file need not wait a second for it."""
    code = "import sys, clipper.agent_meta; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_module_that_a_file_names_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`module:EnvId` in a file is data; only trust_env imports it."""
    monkeypatch.chdir(tmp_path)
    code = (
        "from gymnasium.envs.classic_control import CartPoleEnv as Mine\nopen('trace', 'w').close()"
    )
    (tmp_path / "clipper_test_named_module.py").write_text(code)
    agent = clipper.PPO("clipper_test_named_module:Mine", **SMALL)
    agent.save("a.safetensors")
    (tmp_path / "trace").unlink()
    del sys.modules["clipper_test_named_module"]
    found = clipper.load("a.safetensors")
    found.act(np.zeros(4, np.float32))
    with pytest.raises(ConfigError, match="not imported unasked") as caught:
        found.evaluate(1)
    assert "trust_env" in str(caught.value.hint)
    assert not (tmp_path / "trace").exists()
    assert "clipper_test_named_module" not in sys.modules
    assert clipper.load("a.safetensors", trust_env=True).evaluate(1).episodes == 1
    assert (tmp_path / "trace").exists()
    del sys.modules["clipper_test_named_module"]


# ---- environments and modules given when loading -------------------------------------------------


def test_an_environment_can_be_given(tmp_path: Path) -> None:
    """An agent of a callable's environment needs it to be examined, not to act."""
    action = spaces.Discrete(2)
    agent = agent_for(BOX, action)
    agent.save(tmp_path / "a.safetensors")
    found = clipper.load(tmp_path / "a.safetensors")
    assert action.contains(found.act(np.zeros(3, np.float32)))
    with pytest.raises(ConfigError, match="needs its environment"):
        found.evaluate(1)
    given = clipper.load(tmp_path / "a.safetensors", env=lambda: Spaces(BOX, action))
    assert given.evaluate(3).returns == agent.evaluate(3).returns


def test_an_environment_of_other_spaces_is_refused(saved: Path) -> None:
    """The spaces must be those the agent was trained in; the message shows both in words."""
    with pytest.raises(SpaceError, match=r"trained in, .*but is"):
        clipper.load(saved, env="MountainCar-v0")
    assert clipper.load(saved, env="CartPole-v0").evaluate(1).env == "CartPole-v0"


class Net(nn.Module):
    """A network of the user's, with a scalar parameter and a buffer without dimensions.

    Args:
        obs_size: Width of an observation.
        num_outputs: Width of the policy's head.
        width: Hidden units.
    """

    def __init__(self, obs_size: int, num_outputs: int, width: int = 6) -> None:
        super().__init__()
        self.body = nn.Linear(obs_size, width)
        self.heads = nn.Linear(width, num_outputs + 1)
        self.temperature = nn.Parameter(torch.tensor(1.5))
        self.count = nn.Buffer(torch.tensor(7))

    def forward(self, obs: torch.Tensor) -> Any:
        out = self.heads(torch.tanh(self.body(obs))) * self.temperature
        return out[:, :-1], out[:, -1]


@pytest.fixture
def with_module(tmp_path: Path) -> Path:
    """A file of an agent around a network of the user's."""
    agent = clipper.PPO("CartPole-v1", module=Net, **SMALL)
    agent.train(32, progress=False)
    agent.save(tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_a_module_must_be_given(with_module: Path) -> None:
    """The file says that it needs one, and how; no class is looked up by name."""
    with pytest.raises(ConfigError, match="must be given to load it") as caught:
        clipper.load(with_module)
    assert "module=" in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["class", "instance"])
def test_a_module_that_is_given_gets_the_weights(with_module: Path, kind: str) -> None:
    """Tensors of every number of dimensions come back into a class's or an instance's network."""
    arrays = load_file(with_module)
    assert arrays["policy.network.temperature"].shape == ()
    module = Net if kind == "class" else Net(4, 2)
    found = clipper.load(with_module, module=module)
    for name, tensor in found.policy.state_dict().items():
        assert np.array_equal(tensor.numpy(), arrays[f"policy.{name}"]), name
    assert found.step == 32
    assert found.evaluate(1).episodes == 1


class Other(Net):
    """The same tensors, used in another way."""

    def forward(self, obs: torch.Tensor) -> Any:
        out = self.heads(torch.relu(self.body(obs))) * self.temperature
        return out[:, :-1], out[:, -1]


def test_another_module_is_refused(with_module: Path, saved: Path) -> None:
    """Other shapes are told by tensor; the same shapes used otherwise are found by the examples."""
    with pytest.raises(FileError, match="must hold the tensors of this policy"):
        clipper.load(with_module, module=lambda obs, outputs: Net(obs, outputs, width=9))
    with pytest.raises(FileError, match="example observations") as caught:
        clipper.load(with_module, module=Other)
    assert "module" in str(caught.value.hint)
    with pytest.raises(FileError):
        clipper.load(saved, module=Net)


def test_the_examples_stand_where_the_agent_has_been(tmp_path: Path) -> None:
    """They are spread around what the normaliser saw, so that they test what matters."""

    class Far(Spaces):
        def __init__(self) -> None:
            super().__init__(BOX, spaces.Discrete(2))

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return self.obs(), {}

        def step(self, action: Any) -> Any:
            return self.obs(), *super().step(action)[1:]

        def obs(self) -> Any:
            return self.np_random.normal([1e4, 0.0, -5.0], [10.0, 1.0, 0.1]).astype(np.float32)

    agent = clipper.PPO(Far, normalize_obs=True, **SMALL)
    agent.train(progress=False)
    agent.save(tmp_path / "a.safetensors")
    examples = load_file(tmp_path / "a.safetensors")["example.obs"]
    assert len(examples) >= 2
    assert (np.abs(examples - [1e4, 0.0, -5.0]) < [40.0, 4.0, 0.4]).all()
    assert len(np.unique(examples, axis=0)) == len(examples)
