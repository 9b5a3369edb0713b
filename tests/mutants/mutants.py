"""Bugs that implementations of PPO and its relatives have had, as changes of our own sources.

Each names the tests that find it. `tests/mutants/try_mutants.py` applies one at a time to a copy of the
sources and runs these tests against the copy.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A change of one source file that is a bug.

    Attributes:
        name: What is wrong in it.
        file: Below `src/clipper`.
        tests: What must fail, below `tests`: a file, or one test in it.
        edits: Pairs of a text that stands once in the file, and what it becomes.
    """

    name: str
    file: str
    tests: str
    edits: tuple[tuple[str, str], ...]

    @property
    def is_native(self) -> bool:
        """True if the extension must be built anew."""
        return self.file.endswith(".cpp")


def mutant(name: str, file: str, tests: str, *texts: str) -> Mutant:
    """Returns a mutant whose edits are `old, new, old, new, ...`."""
    return Mutant(name, file, tests, tuple(zip(texts[::2], texts[1::2], strict=True)))


ADVANTAGES = "properties/test_advantages.py"
LOSSES = "properties/test_losses.py"
NORMALIZE = "unit/test_normalize.py"
PPO = "unit/test_ppo.py"
SB3 = "golden/test_against_sb3.py"
NATIVE = "properties/test_native.py"

ESTIMATES = [
    mutant(
        "a truncation is taken for a death",
        "advantages.py",
        ADVANTAGES,
        "deltas = td_errors(rewards, values, next_values, terminated, gamma)",
        "deltas = td_errors(rewards, values, next_values, terminated | truncated, gamma)",
    ),
    mutant(
        "V(s_t) bootstraps in place of V(s_t+1)",
        "advantages.py",
        ADVANTAGES,
        "torch.where(terminated, 0.0, gamma * next_values) - values",
        "torch.where(terminated, 0.0, gamma * values) - values",
    ),
    mutant(
        "the value after a step is not discounted",
        "advantages.py",
        ADVANTAGES,
        "torch.where(terminated, 0.0, gamma * next_values) - values",
        "torch.where(terminated, 0.0, next_values) - values",
    ),
    mutant(
        "a mask multiplies, and 0 x infinity is NaN",
        "advantages.py",
        f"{ADVANTAGES}::test_what_must_not_count_does_not_leak",
        "torch.where(terminated, 0.0, gamma * next_values) - values",
        "gamma * next_values * (~terminated) - values",
    ),
    mutant(
        "the next episode leaks into the advantages of one that was cut",
        "advantages.py",
        ADVANTAGES,
        "gamma * gae_lambda).masked_fill_(terminated | truncated, 0.0)",
        "gamma * gae_lambda).masked_fill_(terminated, 0.0)",
    ),
    mutant(
        "the end of an episode is read one step late",
        "advantages.py",
        ADVANTAGES,
        "gamma * gae_lambda).masked_fill_(terminated | truncated, 0.0)",
        "gamma * gae_lambda).masked_fill_((terminated | truncated).roll(1, 0), 0.0)",
    ),
    mutant(
        "gamma and lambda are swapped",
        "advantages.py",
        ADVANTAGES,
        "deltas = td_errors(rewards, values, next_values, terminated, gamma)",
        "deltas = td_errors(rewards, values, next_values, terminated, gae_lambda)",
    ),
    mutant(
        "lambda is left out of the decay",
        "advantages.py",
        ADVANTAGES,
        "torch.full_like(deltas, gamma * gae_lambda)",
        "torch.full_like(deltas, gamma)",
    ),
    mutant(
        "the last row of a rollout does not bootstrap",
        "advantages.py",
        ADVANTAGES,
        "    is_last[-1] = True\n    ends_open",
        "    ends_open",
    ),
    mutant(
        "value targets come from normalised advantages",
        "advantages.py",
        f"{ADVANTAGES}::test_value_targets_of_every_estimator",
        "return Estimates(advantages, advantages + values, None)",
        "scaled = (advantages - advantages.mean()) / advantages.std()\n"
        "        return Estimates(advantages, scaled + values, None)",
    ),
    mutant(
        "value targets come from zeroed advantages",
        "advantages.py",
        f"{ADVANTAGES}::test_value_targets_of_every_estimator",
        "return Estimates(advantages, advantages + values, None)",
        "return Estimates(advantages, torch.zeros_like(advantages) + values, None)",
    ),
    mutant(
        "a single advantage is divided by its own deviation",
        "advantages.py",
        f"{ADVANTAGES}::test_one_advantage_is_not_normalized",
        "if own.numel() >= 2:",
        "if own.numel() >= 1:",
    ),
    mutant(
        "advantages are divided by their variance",
        "advantages.py",
        f"{ADVANTAGES}::test_normalized_advantages",
        "(advantages - mean) / (std + 1e-8)",
        "(advantages - mean) / (std * std + 1e-8)",
    ),
    mutant(
        "advantages lie env by env where the other columns lie step by step",
        "rollout.py",
        SB3,
        "advantages=estimates.advantages.flatten(),",
        "advantages=estimates.advantages.T.flatten(),",
    ),
    mutant(
        "the first observation after a reset bootstraps an episode that was cut",
        "policies/actor_critic.py",
        f"{NATIVE}::test_values_of_successors",
        "        found[at[:, 0], at[:, 1]] = self.values(final_obs)\n",
        "",
    ),
]

