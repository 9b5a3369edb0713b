"""What several verbs share: a parser whose errors are ours, and finding the agent that is meant."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from clipper.configs import CONFIGS
from clipper.errors import ConfigError, FileError, nearest
from clipper.foreign_names import name_hint
from clipper.setting_values import show
from clipper.settings import describe_field, other_owner

if TYPE_CHECKING:
    from clipper.agent import Agent

_GROUPS = ("run", "batch", "objective", "normalisation", "network")


class UsageError(ConfigError):
    """The command line cannot be understood."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` and names the nearest flag.

    Args:
        words: What will be parsed: the flags that there are may depend on it.
        **kwargs: As `argparse.ArgumentParser`.
    """

    def __init__(self, words: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)
        self.words = words

    def parse(self, words: list[str]) -> argparse.Namespace:
        """Returns the arguments, and the words themselves as `words`.

        Raises:
            UsageError: A flag or a word too many, a value that cannot be read, or one missing.
        """
        args, unknown = self.parse_known_args(words)
        if unknown:
            raise self._unknown(unknown[0])
        args.words = words
        return args

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print."""
        hint = f"`{self.prog} --help` shows the arguments."
        if message.endswith("required: ENV"):
            hint = "write it as a word of its own: clipper train CartPole-v1"
        raise UsageError(f"{message}.", hint=hint)

    def _unknown(self, word: str) -> UsageError:
        if not word.startswith("-"):
            return UsageError(
                f"{self.prog} has no place for {word!r}.",
                hint=f"`{self.prog} --help` shows the arguments.",
            )
        flag = word.split("=")[0]
        flags = [option for action in self._actions for option in action.option_strings]
        known = [f.removeprefix("--").replace("-", "_") for f in flags if f.startswith("--")]
        name = flag.lstrip("-").replace("-", "_")
        hint = None
        if "algo" in known:
            hint = other_owner(CONFIGS[algorithm_in(self.words)], name)
        hint = hint or name_hint(name, known, lambda n: "--" + n.replace("_", "-"))
        hint = hint or nearest(flag, flags)
        return UsageError(
            f"{self.prog} has no flag {flag}.",
            hint=hint or f"`{self.prog} --help` shows the flags.",
        )


def algorithm_in(words: Sequence[str]) -> str:
    """Returns the algorithm that `--algo` names among words not yet parsed, else PPO."""
    found = "ppo"
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == "--algo":
            found = following
        elif word.startswith("--algo="):
            found = word.partition("=")[2]
    return found if found in CONFIGS else "ppo"


def positive_int(text: str) -> int:
    """Returns a whole number above 0."""
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, but is {text!r}")
    return number


def whole(text: str) -> int:
    """Returns a whole number from 0."""
    number = _whole(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, but is {text!r}")
    return number


def seed(text: str) -> int:
    """Returns a whole number from 0."""
    number = _whole(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 0 to 2^63 - 1, but is {text!r}"
        )
    return number


def _whole(text: str) -> int:
    try:
        number = float(text.replace("_", "").replace(",", ""))
        if number == int(number):
            return int(text) if text.isdigit() else int(number)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"must be a whole number, but is {text!r}")


def json_object(text: str) -> dict[str, Any]:
    """Returns the object that a JSON text holds."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be JSON such as '{{\"key\": 1}}', but {error}"
        ) from None
    if not isinstance(data, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object, but is {text!r}")
    return data


def add_training_arguments(group: Any) -> None:
    """Adds what a run may be told anew whenever it goes on: when to stop, where and how to work.

    Args:
        group: A parser, or a group of its arguments.
    """
    group.add_argument(
        "--until",
        type=float,
        metavar="RETURN",
        help="stop when the last 100 training episodes have this mean return",
    )
    group.add_argument(
        "--budget",
        metavar="TIME",
        help="stop after 90s, 10min or 2h of training, time done included; schedules follow the "
        "time, and the preset's total_timesteps does not count",
    )
    group.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
    group.add_argument(
        "--workers",
        metavar="N|auto",
        help="processes that step environments beside this one; with the native engine the result is "
        "the same (0; a resumed run's own)",
    )
    group.add_argument(
        "--profile",
        action="store_true",
        help="measure where the time goes: a table, profile.csv, profile.png",
    )
    group.add_argument(
        "--vectorization",
        choices=("auto", "gymnasium", "native"),
        help="what steps environments: the engine (native) or Python (auto: native for libraries; a "
        "resumed run's own)",
    )
    group.add_argument(
        "--isolate",
        action=argparse.BooleanOptionalAction,
        help="step environments in another process, so that a crash of theirs does not end this one "
        "(no; a resumed run's own)",
    )
    group.add_argument(
        "--env-timeout",
        metavar="TIME",
        help="a worker whose step takes longer is replaced: 30s, 2min (the larger of 10 s and 20 times "
        "the 99th percentile of its steps; a resumed run's own)",
    )
    group.add_argument(
        "--checkpoint-every",
        type=whole,
        metavar="STEPS",
        help="write a checkpoint after the iteration that passes each multiple of STEPS; 0 for never "
        "(0; a resumed run's own)",
    )
    group.add_argument(
        "--checkpoint-minutes",
        type=float,
        metavar="M",
        help="write a checkpoint when the last is older than M minutes; 0 for never (0.5; a resumed "
        "run's own)",
    )
    group.add_argument(
        "--keep",
        type=positive_int,
        metavar="N",
        help="checkpoints that stay: an older one goes when a newer one is complete (2; a resumed "
        "run's own)",
    )
    group.add_argument("--quiet", action="store_true", help="no progress, only the summary")


def given_stepping(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what the command line says of how environments are stepped."""
    names = ("workers", "vectorization", "isolate", "env_timeout")
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def given_checkpoints(args: argparse.Namespace) -> dict[str, Any]:
    """Returns when checkpoints are to be written and how many to be kept, as `Agent.train` takes it."""
    return {k: getattr(args, k) for k in ("checkpoint_every", "checkpoint_minutes", "keep")}


