"""Laws of the policy around a user's module: what it must return, and that it is left as it was."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from clipper.action_layout import ActionLayout
from clipper.engine.state import AdamState
from clipper.errors import ConfigError
from clipper.policies.actor_critic import ActorCritic
from clipper.randomness import Purpose, normal
from clipper.spaces import ObservationLayout
from helpers import small_policy


class Net(nn.Module):
    """A network whose output passes through what is given.

    Args:
        change: Turns (params, values) into what `forward` returns.
    """

    def __init__(self, change: Any = None) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.heads = nn.Linear(3, 3)
        self.change = change

    def forward(self, obs: Tensor) -> Any:
        """Returns what `change` makes of logits and values."""
        out = self.heads(self.norm(obs))
        found = out[:, :2], out[:, 2]
        return found if self.change is None else self.change(*found)


def policy_around(network: nn.Module) -> ActorCritic:
    return ActorCritic(
        ObservationLayout(spaces.Box(-1.0, 1.0, (3,))),
        ActionLayout(spaces.Discrete(2)),
        network,
        log_std_init=0.0,
        normalize_obs=False,
    )


def test_a_module_that_cannot_learn_is_refused() -> None:
    """Its outputs, or those for the policy alone, are cut off from parameters that are not frozen."""
    cut_off: list[Any] = [
        lambda params, values: (params.detach(), values.detach()),
        lambda params, values: (torch.zeros_like(params), torch.zeros_like(values)),
    ]
    for change in cut_off:
        with pytest.raises(ConfigError, match="must have a gradient"):
            policy_around(Net(change))
    apart = Net(lambda params, values: (params.detach(), values))
    apart.actor = nn.Linear(3, 2)  # of which nothing arrives
    with pytest.raises(ConfigError, match="must have a gradient"):
        policy_around(apart)
    frozen = Net().requires_grad_(False)
    assert policy_around(frozen).network is frozen
    critic = Net(lambda params, values: (params.detach(), values))
    assert policy_around(critic).network is critic  # all that can learn does, by the values


@pytest.mark.parametrize("which", [0, 1])
def test_a_module_that_remembers_is_refused(which: int) -> None:
    """What it puts out for the same rows changes from call to call, in its policy or its values."""
    calls: list[float] = []

    def remembering(*found: Tensor) -> Any:
        calls.append(0.1)
        return tuple(x + sum(calls) if i == which else x for i, x in enumerate(found))

    with pytest.raises(
        ConfigError, match=r"the same rows gave numbers that differ by up to 0\.1\."
    ):
        policy_around(Net(remembering))
    dropout = Net()
    dropout.heads = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 3))
    policy_around(dropout)  # which is seen in training, where it is on


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("part", [True, False])
def test_every_part_of_a_module_stays_in_its_mode(whole: bool, part: bool) -> None:
    """A BatchNorm that the user set to eval() does not come back training, nor the reverse."""
    network = Net()
    network.train(whole)
    network.norm.train(part)
    statistics = network.norm.running_mean.clone()  # type: ignore[union-attr]
    policy_around(network)
    assert (network.training, network.norm.training, network.heads.training) == (whole, part, whole)
    # looking at the shapes taught it nothing
    assert torch.equal(statistics, network.norm.running_mean)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # a tensor, whose rows could be unpacked
        (lambda params, values: params, r"one tensor \[3, 2\]"),
        (lambda params, values: (params,), r"a tuple of 1 \(Tensor\)"),
        (lambda params, values: (params, values, None), r"a tuple of 3"),
        (lambda params, values: (params, None), r"a tuple of 2 \(Tensor, NoneType\)"),
        (lambda params, values: {"params": params}, "a dict"),
        (lambda params, values: (params, params), r"\[3, 2\] and \[3, 2\]"),
        (lambda params, values: None, "a NoneType"),
    ],
)
def test_what_is_no_pair_is_told(change: Any, words: str) -> None:
    """What must be returned and what was, before anything is trained."""
    with pytest.raises(ConfigError, match=rf"params \[M, 2\], values \[M\].*{words}"):
        policy_around(Net(change))


def test_tensors_are_those_of_the_state_dict() -> None:
    """Also after the policy was moved, copied or taken over by an engine, and after a load."""
    policy = small_policy("box", normalize_obs=True, dtype=torch.float32)
    other = small_policy("box", normalize_obs=True, seed=1, dtype=torch.float32)

    def check(found: ActorCritic) -> None:
        expected = found.state_dict()
        tensors = found.tensors()
        assert list(tensors) == list(expected)
        for name, tensor in expected.items():
            assert tensors[name].data_ptr() == tensor.data_ptr(), name

    check(policy)
    check(policy.double())
    check(copy.deepcopy(policy))
    check(policy.float())
    AdamState(policy)
    check(policy)
    policy.load_state(other.state_dict())
    check(policy)


def test_tensors_of_a_users_module_are_looked_up_anew() -> None:
    """A module may put a new tensor in the place of a statistic at every call."""

    class Counts(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, obs: Tensor) -> Any:
            self.count = self.count + 1
            return super().forward(obs)

    policy = policy_around(Counts())
    before = float(policy.tensors()["network.count"])
    policy.values(torch.zeros(2, 3))
    assert float(policy.tensors()["network.count"]) == before + 1


def test_what_is_judged_is_what_was_sampled() -> None:
    """Actions are kept as they were drawn, beyond their bounds too, and so is their log-probability.

    By torch's own normal distribution at mean + std x noise; the values are those of the network.
    """
    policy = small_policy("box")
    obs = np.random.default_rng(1).normal(size=(6, 4, 3)).astype(np.float32)
    noise = policy.noise(seed=5, purpose=Purpose.ACTION, first_step=0, num_steps=6, num_envs=4)
    actions = np.zeros((6, 4, 2), dtype=np.float32)
    play = policy.play(obs, noise, actions)
    for t in range(6):
        play.act(t)
    log_probs, values = play.judgement(6)
    assert policy.log_std is not None
    with torch.no_grad():
        params, expected_values = policy.network(torch.from_numpy(obs).double().flatten(0, 1))
        own = torch.distributions.Normal(params.view(6, 4, 2), policy.log_std.exp())
    drawn = own.loc + own.scale * torch.from_numpy(noise)
    torch.testing.assert_close(torch.from_numpy(actions), drawn.float())
    assert (np.abs(actions) > 1.0).any()
    expected = own.log_prob(torch.from_numpy(actions).double()).sum(-1)
    torch.testing.assert_close(log_probs, expected)
    torch.testing.assert_close(values, expected_values.view(6, 4))


def test_every_environment_and_step_has_noise_of_its_own() -> None:
    """The numbers of env 3 at step 11 are those of that counter, whoever else is drawn for."""
    policy = small_policy("box")
    noise = policy.noise(
        seed=5, purpose=Purpose.ACTION, first_step=10, num_steps=4, num_envs=3, first_env=2
    )
    assert noise.shape == (4, 3, 2)
    np.testing.assert_array_equal(noise[1, 1], normal(5, Purpose.ACTION, 3, 11, 2))
    assert len(np.unique(noise)) == noise.size
