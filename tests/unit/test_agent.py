"""Laws of what a user holds: settings, callbacks, acting, examining, filming, saving and loading."""

from __future__ import annotations

import copy
import math
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from PIL import Image
from torch import nn

import clipper
from clipper.errors import ClipperError, ConfigError, FileError, SpaceError
from clipper.presets import PRESETS
from clipper.training_report import Report
from helpers import DictEnv

SMALL: dict[str, Any] = {
    "preset": "none",
    "num_envs": 2,
    "num_steps": 16,
    "minibatch_size": 16,
    "num_epochs": 1,
    "hidden_sizes": (8,),
    "total_timesteps": 96,
    "eval_every": 0,
}


class Seen(gymnasium.Env[Any, Any]):
    """An environment of any two spaces whose observations are drawn by the seed."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self,
        obs: spaces.Space[Any] | None = None,
        action: spaces.Space[Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.observation_space = obs or spaces.Box(-1.0, 1.0, (3,))
        self.action_space = action or spaces.Discrete(2)
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.at = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), repr(action)
        self.at += 1
        return self.observation_space.sample(), 1.0, self.at == 5, False, {}

    def render(self) -> Any:
        return np.full((32, 48, 3), 40 * self.at, dtype=np.uint8)


def agent_for(env: Any = "CartPole-v1", **options: Any) -> clipper.PPO:
    return clipper.PPO(env, **{**SMALL, **options})


def weights(agent: clipper.PPO) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


# ---- settings ------------------------------------------------------------------------------------


def test_keywords_override_the_preset() -> None:
    """The environment's preset is taken unasked; what is given replaces it, the rest stays."""
    tuned = PRESETS["CartPole-v1"].config()
    agent = clipper.PPO("CartPole-v1", num_epochs=3, gamma=0.5)
    assert agent.preset == "CartPole-v1"
    assert agent.config == tuned.replace(num_epochs=3, gamma=0.5)
    assert clipper.PPO("CartPole-v1").config == tuned
    assert clipper.PPO("CartPole-v1", preset="none").config == clipper.PPOConfig()
    assert tuned not in (agent.config, clipper.PPOConfig())


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"learning_rte": 1e-3}, "learning_rate"),
        ({"num_env": 4}, "num_envs"),
        ({"n_steps": 4}, "num_steps"),
        ({"clip_rang": 0.2}, "clip_range"),
        ({"policy": "MlpPolicy"}, "module="),
    ],
)
def test_an_unknown_keyword_is_told_the_nearest(options: dict[str, Any], hint: str) -> None:
    """No `**kwargs` swallows a typo, not even beside settings that are right."""
    with pytest.raises(ConfigError) as caught:
        clipper.PPO("CartPole-v1", gamma=0.9, **options)
    assert next(iter(options)) in caught.value.message
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    "options",
    [
        {"gamma": 2.0},
        {"num_envs": 0},
        {"minibatch_size": 60},
        {"activation": "swish"},
        {"seed": -1},
        {"seed": 1.5},
        {"seed": True},
        {"seed": 2**63},
        {"preset": "no-such"},
        {"device": "tpu"},
        {"max_episode_steps": 0},
        {"module": 3},
    ],
)
def test_a_wrong_setting_is_our_error(options: dict[str, Any]) -> None:
    """Every setting is checked before anything runs."""
    with pytest.raises(ClipperError):
        agent_for(**options)


def test_an_instance_trains_alone_with_a_rollout_as_large() -> None:
    """One environment takes num_envs x num_steps steps; more than one cannot be made of it."""
    agent = clipper.PPO(Seen(), preset="none", total_timesteps=4096)
    plain = clipper.PPOConfig()
    assert agent.config.num_envs == 1
    assert agent.config.rollout_size == plain.rollout_size
    with pytest.raises(ConfigError, match="num_envs") as caught:
        clipper.PPO(Seen(), num_envs=2)
    assert "callable" in str(caught.value.hint)