OBJECTIVES = [
    mutant(
        "the larger of the clipped and the plain objective",
        "losses.py",
        LOSSES,
        "return torch.minimum(ratio * advantages, clipped * advantages)",
        "return torch.maximum(ratio * advantages, clipped * advantages)",
    ),
    mutant(
        "the one of smaller magnitude",
        "losses.py",
        LOSSES,
        "return torch.minimum(ratio * advantages, clipped * advantages)",
        "plain, near = ratio * advantages, clipped * advantages\n"
        "    return torch.where(plain.abs() < near.abs(), plain, near)",
    ),
    mutant(
        "the clipped objective alone, without the minimum",
        "losses.py",
        LOSSES,
        "return torch.minimum(ratio * advantages, clipped * advantages)",
        "return clipped * advantages",
    ),
    mutant(
        "values [M, 1] against targets [M]",
        "losses.py",
        f"{LOSSES}::test_value_losses",
        "return 0.5 * (values - targets).square().mean()",
        "return 0.5 * (values[:, None] - targets).square().mean()",
    ),
    mutant(
        "value clipping takes the smaller loss",
        "losses.py",
        f"{LOSSES}::test_value_losses",
        "return 0.5 * torch.maximum((values - targets).square(), (near - targets).square()).mean()",
        "return 0.5 * torch.minimum((values - targets).square(), (near - targets).square()).mean()",
    ),
    mutant(
        "entropy is made small",
        "algorithms/ppo.py",
        f"{LOSSES}::test_the_report_of_the_loss",
        "+ config.vf_coef * critic_loss - config.ent_coef * entropy",
        "+ config.vf_coef * critic_loss + config.ent_coef * entropy",
    ),
    mutant(
        "old log-probabilities are those of the policy as it is now",
        "algorithms/ppo.py",
        LOSSES,
        "log_ratio = log_probs - minibatch.log_probs",
        "log_ratio = log_probs - log_probs.detach()",
    ),
    mutant(
        "the estimate of the KL is of new to old",
        "losses.py",
        LOSSES,
        "return (torch.expm1(log_ratio) - log_ratio).mean()",
        "return (torch.expm1(-log_ratio) + log_ratio).mean()",
    ),
    mutant(
        "the simplest estimate of the KL has the wrong sign",
        "losses.py",
        LOSSES,
        "return (-log_ratio).mean()",
        "return log_ratio.mean()",
    ),
    mutant(
        "the adaptive penalty goes the wrong way",
        "losses.py",
        LOSSES,
        "return max(kl_coef / 2.0, 2.0**-100)",
        "return min(kl_coef * 2.0, 2.0**100)",
        "return min(kl_coef * 2.0, 2.0**100)\n    return kl_coef",
        "return max(kl_coef / 2.0, 2.0**-100)\n    return kl_coef",
    ),
    mutant(
        "the exact KL is of new to old",
        "policies/distributions.py",
        "properties/test_distributions.py",
        "(log_old.exp() * (log_old - log_new))",
        "(log_new.exp() * (log_new - log_old))",
    ),
    mutant(
        "log-probabilities of several numbers are averaged",
        "policies/distributions.py",
        "properties/test_distributions.py",
        "return (-0.5 * z.square() - log_std).sum(-1)",
        "return (-0.5 * z.square() - log_std).mean(-1)",
    ),
    mutant(
        "noise is scaled by the variance",
        "policies/distributions.py",
        "properties/test_distributions.py",
        "return mean + log_std.exp() * noise",
        "return mean + (2.0 * log_std).exp() * noise",
    ),
    mutant(
        "the log-probability is that of the clipped action",
        "policies/actor_critic.py",
        "unit/policies/test_actor_critic.py",
        "torch.from_numpy(obs[:num_rows]), torch.from_numpy(actions[:num_rows])",
        "torch.from_numpy(obs[:num_rows]), torch.from_numpy(actions[:num_rows].clip(-1, 1))",
    ),
    mutant(
        "the clipped action is stored in place of the sampled one",
        "action_layout.py",
        "unit/test_spaces.py",
        "return list(actions.clip(self._low, self._high))",
        "return list(actions.clip(self._low, self._high, out=actions))",
    ),
]