def add_algorithm_argument(group: Any) -> None:
    """Adds the choice of the algorithm to a parser or a group of its arguments."""
    group.add_argument(
        "--algo",
        choices=tuple(CONFIGS),
        default="ppo",
        help="algorithm; `clipper train --algo NAME --help` shows its settings (ppo)",
    )


def add_env_arguments(parser: Parser) -> None:
    """Adds the arguments of making a training environment."""
    env = parser.add_argument_group("environment")
    env.add_argument(
        "--env-kwargs",
        type=json_object,
        metavar="JSON",
        help="arguments, for example '{\"gravity\": -5}'",
    )
    env.add_argument(
        "--max-episode-steps",
        type=positive_int,
        metavar="N",
        help="truncate episodes after N steps (the registered limit)",
    )


def add_settings(parser: Parser) -> None:
    """Adds every setting of the algorithm that is asked for as a flag of the same name."""
    config = CONFIGS[algorithm_in(parser.words)]
    specs, hints = dataclasses.fields(config), typing.get_type_hints(config)
    used = {spec.metadata["group"] for spec in specs}
    groups = {
        name: parser.add_argument_group(f"settings: {name}") for name in _GROUPS if name in used
    }
    for spec in specs:
        _add_setting(groups[spec.metadata["group"]], spec, hints[spec.name])


def _add_setting(group: Any, spec: dataclasses.Field[Any], kind: Any) -> None:
    flag = "--" + spec.name.replace("_", "-")
    detail = describe_field(spec)
    text = spec.metadata["help"] + (f" [{detail}]" if detail else "")
    help_text = f"{text} ({show(spec.default)})".replace("%", "%%")
    if kind is bool:
        group.add_argument(
            flag, nargs="?", const="true", metavar="true|false", dest=spec.name, help=help_text
        )
        group.add_argument(
            f"--no-{flag[2:]}", action="store_const", const="false", dest=spec.name,
            help=argparse.SUPPRESS,
        )  # fmt: skip
    else:
        options = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
        metavar = "|".join(options) or spec.name.rsplit("_", 1)[-1].upper()
        group.add_argument(flag, dest=spec.name, metavar=metavar, help=help_text)


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings that were given, as they were written."""
    names = [spec.name for spec in dataclasses.fields(CONFIGS[args.algo])]
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def add_comparison_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of how settings are compared."""
    parser.add_argument(
        "--metric",
        choices=("last", "all", "eval"),
        default="last",
        help="judge runs by the last 100 training episodes, all of them, or the final evaluation "
        "(last)",
    )
    parser.add_argument(
        "--baseline",
        metavar="SETTING",
        help="what the others are compared with (the first setting)",
    )
    parser.add_argument(
        "--ranges",
        metavar="FILE.csv",
        help="columns env, low, high: scores that count as 0 and 1 over several tasks (lowest and "
        "highest run)",
    )


def add_agent_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that name a trained agent."""
    parser.add_argument("agent", metavar="RUN|FILE", help="a run folder or a .safetensors file")
    parser.add_argument(
        "--best", action="store_true", help="of a run folder, take the best agent, not the last"
    )
    parser.add_argument(
        "--env",
        metavar="ENV",
        help="play in this environment instead of the one the agent was trained in",
    )
    parser.add_argument(
        "--trust-env",
        action="store_true",
        help="import the module of a module:EnvId that the file names",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")


def add_play_arguments(parser: argparse.ArgumentParser, episodes: int) -> None:
    """Adds the arguments of playing episodes."""
    parser.add_argument(
        "--episodes",
        type=positive_int,
        default=episodes,
        metavar="N",
        help=f"episodes to play, at least 1 ({episodes})",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="S", help="seed of the episodes, from 0 (0)"
    )
    parser.add_argument(
        "--stochastic", action="store_true", help="sample actions instead of the most likely one"
    )


def agent_path(args: argparse.Namespace) -> Path:
    """Returns the agent file that RUN|FILE and --best name.

    Raises:
        FileError: There is none.
    """
    path = Path(args.agent)
    if os.path.isdir(path):
        from clipper.run_folder import read_config

        read_config(path)
        file = path / ("best.safetensors" if args.best else "agent.safetensors")
        if not file.exists():
            raise FileError(
                f"{path} must hold {file.name}, but does not.",
                hint="the run has not been evaluated, or the file is gone; leave out --best."
                if args.best
                else f"the run has saved nothing yet; if it is gone, `clipper resume {path}` writes it.",
            )
        return file
    if args.best:
        raise UsageError("--best needs a run folder, but a file is given.")
    if not os.path.exists(path):
        from clipper.run_folder import read_config

        if path.suffix == ".safetensors":
            raise FileError(f"{path} must be an agent file, but there is none.")
        read_config(path)
    return path


def load_agent(
    args: argparse.Namespace, *, isolate: bool = False, env_timeout: str | None = None
) -> Agent:
    """Returns the agent that the arguments name; the rest as `clipper.load` takes it."""
    path = agent_path(args)
    from clipper.loading import load

    return load(
        path,
        env=args.env,
        trust_env=args.trust_env,
        device=args.device,
        isolate=isolate,
        env_timeout=env_timeout,
    )


def say(text: str = "") -> None:
    """Prints a line that is not a result."""
    print(text, file=sys.stderr)
