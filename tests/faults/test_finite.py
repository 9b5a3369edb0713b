"""NaN and infinity from wherever they come: found before a parameter moves, told, and never written."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clipper
from clipper import agent_file
from clipper.agents import AGENTS
from clipper.checkpoint import read_checkpoint, read_tensors
from clipper.errors import ClipperError, EnvironmentFault, NumericsError
from clipper.training_report import Report
from helpers import DictEnv, flat_parameters
from libraries import NEEDS_ENGINE

SETTINGS: dict[str, Any] = {
    "preset": "none",
    "num_envs": 2,
    "hidden_sizes": (8,),
    "total_timesteps": 1200,
    "eval_every": 0,
    "seed": 2,
}


class Spoilt(DictEnv):
    """In its 150th step gives what `bad` makes of what it should have given."""

    bad: Callable[[Any], Any]
    home: int

    def __init__(self, bad: Callable[[Any], Any], at: int = 150) -> None:
        super().__init__()
        self.bad, self.at, self.count = bad, at, 0

    def step(self, action: int) -> Any:
        found = super().step(action)
        self.count += 1
        return self.bad(found) if self.count == self.at else found


def with_part(name: str, value: Any) -> Callable[[Any], Any]:
    return lambda found: ({**found[0], name: value}, *found[1:])


def with_reward(value: Any) -> Callable[[Any], Any]:
    return lambda found: (found[0], value, *found[2:])


def with_flags(*flags: Any) -> Callable[[Any], Any]:
    return lambda found: (*found[:2], *flags, found[4])


def raising(found: Any) -> Any:
    class Silent(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    raise Silent


def without_part(found: Any) -> Any:
    return {k: v for k, v in found[0].items() if k != "clock"}, *found[1:]


BREACHES: dict[str, tuple[Callable[[Any], Any], type[ClipperError], str]] = {
    "NaN in a part": (
        with_part("clock", np.array([math.nan], np.float32)),
        NumericsError,
        "but is nan in column 0 of part 'clock'",
    ),
    "infinite reward": (with_reward(-math.inf), NumericsError, "every reward must be finite"),
    "reward too large for float32": (with_reward(1e39), NumericsError, "but is inf"),
    "reward None": (with_reward(None), EnvironmentFault, "the reward is None"),
    "reward in an array": (with_reward(np.ones(1)), EnvironmentFault, "an array of the shape (1,)"),
    "reward in words": (with_reward("1.0"), EnvironmentFault, "the reward is '1.0'"),
    "an end in words": (with_flags("False", False), EnvironmentFault, "terminated is 'False'"),
    "an end of None": (with_flags(False, None), EnvironmentFault, "truncated is None"),
    "an error without words": (raising, EnvironmentFault, "it raised Silent"),
    "shape": (with_part("clock", np.zeros(2, np.float32)), EnvironmentFault, "part 'clock'"),
    "type": (with_part("clock", np.array(["a"])), EnvironmentFault, "part 'clock'"),
    "None": (with_part("clock", None), EnvironmentFault, "part 'clock'"),
    "category": (with_part("where", 7), EnvironmentFault, "part 'where' must belong to Discrete(7)"),
    "bits": (
        with_part("body", (np.zeros(2, np.float32), np.array([0, 2]))),
        EnvironmentFault,
        "'body.1'",
    ),
    "missing part": (without_part, EnvironmentFault, "must have the part 'clock'"),
    "no observation": (lambda found: (None, *found[1:]), EnvironmentFault, "part 'body.0'"),
}  # fmt: skip
ENGINES = ["reference", pytest.param("native", marks=NEEDS_ENGINE)]


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("algorithm", AGENTS)
@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_moves_nothing(algorithm: str, breach: str) -> None:
    """It is told with environment, episode, step, part and value; the agent is the one before.

    Environment 0 breaks the contract in its 150th step; so does environment 1, but is met later.
    """
    bad, error, words = BREACHES[breach]
    settings = {**SETTINGS, "population_size": 4} if algorithm == "cem" else SETTINGS
    agent = AGENTS[algorithm](lambda: Spoilt(bad), **settings)
    last: list[Tensor] = [flat_parameters(agent.policy)]

    def keep(report: Report) -> None:
        last.append(flat_parameters(report.policy))

    with pytest.raises(error) as caught:
        agent.train(progress=False, callback=keep)
    assert words in caught.value.message
    assert "environment 0" in caught.value.message
    for word in ("episode", "step"):
        assert word in caught.value.message
    assert torch.equal(flat_parameters(agent.policy), last[-1])


class Module(nn.Module):
    """A network with a trap in its values, or in the gradient of its policy, after some calls."""

    def __init__(self, obs_size: int, num_params: int, trap: str, after: int) -> None:
        super().__init__()
        self.policy = nn.Linear(obs_size, num_params)
        self.value = nn.Linear(obs_size, 1)
        self.trap, self.left = trap, after

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        params, values = self.policy(obs), self.value(obs).squeeze(-1)
        self.left -= 1
        if self.left < 0 and self.trap == "value":
            values = values * math.nan
        if self.left < 0 and self.trap == "log-prob":
            params = params * math.nan
        if self.trap == "gradient" and params.requires_grad:
            # the root of 0 is finite, its slope is not
            params = params + ((params - params).sum(-1, keepdim=True)).abs().sqrt()
        return params, values


@pytest.mark.parametrize("algorithm", ["ppo", "a2c", "vpg", "trpo"])
@pytest.mark.parametrize("trap", ["value", "log-prob", "gradient"])
def test_what_a_module_gives_moves_nothing(algorithm: str, trap: str) -> None:
    """NaN in values, log-probabilities or gradients is refused, and the parameters are unchanged."""
    made: list[Module] = []

    def module(obs_size: int, num_params: int) -> Module:
        made.append(Module(obs_size, num_params, trap, 10**9))
        return made[-1]

    settings = {k: v for k, v in SETTINGS.items() if k != "hidden_sizes"}
    agent = AGENTS[algorithm]("CartPole-v1", module=module, **settings)
    made[-1].left = 0
    before = flat_parameters(agent.policy)
    with pytest.raises(NumericsError, match="must be finite"):
        agent.train(progress=False)
    assert torch.equal(flat_parameters(agent.policy), before)
    assert agent.step == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("algorithm", ["ppo", "a2c"])
def test_a_step_that_is_too_long_is_taken_back(algorithm: str, engine: str, tmp_path: Path) -> None:
    """Loss and gradient are finite, the parameters after the step are not: nothing of it is kept."""
    agent = AGENTS[algorithm](
        "CartPole-v1",
        engine=engine,
        # torch takes no larger one, after Adam's correction of the first step
        learning_rate=3e37 if algorithm == "ppo" and engine == "reference" else 3e38,
        **{**SETTINGS, "total_timesteps": 4000},
    )
    before = flat_parameters(agent.policy)
    with pytest.raises(NumericsError) as caught:
        agent.train(progress=False, run_dir=tmp_path / "run")
    assert "learning_rate" in str(caught.value.hint)
    assert torch.isfinite(flat_parameters(agent.policy)).all()
    step = agent.step
    checkpoint, problems = read_checkpoint(tmp_path / "run" / "checkpoints")
    assert (checkpoint.step, problems) == (step, [])
    for arrays in (checkpoint.agent, read_tensors(tmp_path / "run" / "agent.safetensors")[0]):
        parameters = [a for k, a in arrays.items() if k.startswith("policy.")]
        assert all(np.isfinite(array).all() for array in parameters)
    if step == 0:
        assert torch.equal(flat_parameters(agent.policy), before)


def test_an_agent_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    """Whoever spoilt it: `save` refuses, names the tensor and leaves the older file as it was."""
    agent = clipper.PPO("CartPole-v1", **SETTINGS)
    agent.save(tmp_path / "agent.safetensors")
    before = (tmp_path / "agent.safetensors").read_bytes()
    with torch.no_grad():
        next(iter(agent.policy.network.parameters())).view(-1)[3] = math.nan
    with pytest.raises(NumericsError, match=r"policy\.network\.\S+ is not"):
        agent.save(tmp_path / "agent.safetensors")
    assert (tmp_path / "agent.safetensors").read_bytes() == before
    with pytest.raises(NumericsError):
        agent_file.build(agent.policy, {})


def test_values_of_successors_are_looked_at() -> None:
    """V of a final observation is as much a number of the rollout as any other."""

    class Far(DictEnv):
        """Is cut off in an observation that is not met otherwise."""

        def step(self, action: int) -> Any:
            obs, reward, terminated, truncated, info = super().step(action)
            if truncated:
                obs = {**obs, "clock": np.array([-50.0], np.float32)}
            return obs, reward, terminated, truncated, info

    class Overflows(nn.Module):
        """Values that are infinite there; the column of the clock is clipped at -10."""

        def __init__(self, obs_size: int, num_params: int) -> None:
            super().__init__()
            self.policy = nn.Linear(obs_size, num_params)
            self.value = nn.Linear(obs_size, 1)

        def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
            far = (obs < -9.9).any(-1)
            return self.policy(obs), torch.where(far, torch.inf, self.value(obs).squeeze(-1))

    settings = {k: v for k, v in SETTINGS.items() if k != "hidden_sizes"}
    agent = clipper.PPO(Far, module=Overflows, **settings)
    with pytest.raises(
        NumericsError, match="every value must be finite, but is inf after step 20 of"
    ):
        agent.train(progress=False)
    assert agent.step == 0
