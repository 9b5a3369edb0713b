"""What a user holds: an environment in, an agent that trains, plays, is examined, saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from clipper import agent_file
from clipper.algorithms.ppo import PPO as PPOAlgorithm
from clipper.checkpoint import Arrays, Checkpoint, without_prefix
from clipper.config import PPOConfig
from clipper.engine.devices import (
    check_device,
    long_lived_objects_left_alone,
    one_thread_if_small,
)
from clipper.engine.native_envs import is_native, local_sampler
from clipper.envs.make import EnvLike, EnvSource, Wrapper, env_source
from clipper.envs.vector import spaces_of
from clipper.errors import ConfigError, EnvironmentFault, FileError
from clipper.evaluation import SELECTION, Evaluation, evaluate
from clipper.filming import film
from clipper.identity import Identity, check_seed, describe_env
from clipper.metrics import Metrics
from clipper.policies.actor_critic import ActorCritic, ModuleLike, build_policy
from clipper.policies.networks import mlp_shape
from clipper.presets import GENERIC, choose_preset, preset_of_other_version
from clipper.progress import ProgressDisplay
from clipper.randomness import Purpose, normal, uniform
from clipper.rollout import LocalSampler, SamplerMark
from clipper.run_folder import RunFolder, versions
from clipper.run_keeper import RunKeeper
from clipper.settings import read_duration
from clipper.spaces import ActionLayout, ObservationLayout, describe_space
from clipper.training import Callback, Outcome, StopRules, Trainer, TrainingState
from clipper.worker_choice import choose_workers, read_workers
from clipper.workers import ProcessSampler, share_out

# a discount whose horizon is so many times longer or shorter than an episode is remarked upon
_FAR_OFF = 25


class PPO:
    """A PPO agent for an environment: `PPO("CartPole-v1", seed=1).train()`.

    Args:
        env: Gymnasium id, `module:EnvId`, the file of a shared library with `clipper_env.h`'s
            functions (`./libgame.so`), a callable that makes an environment, or an environment
            (then the run has that one alone, in this process).
        seed: Everything random in the run is a function of it, 0 to 2^63 - 1.
        preset: Name of a preset, `none` for plain defaults, or None for the environment's own.
        env_kwargs: Keyword arguments of the environment.
        max_episode_steps: Truncates episodes after so many steps, in place of the registered limit.
        wrappers: Callables env -> env, applied in order.
        module: The network: an `nn.Module` or a callable `(obs_size, num_outputs) -> nn.Module`
            with `forward(obs [M, D]) -> (params [M, P], values [M])`; see `clipper.policies`.
        device: `cpu`, `cuda` or `cuda:N`.
        workers: Worker processes that step environments beside this one, or `auto`; what is learnt
            does not depend on it.
        vectorization: What steps environments: `native` the engine, without Python (libraries and
            the classic tasks), `gymnasium` Python, `auto` the engine for libraries alone.
        isolate: Steps environments in worker processes alone (one at least), which a crash of theirs
            takes down in place of this one; periodic evaluations and `evaluate` too.
        **config: Any field of `PPOConfig`; it overrides the preset.

    Raises:
        EnvironmentUnknown: There is no environment of that name.
        EnvironmentFault: It cannot be built.
        SpaceError: Its spaces are not supported.
        ConfigError: A setting is unknown or wrong.
    """

    def __init__(
        self,
        env: EnvLike,
        *,
        seed: int = 0,
        preset: str | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        max_episode_steps: int | None = None,
        wrappers: Sequence[Wrapper] = (),
        module: ModuleLike | None = None,
        device: str = "cpu",
        workers: int | str = 0,
        vectorization: str = "auto",
        isolate: bool = False,
        **config: Any,
    ) -> None:
        source = env_source(
            env, env_kwargs=env_kwargs, max_episode_steps=max_episode_steps, wrappers=wrappers
        )
        obs_layout, action_layout, limit = spaces_of(source)
        self._episode_limit = limit
        chosen = choose_preset(preset, source.name, action_layout.is_continuous, limit)
        if source.instance is not None:
            if config.get("num_envs", 1) != 1:
                raise ConfigError(
                    f"num_envs must be 1 when env is an instance, but is {config['num_envs']}.",
                    hint="give a callable that makes environments, for example lambda: MyEnv().",
                )
            config = _for_one_env({**chosen.settings, **config}, config)
        identity = Identity(
            env=describe_env(source),
            preset=chosen.name,
            seed=check_seed(seed),
            config=chosen.config(**config),
            has_module=module is not None,
        )
        self._adopt(
            identity,
            source,
            obs_layout,
            action_layout,
            module,
            check_device(device),
            workers,
            vectorization,
            isolate,
        )
        # a preset's number of steps is advice; one that was given ends a run with a budget of time
        self._has_step_limit = "total_timesteps" in config

    def _adopt(
        self,
        identity: Identity,
        source: EnvSource | None,
        obs_layout: ObservationLayout,
        action_layout: ActionLayout,
        module: ModuleLike | None,
        device: torch.device,
        workers: int | str,
        vectorization: str,
        is_isolated: bool,
    ) -> None:
        self._workers = read_workers(workers)
        self._is_isolated = is_isolated
        if is_isolated and self._workers is not None:
            self._workers = max(1, self._workers)
        if self._workers:
            share_out(identity.config.num_envs, self._workers, is_isolated)
        self._vectorization = vectorization
        self._is_native = source is not None and is_native(source, vectorization)
        self._identity = identity
        self._source = source
        self._state = TrainingState(next_evaluation=identity.config.evaluation_interval)
        self._sampler: LocalSampler | ProcessSampler | None = None
        self._sampler_state: Mapping[str, NDArray[Any]] | None = None
        self._num_acts = 0
        self._has_step_limit = True
        self._why_workers = ""
        self._origin: str | None = None  # where the weights of a loaded agent come from
        self._weights_from: str | None = None
        self._store: RunKeeper | None = None
        config = identity.config
        self.policy: ActorCritic = build_policy(
            obs_layout,
            action_layout,
            mlp_shape(config),
            module=module,
            seed=identity.seed,
            log_std_init=config.log_std_init,
            normalize_obs=config.normalize_obs,
        ).to(device)
        self._algorithm = PPOAlgorithm(self.policy, config, config.num_envs, identity.seed)

    @property
    def config(self) -> PPOConfig:
        """The settings."""
        return self._identity.config

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self._identity.seed

    @property
    def preset(self) -> str:
        """Name of the preset the settings came from."""
        return self._identity.preset

    @property
    def env(self) -> str:
        """Name of the environment."""
        return str(self._identity.env["name"])

    @property
    def step(self) -> int:
        """Transitions trained on so far."""
        return self._state.step

    @property
    def engine(self) -> str:
        """What computes: `reference`, or `native` and the instruction set, as `native avx2`."""
        return self._algorithm.engine.describe()

    @property
    def inexact(self) -> str | None:
        """Why this run is not bit for bit the uninterrupted one, or None if it is."""
        return self._state.inexact

    @property
    def best(self) -> float | None:
        """Best mean return of the periodic evaluations, or None before the first."""
        return self._state.best

    def warnings(self) -> list[str]:
        """Returns what looks wrong before training: a discount or a preset that does not fit."""
        found = []
        if self.preset in GENERIC and (tuned := preset_of_other_version(self.env)) is not None:
            found.append(
                f"the settings are generic; --preset {tuned} takes those tuned for {tuned}"
            )
        limit, gamma = self._episode_limit, self.config.gamma
        if limit is None and self.config.evaluation_interval:
            found.append(
                "episodes have no limit: periodic evaluations cut them after "
                f"{max(1, self.config.evaluation_interval // self.config.eval_episodes):,} steps; "
                "--max-episode-steps sets one"
            )
        horizon = 1.0 / (1.0 - gamma) if gamma < 1 else float("inf")
        if limit is not None and not 1 / _FAR_OFF <= horizon / limit <= _FAR_OFF:
            found.append(
                f"gamma {gamma:g} looks about {horizon:,.0f} steps ahead, "
                f"but episodes last up to {limit:,}"
            )
        return found

    def describe(self) -> list[str]:
        """Returns lines that name the spaces and every transform of observations and actions."""
        policy, config = self.policy, self.config
        lines = [
            f"observations: {describe_space(policy.obs_layout.space)}",
            f"actions: {describe_space(policy.action_layout.space)}",
            *policy.obs_layout.describe(),
            *policy.action_layout.describe(),
        ]
        if policy.normalizer is not None:
            lines.append("observations: normalised by running mean and deviation, clipped at 10")
        if self._source is not None and self._source.is_fresh_per_episode:
            lines.append("episodes: each in a new environment, whose seed alone decides it")
        if self._source is not None:
            if self._is_native:
                lines.append("environments: stepped by the engine, without Python")
            number, reason = self._num_workers()
            if number or reason:
                lines.append(f"workers: {number}" + (f", {reason}" if reason else ""))
        if self._weights_from is not None:
            lines.append(f"weights: taken from {self._weights_from}")
        if config.normalize_reward:
            lines.append(
                "rewards: divided by the deviation of the discounted return, clipped at 10"
            )
        return lines

    def describe_engine(self) -> str:
        """Returns the line that names the engine, and why if it is not the native one."""
        return self._algorithm.describe_engine()

    def train(
        self,
        total_timesteps: int | None = None,
        *,
        until: float | None = None,
        budget: float | str | None = None,
        run_dir: str | Path | None = None,
        callback: Callback | Sequence[Callback] = (),
        progress: bool = True,
    ) -> Outcome:
        """Trains until `total_timesteps` transitions are done and returns how it ended.

        Ctrl-C stops cleanly: the agent is that of the last finished iteration, and `train` can be
        called again to go on.

        Args:
            total_timesteps: Transitions over all environments, absolute: a second call with a
                larger number goes on. None for the setting's.
            until: Ends when the mean return of the last 100 training episodes reaches it.
            budget: Training time, in seconds or as `10min`; schedules then follow the time, and
                steps end the run only if `total_timesteps` was given.
            run_dir: New folder for the run's files; without it nothing is written. A resumed run
                goes on in its own folder.
            callback: Called with a `Report` after every iteration; return False or call
                `report.stop()` to end, `report.log(name, value)` to add a number.
            progress: Show the engine and progress on stderr.

        Raises:
            ConfigError: A setting is wrong.
            EnvironmentFault: An environment raised; what was learnt before is kept.
            NumericsError: A number is not finite; what was learnt before is kept.
            FileError: The folder cannot be written.
        """
        has_step_limit = total_timesteps is not None or self._has_step_limit
        rules = StopRules(
            until=until,
            budget_seconds=None if budget is None else read_duration("budget", budget),
            has_step_limit=budget is None or has_step_limit,
        )
        if total_timesteps not in (None, self.config.total_timesteps):
            self._rebudget(total_timesteps)
        callbacks = [callback] if callable(callback) else list(callback)
        if self._origin is not None:
            self._state.inexact = self._state.inexact or self._origin
        if run_dir is not None:
            self._open_run(Path(run_dir))
        elif self._store is not None:
            self._store.go_on(self.step)
        try:
            with one_thread_if_small(self.policy), long_lived_objects_left_alone():
                if not progress:
                    return self._train(rules, callbacks)
                with ProgressDisplay(self.describe_engine()) as display:
                    return self._train(rules, [*callbacks, display])
        finally:
            self._close_run()

    def _train(self, rules: StopRules, observers: Sequence[Callback]) -> Outcome:
        sampler = self._ready_sampler()
        can_evaluate = self.config.evaluation_interval > 0 and self._source_now().instance is None
        trainer = Trainer(
            self._algorithm,
            sampler,
            self._state,
            evaluate=self._selection_scores if can_evaluate else None,
            keeper=self._store,
            observers=observers,
        )
        try:
            outcome = trainer.run(rules)
        finally:
            if trainer.broken_at is not None:
                self._take_back(sampler, trainer.broken_at)
        if self._store is not None:
            self._store.finish(outcome)
        return outcome

    def _take_back(self, sampler: LocalSampler | ProcessSampler, mark: SamplerMark) -> None:
        """Brings the environments back to a point in time, on fresh ones when they are needed."""
        try:
            self._sampler_state = sampler.state_dict(mark)
        except EnvironmentFault as fault:
            self._note_inexact(f"environments began anew, for {fault.message}")
        self._drop_sampler()

    def _rebudget(self, total_timesteps: int | None) -> None:
        config = self.config.replace(total_timesteps=total_timesteps)
        if config.total_timesteps <= self._state.step:
            raise ConfigError(
                f"total_timesteps must be above the {self._state.step:,} steps that are done, "
                f"but is {config.total_timesteps:,}.",
                hint="it counts from the start of the run, steps done included.",
            )
        if self._state.step:
            self._note_inexact(
                f"total_timesteps changed from {self.config.total_timesteps:,} to "
                f"{config.total_timesteps:,} after {self._state.step:,} steps, and schedules with it"
            )
        self._identity = replace(self._identity, config=config)
        self._algorithm.config = config
        interval = config.evaluation_interval
        if interval:
            self._state.next_evaluation = self._state.step - self._state.step % interval + interval

    def _note_inexact(self, reason: str) -> None:
        """Adds a reason why this run is not bit for bit the uninterrupted one."""
        earlier = self._state.inexact
        self._state.inexact = reason if earlier is None else f"{earlier}; {reason}"

    def _selection_scores(self) -> Metrics:
        """Returns the periodic evaluation in both modes, on seeds of its own."""
        scores = {}
        for mode, deterministic in (("deterministic", True), ("stochastic", False)):
            result = self._examined(
                episodes=self.config.eval_episodes,
                seed=self.seed,
                deterministic=deterministic,
                purposes=SELECTION,
                # no longer than training itself, where nothing else ends an episode
                max_steps=self.config.evaluation_interval if self._episode_limit is None else None,
            )
            scores[f"eval/return_{mode}"] = result.mean
        return scores

    def evaluate(
        self, episodes: int = 100, *, seed: int = 0, deterministic: bool = True
    ) -> Evaluation:
        """Returns mean, standard deviation and 95 % interval of the return of fresh episodes.

        Args:
            episodes: How many to play.
            seed: The evaluation's own seed; the same seed plays the same episodes.
            deterministic: Take the most likely action, or sample as in training.
        """
        if episodes < 1:
            raise ConfigError(f"episodes must be at least 1, but is {episodes}.")
        source = self._source_now()
        if source.instance is not None and self._sampler is not None:
            # the examination plays on the training environment: bring it back afterwards
            self._sampler_state = self._sampler.state_dict()
            self._drop_sampler()
        with one_thread_if_small(self.policy):
            return self._examined(episodes=episodes, seed=seed, deterministic=deterministic)

    def _examined(self, **how: Any) -> Evaluation:
        """Returns what `evaluate` finds, in a worker if environments are isolated."""
        if self._is_isolated and isinstance(sampler := self._ready_sampler(), ProcessSampler):
            return sampler.call(evaluate, self.policy, **how)
        return evaluate(self.policy, self._source_now(), **how)

    def record(
        self,
        path: str | Path,
        *,
        episodes: int = 1,
        seed: int = 0,
        deterministic: bool = True,
    ) -> list[float]:
        """Writes a GIF or MP4 of fresh episodes and returns their returns.

        Args:
            path: Ends in `.gif` or `.mp4`.
            episodes: How many to play.
            seed: The evaluation's seed; the same episodes as `evaluate` with it.
            deterministic: Take the most likely action, or sample.

        Raises:
            ConfigError: The suffix is another one.
            EnvironmentFault: The environment does not render arrays.
            FileError: The file cannot be written.
        """
        source = self._source_now()
        if source.instance is not None:
            raise ConfigError(
                "record needs an environment that it can make with render_mode='rgb_array', "
                "but env is an instance.",
                hint="create the agent with a callable: PPO(lambda render_mode=None: MyEnv(...)).",
            )
        with one_thread_if_small(self.policy):
            return film(
                self.policy,
                source,
                path,
                episodes=episodes,
                seed=seed,
                deterministic=deterministic,
            )

    def act(self, obs: Any, *, deterministic: bool = True) -> Any:
        """Returns the action for one observation, or a list or array of actions for a batch.

        Args:
            obs: As the environment gives it, or with a leading batch axis on every part.
            deterministic: Take the most likely action, or sample.

        Returns:
            What `env.step` takes; for a batch an array with a leading axis.

        Raises:
            SpaceError: The observation does not fit the space.
        """
        layout = self.policy.obs_layout
        rows = layout.rows(obs)
        noise = None
        if not deterministic:
            draw = normal if self.policy.distribution.noise == "normal" else uniform
            size = self.policy.distribution.noise_size
            index = np.arange(len(rows))
            noise = torch.from_numpy(
                draw(self.seed, Purpose.USER_ACTION, index, self._num_acts, size)
            )
            self._num_acts += 1
        with one_thread_if_small(self.policy):
            actions = self.policy.act(rows, noise)
        made = self.policy.action_layout.to_env(actions)
        if not layout.is_single(obs):
            return np.asarray(made)
        return int(made[0]) if self.policy.action_layout.kind == "discrete" else made[0]

    def save(self, path: str | Path) -> None:
        """Writes the agent as one `.safetensors` file: data only, normaliser included.

        Raises:
            ConfigError: The suffix is another one.
            FileError: The file cannot be written.
        """
        agent_file.write(Path(path), self.policy, self._meta())

    def _meta(self) -> dict[str, Any]:
        identity = self._identity
        return {
            "algorithm": "ppo",
            "env": dict(identity.env),
            "preset": identity.preset,
            "seed": identity.seed,
            "config": identity.config.to_json(),
            "module": "user" if identity.has_module else "mlp",
            "engine": self.engine,
            "step": self._state.step,
            "exact": self._state.inexact is None,
        }

    def init_from(self, path: str | Path) -> None:
        """Takes over the weights and normaliser of an agent file as the starting point.

        Args:
            path: An agent file, or a run folder (then its last agent).

        Raises:
            ConfigError: Training has begun already.
            FileError: The file's network does not have the same shape.
        """
        if self._state.step:
            raise ConfigError(
                "init_from must come before training, but steps were trained already."
            )
        arrays, _ = agent_file.read(agent_file.last_agent(Path(path)))
        agent_file.load_policy(self.policy, without_prefix("policy", arrays), str(path))
        self._weights_from = str(path)

    def _source_now(self) -> EnvSource:
        if self._source is None:
            name, is_named = self._identity.env["name"], self._identity.env["is_named"]
            hint = "name it with --env module:Name (Python: env=...)."
            if is_named:
                hint = "--trust-env (Python: trust_env=True) does it; only with files you trust."
            raise ConfigError(
                f"the agent needs its environment, but a module that a file names ({name}) "
                "is not imported unasked."
                if is_named
                else f"the agent needs its environment, but {name} cannot be made from its name.",
                hint=hint,
            )
        return self._source

    def _ready_sampler(self) -> LocalSampler | ProcessSampler:
        if self._sampler is None:
            source, seed = self._source_now(), self._identity.seed
            num_envs, num_workers = self.config.num_envs, self._num_workers()[0]
            how = self._vectorization
            if num_workers:
                self._sampler = ProcessSampler(
                    source,
                    num_envs,
                    num_workers,
                    seed,
                    self.policy,
                    self.config,
                    how,
                    self._is_isolated,
                )
            else:
                self._sampler = local_sampler(source, range(num_envs), seed, how)
            if self._sampler_state is not None:
                inexact = self._sampler.load_state_dict(self._sampler_state)
                self._state.inexact = self._state.inexact or inexact
                self._sampler_state = None
        return self._sampler

    def _num_workers(self) -> tuple[int, str]:
        """Returns how many workers step environments, and why if that was measured."""
        if self._workers is None:
            self._workers, self._why_workers = choose_workers(
                self._source_now(), self.config, self._vectorization
            )
            if self._is_isolated:
                self._workers = max(1, self._workers)
        return self._workers, self._why_workers

    def _drop_sampler(self) -> None:
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None

    def _open_run(self, path: Path) -> None:
        if self._store is not None:
            raise ConfigError(
                "run_dir must not be given when a resumed run goes on: it writes its own folder, "
                f"{self._store.folder.path}.",
                hint="load the agent file to start another run from it.",
            )
        if (path / "config.json").exists():
            raise FileError(
                f"{path} must not hold a run yet, but does.",
                hint=f"`clipper.resume({str(path)!r})` goes on with it.",
            )
        self._store = RunKeeper(RunFolder(path), self.policy, self._meta)
        self._store.begin(self.describe())

    def _close_run(self) -> None:
        if self._store is not None:
            self._store.folder.close()
            self._store = None

    def close(self) -> None:
        """Closes the environments, and the folder of a resumed run that was not trained on."""
        if self._sampler is not None:
            self._sampler_state = self._sampler.state_dict()
            self._drop_sampler()
        self._close_run()

    def continue_run(self, folder: RunFolder, checkpoint: Checkpoint) -> None:
        """Takes over all that a checkpoint holds and goes on writing its folder."""
        agent_file.load_policy(
            self.policy, without_prefix("policy", checkpoint.agent), str(folder.path)
        )
        state = {
            part: {k: torch.from_numpy(v) for k, v in without_prefix(part, arrays).items()}
            for part, arrays in (
                ("policy", checkpoint.agent),
                ("engine", checkpoint.training),
                ("reward_scaler", checkpoint.training),
                ("counters", checkpoint.training),
            )
        }
        self._algorithm.load_state_dict(state)
        self._sampler_state = without_prefix("sampler", checkpoint.training)
        if self._source is not None:
            # a file says no more than what was asked for; evaluations go by the environment's own
            self._episode_limit = spaces_of(self._source)[2]
        data = dict(checkpoint.state)
        self._state = TrainingState.from_json(data["training"])
        self._origin = None
        self._state.inexact = self._state.inexact or _other_machine(checkpoint, self.policy.device)
        folder.cut_back(data["rows"])
        self._store = RunKeeper(folder, self.policy, self._meta)
        # runs of before there were engines were the reference's
        before = str(checkpoint.agent_meta.get("engine", "reference"))
        if before != self.engine:
            change = f"the engine changed from {before} to {self.engine} at step {self.step:,}"
            self._note_inexact(change)
            folder.log(change)

    @classmethod
    def restored(
        cls,
        meta: Mapping[str, Any],
        arrays: Arrays,
        where: str,
        source: EnvSource | None,
        module: ModuleLike | None,
        device: str,
        workers: int | str = 0,
        vectorization: str = "auto",
        isolate: bool = False,
    ) -> Self:
        """Returns an agent built from what an agent file says, with its weights."""
        obs_space, action_space = agent_file.spaces(meta, arrays, where)
        agent = cls.__new__(cls)
        agent._episode_limit = meta["env"]["max_episode_steps"]
        if meta["module"] == "user" and module is None:
            raise ConfigError(
                f"{where} was trained with a module of the user's, which must be given to load it.",
                hint="load(path, module=MyModule(...)).",
            )
        identity = Identity(
            env=meta["env"],
            preset=meta["preset"],
            seed=meta["seed"],
            config=PPOConfig.from_json(meta["config"]),
            has_module=module is not None,
        )
        agent._adopt(
            identity,
            source,
            ObservationLayout(obs_space),
            ActionLayout(action_space),
            module,
            check_device(device),
            workers,
            vectorization,
            isolate,
        )
        agent_file.load_policy(agent.policy, without_prefix("policy", arrays), where)
        agent._state.step = meta["step"]
        if not meta["exact"]:
            agent._state.inexact = "the run that the agent was saved from was not exact"
        agent._origin = f"training went on from {where}, which holds no optimiser state"
        return agent


def _other_machine(checkpoint: Checkpoint, device: torch.device) -> str | None:
    """Returns what differs from where a checkpoint was written and changes bits, or None."""
    before, now = checkpoint.agent_meta["versions"], versions()
    changed = [f"{k} {before.get(k)} -> {v}" for k, v in now.items() if before.get(k) != v]
    saved_on = checkpoint.state.get("device", str(device))
    if saved_on != str(device):
        changed.append(f"device {saved_on} -> {device}")
    return f"the run went on with {', '.join(changed)}" if changed else None


def _for_one_env(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings for a single environment with the rollout as large as before."""
    config = PPOConfig().replace(**settings)
    steps = given.get("num_steps", config.rollout_size)
    return {**given, "num_envs": 1, "num_steps": steps}