UPDATES = [
    mutant(
        "the learning rate is never annealed",
        "algorithms/ppo.py",
        PPO,
        "learning_rate = config.learning_rate.at(progress)",
        "learning_rate = config.learning_rate.at(0.0)",
    ),
    mutant(
        "the KL stops the epochs after the step",
        "algorithms/ppo.py",
        PPO,
        "                if config.target_kl is not None and report[_KL] > 1.5 * config.target_kl:\n"
        "                    break\n"
        "                grad_norms.append(step())\n",
        "                grad_norms.append(step())\n"
        "                if config.target_kl is not None and report[_KL] > 1.5 * config.target_kl:\n"
        "                    break\n",
    ),
    mutant(
        "minibatches leave out the last rows",
        "rollout.py",
        PPO,
        "for start in range(0, len(order), size):",
        "for start in range(0, len(order) - size, size):",
    ),
    mutant(
        "minibatches are drawn with replacement",
        "rollout.py",
        PPO,
        "return permutation(seed, Purpose.SHUFFLE, epoch, iteration, num_rows)",
        "order = permutation(seed, Purpose.SHUFFLE, epoch, iteration, num_rows)\n"
        "    return order - order % 2",
    ),
    mutant(
        "every epoch has the same order",
        "rollout.py",
        PPO,
        "return permutation(seed, Purpose.SHUFFLE, epoch, iteration, num_rows)",
        "return permutation(seed, Purpose.SHUFFLE, 0, iteration, num_rows)",
    ),
    mutant(
        "every iteration has the same orders",
        "rollout.py",
        PPO,
        "return permutation(seed, Purpose.SHUFFLE, epoch, iteration, num_rows)",
        "return permutation(seed, Purpose.SHUFFLE, epoch, 0, num_rows)",
    ),
    mutant(
        "observations alone are shuffled",
        "rollout.py",
        PPO,
        "for name, column in columns.items()})",
        "for name, column in {**vars(self), 'obs': columns['obs']}.items() if column is not None})",
    ),
    mutant(
        "the gradient is clipped after the step",
        "engine/reference.py",
        SB3,
        "        if self.waits:\n            found, value",
        "        self._adam(learning_rate)\n        if self.waits:\n            found, value",
        "        self._adam(learning_rate)\n        return norm",
        "        return norm",
    ),
    mutant(
        "the gradient is added to the last minibatch's, which was clipped",
        "engine/reference.py",
        SB3,
        "        self._grad.zero_()\n        loss.backward()",
        "        loss.backward()",
    ),
    mutant(
        "Adam's epsilon is added before the bias is corrected",
        "engine/reference.py",
        SB3,
        "denominator = (state.v.sqrt() / math.sqrt(correction2)).add_(self._eps)",
        "denominator = state.v.sqrt().add_(self._eps) / math.sqrt(correction2)",
    ),
    mutant(
        "Adam's epsilon is inside the root",
        "engine/reference.py",
        SB3,
        "denominator = (state.v.sqrt() / math.sqrt(correction2)).add_(self._eps)",
        "denominator = (state.v / correction2 + self._eps).sqrt()",
    ),
    mutant(
        "Adam's moments are not corrected",
        "engine/reference.py",
        SB3,
        "value=-learning_rate / correction1)",
        "value=-learning_rate)",
    ),
]