@pytest.mark.parametrize(("name", "value"), [("workers", 1), ("isolate", True)])
def test_an_instance_stays_in_its_process(name: str, value: Any) -> None:
    """Said at once, and with what mends it: more environments cannot be made of one."""
    with pytest.raises(
        ConfigError, match=f"{name} must be (0|false) when env is an instance"
    ) as told:
        clipper.PPO(Seen(), **{name: value})
    assert "callable" in str(told.value.hint)


def test_settings_that_a_module_has_no_use_for_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """Who gives both would wait for an effect; a preset's settings are nobody's word."""
    clipper.PPO("Pendulum-v1", module=Net)
    assert caplog.text == ""
    clipper.PPO("CartPole-v1", module=Net, hidden_sizes=(8,), activation="relu")
    assert "hidden_sizes is not used: the module has layers of its own" in caplog.text
    assert "activation is not used" in caplog.text


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (spaces.Discrete(3), np.int64),
        (spaces.Box(-1.0, 1.0, (2,), np.float64), np.float64),
        (spaces.MultiDiscrete([2, 3]), np.int64),
        (spaces.MultiBinary(4), np.int8),
    ],
)
def test_a_batch_of_no_observations_has_no_actions(space: Any, kind: Any) -> None:
    """Its array has the type and the shape of any other batch."""

    agent = clipper.PPO(lambda: Seen(action=space), preset="none")
    found = agent.act(np.zeros((0, 3), np.float32))
    assert (found.shape, found.dtype) == ((0, *space.shape), kind)


def test_an_agent_shows_what_it_is_and_is_not_copied() -> None:
    """It holds environments that are open; its network may be."""
    agent = clipper.PPO("CartPole-v1", seed=3)
    assert repr(agent) == "PPO('CartPole-v1', seed=3, step=0)"
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(ConfigError, match="cannot be pickled or copied") as caught:
            copied(agent)
        assert caught.value.hint
        assert "clipper.load" in caught.value.hint
    obs = torch.zeros(1, 4)
    torch.testing.assert_close(copy.deepcopy(agent.policy).values(obs), agent.policy.values(obs))


def test_other_libraries_methods_are_told_what_clipper_calls_them() -> None:
    """And others are missing as they are elsewhere."""
    agent: Any = clipper.PPO("CartPole-v1")
    with pytest.raises(AttributeError, match="no attribute 'learn'; Clipper calls it train"):
        agent.learn(1000)
    with pytest.raises(AttributeError, match=r"'PPO' object has no attribute 'lean'$"):
        agent.lean(1000)
    assert not hasattr(agent, "predict")


def test_a_discount_that_does_not_fit_is_remarked_upon() -> None:
    """gamma 0.9 looks 10 steps ahead, 50 times less than CartPole's 500; 0.99 is near enough."""
    (line,) = agent_for(gamma=0.9).warnings()
    assert "gamma 0.9" in line
    assert "500" in line
    assert agent_for(gamma=0.99).warnings() == []
    assert agent_for(Seen, gamma=0.9).warnings() == []
    assert len(agent_for(Seen, gamma=0.9, max_episode_steps=500).warnings()) == 1


# ---- training ------------------------------------------------------------------------------------


def test_training_is_counted_and_changes_the_policy() -> None:
    """96 steps are three iterations of 2 x 16; the outcome says so and why it ended."""
    agent = agent_for()
    before = weights(agent)
    outcome = agent.train(progress=False)
    assert outcome.step == agent.step == 96
    assert "96" in outcome.reason
    assert outcome.metrics["rollout/episodes"] >= 0
    assert not same(before, weights(agent))


def test_train_without_a_folder_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No file appears, and without progress no word either."""
    monkeypatch.chdir(tmp_path)
    agent_for(eval_every=32, eval_episodes=1).train(progress=False)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_progress_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """Results go to stdout and are the user's; what is shown meanwhile does not mix with them."""
    agent_for().train()
    out, err = capfd.readouterr()
    assert out == ""
    assert "96" in err


