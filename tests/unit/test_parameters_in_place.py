"""Parameters that users touch, as torch lets them: what is trained, acts and is saved stays one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import clipper
from clipper.agents import Agent
from clipper.errors import ConfigError

SMALL: dict[str, Any] = {
    "num_envs": 2, "num_steps": 32, "minibatch_size": 32, "num_epochs": 2, "hidden_sizes": (8,),
    "total_timesteps": 256, "eval_every": 0, "preset": "none",
}  # fmt: skip


class Net(nn.Module):
    """Two perceptrons."""

    def __init__(self, obs_size: int, num_outputs: int) -> None:
        super().__init__()
        self.pi = nn.Sequential(nn.Linear(obs_size, 8), nn.Tanh(), nn.Linear(8, num_outputs))
        self.v = nn.Sequential(nn.Linear(obs_size, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits and values."""
        return self.pi(obs), self.v(obs)


def ppo(seed: int = 1, **settings: Any) -> clipper.PPO:
    return clipper.PPO("CartPole-v1", seed=seed, **{**SMALL, **settings})


def of_a2c(seed: int = 1) -> clipper.A2C:
    left = {
        k: v for k, v in SMALL.items() if k not in ("minibatch_size", "num_epochs", "hidden_sizes")
    }
    return clipper.A2C(
        "CartPole-v1",
        seed=seed,
        module=Net,
        **{**left, "num_steps": 8, "rollouts_per_iteration": 4},
    )


KINDS: dict[str, Callable[..., Agent]] = {
    "native": lambda seed=1: ppo(seed),
    "reference": lambda seed=1: ppo(seed, engine="reference"),
    "module": lambda seed=1: ppo(seed, module=Net),
    "a2c module": of_a2c,
}


def weights(agent: Agent) -> Tensor:
    return torch.cat([p.detach().reshape(-1).clone() for p in agent.policy.parameters()])


def replaced_layer(policy: nn.Module) -> None:
    """Puts a layer of the same shape and numbers in place of one."""
    for part in policy.modules():
        for name, child in part.named_children():
            if isinstance(child, nn.Linear):
                setattr(part, name, copy.deepcopy(child))
                return


def by_data(policy: nn.Module) -> None:
    for p in policy.parameters():
        p.data = p.data.clone()


def by_assign_below(policy: Any) -> None:
    state = {k: v.clone() for k, v in policy.network.state_dict().items()}
    policy.network.load_state_dict(state, assign=True)


TOUCHES: dict[str, Callable[[Any], Any]] = {
    "zero_grad": lambda p: p.zero_grad(),
    "data": by_data,
    "vector": lambda p: nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(p.parameters()).detach().clone(), p.parameters()
    ),
    "assign": lambda p: p.load_state_dict(
        {k: v.clone() for k, v in p.state_dict().items()}, assign=True
    ),
    "assign below": by_assign_below,
    "a layer": replaced_layer,
    "cpu": lambda p: p.cpu(),
    "to": lambda p: p.to("cpu"),
    "float": lambda p: p.float(),
    "a copy shared": lambda p: copy.deepcopy(p).share_memory(),
}