WORLD = [
    mutant(
        "a cut episode is marked as terminated",
        "envs/vector.py",
        "unit/envs/test_vector.py",
        "terminated[i] = is_terminated\n",
        "terminated[i] = is_done\n",
    ),
    mutant(
        "the final observation is overwritten by the reset's",
        "envs/vector.py",
        "unit/envs/test_vector.py",
        "                    row = np.empty_like(row)\n",
        "                    pass\n",
    ),
    mutant(
        "the return of an episode goes on in the next",
        "envs/vector.py",
        "unit/envs/test_vector.py",
        "        self._returns[i] = 0.0\n",
        "",
    ),
    mutant(
        "all environments have the same episodes",
        "randomness.py",
        "properties/test_randomness.py::test_episode_seeds",
        "derived_seed(self.seed, self.purpose, env, index)",
        "derived_seed(self.seed, self.purpose, 0, index)",
    ),
    mutant(
        "all episodes of an environment are the same one",
        "randomness.py",
        "properties/test_randomness.py::test_episode_seeds",
        "derived_seed(self.seed, self.purpose, env, index)",
        "derived_seed(self.seed, self.purpose, env, 0 * index)",
    ),
    mutant(
        "all environments act with the same noise",
        "policies/actor_critic.py",
        "unit/policies/test_actor_critic.py",
        "return draw(seed, purpose, envs, steps, self.distribution.noise_size)",
        "return draw(seed, purpose, 0 * envs, steps, self.distribution.noise_size)",
    ),
    mutant(
        "the periodic evaluation samples",
        "exam.py",
        "unit/test_evaluation.py",
        "noise = None if self._deterministic else self._noise(playing)",
        "noise = self._noise(playing)",
    ),
    mutant(
        "the evaluation plays on the episodes of training",
        "exam.py",
        "unit/test_evaluation.py",
        "derived_seed(seed, purposes.episode_seed, 0, np.arange(episodes))",
        "derived_seed(seed, Purpose.EPISODE_SEED, 0, np.arange(episodes))",
    ),
]

NORMALISERS = [
    mutant(
        "the normaliser's statistics are not restored",
        "policies/resident.py",
        NORMALIZE,
        "            self.normalizer.reload()\n",
        "            pass\n",
    ),
    mutant(
        "the observation normaliser takes in a rollout twice",
        "algorithms/ppo.py",
        NORMALIZE,
        "        self.policy.merge_observations(rollout.obs)\n",
        "        self.policy.merge_observations(rollout.obs)\n" * 2,
    ),
    mutant(
        "the observation normaliser learns in evaluations",
        "exam.py",
        NORMALIZE,
        "        noise = None if self._deterministic",
        "        policy.merge_observations(torch.from_numpy(rows[:, None]))\n"
        "        noise = None if self._deterministic",
    ),
    mutant(
        "the observation normaliser moves between acting and learning",
        "algorithms/ppo.py",
        NORMALIZE,
        "        metrics = self.improve(rollout, progress)\n",
        "        self.policy.merge_observations(rollout.obs)\n"
        "        metrics = self.improve(rollout, progress)\n",
        "next rollout on\n        self.policy.merge_observations(rollout.obs)\n",
        "next rollout on\n",
    ),
    mutant(
        "variances of two blocks are merged without the distance of their means",
        "policies/normalize.py",
        NORMALIZE,
        "self.m2 = self.m2 + m2 + np.square(delta) * (self.count * count / total)",
        "self.m2 = self.m2 + m2",
    ),
    mutant(
        "the reward normaliser does not discount",
        "policies/normalize.py",
        NORMALIZE,
        "carried = gamma * carried + reward",
        "carried = carried + reward",
    ),
    mutant(
        "the reward normaliser goes on over the end of an episode",
        "policies/normalize.py",
        NORMALIZE,
        "                if ends:\n                    carried = 0.0\n",
        "",
    ),
    mutant(
        "rewards are centred",
        "policies/normalize.py",
        NORMALIZE,
        "torch.clamp(rewards / self.scale, -CLIP, CLIP)",
        "torch.clamp((rewards - float(self._running.mean)) / self.scale, -CLIP, CLIP)",
    ),
    mutant(
        "the open returns of the reward normaliser are not restored",
        "policies/normalize.py",
        NORMALIZE,
        '        self._returns = np.array(state["returns"], dtype=np.float64)\n',
        "",
    ),
]

