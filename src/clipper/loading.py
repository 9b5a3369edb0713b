"""Files and run folders in, agents out; no code in or named by a file is run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipper import agent_file
from clipper.agent import Agent, needs_module
from clipper.agents import AGENTS
from clipper.checkpoint import read_checkpoint
from clipper.configs import CONFIGS
from clipper.engine.devices import as_torch_begins
from clipper.envs.make import EnvLike, EnvSource, env_source
from clipper.envs.names import needs_trust
from clipper.errors import ConfigError, EnvironmentUnknown
from clipper.policies.build import ModuleLike
from clipper.run_config import check_same_run
from clipper.run_folder import RunFolder, read_config
from clipper.run_keeper import stepping_of
from clipper.stepping import Stepping
from clipper.tensor_files import read_head

_LOG = logging.getLogger("clipper")


@as_torch_begins()
def load(
    path: str | Path,
    *,
    module: ModuleLike | None = None,
    env: EnvLike | None = None,
    trust_env: bool = False,
    device: str = "cpu",
    isolate: bool = False,
    env_timeout: float | str | None = None,
) -> Agent:
    """Returns the agent that a `.safetensors` file holds; no code in or named by it is run.

    Args:
        path: An agent file, or a run folder (then its last agent).
        module: The network, if the agent was trained with a module of the user's.
        env: The environment to play in; None for the one the file names, if Gymnasium knows it.
        trust_env: Import the module of a `module:EnvId` that the file names, and hand its environment
            arguments that may name files.
        device: `cpu`, `cuda` or `cuda:N`.
        isolate: Plays in another process, so that a crash of the environment's is an error here.
        env_timeout: Seconds after which a step there counts as hanging, or as `10min`.

    Raises:
        FileError: It is missing, damaged or of another format, or its examples do not come out.
        ConfigError: The agent needs a module that was not given.
    """
    file = agent_file.last_agent(Path(path))
    if module is None and read_head(file)[0].get("module") == "user":
        # before its tensors are read: nobody knows how large a network of the user's may be
        raise needs_module(str(file))
    arrays, meta = agent_file.read(file)
    source = _source_of(meta, env, trust_env)
    agent = AGENTS[meta["algorithm"]].restored(
        meta,
        arrays,
        str(file),
        source,
        module,
        device,
        Stepping().replaced(isolate=isolate, env_timeout=env_timeout),
    )
    if source is not None and env is not None:
        agent.check_spaces()
    agent_file.check_examples(agent.policy, arrays, str(file))
    return agent


@as_torch_begins()
def resume(
    run_dir: str | Path,
    *,
    module: ModuleLike | None = None,
    env: EnvLike | None = None,
    trust_env: bool = False,
    device: str = "cpu",
    engine: str | None = None,
    workers: int | str | None = None,
    vectorization: str | None = None,
    isolate: bool | None = None,
    env_timeout: float | str | None = None,
    on_nonfinite: str | None = None,
    eval_every: int | str | None = None,
) -> Agent:
    """Returns the agent of a run at its last checkpoint; its `train` goes on where the run stopped.

    Args:
        run_dir: The run folder; it goes on being written.
        module: The network, if the run was trained with a module of the user's.
        env: The environment, if the run's was a callable.
        trust_env: Import the module of a `module:EnvId` that the folder names, and hand its
            environment arguments that may name files.
        device: `cpu`, `cuda` or `cuda:N`.
        engine: `auto`, `native` or `reference`; None for the run's setting. Another engine than
            before rounds differently, which is reported as `exact: false`.
        workers: Worker processes, or `auto`; None for as many as the run had. With the native engine
            what is learnt does not depend on it; torch rounds by how environments are shared out, and
            another number is reported as `exact: false` then.
        vectorization: What steps environments: `native`, `gymnasium` or `auto`; None for the run's.
        isolate: Steps environments in worker processes alone, so that a crash of theirs is theirs;
            None for as the run did.
        env_timeout: Seconds after which a step in a worker counts as hanging, or as `10min`; None for
            the run's.
        on_nonfinite: What an environment's NaN or infinity does from now on: `stop` or
            `drop-episode`; None for the run's.
        eval_every: Steps between periodic evaluations from now on, 0 for never; None for the run's.

    Raises:
        ConfigError: The engine does not cover the policy, or a setting is wrong.
        FileError: There is no run, no complete checkpoint, or another process writes it.
    """
    path = Path(run_dir)
    stepping = stepping_of(path).replaced(
        workers=workers, vectorization=vectorization, isolate=isolate, env_timeout=env_timeout
    )
    folder = RunFolder(path)
    try:
        checkpoint, problems = read_checkpoint(folder.checkpoints)
        for problem in problems:
            folder.log(f"damaged checkpoint set aside: {problem}")
            _LOG.warning("damaged checkpoint set aside: %s", problem)
        meta = agent_file.check_meta(dict(checkpoint.agent_meta), str(path))
        agent_file.check_names(checkpoint.agent, str(path))
        check_same_run(read_config(path), meta, str(path))
        given = {"engine": engine, "on_nonfinite": on_nonfinite, "eval_every": eval_every}
        changed = {name: value for name, value in given.items() if value is not None}
        CONFIGS[meta["algorithm"]].check_values(changed)
        meta = {**meta, "config": {**meta["config"], **changed}}
        source = _source_of(meta, env, trust_env)
        agent = AGENTS[meta["algorithm"]].restored(
            meta,
            checkpoint.agent,
            str(path),
            source,
            module,
            device,
            stepping,
        )
        if source is not None and env is not None:
            agent.check_spaces()
        if module is not None:  # it may be another one, with tensors of the same shapes
            agent_file.check_examples(agent.policy, checkpoint.agent, str(path))
        agent.go_on_from(folder, checkpoint)
    except BaseException:
        folder.close()
        raise
    return agent


def _source_of(meta: Mapping[str, Any], given: EnvLike | None, trust_env: bool) -> EnvSource | None:
    """Returns where a saved agent's environments come from, or None if they cannot be made."""
    found = _env_of(meta["env"], given, trust_env)
    return None if found is None else found.with_settings(meta["config"])


