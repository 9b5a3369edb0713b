"""Laws of naming an environment: every way to say it, what is built, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.wrappers import TimeLimit

from clipper.envs.make import env_source, episode_limit
from clipper.envs.names import Env, imports_what_it_names
from clipper.envs.vector import spaces_of
from clipper.errors import ClipperError, ConfigError, EnvironmentFault, EnvironmentUnknown


class Line(gymnasium.Env[Any, Any]):
    """Counts its steps and never ends by itself.

    Args:
        start: Where it begins.
        render_mode: Kept.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, start: float = 0.0, render_mode: str | None = None) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,))
        self.action_space = spaces.Discrete(2)
        self.start = start
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.at = self.start
        return np.array([self.at], dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        self.at += 1
        return np.array([self.at], dtype=np.float32), 0.0, False, False, {}


class Shifted(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Adds 100 to each observation."""

    def reset(self, **kwargs: Any) -> Any:
        obs, info = self.env.reset(**kwargs)
        return obs + 100, info


class Doubled(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Doubles each observation."""

    def reset(self, **kwargs: Any) -> Any:
        obs, info = self.env.reset(**kwargs)
        return obs * 2, info


def chain(env: Env) -> list[str]:
    """Returns the names of the wrappers and of the environment, outermost first."""
    names = [type(env).__name__]
    while isinstance(env, gymnasium.Wrapper):
        env = env.env
        names.append(type(env).__name__)
    return names


def first_cut(env: Env, at_most: int = 1000) -> int:
    """Returns after how many steps the first truncation comes."""
    env.reset(seed=0)
    for step in range(1, at_most + 1):
        if env.step(env.action_space.sample())[3]:
            return step
    raise AssertionError(f"no truncation within {at_most} steps")


MODULE = """
import gymnasium
from gymnasium import spaces
import numpy as np

class Mine(gymnasium.Env):
    observation_space = spaces.Box(-1.0, 1.0, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self, tag="class", render_mode=None):
        self.tag, self.render_mode = tag, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action):
        return np.zeros(1, dtype=np.float32), 0.0, False, False, {}

def make_mine(tag="function"):
    return Mine(tag)

not_callable = 3

gymnasium.register("Mine", Mine, kwargs={"tag": "registered"})
gymnasium.register("MineLimited-v3", Mine, max_episode_steps=5)
"""


@pytest.fixture
def module_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Puts a module into a working directory that is not on the path; forgets it afterwards."""
    name = "clipper_test_envs_here"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    before = set(gymnasium.registry)
    yield name
    sys.modules.pop(name, None)
    for env_id in set(gymnasium.registry) - before:
        del gymnasium.registry[env_id]


# ---- ways to say it ---------------------------------------------------------------------------


def test_an_id_makes_the_registered_environment() -> None:
    """A Gymnasium id gives a fresh environment of that id at every call."""
    source = env_source("CartPole-v1")
    first, second = source.make(), source.make()
    assert first is not second
    assert first.unwrapped is not second.unwrapped
    assert isinstance(first.unwrapped, CartPoleEnv)
    assert first.spec is not None
    assert first.spec.id == source.name == "CartPole-v1"
    assert source.is_named
    assert not source.names_module


def test_a_module_of_the_working_directory_can_be_named(module_here: str) -> None:
    """`module:EnvId` imports a module that lies where the user stands."""
    assert env_source(f"{module_here}:make_mine").make().unwrapped.tag == "function"
    assert env_source(f"{module_here}:make_mine").names_module


def test_a_registered_id_comes_before_a_callable_of_the_same_name(module_here: str) -> None:
    """`Mine` is both an id the module registers and a class it holds; the id is meant."""
    assert env_source(f"{module_here}:Mine").make().unwrapped.tag == "registered"
    del gymnasium.registry["Mine"]
    assert env_source(f"{module_here}:Mine").make().unwrapped.tag == "class"


def test_a_named_module_keeps_its_ids_limit(module_here: str) -> None:
    """An id that a module registers has its own step limit, which max_episode_steps replaces."""
    name = f"{module_here}:MineLimited-v3"
    assert first_cut(env_source(name).make()) == 5
    assert first_cut(env_source(name, max_episode_steps=9).make()) == 9


def test_a_callable_makes_fresh_environments() -> None:
    """A class or function is called once per environment, and its name is kept for people."""
    source = env_source(Line)
    assert source.make() is not source.make()
    assert source.name == "Line"
    assert not source.is_named


def test_an_instance_is_used_as_it_is() -> None:
    """An environment that is given is the one that is played in."""
    env = Line()
    source = env_source(env)
    assert source.make() is env
    assert source.make() is env
    assert source.name == "Line"
    assert not source.is_named
    registered = gymnasium.make("CartPole-v1")
    assert env_source(registered).name == "CartPole-v1"
    registered.close()


@pytest.mark.parametrize("make", [Line, lambda **kwargs: Line(**kwargs)])
def test_arguments_reach_a_callable(make: Any) -> None:
    """env_kwargs are the callable's keyword arguments, and render_mode joins them when filming."""
    source = env_source(make, env_kwargs={"start": 7.0})
    assert source.make().reset()[0].tolist() == [7.0]
    assert source.make().render_mode is None
    assert source.make(render_mode="rgb_array").render_mode == "rgb_array"


def test_arguments_reach_a_registered_environment() -> None:
    """env_kwargs go to the constructor: FrozenLake's 8x8 map has 64 fields."""
    env = env_source("FrozenLake-v1", env_kwargs={"map_name": "8x8"}).make()
    assert env.observation_space == spaces.Discrete(64)


def test_arguments_are_copied() -> None:
    """Changing the dictionary afterwards does not change what is built."""
    kwargs = {"start": 1.0}
    source = env_source(Line, env_kwargs=kwargs)
    kwargs["start"] = 2.0
    assert source.make().unwrapped.start == 1.0


# ---- limits, checkers, wrappers ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "limit", "expected"),
    [
        ("Pendulum-v1", None, 200),
        ("Pendulum-v1", 30, 30),
        ("Pendulum-v1", 300, 300),
        (Line, 30, 30),
        (lambda: gymnasium.make("Pendulum-v1"), 30, 30),
        (lambda: gymnasium.make("Pendulum-v1"), 300, 300),
        (lambda: Shifted(TimeLimit(Line(), 20)), 50, 50),
        (lambda: TimeLimit(TimeLimit(Line(), 20), 10), 50, 50),
    ],
)
def test_max_episode_steps_is_in_place_of_any_limit(
    env: Any, limit: int | None, expected: int
) -> None:
    """Episodes are cut after max_episode_steps, be it less or more than the limit they carry."""
    made = env_source(env, max_episode_steps=limit).make()
    assert first_cut(made) == expected
    assert episode_limit(made) == expected
    made.close()


def test_max_episode_steps_is_in_place_of_an_instances_limit() -> None:
    """An environment given ready-made can be cut earlier or later too."""
    for limit in (5, 40):
        source = env_source(TimeLimit(Line(), 20), max_episode_steps=limit)
        assert first_cut(source.make()) == limit


def test_the_limit_of_an_own_environment_is_known() -> None:
    """An environment that is not registered tells its limit too: presets and warnings need it."""
    assert spaces_of(env_source(Line))[2] is None
    assert spaces_of(env_source(Line, max_episode_steps=50))[2] == 50
    assert spaces_of(env_source(lambda: TimeLimit(Line(), 20)))[2] == 20
    assert spaces_of(env_source("CartPole-v1"))[2] == 500


def test_gymnasiums_checkers_are_not_in_the_hot_loop() -> None:
    """Per-step checks would cost 5 to 10 % of a fast environment; the time limit stays."""
    env = env_source("CartPole-v1").make()
    assert chain(env) == ["TimeLimit", "CartPoleEnv"]
    # control: this is what Gymnasium builds unasked
    plain = gymnasium.make("CartPole-v1")
    assert chain(plain) == ["TimeLimit", "OrderEnforcing", "PassiveEnvChecker", "CartPoleEnv"]
    # and what is registered is not changed for others
    spec = gymnasium.spec("CartPole-v1")
    assert spec.order_enforce
    assert not spec.disable_env_checker
    plain.close()


@pytest.mark.parametrize("env", [Line, Line()])
def test_wrappers_are_applied_in_order(env: Any) -> None:
    """The first wrapper is the innermost: (1 + 100) * 2 = 202, not 1 * 2 + 100."""
    if isinstance(env, Line):
        env.start = 1.0
        source = env_source(env, wrappers=[Shifted, Doubled])
    else:
        source = env_source(env, env_kwargs={"start": 1.0}, wrappers=[Shifted, Doubled])
    made = source.make()
    assert chain(made) == ["Doubled", "Shifted", "Line"]
    assert made.reset(seed=0)[0].tolist() == [202.0]


def test_a_wrapped_name_is_not_enough_to_make_it_again() -> None:
    """A file can name an id, but not a wrapper."""
    assert not env_source("CartPole-v1", wrappers=[Shifted]).is_named
    assert env_source("CartPole-v1").is_named


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CartPol-v1", "CartPole-v1"),
        ("Cartpole-v1", "CartPole-v1"),
        ("cartpole-v1", "CartPole-v1"),
        ("MountainCarContinous-v0", "MountainCarContinuous-v0"),
        ("LunarLandr-v3", "LunarLander-v3"),
        # a newer version than there is, or none
        ("CartPole-v7", "CartPole-v1"),
        ("CartPole", "CartPole-v1"),
        ("cartpole", "CartPole-v1"),
        # old versions, gone or kept as a name alone
        ("LunarLander-v2", "LunarLander-v3"),
        ("BipedalWalker-v2", "BipedalWalker-v3"),
        ("Pendulum-v0", "Pendulum-v1"),
        # a preset in place of an environment
        ("paper/Hopper-v5", "--preset paper/Hopper-v5"),
        ("a2c/CartPole-v1", "--algo a2c --preset a2c/CartPole-v1"),
        ("acer/CartPol-v1", "did you mean acer/CartPole-v1?"),
        ("paper/Hopper", "paper/Hopper-v5"),
        # no likeness but the version
        ("Nope-v3", "module:EnvId"),
    ],
)
def test_a_misspelt_id_is_told_the_nearest(name: str, hint: str) -> None:
    """An unknown id is one typed error with what was probably meant."""
    with pytest.raises(EnvironmentUnknown) as caught:
        env_source(name).make()
    assert name in caught.value.message
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize("name", ["HalfCheetah-v2", "Ant-v3"])
def test_an_old_mujoco_version_is_told_its_successor(name: str) -> None:
    """Versions that Gymnasium gave away to another package name the one it still has."""
    with pytest.raises(EnvironmentUnknown) as caught:
        env_source(name).make()
    assert f"{name.partition('-')[0]}-v5" in str(caught.value.hint)


