"""An environment that raised or returned something else in, an error that says what must hold out."""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from clipper.envs.names import Env
from clipper.envs.raised import brief, text_of, where_raised
from clipper.errors import ClipperError, EnvironmentFault

_OLD = "docs/concepts/old-gym.md has a wrapper of fifteen lines for environments of the old gym."
_STEP_HINT = (
    "where the old gym had done: truncated = done and info.get('TimeLimit.truncated', False), "
    f"terminated = done and not truncated. {_OLD}"
)
_MORE_HINT = "what else you want to tell goes into info, a dict."
_FEWER_HINT = (
    "truncated is False where nothing cuts episodes short, info {} where nothing is to say."
)
_RESET_HINT = (
    "write `def reset(self, *, seed=None, options=None)`, begin it with "
    f"`super().reset(seed=seed)`, end it with `return obs, {{}}`. {_OLD}"
)
# what needs no further looking
_NUMBERS = (float, int, np.floating, np.integer, np.bool_)
_REWARD_LAW = "give a number as the reward of every step"
_REWARD_HINT = "return float(reward); of an array with one number, float(reward[0])."
_PAIR_HINT = f"write `return obs, {{}}` in place of `return obs`. {_OLD}"


class Breach(ValueError):
    """What an environment returned is not what Gymnasium's contract says.

    Args:
        name: Of the finding, see `clipper.envs.check_findings`.
        law: What it must do, to follow "must".
        found: What it did, to follow "but".
        hint: What to do about it.
    """

    def __init__(self, name: str, law: str, found: str, hint: str) -> None:
        super().__init__(f"{law}, but {found}")
        self.name = name
        self.law = law
        self.found = found
        self.hint = hint


def first_obs(env: Env, seed: int) -> Any:
    """Returns the first observation of an episode.

    Raises:
        Breach: `reset` returned something else than (obs, info).
    """
    return begin(env, seed)[0]


def begin(env: Env, seed: int) -> tuple[Any, Any]:
    """Returns the first observation of an episode and its info, a mapping or None.

    Raises:
        Breach: `reset` returned something else.
    """
    found: Any = env.reset(seed=seed)
    law = "return (obs, info) from reset, info being a dict"
    # a bare observation of two numbers or of two parts could be unpacked like a pair
    if not isinstance(found, tuple) or len(found) != 2:
        raise Breach("reset_result", law, f"returned {_shown(found)}", _PAIR_HINT)
    obs, info = found
    if info is None or isinstance(info, Mapping):
        return obs, info
    if isinstance(obs, Mapping) and isinstance(info, np.ndarray):
        hint = "the observation comes first: `return obs, info`."
        raise Breach("reset_result", law, "returned (info, obs)", hint)
    if isinstance(info, (np.ndarray, numbers.Number)):
        raise Breach("reset_result", law, f"returned {_shown(found)}", _PAIR_HINT)
    raise Breach("info_type", law, f"the info is {_shown(info)}", _PAIR_HINT)


def read_reward(reward: Any) -> float:
    """Returns the reward that a step gave, as a float.

    Raises:
        Breach: It is not a number.
    """
    try:
        if isinstance(reward, _NUMBERS) or (
            not isinstance(reward, (str, bytes)) and np.ndim(reward) == 0
        ):
            return float(reward)
    except (TypeError, ValueError):  # of None, of a ragged list, of a complex number
        pass
    except OverflowError as error:
        raise Breach(
            "reward_type", _REWARD_LAW, f"the reward is a whole number too large for it ({error})",
            _REWARD_HINT,
        ) from None  # fmt: skip
    raise Breach("reward_type", _REWARD_LAW, f"the reward is {_shown_value(reward)}", _REWARD_HINT)


def read_flag(flag: Any, name: str) -> bool:
    """Returns `terminated` or `truncated` of a step as a bool; text and None are none.

    Raises:
        Breach: It is neither true nor false.
    """
    if isinstance(flag, (bool, np.bool_)):
        return bool(flag)
    array = np.asarray(flag)
    if array.size == 1 and array.dtype.kind in "biuf" and array.item() in (0, 1):
        return bool(array.item())
    law = f"give True or False as {name} of every step"
    raise Breach("step_result", law, f"{name} is {_shown_value(flag)}", f"return bool({name}).")


