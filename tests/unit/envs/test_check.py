"""Laws of the check of environments: each classic defect is found by its name, and nothing else is."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import flawed
import gymnasium
import numpy as np
import pytest

import clipper
import facts
from clipper.envs.check import check_env
from clipper.envs.check_findings import FINDINGS, Findings
from clipper.envs.check_look import Budget, look_at
from clipper.envs.make import EnvLike, env_source
from clipper.errors import ConfigError, EnvironmentUnknown

DEFECTS: dict[type[flawed.Sound], tuple[str, str]] = {
    flawed.NanLate: ("error", "obs_not_finite"),
    flawed.TooLargeForFloat32: ("error", "obs_not_finite"),
    flawed.ShapeLate: ("error", "obs_shape"),
    flawed.DtypeLate: ("warning", "obs_dtype"),
    flawed.ListLate: ("warning", "obs_dtype"),
    flawed.NoneLate: ("error", "obs_not_numbers"),
    flawed.NestedNan: ("error", "obs_not_finite"),
    flawed.NestedMissing: ("error", "obs_part_missing"),
    flawed.NestedOutside: ("error", "obs_outside_space"),
    flawed.OutsideSpace: ("warning", "obs_outside_space"),
    flawed.Reused: ("note", "obs_reused"),
    flawed.UnseededGenerator: ("warning", "seed_ignored"),
    flawed.SeedUnused: ("warning", "seed_ignored"),
    flawed.GlobalNumpy: ("warning", "not_deterministic"),
    flawed.GlobalRandom: ("warning", "not_deterministic"),
    flawed.Clock: ("warning", "not_deterministic"),
    flawed.SameWithoutSeed: ("note", "unseeded_repeats"),
    flawed.SeedWithoutUse: ("note", "seed_changes_nothing"),
    flawed.Leaky: ("warning", "state_leaks"),
    flawed.NoRestart: ("error", "episode_does_not_restart"),
    flawed.CounterGoesOn: ("error", "episode_does_not_restart"),
    flawed.CounterShown: ("error", "episode_does_not_restart"),
    flawed.SharedPlace: ("error", "state_shared"),
    flawed.ClosesAll: ("error", "state_shared"),
    flawed.OneOnly: ("error", "second_instance"),
    flawed.OnceOnly: ("error", "reopen_fails"),
    flawed.CloseRaises: ("warning", "close_fails"),
    flawed.ActionMutated: ("warning", "action_mutated"),
    flawed.RewardNone: ("error", "reward_type"),
    flawed.RewardArray: ("error", "reward_type"),
    flawed.RewardText: ("error", "reward_type"),
    flawed.RewardInfinite: ("error", "reward_not_finite"),
    flawed.RewardTooLarge: ("error", "reward_not_finite"),
    flawed.RewardZero: ("note", "reward_constant"),
    flawed.RewardHuge: ("note", "reward_scale"),
    flawed.NeverEnds: ("warning", "episode_never_ends"),
    flawed.LimitTerminates: ("warning", "limit_as_terminated"),
    flawed.AlwaysBoth: ("warning", "end_both"),
    flawed.FlagsNone: ("error", "end_type"),
    flawed.FlagsInt: ("warning", "end_type"),
    flawed.FlagsArray: ("warning", "end_type"),
    flawed.InfoList: ("warning", "info_type"),
    flawed.ResetInfoList: ("error", "info_type"),
    flawed.ResetObsOnly: ("error", "reset_result"),
    flawed.ResetOldSignature: ("error", "reset_signature"),
    flawed.ResetRaises: ("error", "reset_raises"),
    flawed.StepOfFour: ("error", "step_result"),
    flawed.RaisesAtHigh: ("error", "step_raises"),
    flawed.RaisesLate: ("error", "step_raises"),
    flawed.WideActions: ("warning", "action_bounds"),
    flawed.LopsidedActions: ("warning", "action_bounds"),
    flawed.UnboundedActions: ("warning", "action_bounds"),
    flawed.HugeObs: ("note", "obs_scale"),
    flawed.ConstantColumn: ("note", "obs_constant"),
    flawed.ConstantObs: ("warning", "obs_constant"),
    flawed.ActionsIgnored: ("warning", "actions_without_effect"),
    flawed.OneStepIgnored: ("warning", "actions_without_effect"),
    flawed.SpaceChanges: ("error", "space_changes"),
    flawed.SpacesDiffer: ("error", "spaces_differ"),
    flawed.TupleActions: ("error", "space_not_supported"),
    flawed.RenderNone: ("warning", "render_fails"),
    flawed.RenderFloat: ("warning", "render_fails"),
    flawed.RenderRefused: ("warning", "render_fails"),
    flawed.RenderUndeclared: ("warning", "render_undeclared"),
    flawed.Slow: ("note", "step_slow"),
    flawed.SlowReset: ("note", "reset_slow"),
    flawed.LeaksThreads: ("note", "resources_leak"),
    flawed.LeaksMemory: ("note", "resources_leak"),
    flawed.InitRaises: ("error", "make_fails"),
}
# which end or stop the process they are in
FATAL: dict[type[flawed.Sound], str] = {
    flawed.Exits: "process_crashes",
    flawed.Segfaults: "process_crashes",
    flawed.SecondSegfaults: "process_crashes",
    flawed.Hangs: "call_hangs",
}
PROCESS_SECONDS = 60


def looked_at(env: EnvLike, **budget: Any) -> Findings:
    return look_at(env_source(env), Budget(**{"steps": 3000, "seconds": 30.0, **budget}), seed=0)


def names(found: Findings) -> list[tuple[str, str]]:
    return [(one.severity, one.name) for one in found]


@pytest.mark.parametrize("env", [flawed.Sound, flawed.Nested, flawed.Cue, flawed.ActionsLate])
def test_nothing_is_found_in_a_sound_environment(env: type[flawed.Sound]) -> None:
    """No finding of any severity, and everything was looked at."""
    found = looked_at(env)
    assert list(found) == []
    assert found.coverage.skipped == []
    assert found.coverage.steps >= 3000
    assert found.coverage.instances > 5
    assert f"{env.__qualname__}: nothing is wrong with it" in str(found)
    assert re.search(r"looked at \d+ episodes, [34],\d+ steps, \d+ instances in", str(found))


@pytest.mark.parametrize("env", DEFECTS, ids=lambda env: env.__name__)
def test_a_defect_is_found_and_nothing_else(env: type[flawed.Sound]) -> None:
    """Exactly the finding of that defect, of its severity, with a sentence and a mend."""
    budget = {"seconds": 6.0} if env in (flawed.Slow, flawed.SlowReset) else {}
    if env in (flawed.LeaksThreads, flawed.LeaksMemory):
        # here memory and threads of the tests before come and go
        found = check_env(env, steps=3000, seconds=30.0)
    else:
        found = looked_at(env, **budget)
    assert names(found) == [DEFECTS[env]]
    assert found[0].message.endswith(".")
    assert ".." not in found[0].message
    assert found[0].mend
    facts.note("defects")


def test_every_name_is_that_of_a_defect() -> None:
    """What can be found has an example in these tests."""
    assert set(FINDINGS) == {name for _, name in DEFECTS.values()} | set(FATAL.values())


@pytest.mark.parametrize("env", FATAL, ids=lambda env: env.__name__)
def test_the_end_of_its_process_is_found(
    env: type[flawed.Sound], capfd: pytest.CaptureFixture[str]
) -> None:
    """A crash and a hang are findings of a check that goes on, with the call and the seed."""
    started = time.monotonic()
    found = check_env(
        f"flawed:{env.__name__}", steps=500, timeout=2.0 if env is flawed.Hangs else 60.0
    )
    assert time.monotonic() - started < PROCESS_SECONDS / 2
    assert names(found) == [("error", FATAL[env])]
    assert len(found.coverage.skipped) == 1
    if env is flawed.SecondSegfaults:
        assert "making a second instance" in found[0].message
        assert "--workers N-1" in found[0].mend
        return
    # the eighth step of the first episode
    seed = env_seed(0)
    assert found[0].evidence == {"call": "step", "step": 8, "seed": seed}
    assert (found.coverage.episodes, found.coverage.steps, found.coverage.instances) == (1, 8, 1)
    if env is flawed.Segfaults:
        assert "SIGSEGV" in found[0].message
        assert "flawed.py" in capfd.readouterr().err


def env_seed(episode: int) -> int:
    from clipper.randomness import EpisodeSeeds

    return EpisodeSeeds(0).of(0, episode)


def test_evidence_names_the_step_the_seed_and_the_part() -> None:
    """The NaN of a Dict's part at step 30 is told with both, and with the keys that lead there."""
    found = looked_at(flawed.NestedNan)[0]
    assert found.evidence["part"] == "['body'][0]"
    assert found.evidence["step"] == 30
    assert found.evidence["seed"] == env_seed(found.evidence["episode"])
    assert "part ['body'][0] must have finite numbers" in found.message


