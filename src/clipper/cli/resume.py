"""`clipper resume`: a run folder in, the same run further on out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from clipper.cli.arguments import (
    add_training_arguments,
    given_checkpoints,
    given_stepping,
    positive_int,
    say,
)
from clipper.errors import ConfigError

if TYPE_CHECKING:
    from clipper.training_report import Callback

HELP = """Goes on with a run from its last complete checkpoint, in its folder.

With --total-timesteps the budget is a new one: schedules are recomputed over it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument(
        "--total-timesteps",
        type=positive_int,
        metavar="N",
        help="transitions over all environments, those done included (the run's own)",
    )
    add_training_arguments(parser)
    parser.add_argument(
        "--engine", choices=("auto", "native", "reference"), help="what computes (the run's own)"
    )
    parser.add_argument(
        "--on-nonfinite",
        choices=("stop", "drop-episode"),
        help="what an environment's NaN or infinity does from now on (the run's own)",
    )
    parser.add_argument(
        "--eval-every",
        metavar="STEPS",
        help="steps between periodic evaluations from now on, 0 for never (the run's own)",
    )
    parser.add_argument(
        "--env", metavar="ENV", help="the environment, if the run's cannot be made from its name"
    )
    parser.add_argument(
        "--trust-env",
        action="store_true",
        help="import the module of a module:EnvId that the folder names",
    )


def run(args: argparse.Namespace) -> int:
    """Trains on and returns the exit code."""
    from clipper.run_folder import check_free, read_config

    path = Path(args.run)
    read_config(path)
    check_free(path)  # before torch is imported
    from clipper.cli.train import closed_and_kept, introduce, summarise
    from clipper.loading import resume

    agent = resume(
        path,
        env=args.env,
        trust_env=args.trust_env,
        device=args.device,
        engine=args.engine,
        on_nonfinite=args.on_nonfinite,
        eval_every=args.eval_every,
        **given_stepping(args),
    )
    done = agent.step
    callbacks = _events_of(path, done)
    say(f"resuming at step {done:,}")
    introduce(agent, path, args.total_timesteps)
    with closed_and_kept(agent, path, is_new=False, env=args.env):
        outcome = agent.train(
            args.total_timesteps,
            until=args.until,
            budget=args.budget,
            callback=callbacks,
            progress=not args.quiet,
            profile=args.profile,
            **given_checkpoints(args),
        )
    if outcome.step == done and outcome.signal is None:
        print(f"nothing to do: {outcome.reason}; a larger --total-timesteps goes on")
        return 0
    return summarise(agent, outcome, path, args.env)


def _events_of(path: Path, done: int) -> list[Callback]:
    """Returns what goes on with a run's TensorBoard events, where it has any."""
    from clipper.tensorboard import TensorBoardWriter, has_events

    if not has_events(path):
        return []
    try:
        return [TensorBoardWriter(path, done)]
    except ConfigError as error:
        say(f"note: the run's TensorBoard events end here: {error.message}")
        return []
