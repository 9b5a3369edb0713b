"""Laws of the multilayer perceptrons that the kernels compute for a network of the user's."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import clipper
from clipper.engine import choice, kernels, quick_mlp
from clipper.engine.quick_mlp import QuickMLP
from clipper.engine.quick_parts import QuickParts
from clipper.engine.state import AdamState
from libraries import NEEDS_ENGINE

pytestmark = NEEDS_ENGINE
ACTIVATIONS = (nn.Tanh, nn.ReLU, nn.ELU, nn.SiLU, nn.GELU)


def variants() -> list[str]:
    return [] if kernels.ABSENCE is not None else list(kernels.compiled.variants())


def widest() -> str:
    return variants()[0]


def sequence(*sizes: int, activation: type[nn.Module] = nn.Tanh, ends: bool = False) -> nn.Module:
    torch.manual_seed(sum(sizes))
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        parts += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*parts if ends else parts[:-1])


def quick(module: nn.Module, variant: str | None = None) -> QuickMLP:
    params = AdamState(module).params
    assert quick_mlp.covers(module, params)
    return QuickMLP(module, params, variant or widest())


def gradients(
    call: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Returns the outputs, and the gradients of a function of them by rows and parameters."""
    x = x.detach().requires_grad_()
    y = call(x)
    weights = torch.linspace(-1.0, 2.0, y.numel(), dtype=y.dtype).reshape(y.shape)
    found = torch.autograd.grad((y * weights).sum() + y.square().sum(), [x, *module.parameters()])
    return y.detach(), list(found)


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize(
    ("sizes", "shape"),
    [((4, 64, 64, 2), (256,)), ((3, 17), (65,)), ((16, 5, 33, 1), (2, 3)), ((7, 32, 16), ())],
)
def test_outputs_and_gradients_are_those_of_float64(
    variant: str, activation: type[nn.Module], ends: bool, sizes: tuple[int, ...], shape: tuple[int]
) -> None:
    """Of rows and parameters, within 1e-5 of their norms; whatever the sizes and numbers of rows."""
    ends = ends or len(sizes) == 2
    module = sequence(*sizes, activation=activation, ends=ends)
    x = torch.randn(*shape, sizes[0]) * 2.0
    exact = copy.deepcopy(module).double()
    y, found = gradients(quick(module, variant), module, x)
    expected_y, expected = gradients(exact, exact, x.double())
    assert y.shape == expected_y.shape
    assert distance(y, expected_y) < 1e-5
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert distance(mine, theirs) < 1e-5


def test_layers_may_follow_each_other_without_an_activation() -> None:
    module = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(9, 3)
    y, found = gradients(quick(module), module, x)
    expected_y, expected = gradients(module, module, x)
    for mine, theirs in zip([y, *found], [expected_y, *expected], strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_row_is_computed_as_if_it_were_alone() -> None:
    """To the last bit, and without a graph as with one."""
    module = sequence(4, 64, 64, 2)
    call, x = quick(module), torch.randn(200, 4)
    whole = call(x).detach()
    assert torch.equal(torch.stack([call(row) for row in x]), whole)
    with torch.no_grad():
        assert torch.equal(call(x), whole)
    assert torch.equal(call(x.T.contiguous().T), whole)


def asked(call: Callable[[], Any]) -> int:
    """Returns how often the kernels were asked for the way forth."""
    count = 0

    class Watched:
        def __getattr__(self, name: str) -> Any:
            nonlocal count
            count += name == "run"
            return getattr(kernels._native, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "compiled", Watched())
        call()
    return count


class Own(nn.Tanh):
    """Is called as if it were one."""


def made(*parts: nn.Module) -> nn.Module:
    return nn.Sequential(*parts)


def linear() -> nn.Module:
    return nn.Linear(4, 4)


def hooked(part: nn.Module) -> nn.Module:
    part.register_forward_hook(lambda *_: None)
    return part


def with_forward(module: nn.Module) -> nn.Module:
    module.forward = lambda x: x  # type: ignore[method-assign]
    return module


def parametrized() -> nn.Module:
    return torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))