def test_evidence_is_json() -> None:
    """Infinite bounds are text, for JSON has no infinity."""
    evidence = looked_at(flawed.UnboundedActions)[0].evidence
    assert evidence == {"low": ["-inf", "-inf"], "high": ["inf", "inf"]}
    assert json.loads(json.dumps(evidence, allow_nan=False)) == evidence


def test_the_global_generator_is_named() -> None:
    """What makes an environment repeat is said: numpy's or Python's, or none of them."""
    for env, named in (
        (flawed.GlobalNumpy, ["numpy.random"]),
        (flawed.GlobalRandom, ["random"]),
        (flawed.Clock, []),
    ):
        assert looked_at(env)[0].evidence["global_generators"] == named
    assert "super().reset(seed=seed)" in looked_at(flawed.SeedUnused)[0].message
    assert "of its own" in looked_at(flawed.UnseededGenerator)[0].message


def test_the_users_generators_are_left_as_they_were() -> None:
    """Seeding them to find out changes nothing for the user."""
    np.random.seed(5)
    expected = np.random.RandomState(5).uniform()
    looked_at(flawed.Clock)
    assert np.random.uniform() == expected


# the environment, and how what the program prints or raises shows the defect
SHOWN = {
    "NanLate": lambda out, err: "nan" in out,
    "ShapeLate": lambda out, err: out.count(".") == 2,
    "GlobalNumpy": lambda out, err: len(set(out.splitlines())) > 1,
    "GlobalRandom": lambda out, err: len(set(out.splitlines())) > 1,
    "Leaky": lambda out, err: out.splitlines()[0] != out.splitlines()[1],
    "SharedPlace": lambda out, err: out.splitlines()[0] != out.splitlines()[1],
    "ClosesAll": lambda out, err: "not connected" in err,
    "Reused": lambda out, err: len(set(re.findall(r"\[[^\]]*\]", out))) == 2,
    "ActionMutated": lambda out, err: len(set(re.findall(r"\[[^\]]*\]", out))) == 2,
    "RewardNone": lambda out, err: out == "None\n",
    "RewardInfinite": lambda out, err: "-inf" in out,
    "NeverEnds": lambda out, err: out == "False False\n",
    "LimitTerminates": lambda out, err: out == "True False\n",
    "FlagsArray": lambda out, err: out.startswith("array(["),
    "StepOfFour": lambda out, err: "expected 5, got 4" in err,
    "ResetOldSignature": lambda out, err: "unexpected keyword argument 'seed'" in err,
    "ResetRaises": lambda out, err: "KeyError: 'level 2'" in err,
    "ResetObsOnly": lambda out, err: "too many values to unpack" in err,
    "RaisesAtHigh": lambda out, err: "index 10 is out of bounds" in err,
    "RaisesLate": lambda out, err: "ZeroDivisionError" in err,
    "OneOnly": lambda out, err: "the simulator is in use" in err,
    "CloseRaises": lambda out, err: "no window" in err,
    "RenderNone": lambda out, err: out == "None\n",
    "SameWithoutSeed": lambda out, err: len(set(out.splitlines()[1:])) == 1,
    "Exits": lambda out, err: out == err == "",
}