def test_an_old_atari_name_is_told_its_successor() -> None:
    """Who asks for a game as older libraries called it learns its name of today."""
    with pytest.raises(EnvironmentUnknown) as caught:
        env_source("NoSuchGameNoFrameskip-v4")
    assert "ALE/NoSuchGame-v5" in str(caught.value.hint)


def test_atari_without_its_package_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The games are an extra."""
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(EnvironmentFault, match="not installed") as caught:
        env_source("ALE/Pong-v5")
    assert 'pip install "clipper-rl[atari]"' in str(caught.value.hint)


@pytest.mark.parametrize(
    "name", ["", "-v1", ":", "Zzyzx-v1", "a b c", "CartPole-v1:", "-v", "v1", "CartPole-v²"]
)
def test_a_hopeless_name_is_our_error(name: str) -> None:
    """Whatever is typed, it is a typed error, even with ids registered that have no version."""
    gymnasium.register("Versionless", Line)
    try:
        with pytest.raises(EnvironmentUnknown):
            env_source(name)
    finally:
        del gymnasium.registry["Versionless"]


def test_ids_without_a_version_are_no_obstacle() -> None:
    """An id without a version may begin like another's; the hint names a version that is one."""
    gymnasium.register("CartPole-vast", Line)
    try:
        with pytest.raises(EnvironmentUnknown) as caught:
            env_source("CartPole-v0x")
        assert "CartPole" in str(caught.value.hint)
        with pytest.raises(EnvironmentUnknown) as caught:
            env_source("CartPole")
        assert "CartPole-v1" in str(caught.value.hint)
    finally:
        del gymnasium.registry["CartPole-vast"]


