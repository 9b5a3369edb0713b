"""`clipper check-env`: an environment in, what is wrong with it out."""

from __future__ import annotations

import argparse
import json
import shlex

from clipper.cli.arguments import json_object, positive_int, say, seed

HELP = """Says what is wrong with an environment before an agent is trained in it.

Plays it with random actions, again with the same seeds, and two instances in turn. An error means that
training cannot be trusted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument(
        "env",
        metavar="ENV",
        help="Gymnasium id such as CartPole-v1, module:EnvId of your own, or a library ./libgame.so",
    )
    parser.add_argument(
        "--env-kwargs",
        type=json_object,
        metavar="JSON",
        help="arguments, for example '{\"gravity\": -5}'",
    )
    parser.add_argument(
        "--max-episode-steps",
        type=positive_int,
        metavar="N",
        help="truncate episodes after N steps (the registered limit)",
    )
    parser.add_argument(
        "--episodes",
        type=positive_int,
        default=200,
        metavar="N",
        help="episodes of random actions, at most (200)",
    )
    parser.add_argument(
        "--steps",
        type=positive_int,
        default=10_000,
        metavar="N",
        help="steps in them, at most (10000)",
    )
    parser.add_argument(
        "--seconds",
        type=positive_int,
        default=10,
        metavar="N",
        help="time of the whole check, about (10)",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="S", help="seed of the episodes, from 0 (0)"
    )
    parser.add_argument(
        "--timeout",
        type=positive_int,
        default=30,
        metavar="N",
        help="seconds one call may take before it counts as hanging (30)",
    )
    parser.add_argument("--json", action="store_true", help="print one object")


# what the mend of a finding asks `clipper train` for
_FLAGS = {
    "episode_never_ends": "--max-episode-steps=1000",
    "reward_scale": "--normalize-reward",
    "step_slow": "--workers=auto",
}


def run(args: argparse.Namespace) -> int:
    """Prints the findings; returns 0 without errors, else 3."""
    from clipper.checkpoint import dump_json
    from clipper.envs.check import check_env
    from clipper.errors import EnvironmentFault

    say(f"looking at {args.env}, at most about {args.seconds} s ...")
    found = check_env(
        args.env,
        env_kwargs=args.env_kwargs,
        max_episode_steps=args.max_episode_steps,
        episodes=args.episodes,
        steps=args.steps,
        seconds=args.seconds,
        seed=args.seed,
        timeout=args.timeout,
    )
    print(dump_json(found.to_json()) if args.json else found)
    if found.num_errors:
        return EnvironmentFault.exit_code
    if not args.json:
        words = ["clipper", "train", args.env]
        if args.env_kwargs:
            words.append(f"--env-kwargs={json.dumps(args.env_kwargs)}")
        if args.max_episode_steps is not None:
            words.append(f"--max-episode-steps={args.max_episode_steps}")
        words += [
            _FLAGS[name] for name in dict.fromkeys(one.name for one in found) if name in _FLAGS
        ]
        say(f"next: {shlex.join(words)}")
    return 0