@pytest.mark.parametrize(
    "name",
    [
        name if i % 3 == 0 else pytest.param(name, marks=pytest.mark.slow)
        for i, name in enumerate(SHOWN)
    ],
)
def test_the_program_of_a_finding_shows_it_again(name: str) -> None:
    """`reproduce` is Python that runs by itself and shows what was found."""
    (found,) = check_env(f"flawed:{name}") if name == "Exits" else looked_at(f"flawed:{name}")
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", found.reproduce],
        capture_output=True,
        text=True,
        cwd=Path(flawed.__file__).parent,
        timeout=PROCESS_SECONDS,
    )
    assert SHOWN[name](ran.stdout.replace("\n ", " "), ran.stderr), (ran.stdout, ran.stderr)
    if name == "Exits":
        assert ran.returncode == 9


@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1", "FrozenLake-v1", "Taxi-v4"])
def test_programs_name_gymnasiums_environments(name: str) -> None:
    """What is made with arguments is made with them again."""
    source = env_source(name, max_episode_steps=7)
    scope: dict[str, Any] = {}
    exec("\n".join(source.as_code()), scope)
    env = scope["env"]
    env.reset(seed=0)
    assert gymnasium.make(name).observation_space == env.observation_space
    env.close()


def test_severity_of_a_leak_depends_on_who_makes_the_environment() -> None:
    """A note where Clipper makes a new instance for every episode: of a registered environment."""
    gymnasium.register("Leaky-v0", flawed.Leaky)
    try:
        assert names(looked_at("Leaky-v0")) == [("note", "state_leaks")]
    finally:
        del gymnasium.registry["Leaky-v0"]
    assert names(looked_at(flawed.Leaky)) == [("warning", "state_leaks")]