def test_training_twice_goes_on() -> None:
    """`total_timesteps` is absolute: twice to 96 is 96, then to 160 is 160, and it has learnt more."""
    agent = agent_for()
    agent.train(progress=False)
    first = weights(agent)
    assert agent.train(progress=False).step == 96
    assert same(first, weights(agent))
    assert agent.inexact is None
    assert agent.train(160, progress=False).step == 160
    assert not same(first, weights(agent))
    # the schedules were bent on the way
    assert agent.inexact is not None


def test_a_run_in_slices_is_told_what_its_schedules_do(caplog: pytest.LogCaptureFixture) -> None:
    """Once, at the second time that the end is moved; of constant numbers nothing is said."""
    for rate, told in (("linear:1e-3:0", 1), (1e-3, 0)):
        caplog.clear()
        agent = clipper.PPO("CartPole-v1", **SMALL | {"learning_rate": rate})
        for steps in (96, 192, 288, 384):
            agent.train(steps, progress=False)
            assert len(caplog.records) == (told if steps >= 288 else 0)
        for record in caplog.records:
            assert "(learning_rate linear:0.001:0)" in record.getMessage()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("step", 0.0, "is one of Clipper's"),
        ("rollout/episode_return", 0.0, "is one of Clipper's"),
        ("mine", "much", "must be a number, but is 'much'"),
        ("mine", None, "must be a number, but is None"),
        (3, 1.0, "must be text that a file can hold, but is 3"),
        ("", 1.0, "must be text that a file can hold, but is ''"),
        ("two\nlines", 1.0, "must be text that a file can hold"),
    ],
)
def test_a_callbacks_number_is_one_of_its_own(name: Any, value: Any, words: str) -> None:
    """What Clipper measures is not replaced, and what is no number not kept."""
    agent = clipper.PPO("CartPole-v1", **SMALL)
    with pytest.raises(ConfigError, match=words):
        agent.train(callback=lambda report: report.log(name, value), progress=False)


@pytest.mark.parametrize("name", ["learning_rate", "ent_coef", "num_envs", "gamma"])
def test_settings_are_not_set_on_an_agent(name: str) -> None:
    """What would change nothing is an error, and what there is stays."""
    agent = agent_for()
    with pytest.raises(AttributeError, match=f"'{name}' cannot be set on an agent"):
        setattr(agent, name, 0.5)
    agent.note = "mine"  # what is no setting is the user's own


def test_a_class_of_the_users_may_have_attributes() -> None:
    """Before and after the agent is made."""

    class Mine(clipper.PPO):
        def __init__(self, *args: Any, **settings: Any) -> None:
            self.label = "before"
            super().__init__(*args, **settings)
            self.more = "after"

    agent = Mine("CartPole-v1", **SMALL)
    assert (agent.label, agent.more) == ("before", "after")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("policy_kwargs", "hidden_sizes and activation"),
        ("verbose", "progress=False"),
        ("tensorboard_log", "TensorBoardWriter"),
        ("wrapper_class", "wrappers="),
        ("callback", "argument of train"),
    ],
)
def test_arguments_of_other_libraries_are_told_where_to_go(name: str, said: str) -> None:
    """They are no setting under another name: the hint says what does the same."""
    with pytest.raises(ConfigError, match=f"no setting '{name}'") as caught:
        agent_for(**{name: 1})
    assert said in str(caught.value.hint)


def test_numbers_of_an_evaluation_are_read_as_settings_are() -> None:
    """10.0 is ten; what is none is our error, before anything is played."""
    agent = agent_for()
    assert agent.evaluate(2.0) == agent.evaluate(2)  # type: ignore[arg-type]
    for wrong in ("ten", 1.5, 0, None):
        with pytest.raises(ConfigError, match="episodes must be"):
            agent.evaluate(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="seed must be"):
        agent.evaluate(1, seed=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="until must be"):
        agent.train(until="high", progress=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["return", "numpy", "stop"])
