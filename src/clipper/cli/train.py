"""`clipper train`: an environment in, a run folder with a trained agent out."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from clipper.cli.arguments import (
    Parser,
    add_algorithm_argument,
    add_env_arguments,
    add_settings,
    add_training_arguments,
    given_checkpoints,
    given_settings,
    given_stepping,
    say,
    seed,
)
from clipper.configs import CONFIGS
from clipper.errors import ClipperError, ConfigError, FileError, FolderTaken
from clipper.setting_values import read_duration, show

if TYPE_CHECKING:
    from clipper.agent import Agent
    from clipper.training_report import Outcome

HELP = """Trains an agent with PPO, or another --algo, and keeps everything in a run folder.

Settings not given come from the environment's preset (`clipper presets ENV`); the defaults shown
are those without a preset. Ctrl-C stops cleanly; `clipper resume` goes on."""

# the last ones are printed in the summary; log.txt has all
_MOST_ALARMS = 5


def add_arguments(parser: Parser) -> None:
    """Adds the arguments; every setting of the algorithm that is asked for is a flag."""
    parser.add_argument(
        "env",
        metavar="ENV",
        help="Gymnasium id such as CartPole-v1, module:EnvId of your own, or a library ./libgame.so",
    )
    run = parser.add_argument_group("run")
    run.add_argument("--seed", type=seed, default=0, metavar="S", help="from 0 (0)")
    run.add_argument("--out", default="runs", metavar="DIR", help="folder of all runs (runs)")
    run.add_argument(
        "--name", metavar="NAME", help="name of the run, A-Za-z0-9._- (numbered: run1, run2, ...)"
    )
    add_algorithm_argument(run)
    run.add_argument("--preset", metavar="NAME", help="a preset's name, or none for plain defaults")
    run.add_argument(
        "--init-from", metavar="FILE", help="start from the weights of an agent file or run folder"
    )
    add_training_arguments(run)
    run.add_argument(
        "--tensorboard", action="store_true", help="write TensorBoard events as well (extra: track)"
    )
    add_env_arguments(parser)
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Trains and returns the exit code."""
    config = CONFIGS[args.algo]
    overrides = given_settings(args)
    # wrong settings are found before torch is imported and an environment is built
    config.check_values(overrides)
    from clipper.checkpoint import CheckpointRules

    CheckpointRules().replaced(**given_checkpoints(args))
    from clipper.envs.library import is_library
    from clipper.run_folder import check_name_free, folder_name, new_run_path

    if args.budget is not None:
        read_duration("budget", args.budget)
    # a library's runs stand together wherever it was named from
    env_folder = folder_name(Path(args.env).name if is_library(args.env) else args.env)
    if args.name is not None:
        check_name_free(Path(args.out), env_folder, args.name, args.seed)
    from clipper.agents import AGENTS

    agent = AGENTS[args.algo](
        args.env,
        seed=args.seed,
        preset=args.preset,
        env_kwargs=args.env_kwargs,
        max_episode_steps=args.max_episode_steps,
        device=args.device,
        **given_stepping(args),
        **overrides,
    )
    if args.init_from:
        agent.init_from(args.init_from)
    callbacks = []
    if args.tensorboard:
        from clipper.tensorboard import check_tensorboard

        check_tensorboard()
    path = new_run_path(Path(args.out), env_folder, args.name, args.seed)
    if args.tensorboard:
        from clipper.tensorboard import TensorBoardWriter

        callbacks.append(TensorBoardWriter(path))
    introduce(agent, path)
    with closed_and_kept(agent, path, is_new=True):
        outcome = agent.train(
            until=args.until,
            budget=args.budget,
            run_dir=path,
            callback=callbacks,
            progress=not args.quiet,
            profile=args.profile,
            **given_checkpoints(args),
        )
    return summarise(agent, outcome, path)


@contextmanager
def closed_and_kept(
    agent: Agent, path: Path, *, is_new: bool, env: str | None = None
) -> Iterator[None]:
    """Closes the environments; adds to an error of ours what was kept and how to go on.

    A new run of no steps is removed.

    Args:
        agent: What is trained.
        path: The run's folder.
        is_new: It is not a run that goes on.
        env: The environment that was given in place of the run's.
    """
    try:
        try:
            yield
        finally:
            agent.close()
    except ClipperError as error:
        kept = _kept_step(path)
        if kept and not isinstance(error, ConfigError):
            error.add_note(
                f"everything up to step {kept:,} is kept; "
                f"`clipper resume {shlex.quote(str(path))}{_env_flags(agent, env)}` goes on from there."
            )
        elif is_new and not isinstance(error, FolderTaken):
            if agent.step or any(path.glob("faults/*")):
                rest = f"what else was is in {path}" if path.exists() else f"{path} is gone"
                kind = "no checkpoint could be written" if agent.step else "nothing was learnt yet"
                error.add_note(f"{kind}; {rest}.")
            else:
                shutil.rmtree(path, ignore_errors=True)
                error.add_note(f"nothing was learnt yet, so {path} is removed.")
        raise


