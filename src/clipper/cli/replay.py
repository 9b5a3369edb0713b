"""`clipper replay`: the file of an environment's fault in, the same episode played again out."""

from __future__ import annotations

import argparse
import traceback
from pathlib import Path

from clipper.cli.arguments import say
from clipper.errors import ConfigError

HELP = """Plays the episode again in which an environment failed: its seed, its actions.

The environment is stepped in this process: what took a worker down may take this one down too, which a
debugger can watch. Ends with exit code 3 if it raises or gives a number that is not finite, 0 if it does
not fail again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("fault", metavar="FILE", help="a file of a run's folder faults/")
    parser.add_argument("--env", metavar="ENV", help="the environment, if its name is not enough")
    parser.add_argument(
        "--trust-env",
        action="store_true",
        help="import the module of a module:EnvId that the file names",
    )


def run(args: argparse.Namespace) -> int:
    """Plays and returns the exit code."""

    from clipper.action_layout import ActionLayout
    from clipper.agent_meta import made_plain
    from clipper.envs.contract import read_reward
    from clipper.envs.dropping import what_is_not_finite
    from clipper.envs.make import env_source
    from clipper.envs.names import needs_trust
    from clipper.fault_file import check_actions, read_fault
    from clipper.spaces import ObservationLayout

    fault = read_fault(Path(args.fault))
    name = args.env or fault.env["name"]
    kwargs = fault.env["kwargs"]
    if needs_trust("" if args.env else name, kwargs) and not args.trust_env:
        raise ConfigError(
            f"the environment {name} is named by a file, and a module is not imported unasked, nor an "
            "argument taken that may name a file.",
            hint="--trust-env does it; only with files you trust.",
        )
    source = env_source(
        name,
        env_kwargs=kwargs,
        max_episode_steps=fault.env["max_episode_steps"],
    )
    say(
        f"{name}: environment {fault.index}, episode {fault.episode}, seed {fault.seed}; "
        f"then it {made_plain(fault.how)}"
    )
    if len(fault.actions) < fault.step:
        say(f"note: only {len(fault.actions)} of {fault.step} actions were kept")
    env = source.make()
    obs_layout, layout = ObservationLayout(env.observation_space), ActionLayout(env.action_space)
    row = obs_layout.new_rows()
    actions = []
    if len(fault.actions):
        check_actions(fault.actions, layout, args.fault)
        actions = layout.to_env(fault.actions.astype(layout.dtype))
    step = 0
    try:
        obs, _ = env.reset(seed=fault.seed)
        obs_layout.write(obs, row)
        what = what_is_not_finite(obs_layout, row, 0.0)
        for step, action in enumerate(actions, start=1):
            obs, reward, terminated, truncated, _ = env.step(action)
            obs_layout.write(obs, row)
            what = what_is_not_finite(obs_layout, row, read_reward(reward))
            if what is not None:
                break
            if (terminated or truncated) and step < len(actions):
                print(f"the episode ended in step {step} of {len(actions)}: it is not the same one")
                return 0
    except (Exception, SystemExit):
        at = f"step {step}" if step else "reset"
        print(f"failed in {at}:\n{traceback.format_exc().rstrip()}")
        return 3
    if what is not None:
        print(f"gave {what} in {f'step {step}' if step else 'reset'}")
        return 3
    print(f"{step} steps were played without a fault")
    return 0