def test_a_callback_stops_training(how: str) -> None:
    """False or `report.stop(reason)` ends training after that iteration; None does not."""
    seen: list[int] = []

    def callback(report: Report) -> Any:
        seen.append(report.step)
        if report.iteration < 2:
            return None
        found = {"return": False, "numpy": np.mean([1.0]) < 0.5}
        return found[how] if how in found else report.stop("enough")

    agent = agent_for()
    outcome = agent.train(progress=False, callback=callback)
    assert seen == [32, 64]
    assert agent.step == outcome.step == 64
    assert ("enough" if how == "stop" else "callback") in outcome.reason


def test_a_callback_adds_numbers(tmp_path: Path) -> None:
    """What a callback logs stands in the CSV file beside our own numbers."""
    run = tmp_path / "run"
    agent_for().train(
        run_dir=run, progress=False, callback=lambda r: r.log("mine/half", r.step / 2)
    )
    lines = (run / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("mine/half")
    assert [float(line.split(",")[column]) for line in lines[1:]] == [16, 32, 48]


def test_a_metric_whose_name_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    """Half of a character in it: our error, at the callback that gave it."""
    agent = clipper.PPO("CartPole-v1", **SMALL)
    with pytest.raises(ConfigError, match=r"name of a metric must be text.*'\\ud800'"):
        agent.train(progress=False, callback=lambda r: r.log("\ud800", 1.0))


def test_a_callback_looks_and_several_are_called_in_order() -> None:
    """Counters, numbers, episodes and the live policy are there to see; all callbacks are asked."""
    calls: list[Any] = []
    agent = agent_for()

    def look(report: Report) -> None:
        assert report.policy is agent.policy
        assert report.total_timesteps == 96
        assert report.progress == pytest.approx(report.step / 96)
        assert "loss/policy" in report.metrics
        assert len(report.recent.returns) >= len(report.episodes)
        calls.append(("look", report.iteration))

    agent.train(progress=False, callback=[look, lambda r: calls.append(("other", r.iteration))])
    assert calls == [(name, i) for i in (1, 2, 3) for name in ("look", "other")]


def test_until_ends_at_the_return() -> None:
    """Every episode returns 5, so that `until=5` ends as soon as 100 of them are done."""
    agent = agent_for(Seen, total_timesteps=3200)
    outcome = agent.train(until=5.0, progress=False)
    # 100 episodes of 5 steps are 500; rollouts are 32 steps and 2 envs wide
    assert 500 <= outcome.step <= 500 + 64
    assert "reached 5" in outcome.reason


def test_a_budget_of_time_ends_and_is_not_called_exact() -> None:
    """Wall time differs from run to run, and the agent says so."""
    agent = agent_for(total_timesteps=10_000_000)
    outcome = agent.train(budget=0.05, progress=False)
    assert "budget" in outcome.reason
    assert 0 < agent.step < 10_000_000
    assert agent.inexact is not None


def test_a_run_folder_is_not_overwritten(tmp_path: Path) -> None:
    """A folder that holds a run is refused, and the hint goes on with it."""
    agent_for().train(run_dir=tmp_path / "run", progress=False)
    with pytest.raises(FileError, match="must not hold a run") as caught:
        agent_for().train(run_dir=tmp_path / "run", progress=False)
    assert "resume" in str(caught.value.hint)


# ---- acting --------------------------------------------------------------------------------------

NUMBERS = spaces.Box(-1.0, 1.0, (3,))
SPACES: dict[str, tuple[spaces.Space[Any], spaces.Space[Any]]] = {
    "box": (NUMBERS, spaces.Box(np.array([0.0, -2.0], np.float32), np.float32(9.0), (2,))),
    "box double": (NUMBERS, spaces.Box(-1.0, 1.0, (2, 2), dtype=np.float64)),
    "discrete": (NUMBERS, spaces.Discrete(3, start=-1)),
    "multi discrete": (NUMBERS, spaces.MultiDiscrete([2, 3], start=[4, 0])),
    "multi binary": (NUMBERS, spaces.MultiBinary(3)),
    "from discrete": (spaces.Discrete(4, start=2), spaces.Discrete(2)),
    "from multi discrete": (spaces.MultiDiscrete([2, 3]), spaces.Discrete(2)),
    "from multi binary": (spaces.MultiBinary(3), spaces.Discrete(2)),
    "from a matrix": (spaces.Box(-1.0, 1.0, (2, 2)), spaces.Discrete(2)),
    "from a tuple": (
        spaces.Tuple((spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,)))),
        spaces.Discrete(2),
    ),
    "from a dict": (
        spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Tuple((NUMBERS, NUMBERS))}),
        spaces.MultiDiscrete([2, 3]),
    ),
}