@pytest.mark.parametrize("touch", TOUCHES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_leaves_the_numbers_alone_leaves_the_run_alone(kind: str, touch: str) -> None:
    """Tensors are moved, replaced or lose their gradients between iterations: the same bits come out."""
    straight, touched = KINDS[kind](), KINDS[kind]()
    straight.train(progress=False)
    begun = weights(touched)

    def meddle(report: clipper.Report) -> None:
        TOUCHES[touch](touched.policy)

    TOUCHES[touch](touched.policy)
    touched.train(progress=False, callback=meddle)
    # of a new layer the kernels know nothing, and torch rounds otherwise
    is_exact = (kind, touch) != ("module", "a layer")
    torch.testing.assert_close(
        weights(touched), weights(straight), rtol=0, atol=0 if is_exact else 1e-4
    )
    assert not torch.equal(weights(touched), begun)


@pytest.mark.parametrize("touch", ["data", "vector", "assign", "assign below"])
@pytest.mark.parametrize("kind", KINDS)
def test_new_numbers_act_and_learn(kind: str, touch: str, tmp_path: Any) -> None:
    """Weights of another agent, given by any way of torch's: it acts, is examined and goes on so."""
    teacher, pupil = KINDS[kind](7), KINDS[kind](1)
    teacher.train(progress=False)
    state = {k: v.clone() for k, v in teacher.policy.state_dict().items()}
    if touch == "assign":
        pupil.policy.load_state_dict(state, assign=True)
    elif touch == "assign below":
        below = {
            k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")
        }
        pupil.policy.network.load_state_dict(below, assign=True)
    elif touch == "data":
        for mine, other in zip(pupil.policy.parameters(), teacher.policy.parameters(), strict=True):
            mine.data = other.data.clone()
    else:
        vector = nn.utils.parameters_to_vector(teacher.policy.parameters()).detach().clone()
        nn.utils.vector_to_parameters(vector, pupil.policy.parameters())
    if touch != "assign":
        moments = {k: v for k, v in state.items() if k.startswith("normalizer.")}
        pupil.policy.load_state_dict({**pupil.policy.state_dict(), **moments})
    obs: NDArray[np.float32] = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    np.testing.assert_array_equal(pupil.act(obs), teacher.act(obs))
    assert pupil.evaluate(3) == teacher.evaluate(3)
    before = weights(pupil)
    assert torch.equal(before, weights(teacher))
    pupil.train(progress=False)
    assert not torch.equal(weights(pupil), before)
    pupil.save(tmp_path / "a.safetensors")
    again = clipper.load(tmp_path / "a.safetensors", module=Net if "module" in kind else None)
    np.testing.assert_array_equal(again.act(obs), pupil.act(obs))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.double(), "of float64 on cpu where it was"),
        (lambda p: p.network.share_memory(), "the memory of .* was moved"),
        (lambda p: p.register_parameter("more", nn.Parameter(torch.zeros(2))), "more is new"),
        (lambda p: setattr(p.network, "extra", nn.Linear(2, 2)), "network.extra.bias is new"),
    ],
    ids=["double", "shared", "a parameter", "a layer"],
)
def test_other_parameters_are_refused(change: Callable[[Any], Any], said: str, kind: str) -> None:
    """Of another type, in other memory, or more of them: an error before the next iteration."""
    agent = KINDS[kind]()
    agent.train(128, progress=False)
    change(agent.policy)
    with pytest.raises(ConfigError, match=said):
        agent.train(256, progress=False)
    with pytest.raises(ConfigError, match=said):
        agent.evaluate(1)


def test_the_policy_is_not_shared() -> None:
    """Its memory is the engine's."""
    with pytest.raises(ConfigError, match="share_memory"):
        ppo().policy.share_memory()


def test_a_module_has_one_agent() -> None:
    """A second agent, or a loaded one, would take the parameters from under the first; later it may."""
    net = Net(4, 2)
    agent = ppo(module=net)
    with pytest.raises(ConfigError, match=r"another one learns its pi\.0\.weight"):
        ppo(module=net)
    shared = Net(4, 2)
    shared.pi = net.pi
    with pytest.raises(ConfigError, match="must be of one agent alone"):
        ppo(module=shared)
    net.pi.requires_grad_(False)
    beside = Net(4, 2)
    beside.pi = net.pi  # frozen: nobody moves it
    ppo(module=beside)
    ppo(module=copy.deepcopy(net))
    del agent
    ppo(module=net)


def test_loading_into_a_module_that_is_learnt_leaves_it_alone(tmp_path: Any) -> None:
    """It is refused before a number is written."""
    net = Net(4, 2)
    agent = ppo(module=net)
    agent.save(tmp_path / "start.safetensors")
    agent.train(progress=False)
    before = weights(agent)
    with pytest.raises(ConfigError, match="must be of one agent alone"):
        clipper.load(tmp_path / "start.safetensors", module=net)
    assert torch.equal(weights(agent), before)
