"""`clipper render`: a trained agent in, a GIF or MP4 of its episodes out."""

from __future__ import annotations

import argparse

from clipper.cli.arguments import add_agent_arguments, add_play_arguments, load_agent

HELP = """Plays fresh episodes without a screen and writes them as GIF or MP4, the return on it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_agent_arguments(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="x.gif or x.mp4")
    add_play_arguments(parser, episodes=1)


def run(args: argparse.Namespace) -> int:
    """Renders and returns the exit code."""
    from clipper.headless import prepare_headless
    from clipper.rendering import check_video_path

    check_video_path(args.out)
    prepare_headless()
    agent = load_agent(args)
    returns = agent.record(
        args.out, episodes=args.episodes, seed=args.seed, deterministic=not args.stochastic
    )
    shown = ", ".join(f"{value:.1f}" for value in returns[:10]) + (
        " ..." if len(returns) > 10 else ""
    )
    print(f"{args.out}: {len(returns)} episode{'s' * (len(returns) != 1)}, return {shown}")
    return 0