RESUMING = [
    mutant(
        "a resumed run shuffles as if it began anew",
        "algorithms/ppo.py",
        PPO,
        '        self._num_iterations = int(state["counters"]["num_iterations"])\n',
        "",
    ),
    mutant(
        "the weight of the KL penalty is not restored",
        "algorithms/ppo.py",
        PPO,
        '            self._kl_coef = float(state["counters"]["kl_coef"])\n',
        "            pass\n",
    ),
    mutant(
        "the optimiser's step count is not restored",
        "engine/state.py",
        PPO,
        '        self.num_updates = int(state["num_updates"])\n',
        "",
    ),
    mutant(
        "an iteration whose observer raised is saved without its rows",
        "training.py",
        "unit/test_training.py::test_a_callback_that_raises_loses_nothing",
        "whose rows belong to it\n            if self._keeper is not None:\n"
        "                keeper, seconds = self._keeper, state.wall_seconds\n"
        '                self._attempt("a row or line", lambda: keeper.write(report, seconds))\n',
        "whose rows belong to it\n            pass\n        if self._keeper is not None:\n"
        "            keeper, seconds = self._keeper, state.wall_seconds\n"
        '            self._attempt("a row or line", lambda: keeper.write(report, seconds))\n',
    ),
    mutant(
        "rows written after a checkpoint stay",
        "growing_csv.py",
        "unit/test_run_folder.py",
        "            self._replace(self._columns, self._read()[1 : num_rows + 1])\n",
        "            pass\n",
    ),
]

RELATIVES = [
    mutant(
        "ACER: Retrace without min(1, rho)",
        "advantages.py",
        "unit/test_acer.py",
        "following.clamp(max=1.0).masked_fill",
        "following.masked_fill",
    ),
    mutant(
        "ACER: Retrace with the ratio of the same step",
        "advantages.py",
        "unit/test_acer.py",
        "following = torch.cat([ratio[1:], ratio[-1:]])",
        "following = ratio",
    ),
    mutant(
        "ACER: importance weights are not truncated",
        "losses.py",
        "unit/test_acer.py",
        ".squeeze(-1).clamp(max=importance_clip)",
        ".squeeze(-1)",
    ),
    mutant(
        "ACER: the correction of the truncation is negative where nothing was cut off",
        "losses.py",
        "unit/test_acer.py",
        "(1.0 - importance_clip / ratio).clamp(min=0.0)",
        "(1.0 - importance_clip / ratio)",
    ),
    mutant(
        "ACER: targets are differentiated",
        "algorithms/acer.py",
        "unit/test_acer.py",
        "with torch.no_grad(), self.profiler.part",
        "with self.profiler.part",
    ),
    mutant(
        "ACER: what is replayed is one rollout older than asked for",
        "replay.py",
        "unit/test_acer.py",
        "(self._num_added - 1 - ages) % self._num_slots",
        "(self._num_added - 2 - ages) % self._num_slots",
    ),
    mutant(
        "A2C: RMSprop's epsilon is outside the root",
        "engine/rmsprop.py",
        "unit/test_a2c.py",
        "root = (self._square_avg + self._eps).sqrt_()",
        "root = self._square_avg.sqrt() + self._eps",
    ),
    mutant(
        "A2C: the average policy takes over what it should keep",
        "engine/average.py",
        "unit/test_a2c.py",
        "self._average.lerp_(self._current, 1.0 - self._decay)",
        "self._average.lerp_(self._current, self._decay)",
    ),
    mutant(
        "A2C: the trust region pushes out",
        "losses.py",
        "unit/test_a2c.py",
        "return gradient - scale * kl_gradient",
        "return gradient + scale * kl_gradient",
    ),
    mutant(
        "TRPO: the line search takes a step beyond the trust region",
        "trust_region.py",
        "unit/test_trust_region.py",
        "if gain > 0.0 and kl <= max_kl:",
        "if gain > 0.0:",
    ),
    mutant(
        "TRPO: the line search takes a step that loses",
        "trust_region.py",
        "unit/test_trust_region.py",
        "if gain > 0.0 and kl <= max_kl:",
        "if kl <= max_kl:",
    ),
    mutant(
        "TRPO: the last point that was looked at stays",
        "algorithms/trpo.py",
        "unit/test_trpo.py",
        "        self.actor.write(found.parameters)\n",
        "",
    ),
    mutant(
        "TRPO: the full step has no root",
        "trust_region.py",
        "unit/test_trust_region.py",
        "return math.sqrt(2.0 * max_kl / curvature) * direction",
        "return 2.0 * max_kl / curvature * direction",
    ),
    mutant(
        "TRPO: the Fisher product is not damped",
        "trust_region.py",
        "unit/test_trust_region.py",
        " + damping * vector",
        "",
    ),
    mutant(
        "TRPO: directions of the conjugate gradient are not conjugate",
        "trust_region.py",
        "unit/test_trust_region.py",
        "direction = residual + (rr_next / rr) * direction",
        "direction = residual",
    ),
    mutant(
        "VPG: a short episode counts for more",
        "algorithms/vpg.py",
        "unit/test_vpg.py",
        "return rows.sum() / config.num_steps if config.one_episode else rows.mean()",
        "return rows.mean()",
    ),
    mutant(
        "VPG: the step size follows the divergence the wrong way",
        "algorithms/vpg.py",
        "unit/test_vpg.py",
        "    if kl > 2.0 * target:\n        return max(",
        "    if kl > 2.0 * target:\n        return min(learning_rate * 1.5, _STEP_SIZES[1])\n"
        "    if kl < target / 2.0:\n        return max(",
    ),
    mutant(
        "CEM: the worst are the elite",
        "algorithms/cem.py",
        "unit/test_cem.py",
        "np.argsort(-returns, kind",
        "np.argsort(returns, kind",
    ),
    mutant(
        "CEM: the extra deviation is added to the variance as it is",
        "algorithms/cem.py",
        "unit/test_cem.py",
        "np.sqrt(self.variance + extra_std**2)",
        "np.sqrt(self.variance + extra_std)",
    ),
]