def _env_flags(agent: Agent, env: str | None) -> str:
    """Returns what a command needs to make the environment: the one that was given, or trust."""
    from clipper.envs.names import needs_trust

    flags = "" if env is None else f" --env {shlex.quote(env)}"
    return flags + (
        " --trust-env" if needs_trust("" if env else agent.env, agent.env_kwargs) else ""
    )


def _kept_step(path: Path) -> int:
    """Returns the step of the newest checkpoint, or 0."""
    from clipper.checkpoint import checkpoints_in

    found = checkpoints_in(path / "checkpoints")
    return int(found[-1].name.removeprefix("step-")) if found else 0


def introduce(agent: Agent, path: Path, total_timesteps: int | None = None) -> None:
    """Prints what is about to run: preset, settings, spaces and transforms."""
    say(f"{agent.algorithm} on {agent.env}, seed {agent.seed}, preset {agent.preset}, into {path}")
    for line in agent.describe():
        say(f"  {line}")
    defaults, config = type(agent.config)(), agent.config
    if total_timesteps is not None:
        config = config.replace(total_timesteps=total_timesteps)
    changed = [
        f"{spec.name} {show(value)}"
        for spec in dataclasses.fields(config)
        if (value := getattr(config, spec.name)) != getattr(defaults, spec.name)
    ]
    text = "settings: " + (", ".join(changed) or "defaults")
    for line in textwrap.wrap(text, 98, initial_indent="  ", subsequent_indent="    "):
        say(line)
    for warning in agent.warnings():
        say(f"  note: {warning}")


def _returns(metrics: Mapping[str, float]) -> str:
    """Returns the last returns in words."""
    mean, std = (metrics[f"rollout/episode_return{end}"] for end in ("", "_std"))
    count = min(100, int(metrics["rollout/episodes"]))
    if count == 1:
        return f"return {_number(mean)} in the only training episode that ended"
    return f"return {_number(mean)} ± {_number(std)} over the last {count} training episodes"


def _number(value: float) -> str:
    """Returns a return with a decimal, or with two digits that count where it is small."""
    return f"{value:.1f}" if value == 0 or abs(value) >= 0.1 else f"{value:.2g}"


def summarise(agent: Agent, outcome: Outcome, path: Path, env: str | None = None) -> int:
    """Prints how a run ended and the commands to go on, and returns the exit code.

    Args:
        agent: What was trained.
        outcome: How it ended.
        path: The run's folder.
        env: The environment that was given in place of the run's.
    """
    from clipper.envs.library import is_library
    from clipper.envs.make import env_source
    from clipper.run_folder import folder_name

    speed = outcome.step / outcome.wall_seconds if outcome.wall_seconds else 0.0
    print(
        f"{outcome.reason} ({outcome.step:,} steps in {outcome.wall_seconds:.1f} s, {speed:,.0f}/s)"
    )
    metrics = outcome.metrics
    if "rollout/episode_return" in metrics:
        print(_returns(metrics))
    elif metrics:
        print(
            "no training episode has ended yet, after "
            f"{outcome.step // agent.config.num_envs:,} steps of each environment "
            "(--max-episode-steps cuts them)"
        )
    if agent.best is not None:
        print(f"best periodic evaluation {agent.best:.1f} (best.safetensors)")
    for alarm in agent.alarms[-_MOST_ALARMS:]:
        print(alarm)
    if agent.inexact:
        print(f"not exactly repeatable: {agent.inexact}")
    if outcome.profile is not None:
        print(outcome.profile)
    folder = shlex.quote(str(path))
    flags = _env_flags(agent, env)
    total = agent.config.total_timesteps
    more = total if outcome.step < total else 2 * outcome.step
    if (path / "curve.png").is_file():
        print(f"curve: {path / 'curve.png'}")
    if outcome.profile is not None:
        print(f"profile: {path / 'profile.png'}")
    print("next:")
    print(f"  clipper evaluate {folder}{flags}")
    if env_source(env or agent.env).may_draw:
        film = shlex.quote(f"{folder_name(Path(agent.env).name)}.gif")
        print(f"  clipper render {folder} --out {film}{flags}")
    if "rollout/episode_return" in metrics:
        # the runs beside it, if it lies where runs of its environment do
        name = Path(agent.env).name if is_library(agent.env) else agent.env
        beside = path.absolute().parent.name == folder_name(name)
        runs = shlex.quote(str(path.parent if beside else path))
        print(f"  clipper plot {runs} --out curves.png")
    print(f"  clipper resume {folder} --total-timesteps {more}{flags}")
    for what, why in outcome.unwritten.items():
        say(f"warning: {what} could not be written: {why}")
    if outcome.signal is not None:
        return 128 + outcome.signal
    return FileError.exit_code if outcome.unwritten else 0