def tied() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer)


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(made(linear()), id="one-alone"),
        pytest.param(made(nn.Tanh(), linear()), id="activation-first"),
        pytest.param(made(linear(), nn.Tanh(), nn.Tanh()), id="two-activations"),
        pytest.param(made(linear(), nn.Tanh(), linear(), nn.ReLU()), id="two-kinds"),
        pytest.param(made(nn.Linear(4, 4, bias=False), nn.Tanh()), id="no-bias"),
        pytest.param(made(linear(), nn.LeakyReLU()), id="other-activation"),
        pytest.param(made(linear(), nn.ReLU(inplace=True)), id="in-place"),
        pytest.param(made(linear(), nn.ELU(0.5)), id="alpha"),
        pytest.param(made(linear(), nn.GELU("tanh")), id="approximate"),
        pytest.param(made(linear(), nn.LayerNorm(4), nn.Tanh()), id="norm"),
        pytest.param(made(linear(), nn.Dropout(), nn.Tanh()), id="dropout"),
        pytest.param(made(linear(), Own()), id="subclass"),
        pytest.param(made(nn.Linear(4, 513), nn.Tanh()), id="too-wide"),
        pytest.param(made(hooked(linear()), nn.Tanh()), id="hook"),
        pytest.param(made(parametrized(), nn.Tanh()), id="parametrized"),
        pytest.param(with_forward(sequence(4, 4, 4)), id="own-forward"),
        pytest.param(made(linear(), with_forward(nn.Tanh())), id="part-own-forward"),
        pytest.param(tied(), id="tied"),
        pytest.param(sequence(4, 4, 4).double(), id="float64"),
        pytest.param(made(), id="empty"),
        pytest.param(nn.ModuleList([linear(), nn.Tanh()]), id="list"),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_torch(module: nn.Module) -> None:
    """Whatever has a meaning of its own keeps it."""
    params = AdamState(nn.ModuleList([module, nn.Linear(2, 2).to(dtype_of(module))])).params
    assert not quick_mlp.covers(module, params.float())


def dtype_of(module: nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters()), torch.float32)


def test_an_activation_may_stand_there_twice() -> None:
    """One object between several layers is called between all of them."""
    act = nn.Tanh()
    module = nn.Sequential(nn.Linear(3, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 2))
    x = torch.randn(5, 3)
    expected = module(x)
    call = quick(module)
    assert asked(lambda: call(x)) == 1
    torch.testing.assert_close(call(x), expected)


def test_parameters_that_others_hold_are_not_taken() -> None:
    """Those that the engine does not learn, or that lie elsewhere in its vector."""
    first, second = sequence(4, 4, 4), sequence(3, 3, 3)
    params = AdamState(second).params
    assert not quick_mlp.covers(first, params)
    for parameter in first[0].parameters():  # type: ignore[index]
        parameter.requires_grad_(False)
    assert not quick_mlp.covers(first, AdamState(first).params)