def stacked(space: spaces.Space[Any], observations: list[Any]) -> Any:
    """Returns a batch: the same nesting with a leading axis on every part."""
    if isinstance(space, spaces.Dict):
        return {k: stacked(s, [o[k] for o in observations]) for k, s in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stacked(s, [o[i] for o in observations]) for i, s in enumerate(space.spaces))
    return np.stack(observations)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("deterministic", [True, False])
def test_act_for_one_and_for_a_batch(name: str, deterministic: bool) -> None:
    """One observation gives an action the space contains; a batch one for each row, in NumPy."""
    obs_space, action_space = SPACES[name]
    agent = agent_for(lambda: Seen(obs_space, action_space), policy_gain=1.0)
    obs_space.seed(0)
    observations = [obs_space.sample() for _ in range(7)]
    single = [agent.act(obs, deterministic=deterministic) for obs in observations]
    assert all(action_space.contains(action) for action in single)
    batch = agent.act(stacked(obs_space, observations), deterministic=deterministic)
    assert isinstance(batch, np.ndarray)
    assert batch.shape == (7, *(action_space.shape or ()))
    kinds = (int, np.integer) if isinstance(action_space, spaces.Discrete) else np.ndarray
    assert all(isinstance(action, kinds) for action in single)
    for row in batch:
        assert action_space.contains(row)
    if deterministic:
        assert np.allclose(np.stack([np.asarray(a) for a in single]), batch, atol=1e-6)
    # a batch of one keeps its axis
    assert agent.act(stacked(obs_space, observations[:1])).shape == batch[:1].shape


def test_act_is_repeatable_or_samples() -> None:
    """The most likely action is always the same; sampled ones vary, by the agent's seed alone."""
    obs = np.zeros(3, np.float32)
    agents = [agent_for(Seen, seed=seed) for seed in (1, 1, 2)]
    assert len({agents[0].act(obs) for _ in range(20)}) == 1
    drawn = [[a.act(obs, deterministic=False) for _ in range(40)] for a in agents]
    assert set(drawn[0]) == {0, 1}
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("obs", "words"),
    [
        (np.zeros(4), r"shape \(3,\).*has \(4,\)"),
        (np.zeros((2, 4)), r"has \(2, 4\)"),
        (np.zeros((2, 2, 3)), r"has \(2, 2, 3\)"),
        (np.float32(1.0), r"has \(\)"),
        (None, "None"),
        ({"x": 1}, "numbers"),
        ("text", "text"),
        ([[0, 0, 0], [0, 0]], "numbers"),
    ],
)
def test_act_on_a_wrong_shape_says_so(obs: Any, words: str) -> None:
    """The message has the shape that is wanted and the one that came."""
    with pytest.raises(SpaceError, match=words):
        agent_for(Seen).act(obs)


def test_act_on_a_missing_part_says_so() -> None:
    """A part of a nested observation that is missing is named, for one and for a batch."""
    agent = agent_for(DictEnv)
    obs, _ = DictEnv().reset(seed=0)
    del obs["where"]
    with pytest.raises(SpaceError, match="where"):
        agent.act(obs)


# ---- examining, filming ----------------------------------------------------------------------------


