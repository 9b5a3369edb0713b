"""What a user holds: an environment in, an agent that trains, plays, is examined, saved and loaded.

There is one class, `Agent`; `PPO` and its relatives name the algorithm that trains it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch

from clipper import agent_file
from clipper.action_layout import ActionLayout
from clipper.agent_play import PlayingAgent
from clipper.checkpoint import Arrays, Checkpoint, without_prefix
from clipper.config import ActorCriticConfig, Config
from clipper.configs import CONFIGS
from clipper.engine.devices import (
    as_torch_begins,
    check_device,
    check_precision,
    long_lived_objects_left_alone,
    one_thread_if_small,
)
from clipper.envs.building import Wrapper
from clipper.envs.make import EnvLike, EnvSource, env_source
from clipper.envs.vector import spaces_of
from clipper.errors import ConfigError
from clipper.identity import Identity, check_seed, describe_env
from clipper.memory_need import check_memory
from clipper.playground import Playground
from clipper.policies.actor_critic import ActorCritic
from clipper.policies.build import ModuleLike, build_policy
from clipper.policies.networks import initial_log_std, mlp_shape
from clipper.presets import choose_preset
from clipper.profiling import NO_STOPWATCH, Stopwatch
from clipper.progress import ProgressDisplay
from clipper.run_folder import RunFolder, writable_path
from clipper.setting_values import read_duration, read_value
from clipper.spaces import ObservationLayout
from clipper.stepping import Stepping
from clipper.training_report import Callback, Outcome, StopRules
from clipper.training_run import TrainingRun

_LOG = logging.getLogger("clipper")
# settings of the default networks, which a module of the user's has no use for
_OF_NETWORK = (
    "hidden_sizes",
    "value_hidden_sizes",
    "activation",
    "shared_torso",
    "hidden_gain",
    "policy_gain",
    "value_gain",
    "cnn",
    "cnn_features",
)


class Agent(PlayingAgent):
    """An agent for an environment: `PPO("CartPole-v1", seed=1).train()`.

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
            with `forward(obs [M, D]) -> (params [M, P], values [M])`; images come as [M, C, H, W], see
            docs/reference/own-network.md.
        device: `cpu`, `cuda` or `cuda:N`.
        workers: Worker processes that step environments beside this one, or `auto`; what is learnt
            does not depend on it.
        vectorization: What steps environments: `native` the engine, without Python (libraries and
            the classic tasks), `gymnasium` Python, `auto` the engine for libraries alone.
        isolate: Steps environments in worker processes alone (one at least), which a crash of theirs
            takes down in place of this one; periodic evaluations and `evaluate` too.
        env_timeout: Seconds after which a step in a worker counts as hanging and the worker is
            replaced, or as `10min`; None for the larger of 10 s and 20 times the 99th percentile.
        **config: Any field of the algorithm's config (`PPOConfig`); it overrides the preset.

    Attributes:
        algorithm: Name of the algorithm, as in `--algo`.

    Raises:
        EnvironmentUnknown: There is no environment of that name.
        EnvironmentFault: It cannot be built.
        SpaceError: Its spaces are not supported.
        ConfigError: A setting is unknown or wrong.
    """

    algorithm = "ppo"

    @as_torch_begins()
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
        env_timeout: float | str | None = None,
        **config: Any,
    ) -> None:
        source = env_source(
            env, env_kwargs=env_kwargs, max_episode_steps=max_episode_steps, wrappers=wrappers
        ).with_settings(config)
        obs_layout, action_layout, limit = spaces_of(source)
        chosen = choose_preset(
            preset,
            source.name,
            action_layout.is_continuous,
            limit,
            self.algorithm,
            images=obs_layout.kind_of_images,
        )
        if module is not None:
            _tell_unused(config)
        if source.instance is not None:
            if config.get("num_envs", 1) != 1:
                raise ConfigError(
                    f"num_envs must be 1 when env is an instance, but is {config['num_envs']}.",
                    hint="give a callable that makes environments, for example lambda: MyEnv().",
                )
            config = _for_one_env(chosen.config(), config)
        identity = Identity(
            env=describe_env(source),
            preset=chosen.name,
            seed=check_seed(seed),
            config=chosen.config(**config),
            has_module=module is not None,
            algorithm=self.algorithm,
        )
        check_memory(identity.config, obs_layout, action_layout)
        playground = Playground(
            source.with_settings(identity.config.to_json()),
            identity.env,
            identity.seed,
            identity.config,
            Stepping().replaced(
                workers=workers,
                vectorization=vectorization,
                isolate=isolate,
                env_timeout=env_timeout,
            ),
        )
        playground.episode_limit = limit
        where = check_device(device)
        check_precision(identity.config.precision, where)
        self._adopt(identity, (obs_layout, action_layout), module, where, playground)
        # a preset's number of steps is advice; one that was given ends a run with a budget of time
        self._has_step_limit = "total_timesteps" in config

    def _adopt(
        self,
        identity: Identity,
        layouts: tuple[ObservationLayout, ActionLayout],
        module: ModuleLike | None,
        device: torch.device,
        playground: Playground,
    ) -> None:
        self._playground = playground
        self._num_acts = 0
        self._has_step_limit = True
        self._weights_from: str | None = None
        config = identity.config
        self.policy: ActorCritic = build_policy(
            *layouts,
            mlp_shape(config),
            module=module,
            seed=identity.seed,
            log_std_init=initial_log_std(config),
            normalize_obs=config.normalize_obs,
        ).to(device)
        self.policy.use_precision(config.precision)
        self._run = TrainingRun(identity, self.policy, self._playground)

    @as_torch_begins()
    def train(
        self,
        total_timesteps: int | None = None,
        *,
        until: float | None = None,
        budget: float | str | None = None,
        run_dir: str | Path | None = None,
        callback: Callback | Sequence[Callback] | None = None,
        progress: bool = True,
        profile: bool = False,
        checkpoint_every: int | None = None,
        checkpoint_minutes: float | None = None,
        keep: int | None = None,
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
            run_dir: New folder for the run's files; without it nothing is written. A second call and
                a resumed run go on in the run's own folder.
            callback: Called with a `Report` after every iteration, or several that are; return False
                or call `report.stop()` to end, `report.log(name, value)` to add a number.
            progress: Show the engine and progress on stderr.
            profile: Measure where the time goes: `Outcome.profile`, which prints as a table, and
                `profile.csv` and `profile.png` in the run's folder. Costs a little time.
            checkpoint_every: Writes a checkpoint after the iteration that passes each multiple of so
                many transitions; 0 for never, None for the run's own rule (at first never).
            checkpoint_minutes: Writes one when the last is older than so many minutes; 0 for never,
                None for the run's own rule (at first 0.5).
            keep: Checkpoints that stay, at least 1; None for the run's own number (at first 2).

        Raises:
            ConfigError: A setting is wrong, or a callback calls this.
            EnvironmentFault: An environment raised; what was learnt before is kept.
            NumericsError: A number is not finite; what was learnt before is kept.
            FileError: The folder cannot be written at the start or at the end; in between the run goes
                on without, and tries again.
        """
        self._run.check_idle("train")
        callbacks = _read_callbacks(callback)
        if until is not None:
            until = read_value("until", float, until)
            if not math.isfinite(until):
                raise ConfigError(f"until must be a finite number, but is {until}.")
        self._playground.require()  # before a folder is written
        has_step_limit = total_timesteps is not None or self._has_step_limit
        rules = StopRules(
            until=until,
            budget_seconds=None if budget is None else read_duration("budget", budget),
            has_step_limit=budget is None or has_step_limit,
        )
        if total_timesteps is not None and total_timesteps != self.config.total_timesteps:
            self._run.rebudget(total_timesteps)
        self._run.use_checkpoints(
            checkpoint_every=checkpoint_every, checkpoint_minutes=checkpoint_minutes, keep=keep
        )
        profiler = Stopwatch() if profile else NO_STOPWATCH
        if run_dir is not None:
            self._run.open_folder(writable_path(run_dir), self.describe())
        else:
            self._run.go_on_in_folder()
        try:
            with one_thread_if_small(self.policy), long_lived_objects_left_alone():
                if not progress:
                    return self._run.train(rules, callbacks, profiler)
                with ProgressDisplay(self.describe_engine()) as display:
                    return self._run.train(rules, [*callbacks, display], profiler)
        finally:
            self._run.close_folder()

    @as_torch_begins()
    def save(self, path: str | Path) -> None:
        """Writes the agent as one `.safetensors` file: data only, normaliser included.

        Raises:
            ConfigError: The suffix is another one.
            FileError: The file cannot be written.
        """
        self.policy.hold()
        agent_file.write(Path(path), self.policy, self._run.describe())

    @as_torch_begins()
    def init_from(self, path: str | Path) -> None:
        """Takes over the weights and normaliser of an agent file as the starting point.

        Args:
            path: An agent file, or a run folder (then its last agent).

        Raises:
            ConfigError: Training has begun already.
            FileError: The file's network does not have the same shape.
        """
        if self._run.state.step:
            raise ConfigError(
                "init_from must come before training, but steps were trained already."
            )
        arrays, _ = agent_file.read(agent_file.last_agent(Path(path)))
        agent_file.load_policy(self.policy, without_prefix("policy", arrays), str(path))
        self._run.begin_at_policy()
        self._run.state.alarms.begins_trained = True
        self._weights_from = str(path)

    def close(self) -> None:
        """Closes the environments, and the folder of a resumed run that was not trained on.

        Raises:
            ConfigError: A callback of `train` calls this.
        """
        self._run.check_idle("close")
        self._run.state.note_inexact(self._playground.put_away())
        self._run.close_folder()

    def check_spaces(self) -> None:
        """Raises SpaceError unless its environments have the spaces it was trained in."""
        self._playground.check_spaces()

    def go_on_from(self, folder: RunFolder, checkpoint: Checkpoint) -> None:
        """Takes over all that a checkpoint holds and goes on writing its folder."""
        self._run.go_on_from(folder, checkpoint)

    @classmethod
    @as_torch_begins()
    def restored(
        cls,
        meta: Mapping[str, Any],
        arrays: Arrays,
        where: str,
        source: EnvSource | None,
        module: ModuleLike | None,
        device: str,
        stepping: Stepping,
    ) -> Self:
        """Returns an agent built from what an agent file says, with its weights."""
        layouts = agent_file.layouts(meta, arrays, where)
        agent = cls.__new__(cls)
        if meta["module"] == "user" and module is None:
            raise needs_module(where)
        identity = Identity(
            env=meta["env"],
            preset=meta["preset"],
            seed=meta["seed"],
            config=CONFIGS[meta["algorithm"]].from_json(meta["config"]),
            has_module=module is not None,
            algorithm=meta["algorithm"],
        )
        playground = Playground(source, identity.env, identity.seed, identity.config, stepping)
        playground.expect(*(layout.space for layout in layouts))
        agent._adopt(identity, layouts, module, check_device(device), playground)
        agent_file.load_policy(agent.policy, without_prefix("policy", arrays), where)
        agent._run.begin_at_policy()
        # nobody knows whether the number of steps was a preset's advice: time alone ends it if given
        agent._has_step_limit = False
        agent._run.state.step = meta["step"]
        if not meta["exact"]:
            why = f": {meta['inexact']}" if meta.get("inexact") else ""
            agent._run.state.inexact = f"the run that the agent was saved from was not exact{why}"
        agent._run.origin = f"training went on from {where}, which holds no optimiser state"
        return agent