def test_what_changes_later_is_seen() -> None:
    """A hook, a layer or parameters that took another's place: torch computes it from then on."""
    x = torch.randn(5, 4)
    seen: list[Any] = []

    def made() -> tuple[Any, QuickMLP]:
        module: Any = sequence(4, 8, 2)
        call = quick(module)
        assert asked(lambda: call(x)) == 1
        return module, call

    module, call = made()
    handle = module[1].register_forward_hook(lambda *_: seen.append(1))
    assert asked(lambda: call(x)) == 0
    assert seen
    handle.remove()
    assert asked(lambda: call(x)) == 1

    module[0] = nn.Linear(4, 8)
    assert asked(lambda: call(x)) == 0
    assert torch.equal(call(x), module(x))

    module, call = made()
    module[0].weight = nn.Parameter(torch.zeros(8, 4))
    assert asked(lambda: call(x)) == 0
    module, call = made()
    module[0].weight.data = torch.zeros(8, 4)
    assert asked(lambda: call(x)) == 0
    assert torch.equal(call(x), module(x))

    module, call = made()
    zeros = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    module.forward = call
    assert not torch.func.functional_call(module, zeros, (x,)).any()

    module, call = made()
    torch.nn.utils.parametrizations.weight_norm(module[0])
    assert asked(lambda: call(x)) == 0
    elu: Any = sequence(4, 8, 2, activation=nn.ELU)
    call = quick(elu)
    elu[1].alpha = 0.3
    assert asked(lambda: call(x)) == 0
    assert torch.equal(call(x), elu(x))

    _, call = made()
    with torch.nn.modules.module.register_module_forward_hook(lambda *_: None):
        assert asked(lambda: call(x)) == 0