def test_what_may_be_random_is_noted() -> None:
    """An environment registered as not deterministic keeps its promise."""
    gymnasium.register("Clock-v0", flawed.Clock, nondeterministic=True)
    try:
        assert names(looked_at("Clock-v0")) == [("note", "not_deterministic")]
    finally:
        del gymnasium.registry["Clock-v0"]


def test_a_limit_given_ends_what_never_ends() -> None:
    """max_episode_steps is the mend of episode_never_ends."""
    source = env_source(flawed.NeverEnds, max_episode_steps=50)
    assert names(look_at(source, Budget(steps=2000), 0)) == []


def test_the_budget_is_kept() -> None:
    """Not more episodes and steps than asked for on the first instance, and not more time."""
    few = looked_at(flawed.Sound, episodes=3, steps=10_000)
    assert few.coverage.episodes < 3 + 40
    short = looked_at(flawed.Sound, steps=50)
    assert short.coverage.steps < 50 + 1000
    started = time.monotonic()
    slow = looked_at(flawed.Slow, steps=100_000, seconds=1.0)
    assert time.monotonic() - started < 5.0
    assert any("the time was over" in what for what in slow.coverage.skipped)


def test_the_same_seed_finds_the_same() -> None:
    """All but the time, word for word; another seed plays other episodes."""
    one, two, other = (
        check_env(flawed.NanLate, seed=seed, isolate=False, steps=2000) for seed in (1, 1, 2)
    )
    assert [found.to_json() for found in one] == [found.to_json() for found in two]
    assert one[0].evidence["seed"] != other[0].evidence["seed"]


def test_check_env_is_public_and_prints_as_a_report() -> None:
    """`clipper.check_env` takes what PPO takes; the result is a list, and a report as text."""
    found = clipper.check_env(flawed.NanLate, steps=2000)
    assert isinstance(found, list)
    assert found.num_errors == 1
    text = str(found)
    assert text.startswith("NanLate: 1 error\n\nerror    obs_not_finite: an observation must")
    assert "\n         mend: look for a division" in text
    assert "\n         again:\n           env = make()" in text
    assert max(map(len, text.splitlines())) < 105


def test_an_instance_is_looked_at_alone_and_left_open() -> None:
    """What one instance shows is found; the rest is named as not looked at; it is not closed."""

    class Kept(flawed.NanLate):
        def close(self) -> None:
            raise AssertionError("it is the user's")

    found = check_env(Kept(), steps=2000)
    assert names(found) == [("error", "obs_not_finite")]
    assert found.coverage.instances == 1
    skipped = "\n".join(found.coverage.skipped)
    assert "what needs a second instance (env is an instance)" in skipped
    assert "crashes and calls that do not return (env is an instance)" in skipped


def test_what_cannot_be_sent_is_looked_at_here() -> None:
    """A lock cannot go to another process: it is said, and all else is looked at."""
    lock = threading.Lock()

    def make() -> flawed.Sound:
        with lock:
            return flawed.Sound()

    found = check_env(make, steps=500)
    assert names(found) == []
    assert "cannot be sent to another process" in found.coverage.skipped[-1]


def test_a_callable_that_gives_the_same_one_again() -> None:
    """Two instances cannot be one object."""
    env = flawed.Sound()
    found = check_env(lambda: env, steps=500, isolate=False)
    assert names(found) == [("error", "second_instance")]
    assert "the same one twice" in found[0].message