def _tell_unused(config: Mapping[str, Any]) -> None:
    """Says which settings of the default networks were given beside a module of the user's."""
    for name in _OF_NETWORK:
        if name in config:
            _LOG.warning("%s is not used: the module has layers of its own", name)


def needs_module(where: str) -> ConfigError:
    """Returns the error of an agent whose network is the user's and was not given."""
    return ConfigError(
        f"{where} was trained with a module of the user's, which must be given to load it.",
        hint="in Python: clipper.load(path, module=MyModule(...)), or clipper.resume(run, module=...) "
        "to go on with a run.",
    )


def _read_callbacks(given: Any) -> list[Callback]:
    """Returns the callbacks of one run.

    Raises:
        ConfigError: They are none.
    """
    found = [given] if callable(given) else [] if given is None else given
    if not isinstance(found, list | tuple) or not all(map(callable, found)):
        raise ConfigError(
            f"callback must be a function of a report, or a list of such, but is {given!r:.80}."
        )
    return list(found)


def _for_one_env(config: Config, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings for a single environment with the rollout as large as before."""
    if not isinstance(config, ActorCriticConfig):
        return {**given, "num_envs": 1}
    steps = given.get("num_steps", config.rollout_size)
    return {**given, "num_envs": 1, "num_steps": steps}
