"""`clipper evaluate`: a trained agent in, its returns on fresh episodes out."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from clipper.checkpoint import dump_json
from clipper.cli.arguments import (
    add_agent_arguments,
    add_play_arguments,
    load_agent,
    positive_int,
)
from clipper.cli.stdout import prints_elsewhere

if TYPE_CHECKING:
    from clipper.evaluation import Evaluation

HELP = """Plays fresh episodes and prints the mean return, its spread and a 95 % interval."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_agent_arguments(parser)
    add_play_arguments(parser, episodes=100)
    parser.add_argument(
        "--num-envs",
        type=positive_int,
        default=16,
        metavar="N",
        help="environments stepped side by side, 1 to 16 (16); 1 for those of which a process can hold "
        "but one; it changes no result",
    )
    parser.add_argument(
        "--isolate",
        action="store_true",
        help="play in another process: an environment that crashes is an error with its episode, step "
        "and seed",
    )
    parser.add_argument(
        "--env-timeout",
        metavar="TIME",
        help="with --isolate: a step that takes longer is an error: 30s, 2min (the larger of 10 s and "
        "20 times the 99th percentile of the steps)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one object: mean, std, low, high, episodes, seed, deterministic, env",
    )


def _play(args: argparse.Namespace) -> Evaluation:
    agent = load_agent(args, isolate=args.isolate, env_timeout=args.env_timeout)
    try:
        return agent.evaluate(
            args.episodes,
            seed=args.seed,
            deterministic=not args.stochastic,
            num_envs=args.num_envs,
        )
    finally:
        agent.close()


def run(args: argparse.Namespace) -> int:
    """Evaluates and returns the exit code."""
    with prints_elsewhere() if args.json else contextlib.nullcontext():
        result = _play(args)
    print(dump_json(result.to_json()) if args.json else result)
    return 0