def _check_whole(env: Mapping[str, Any], given: EnvLike) -> None:
    """Raises if the environment that is given is the bare one of an agent's, whose had more."""
    name = given if isinstance(given, str) else getattr(given, "__qualname__", None)
    if env.get("lost") and name == env["name"]:
        raise ConfigError(
            f"the agent's environment was made with {' and '.join(env['lost'])}, which no file holds, "
            f"and {name} alone is another one.",
            hint="give what makes it whole: env=lambda: ..., or --env module:Name of such a function.",
        )


def _env_of(env: Mapping[str, Any], given: EnvLike | None, trust_env: bool) -> EnvSource | None:
    kwargs, limit = env["kwargs"], env["max_episode_steps"]
    if given is not None:
        _check_whole(env, given)
        # arguments of another environment are not those of a callable
        if not (isinstance(given, str) or (callable(given) and not env["is_named"])):
            kwargs = None
        if kwargs and needs_trust("", kwargs) and not trust_env:
            raise ConfigError(
                "the environment's arguments are those of the file, and one that may name another "
                "file is not taken unasked.",
                hint="trust_env=True (--trust-env) does it; only with files you trust.",
            )
        return env_source(given, env_kwargs=kwargs, max_episode_steps=limit)
    asks_trust = needs_trust(env["name"], kwargs)
    if not env["is_named"] or (asks_trust and not trust_env):
        return None
    try:
        return env_source(env["name"], env_kwargs=kwargs, max_episode_steps=limit)
    except EnvironmentUnknown:
        if asks_trust:
            raise  # it was asked for
        # it acts all the same, on a machine that has the agent and not the environment
        return None