def test_a_missing_module_says_where_to_stand(module_here: str) -> None:
    """A module that cannot be found is told from one that cannot be imported."""
    with pytest.raises(EnvironmentUnknown) as caught:
        env_source("no_such_module_here:Mine")
    assert "no_such_module_here" in str(caught.value)
    Path("needs_more.py").write_text("import no_such_library_at_all\n")
    with pytest.raises(EnvironmentFault, match="no_such_library_at_all"):
        env_source("needs_more:Mine")
    Path("broken_module.py").write_text("x = 1\nraise RuntimeError('by design')\n")
    with pytest.raises(EnvironmentFault, match="by design") as fault:
        env_source("broken_module:Mine")
    assert "broken_module.py, line 2" in str(fault.value.hint)
    Path("bad_syntax.py").write_text("def broken(:\n")
    with pytest.raises(EnvironmentFault, match="SyntaxError"):
        env_source("bad_syntax:Mine")


def test_a_name_a_module_does_not_hold_is_told_the_nearest(module_here: str) -> None:
    """Environments that the module holds are what can have been meant."""
    for name in ("Min", "not_callable"):
        with pytest.raises(EnvironmentUnknown):
            env_source(f"{module_here}:{name}")
    with pytest.raises(EnvironmentUnknown) as caught:
        env_source(f"{module_here}:Mime")
    assert f"{module_here}:Mine" in str(caught.value.hint)