def test_rows_of_another_kind_are_torchs() -> None:
    """Numbers that the kernels do not take, and errors as torch words them."""
    module: Any = sequence(4, 8, 2)
    call = quick(module)
    assert asked(lambda: call(torch.randn(0, 4))) == 0
    assert call(torch.randn(0, 4)).shape == (0, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert call(torch.randn(3, 4)).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        call(torch.randn(3, 5))
    with pytest.raises(RuntimeError, match="dtype"):
        call(torch.randn(3, 4, dtype=torch.float64))
    found = torch.func.vmap(call)(torch.ones(3, 5, 4))
    torch.testing.assert_close(found, module(torch.ones(3, 5, 4)))
    slope = torch.func.grad(lambda x: call(x).sum())(torch.ones(4))
    expected = torch.func.grad(lambda x: module(x).sum())(torch.ones(4))
    torch.testing.assert_close(slope, expected)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_derivatives_that_go_forth_are_torchs() -> None:
    """With a graph and without; the kernels carry no tangents."""
    module, plain = sequence(4, 8, 2), nn.Sequential(nn.Tanh())
    x, along = torch.randn(300, 4), torch.ones(300, 4)
    for enabled in (True, False):
        with (
            torch.set_grad_enabled(enabled),
            forward_ad.dual_level(),
            QuickParts(plain, torch.zeros(0), widest()),
        ):
            dual = forward_ad.make_dual(x, along)
            found = forward_ad.unpack_dual(quick(module)(dual)).tangent
            expected = forward_ad.unpack_dual(module(dual)).tangent
            torch.testing.assert_close(found, expected)
            wide = forward_ad.make_dual(torch.ones(64, 64), torch.ones(64, 64))
            assert forward_ad.unpack_dual(plain(wide)).tangent is not None


def test_gradients_in_batches_are_torchs() -> None:
    """Many at once, as `is_grads_batched` asks for them."""
    module = sequence(3, 8, 2)
    x, many = torch.randn(5, 3, requires_grad=True), torch.randn(4, 5, 2)
    wanted = [x, *module.parameters()]
    found = torch.autograd.grad(quick(module)(x), wanted, many, is_grads_batched=True)
    expected = torch.autograd.grad(module(x), wanted, many, is_grads_batched=True)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_function_that_is_compiled_does_not_look_in() -> None:
    """One of the user's around the sequence, compiled as a whole."""
    module: Any = sequence(4, 8, 2)
    x = torch.randn(3, 4)
    expected = module(x)
    module.forward = quick(module)
    compiled = torch.compile(lambda rows: module(rows), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)


def test_another_thread_that_leaves_takes_nothing_away() -> None:
    """The kernels compute until the last one is out."""
    module: Any = sequence(4, 8, 2)
    parts = QuickParts(module, AdamState(module).params, widest())
    x = torch.randn(3, 4)
    parts.__enter__()
    with parts:
        pass
    assert asked(lambda: module(x)) == 1
    parts.__exit__()
    assert asked(lambda: module(x)) == 0


def test_large_layers_are_left_to_torchs_threads() -> None:
    before = torch.get_num_threads()
    large, small = quick(sequence(4, 256, 2)), quick(sequence(4, 128, 2))
    try:
        for threads, expected in ((1, 1), (2, 1), (4, 0)):
            torch.set_num_threads(threads)
            assert asked(lambda: large(torch.randn(3, 4))) == expected
            assert asked(lambda: small(torch.randn(3, 4))) == 1
    finally:
        torch.set_num_threads(before)


def test_gradients_of_gradients_are_torchs() -> None:
    """As a penalty on the slope needs them, which a module may compute within its forward pass."""
    module = sequence(3, 16, 1)
    x = torch.randn(7, 3)

    def penalty(call: Callable[[Tensor], Tensor]) -> list[Tensor]:
        rows = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(call(rows).sum(), rows, create_graph=True)
        weights = [module[0].weight, module[2].weight]  # type: ignore[index]
        return list(torch.autograd.grad(slope.square().sum(), weights))

    for mine, theirs in zip(penalty(quick(module)), penalty(module), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_only_what_is_learned_gets_a_gradient() -> None:
    module: Any = sequence(3, 8, 2)
    call = quick(module)
    module[0].weight.requires_grad_(False)
    call(torch.randn(4, 3)).sum().backward()
    assert module[0].weight.grad is None
    assert module[0].bias.grad is not None
    assert module[2].weight.grad is not None


def test_parameters_that_moved_in_between_are_refused() -> None:
    """As by torch: the way back would be another function's."""
    module: Any = sequence(3, 8, 2)
    y = quick(module)(torch.randn(4, 3))
    with torch.no_grad():
        module[2].weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_parameters_that_the_way_back_does_not_need_may_move() -> None:
    """As with torch: biases, and the first weights where nobody asks for the rows' gradient."""
    module: Any = sequence(3, 8, 2)
    expected = torch.autograd.grad(module(x := torch.randn(4, 3)).sum(), list(module.parameters()))
    y = quick(module)(x)
    with torch.no_grad():
        module[0].weight.mul_(2.0)
        module[2].bias.add_(1.0)
    found = torch.autograd.grad(y.sum(), list(module.parameters()), retain_graph=True)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y.sum(), list(module.parameters()), create_graph=True)


def test_twice_called_is_twice_kept() -> None:
    """What one call keeps for its way back is not another's."""
    module = sequence(3, 8, 2)
    call, a, b = quick(module), torch.randn(70, 3), torch.randn(3, 3)

    def both(f: Callable[[Tensor], Tensor]) -> list[Tensor]:
        first, second = f(a), f(b)
        return list(torch.autograd.grad(first.sum() * second.sum(), list(module.parameters())))

    for mine, theirs in zip(both(call), both(module), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_copy_within_has_parameters_of_its_own() -> None:
    """As a network makes that keeps a target of its own."""
    module: Any = nn.Sequential(sequence(3, 8, 2), nn.Tanh())
    x = torch.randn(4, 3)
    with QuickParts(module, AdamState(module).params, widest()):
        other, read = copy.deepcopy(module), pickle.loads(pickle.dumps(module))
        expected = other(x)
        with torch.no_grad():
            module[0][0].weight.zero_()
    assert torch.equal(other(x), expected)
    assert torch.equal(read(x), expected)
    assert not torch.equal(module(x), expected)
    with torch.no_grad():
        other[0][0].weight.zero_()
    torch.testing.assert_close(other(x), module(x))


class Actor(nn.Module):
    """Two perceptrons, a tanh beside them, and a sequence that is none."""

    def __init__(self, obs_size: int, num_outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(obs_size, 64), nn.Tanh())
        self.actor = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, num_outputs))
        self.critic = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 1))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(obs)
        return self.actor(hidden), self.critic(hidden)