def test_evaluate_before_training_works() -> None:
    """An untrained agent can be examined: the baseline of every study."""
    agent = agent_for()
    before = weights(agent)
    result = agent.evaluate(5, seed=1)
    assert (result.episodes, result.seed, result.env) == (5, 1, "CartPole-v1")
    assert result.mean == pytest.approx(np.mean(result.lengths))
    assert same(before, weights(agent))
    with pytest.raises(ConfigError, match="episodes"):
        agent.evaluate(0)


def test_an_instance_can_be_examined_in_the_middle_of_training() -> None:
    """The examination plays on the training environment, which is brought back afterwards."""
    ends = []
    for examined in (False, True):
        agent = agent_for(Seen(), num_envs=1, num_steps=32, seed=4)
        agent.train(progress=False, callback=lambda r: r.iteration < 2)
        if examined:
            agent.evaluate(2)
        agent.train(progress=False)
        assert agent.inexact is None
        ends.append(weights(agent))
    assert same(*ends)


def test_record_writes_a_gif(tmp_path: Path) -> None:
    """As many frames as observations, at the environment's speed; the returns are the exam's."""
    agent = agent_for(Seen)
    returns = agent.record(tmp_path / "deep" / "film.gif", episodes=2, seed=3)
    assert returns == list(agent.evaluate(2, seed=3).returns) == [5.0, 5.0]
    with Image.open(tmp_path / "deep" / "film.gif") as film:
        assert film.format == "GIF"
        assert film.size == (48, 32)
        # two episodes of 5 steps have 6 observations each
        assert film.n_frames == 12


def test_record_refuses_what_it_cannot_film(tmp_path: Path) -> None:
    """Another suffix, or an environment that is already made, is told before anything plays."""
    with pytest.raises(ConfigError):
        agent_for(Seen).record(tmp_path / "film.txt")
    with pytest.raises(ConfigError, match="instance") as caught:
        agent_for(Seen(), num_envs=1).record(tmp_path / "film.gif")
    assert "callable" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


# ---- saving and loading --------------------------------------------------------------------------