def raising() -> Env:
    raise RuntimeError("no licence found")


class OldGym:
    """An environment of the old gym library is not a gymnasium.Env."""

    observation_space = spaces.Box(-1.0, 1.0, (1,))
    action_space = spaces.Discrete(2)

    def reset(self) -> Any:
        return np.zeros(1)

    def step(self, action: Any) -> Any:
        return np.zeros(1), 0.0, False, {}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (OldGym, "must be a gymnasium.Env, but OldGym made OldGym"),
        (lambda: None, "made NoneType"),
        (lambda: Line, "made ABCMeta|made type"),
        (raising, "RuntimeError: no licence found"),
        (lambda start: Line(start), "TypeError"),
    ],
)
def test_what_is_no_environment_is_our_error(make: Any, words: str) -> None:
    """A callable that makes anything else, or raises, is a typed error that says what came."""
    with pytest.raises(EnvironmentFault, match=words):
        env_source(make).make()


@pytest.mark.parametrize(
    ("env", "hint"),
    [
        (gymnasium.vector.SyncVectorEnv([Line]), "num_envs says how many"),
        (gymnasium.spec("CartPole-v1"), "give its id, 'CartPole-v1'"),
        (None, None),
    ],
)
def test_what_names_no_environment_is_our_error(env: Any, hint: str | None) -> None:
    """Where it is clear what was meant, the hint says what to give."""
    with pytest.raises(ConfigError, match=f"but is {type(env).__name__}") as caught:
        env_source(env)
    assert (hint or "") in (caught.value.hint or "")
    assert (caught.value.hint is None) == (hint is None)


@pytest.mark.parametrize("wrappers", [TimeLimit, "TimeLimit", ["TimeLimit"], [None], None])
def test_wrappers_that_are_no_list_of_callables_are_our_error(wrappers: Any) -> None:
    """As one wrapper alone, which is easily given."""
    with pytest.raises(ConfigError, match="wrappers must be a list of callables"):
        env_source("CartPole-v1", wrappers=wrappers)


class NoSpaces(gymnasium.Env[Any, Any]):
    """Forgot its spaces."""


class ForeignSpace(Line):
    """Has a space of another library."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = Path("Discrete(2)")  # type: ignore[assignment]


class ClassAsSpace(NoSpaces):
    """Names a space and does not make one."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (NoSpaces, "as its observation_space, but has none"),
        (NoSpaces(), "as its observation_space, but has none"),
        (lambda: TimeLimit(NoSpaces(), 5), "as its observation_space, but has none"),
        (ForeignSpace, "as its action_space, but it is a pathlib.*Path"),
        (ClassAsSpace, "as its action_space, but it is the class Discrete itself"),
    ],
)
def test_an_environment_without_spaces_is_our_error(make: Any, words: str) -> None:
    """What has none, or one of another library, is told which, and an example."""
    with pytest.raises(EnvironmentFault, match=words) as caught:
        env_source(make).make()
    assert "gymnasium.spaces" in str(caught.value.hint)