def test_an_agent_learns_the_same_but_for_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a rollout's updates the parameters differ in the last digits alone; it is told of."""
    found = []
    for most, told in ((512, "torch with the loss and 2 MLPs in "), (0, "torch with the loss in ")):
        monkeypatch.setattr("clipper.engine.quick_mlp._WIDEST", most)
        monkeypatch.setattr("clipper.engine.quick_tanh._FEWEST", 10**9)
        agent = clipper.PPO("CartPole-v1", preset="none", module=Actor, num_envs=4, num_steps=64,
                            minibatch_size=64, total_timesteps=256, eval_every=0)  # fmt: skip
        assert told in agent.describe_engine()
        before = [dict(vars(part)) for part in agent.policy.network.modules()]
        agent.train(progress=False)
        assert [dict(vars(part)) for part in agent.policy.network.modules()] == before
        found.append([p.detach().clone() for p in agent.policy.parameters()])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
    assert any(not torch.equal(mine, theirs) for mine, theirs in zip(*found, strict=True))


class Towers(nn.Module):
    """Nothing but perceptrons."""

    def __init__(self, obs_size: int, num_outputs: int) -> None:
        super().__init__()
        self.actor, self.critic = (sequence(obs_size, 64, 64, n) for n in (num_outputs, 1))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(obs), self.critic(obs)


def test_a_policy_acts_and_judges_by_the_kernels_and_so_does_a_copy_elsewhere() -> None:
    """A worker's copy to the same bits, of one row as of many; a copy here and other types by torch."""
    agent = clipper.PPO("CartPole-v1", preset="none", module=Towers, eval_every=0)
    policy, obs = agent.policy, torch.randn(300, 4)
    agent.policy.network.actor[0].weight.requires_grad_(False)  # type: ignore[union-attr, index]
    assert asked(lambda: policy.act(obs.numpy(), None)) == 2
    assert asked(lambda: policy.values(obs)) == 2
    values = policy.values(obs)
    copied = pickle.loads(pickle.dumps(policy))
    assert asked(lambda: copied.values(obs)) == 0
    torch.testing.assert_close(copied.values(obs), values)
    assert choice.accelerate_copy(copied, agent.config) is None
    assert asked(lambda: copied.values(obs)) == 2
    assert torch.equal(copied.values(obs), values)
    assert torch.equal(torch.cat([policy.values(row[None]) for row in obs]), values)
    copied.take({name: 2.0 * tensor.numpy() for name, tensor in policy.tensors().items()})
    assert asked(lambda: copied.values(obs)) == 2
    assert not torch.equal(copied.values(obs), values)
    assert asked(lambda: copied.double().values(obs)) == 0
    by_torch = agent.config.replace(engine="reference")
    again = pickle.loads(pickle.dumps(policy))
    assert choice.accelerate_copy(again, by_torch) is None
    assert asked(lambda: again.values(obs)) == 0


class Checkpointed(Actor):
    """Computes its layers anew on the way back, as is done to save memory."""

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        params = checkpoint(self.actor, self.body(obs), use_reentrant=False)
        return params, self.critic(checkpoint(self.body, obs, use_reentrant=False))


def test_what_is_computed_anew_on_the_way_back_is_the_same() -> None:
    """The kernels compute it both times."""
    found = []
    for engine in ("auto", "reference"):
        agent = clipper.PPO("CartPole-v1", preset="none", module=Checkpointed, engine=engine,
                            num_steps=64, minibatch_size=64, eval_every=0)  # fmt: skip
        agent.train(512, progress=False)
        found.append([p.detach().clone() for p in agent.policy.parameters()])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_a_network_that_torch_compiles_keeps_its_parts() -> None:
    module: Any = torch.compile(sequence(4, 8, 2), backend="eager")
    assert QuickParts(module, AdamState(module).params, widest()).num_mlps == 0