def test_a_loaded_agent_is_the_saved_one(tmp_path: Path) -> None:
    """The same actions, the same normaliser, the same numbers in the exam."""
    agent = agent_for("Pendulum-v1", normalize_obs=True, seed=2)
    agent.train(progress=False)
    agent.save(tmp_path / "a.safetensors")
    found = clipper.load(tmp_path / "a.safetensors")
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(64, 3)).astype(np.float32)
    assert np.array_equal(agent.act(batch), found.act(batch))
    first, second = agent.policy.normalizer, found.policy.normalizer
    assert first is not None
    assert second is not None
    for name in ("moments", "mean", "inverse_std"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert float(first.moments[0]) == 96
    assert agent.evaluate(3) == found.evaluate(3)


def test_a_new_agent_can_start_from_a_file(tmp_path: Path) -> None:
    """`init_from` takes weights and normaliser, before training and from the same shapes alone."""
    agent = agent_for(normalize_obs=True, seed=1)
    agent.train(progress=False)
    agent.save(tmp_path / "a.safetensors")
    fresh = agent_for(normalize_obs=True, seed=2)
    assert not same(weights(agent), weights(fresh))
    fresh.init_from(tmp_path / "a.safetensors")
    assert same(weights(agent), weights(fresh))
    assert fresh.step == 0
    with pytest.raises(FileError, match="tensors of this policy"):
        agent_for(normalize_obs=True, hidden_sizes=(9,)).init_from(tmp_path / "a.safetensors")
    with pytest.raises(
        FileError, match="of an agent with normalize_obs false, but is of one with true"
    ):
        agent_for(normalize_obs=False).init_from(tmp_path / "a.safetensors")
    fresh.train(progress=False)
    with pytest.raises(ConfigError, match="before training"):
        fresh.init_from(tmp_path / "a.safetensors")


# ---- modules -------------------------------------------------------------------------------------


class Net(nn.Module):
    """One layer for everything; values as [M, 1]."""

    def __init__(self, obs_size: int, num_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(obs_size, num_outputs + 1)

    def forward(self, obs: torch.Tensor) -> Any:
        out = self.layer(obs)
        return out[:, :-1], out[:, -1:]


@pytest.mark.parametrize("name", ["box", "discrete", "multi discrete", "multi binary"])
def test_an_own_network_learns_and_acts(name: str) -> None:
    """A class is made with the sizes the spaces need; its parameters are what training changes.

    Outputs: 2 means; 3 categories; 2 + 3 categories; 3 bits.
    """
    obs_space, action_space = SPACES[name]
    agent = agent_for(lambda: Seen(obs_space, action_space), module=Net)
    outputs = {"box": 2, "discrete": 3, "multi discrete": 5, "multi binary": 3}[name]
    network = agent.policy.network
    assert isinstance(network, Net)
    assert network.layer.weight.shape == (outputs + 1, 3)
    before = network.layer.weight.clone()
    agent.train(progress=False)
    assert not torch.equal(before, network.layer.weight)
    assert action_space.contains(agent.act(obs_space.sample()))


def test_a_made_network_is_a_function_of_the_seed() -> None:
    """A class's initial weights come from the run's seed, and torch's own generator stays as it was."""
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second, other = (weights(agent_for(Seen, module=Net, seed=s)) for s in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert same(first, second)
    assert not same(first, other)


def test_a_network_with_twice_the_outputs_has_its_own_deviation() -> None:
    """With 2A outputs for A numbers the deviations depend on the state: no parameter for them."""
    obs_space, action_space = SPACES["box"]
    make = lambda: Seen(obs_space, action_space)  # noqa: E731
    double = agent_for(make, module=lambda obs, outputs: Net(obs, 2 * outputs))
    assert double.policy.log_std is None
    assert agent_for(make, module=Net).policy.log_std is not None
    double.train(progress=False)


class Wrong(Net):
    def forward(self, obs: torch.Tensor) -> Any:
        return self.layer(obs)


class Transposed(Net):
    def forward(self, obs: torch.Tensor) -> Any:
        params, values = super().forward(obs)
        return params.T, values


class Empty(nn.Module):
    def forward(self, obs: torch.Tensor) -> Any:
        return obs[:, :2], obs[:, 0]


@pytest.mark.parametrize(
    "module",
    [
        Wrong,
        Transposed,
        lambda obs, outputs: Net(obs, outputs + 1),
        lambda obs, outputs: Net(obs + 1, outputs),
        lambda obs, outputs: Empty(),
        lambda obs, outputs: None,
        lambda obs: None,
        nn.Linear,
    ],
)
def test_a_network_that_does_not_fit_is_our_error(module: Any) -> None:
    """Wrong outputs, sizes, or no network at all: one sentence with the interface that is wanted."""
    with pytest.raises(ConfigError, match="module"):
        agent_for(Seen, module=module)


def test_an_agent_that_is_held_at_exit_says_nothing() -> None:
    """What a hook of the interpreter still refers to when it ends is no leak to read of."""
    code = """
        import gc, clipper
        agent = clipper.PPO("CartPole-v1", total_timesteps=256)
        gc.callbacks.append(lambda phase, info: agent)
        agent.train(progress=False)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert ended.stdout + ended.stderr == ""


def test_an_environment_without_end_cannot_hold_up_training() -> None:
    """Periodic evaluations of episodes that never end take no more steps than training did."""
    steps: list[int] = []

    class Endless(DictEnv):
        def step(self, action: int) -> Any:
            steps.append(1)
            obs, reward, _, _, info = super().step(action)
            return obs, reward, False, False, info

    agent = clipper.PPO(Endless, **{**SMALL, "eval_every": 128, "total_timesteps": 512})
    assert any("no limit" in warning for warning in agent.warnings())
    agent.train(progress=False)
    assert len(steps) <= 512 + 4 * 2 * 128 + 200  # the probe's few steps on top


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("name", ["observation_space", "action_space"])
def test_an_environment_that_was_changed_is_refused_before_anything_is_written(
    name: str, isolate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is the same, its spaces are not: no step is taken, and the run still goes on later."""
    (tmp_path / "changing.py").write_text(
        "import os, numpy as np\n"
        "from gymnasium import Env, spaces\n"
        "class E(Env):\n"
        "    def __init__(self):\n"
        "        new = os.environ.get('CHANGED')\n"
        "        self.n = 2 if new == 'observation_space' else 3\n"
        "        self.observation_space = spaces.Box(-1.0, 1.0, (self.n,))\n"
        "        self.action_space = spaces.Discrete(5 if new == 'action_space' else 2)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        self.t = 0\n"
        "        return np.zeros(self.n, np.float32), {}\n"
        "    def step(self, action):\n"
        "        self.t += 1\n"
        "        return np.zeros(self.n, np.float32), 1.0, self.t == 9, False, {}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    agent = clipper.PPO("changing:E", preset="none", num_steps=16, minibatch_size=16, num_envs=1)
    agent.train(16, progress=False, run_dir=tmp_path / "run")
    agent.close()
    monkeypatch.setenv("CHANGED", name)
    changed = clipper.resume(tmp_path / "run", trust_env=True, isolate=isolate)
    kind = name.replace("_", " ")
    with pytest.raises(SpaceError, match=f"the {kind} of changing:E must be the one"):
        changed.train(64, progress=False)
    changed.close()
    loaded = clipper.load(tmp_path / "run", trust_env=True)
    assert loaded.act(np.zeros(3, np.float32)) in (0, 1)  # needs no environment
    with pytest.raises(SpaceError, match=f"the {kind} of changing:E must be the one"):
        loaded.evaluate(1)
    apart = clipper.load(tmp_path / "run", trust_env=True, isolate=isolate)
    with pytest.raises(SpaceError, match=f"the {kind} of changing:E must be the one"):
        apart.evaluate(1)
    apart.close()
    monkeypatch.delenv("CHANGED")
    again = clipper.resume(tmp_path / "run", trust_env=True)
    assert again.train(32, progress=False).step == 32
    again.close()


def test_a_run_that_cannot_go_on_is_left_as_it_is(tmp_path: Path) -> None:
    """Its environment is not imported unasked, and what ran is not written anew before that is known."""
    (tmp_path / "unasked.py").write_text(
        "import gymnasium\nE = lambda: gymnasium.make('CartPole-v1')\n"
    )
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        agent = clipper.PPO("unasked:E", **SMALL)
        agent.train(progress=False, run_dir=run)
        agent.close()
    before = (run / "config.json").read_bytes()
    agent = clipper.resume(run, engine="reference")
    assert agent.warnings() == []
    with pytest.raises(ConfigError, match="needs its environment"):
        agent.train(10_000, progress=False)
    with pytest.raises(ConfigError, match="until must be a finite number, but is nan"):
        agent.train(10_000, until=math.nan, progress=False)
    agent.close()
    assert (run / "config.json").read_bytes() == before
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(FileError, match="complete checkpoint") as caught:
        clipper.resume(run)
    assert f"--init-from {run}" in str(caught.value.hint)


def test_a_run_goes_on_in_the_spaces_it_was_trained_in(tmp_path: Path) -> None:
    """Another environment with other bounds of its actions would scale them otherwise."""
    agent = clipper.PPO("Pendulum-v1", preset="none", num_steps=16, minibatch_size=16, num_envs=1)
    agent.train(16, progress=False, run_dir=tmp_path / "run")
    agent.close()
    with pytest.raises(SpaceError, match="must be the one the agent was trained in"):
        clipper.resume(tmp_path / "run", env="MountainCarContinuous-v0")
    again = clipper.resume(tmp_path / "run")
    # time alone ends it, although as many steps as were asked for are done
    assert again.train(budget=again._run.state.wall_seconds + 0.3, progress=False).step > 16
    again.close()