def test_classes_of_a_script_without_a_guard(tmp_path: Path) -> None:
    """A script's own class is looked at in another process, and the script does not run again."""
    script = tmp_path / "mine.py"
    script.write_text(
        textwrap.dedent(
            """
            import clipper
            from flawed import Sound

            print("once")

            class Mine(Sound):
                def reward(self):
                    return None if self.time == 10 else super().reward()

            print([found.name for found in clipper.check_env(Mine, steps=500)])
            """
        )
    )
    ran = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(flawed.__file__).parent), "PATH": ""},
        timeout=PROCESS_SECONDS,
    )
    assert ran.stdout == "once\n['reward_type']\n", ran.stderr


def test_what_the_environment_prints_is_no_result(capfd: pytest.CaptureFixture[str]) -> None:
    """stdout has the report alone."""

    class Talks(flawed.Sound):
        def begin(self) -> None:
            print("hello")
            super().begin()

    with contextlib.redirect_stdout(io.StringIO()) as out:
        check_env(Talks, steps=100)
    captured = capfd.readouterr()
    assert "hello" not in out.getvalue() + captured.out
    assert "hello" in captured.err


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"env": "CartPol-v1"}, EnvironmentUnknown, "CartPole-v1"),
        ({"env": "flawed:Gone"}, EnvironmentUnknown, "must register an environment 'Gone'"),
        ({"env": flawed.Sound, "steps": 0}, ConfigError, "steps must be above 0, but is 0"),
        ({"env": flawed.Sound, "seconds": -1}, ConfigError, "seconds must be above 0"),
        ({"env": flawed.Sound, "timeout": 0}, ConfigError, "timeout must be above 0 seconds"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    """A name that is none, a budget of nothing: errors, not findings."""
    with pytest.raises(error, match=text):
        check_env(**arguments)


QUICK = ("CartPole-v1", "Pendulum-v1", "Blackjack-v1", "FrozenLake-v1", "CliffWalking-v1")
# true of the environment, and told as what they are
EXPECTED = {"CarRacing-v3": {"action_bounds"}}


def built_in() -> list[str]:
    """Returns the ids of all environments that Gymnasium has itself.

    Not those that it still registers and that are an error alone: MuJoCo's -v2 and -v3, and the doors to
    the old gym.
    """
    own = "gymnasium.envs."
    return [n for n, spec in gymnasium.registry.items() if str(spec.entry_point).startswith(own)]


def skip_what_cannot_be_made(name: str) -> None:
    """Skips an environment that needs JAX, or another MuJoCo than the one here."""
    if name.startswith(("phys2d/", "tabular/")):
        pytest.importorskip("jax")
    if "mujoco" in str(gymnasium.spec(name).entry_point):
        pytest.importorskip("mujoco")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a newer version of it
                gymnasium.make(name).close()
        except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
            pytest.skip(str(error))  # Pusher-v4 wants a MuJoCo before 3


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in built_in()],
)
def test_no_false_alarm_on_gymnasiums_own(name: str) -> None:
    """Nothing worse than a note is found in an environment that thousands have trained in."""
    skip_what_cannot_be_made(name)
    found = check_env(name, steps=5000, seconds=20.0)
    bad = {one.name for one in found if one.severity != "note"}
    assert bad <= EXPECTED.get(name, set()), str(found)
    assert found.coverage.steps > 100
    facts.note("sound")


@pytest.mark.slow
@pytest.mark.parametrize("obs_type", ["ram", "rgb", "grayscale"])
def test_no_false_alarm_on_atari(obs_type: str) -> None:
    """The memory as a vector is sound, and so are images, one frame of a game at a time."""
    pytest.importorskip("ale_py")
    found = check_env("ale_py:ALE/Pong-v5", env_kwargs={"obs_type": obs_type}, seconds=30.0)
    bad = {one.name for one in found if one.severity != "note"}
    assert not bad, str(found)


def test_gymnasiums_environments_were_found() -> None:
    """The list above is not empty by mistake."""
    assert set(QUICK) <= set(built_in())
    assert len(built_in()) >= 35
    assert {"Hopper-v4", "Hopper-v5", "tabular/Blackjack-v0"} <= set(built_in())