def test_an_environment_of_the_old_gym_is_told_how_to_come_over() -> None:
    """The wrapper in our documents; and shimmy's where the class is the package gym's."""
    with pytest.raises(EnvironmentFault) as caught:
        env_source(OldGym).make()
    assert "docs/concepts/old-gym.md" in str(caught.value.hint)
    base = type("Env", (), {"__module__": "gym.core"})
    with pytest.raises(EnvironmentFault) as caught:
        env_source(type("Old", (base,), {})).make()
    assert "shimmy.GymV21CompatibilityV0(env=...)" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mine:Env", True),
        ("GymV21Environment-v0", True),
        ("GymV26Environment-v0", True),
        ("GymV26Environment", True),
        ("CartPole-v1", False),
        ("ALE/Pong-v5", False),
    ],
)
def test_names_that_import_what_a_file_says(name: str, expected: bool) -> None:
    """`module:Env`, and the doors to the old gym, whose argument env_id may be `module:Env`."""
    assert imports_what_it_names(name) is expected


@pytest.mark.parametrize("wrapper", [lambda env: None, lambda env: 1 / 0])
def test_a_wrapper_that_gives_no_environment_is_our_error(wrapper: Any) -> None:
    """Wrappers are checked as makers are, for names, callables and instances."""
    for env in ("CartPole-v1", Line, Line()):
        with pytest.raises(EnvironmentFault):
            env_source(env, wrappers=[wrapper]).make()


def test_the_place_where_a_constructor_raised_is_named() -> None:
    """The hint leads to the line of the user's code."""
    with pytest.raises(EnvironmentFault) as caught:
        env_source(raising).make()
    assert f"{__file__}, line {raising.__code__.co_firstlineno + 1}" in str(caught.value.hint)


def test_a_wrong_argument_of_a_registered_environment_is_our_error() -> None:
    """The message shows the arguments that were given."""
    with pytest.raises(EnvironmentFault, match="gravitas"):
        env_source("Pendulum-v1", env_kwargs={"gravitas": 1}).make()


@pytest.mark.parametrize(
    ("env", "options", "words"),
    [
        ("CartPole-v1", {"max_episode_steps": 0}, "max_episode_steps"),
        ("CartPole-v1", {"env_kwargs": {"x": object()}}, "JSON"),
        ("CartPole-v1", {"env_kwargs": {"x": float("nan")}}, "JSON"),
        (Line(), {"env_kwargs": {"start": 1.0}}, "instance"),
        (3, {}, "int"),
        (None, {}, "NoneType"),
        (OldGym(), {}, "OldGym"),
        (["CartPole-v1"], {}, "list"),
    ],
)
def test_contradictions_are_refused(env: Any, options: dict[str, Any], words: str) -> None:
    """Arguments that cannot be meant are a ConfigError before anything is built."""
    with pytest.raises(ConfigError, match=words):
        env_source(env, **options)


def test_every_error_is_one_of_ours_without_a_foreign_traceback() -> None:
    """`except ClipperError` catches all of it, and the command line gives a code of its own."""
    for env, code in (("CartPol-v1", 2), (raising, 3)):
        with pytest.raises(ClipperError) as caught:
            env_source(env).make()
        assert caught.value.exit_code == code


def test_naming_environments_is_quick_to_import() -> None:
    """Presets, checks and messages about environments do not wait for torch."""
    code = (
        "import sys, clipper.envs.make as make; make.env_source('CartPole-v1'); "
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_mujoco_warns_once_about_a_model(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """However many copies of an environment are built, its model's warnings are printed once."""
    pytest.importorskip("mujoco")
    program = (
        "from clipper.envs.make import env_source\n"
        "for _ in range(3): env_source('HalfCheetah-v5').make().close()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    captured = capfd.readouterr()
    assert (captured.out + captured.err).count("settotalmass") <= 1


@pytest.mark.parametrize(
    ("wrapper", "setting"),
    [
        (gymnasium.wrappers.NormalizeObservation, "set normalize_obs true"),
        (gymnasium.wrappers.NormalizeReward, "set normalize_reward true"),
    ],
)
@pytest.mark.parametrize("is_inside", [False, True])
def test_normalisers_of_gymnasium_are_told_of(
    wrapper: Any, setting: str, is_inside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Their statistics are in no file and no evaluation, wherever in the chain they are."""
    if is_inside:
        spaces_of(env_source(lambda: Shifted(wrapper(Line()))))
    else:
        spaces_of(env_source("Pendulum-v1", wrappers=[wrapper]))
    (record,) = caplog.records
    assert wrapper.__name__ in record.message
    assert setting in record.message
    caplog.clear()
    spaces_of(env_source(lambda: Shifted(Line())))
    assert not caplog.records