_CPP = "engine/native/"
COMPILED = [
    mutant(
        "C++: the next episode leaks into the advantages of one that was cut",
        f"{_CPP}estimators.cpp",
        f"{NATIVE}::test_estimators",
        "t + 1 < j.num_steps && !j.terminated[i] && !j.truncated[i]",
        "t + 1 < j.num_steps && !j.terminated[i]",
    ),
    mutant(
        "C++: a truncation is taken for a death",
        f"{_CPP}estimators.cpp",
        f"{NATIVE}::test_estimators",
        "const float successor = j.terminated[i] ? 0.0f : gamma * j.next_values[i];",
        "const float successor = is_done(j, i) ? 0.0f : gamma * j.next_values[i];",
    ),
    mutant(
        "C++: the clip holds the policy back on the wrong side",
        f"{_CPP}objective.cpp",
        f"{NATIVE}::test_the_clip_cuts_exactly",
        ": (ratio < edges.low ? Vec{} : plain);",
        ": (ratio > edges.high ? Vec{} : plain);",
    ),
    mutant(
        "C++: value clipping takes the smaller loss",
        f"{_CPP}objective.cpp",
        f"{NATIVE}::test_losses_and_gradients",
        "grad = square >= near_square ? off : inside;\n"
        "      square = square >= near_square ? square : near_square;",
        "grad = square <= near_square ? off : inside;\n"
        "      square = square <= near_square ? square : near_square;",
    ),
    mutant(
        "C++: entropy is made small",
        f"{_CPP}objective.cpp",
        f"{NATIVE}::test_losses_and_gradients",
        "static_cast<float>(-objective.ent_coef / count);\n  const float grad_kl",
        "static_cast<float>(objective.ent_coef / count);\n  const float grad_kl",
    ),
    mutant(
        "C++: Adam's epsilon is added before the bias is corrected",
        f"{_CPP}adam.cpp",
        f"{NATIVE}::test_a_step_of_adam",
        "(root(v) * s.root_scale + s.eps)",
        "((root(v) + s.eps) * s.root_scale)",
    ),
    mutant(
        "C++: the gradient is not clipped",
        f"{_CPP}improve.cpp",
        f"{NATIVE}::test_a_step_of_adam",
        "clips ? static_cast<float>(plan.max_grad_norm / (norm + 1e-6)) : 1.0f",
        "clips ? 1.0f : 1.0f",
    ),
    mutant(
        "C++: the KL stops the epochs after the step",
        f"{_CPP}improve.cpp",
        f"{NATIVE}::test_the_kl_stops_at_the_same_minibatch",
        "      if (plan_.target_kl >= 0 && report[kApproxKl] > 1.5 * plan_.target_kl) return;\n",
        "",
        "      ++outcome.num_updates;\n",
        "      ++outcome.num_updates;\n"
        "      if (plan_.target_kl >= 0 && report[kApproxKl] > 1.5 * plan_.target_kl) return;\n",
    ),
    mutant(
        "C++: variances of two blocks are merged without the distance of their means",
        f"{_CPP}moments.cpp",
        f"{NATIVE}::test_observations_are_merged_to_the_bits_of_numpy",
        "m2[d] = m2[d] + m2s[at] + delta * delta * (count * rows / total);",
        "m2[d] = m2[d] + m2s[at];",
    ),
]

MUTANTS: list[Mutant] = [
    *ESTIMATES,
    *OBJECTIVES,
    *UPDATES,
    *WORLD,
    *NORMALISERS,
    *RESUMING,
    *RELATIVES,
    *COMPILED,
]