def fault(
    name: str, call: str, error: BaseException, where: str, seed: int | None = None
) -> EnvironmentFault:
    """Returns the error that tells what went wrong in `reset` or `step`.

    Args:
        name: The environment's.
        call: `reset` or `step`.
        error: What was raised in it, or in reading what it returned.
        where: Episode and step, for the end of the sentence.
        seed: The episode's, for the hint; None if `where` has it.
    """
    seeded = "" if seed is None else f"The episode's seed was {seed}."
    breach = breach_of(call, error)
    if breach is not None:
        message = f"{name} must {breach.law}, but {breach.found} ({where})."
        return EnvironmentFault(message, hint=f"{breach.hint} {seeded}".strip())
    if isinstance(error, (ClipperError, TypeError, ValueError)) and _module(error, "clipper."):
        problem = error.message if isinstance(error, ClipperError) else text_of(error)
        return EnvironmentFault(
            f"{name} must keep Gymnasium's contract in {call}, but {problem.rstrip('.')} ({where}).",
            hint=seeded or None,
        )
    return EnvironmentFault(
        f"{name} must not raise in {call}, but {brief(error)} ({where}).",
        hint=f"{where_raised(error) or ''} {seeded}".strip() or None,
    )


def breach_of(call: str, error: BaseException) -> Breach | None:
    """Returns the part of the contract that was broken, where the error tells it."""
    if isinstance(error, Breach):
        return error
    text = text_of(error)
    refused = re.search(r"reset\(\) got an unexpected keyword argument '(seed|options)'", text)
    if isinstance(error, TypeError) and refused:
        law = "take seed and options in reset"
        return Breach(
            "reset_signature",
            law,
            f"its reset takes no {refused[1]!r}, as in the old gym",
            _RESET_HINT,
        )
    # the tuple is unpacked by a wrapper of Gymnasium's or by Clipper
    if call == "step" and _module(error, "clipper.", "gymnasium."):
        return _step_breach(text)
    return None


def _step_breach(text: str) -> Breach | None:
    """Returns what a step returned in place of five values, as Python told it in unpacking them."""
    law = "return (obs, reward, terminated, truncated, info) from step"
    counted = re.search(r"values to unpack \(expected 5(?:, got (\d+))?\)", text)
    if counted and counted[1] == "4":
        return Breach("step_result", law, "returned 4 values, as in the old gym", _STEP_HINT)
    if counted:
        # Python below 3.14 does not count those beyond the fifth
        is_more = counted[1] is None or int(counted[1]) > 5
        number, hint = counted[1] or "more than 5", _MORE_HINT if is_more else _FEWER_HINT
        return Breach("step_result", law, f"returned {number} values", hint)
    single = re.search(r"cannot unpack non-iterable (\w+) object", text)
    if single:
        found = "None" if single[1] == "NoneType" else f"a {single[1]}"
        return Breach("step_result", law, f"returned {found}", _FEWER_HINT)
    return None


def _module(error: BaseException, *starts: str) -> bool:
    """True if the error was raised in a module whose name begins so, not in the environment."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = str(trace.tb_frame.f_globals.get("__name__", "")) if trace is not None else ""
    return name.startswith(starts)


def _shown(found: Any) -> str:
    shape = getattr(found, "shape", None)
    if shape is not None:
        return f"an array of the shape {tuple(shape)}"
    if isinstance(found, (tuple, list)):
        return f"a {type(found).__name__} of {len(found)}"
    return "None" if found is None else f"a {type(found).__name__}"


def _shown_value(found: Any) -> str:
    """Returns what is no number, itself where it is short."""
    if isinstance(found, (np.ndarray, tuple, list)):
        return _shown(found)
    return f"{found!r}"[:80]
