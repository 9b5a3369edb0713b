"""A shared library with the functions of `clipper_env.h` in, a Gymnasium environment out.

Here the library is called by ctypes, one step at a time, for whatever takes Gymnasium environments;
the native engine steps the same library without Python (`clipper.engine.native_envs`).
"""

from __future__ import annotations

import ctypes
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from clipper.errors import EnvironmentFault, EnvironmentUnknown, SpaceError

ABI = 1
SUFFIXES = (".so", ".dylib", ".dll")
_BOX, _DISCRETE, _MULTI_DISCRETE = range(3)
# indices travel as float32, which holds whole numbers up to this
_MOST_CATEGORIES = 2**24
_MOST_NUMBERS = 2**20
_FUNCTIONS = ("create", "reset", "step", "close")

_Floats = ctypes.POINTER(ctypes.c_float)


class _Space(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int32),
        ("size", ctypes.c_int32),
        ("low", _Floats),
        ("high", _Floats),
        ("categories", ctypes.POINTER(ctypes.c_int32)),
    )


class _Spec(ctypes.Structure):
    _fields_ = (
        ("abi", ctypes.c_uint32),
        ("max_episode_steps", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
        ("observation", _Space),
        ("action", _Space),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        ("reward", ctypes.c_double),
        ("terminated", ctypes.c_int32),
        ("truncated", ctypes.c_int32),
    )


def is_library(name: str) -> bool:
    """Returns True if a name is that of a shared library's file, not of a registered environment."""
    return name.endswith(SUFFIXES)


def native_include() -> str:
    """Returns the folder of `clipper_env.h`, for a compiler's `-I`."""
    return str(Path(__file__).parents[1] / "include")


@dataclass(frozen=True)
class Library:
    """A loaded library of environments, checked.

    Attributes:
        path: Its file, absolute.
        name: What it calls its environment.
        max_episode_steps: Steps after which an episode is truncated, or None.
        observation_space: Box vector or Discrete.
        action_space: Box vector, Discrete or MultiDiscrete.
        observation_size: Floats of an observation.
        action_size: Floats of an action.
        functions: Those of `clipper_env.h`, by their names without `clipper_env_`.
    """

    path: Path
    name: str
    max_episode_steps: int | None
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    observation_size: int
    action_size: int
    functions: dict[str, Any]

    def reason(self, env: int | None) -> str:
        """Returns what the library says went wrong in the call that failed."""
        text = self.functions["error"](env) if "error" in self.functions else None
        return text.decode(errors="replace") if text else "it gave no reason"


def load_library(name: str) -> Library:
    """Returns the library in a file.

    Raises:
        EnvironmentUnknown: There is no such file.
        EnvironmentFault: It cannot be loaded, lacks a function or is of another version.
        SpaceError: A space is not one that `clipper_env.h` describes.
    """
    path = Path(name).resolve()
    if path.is_dir():
        raise EnvironmentUnknown(f"{name} must be a shared library, but is a folder.")
    if not path.is_file():
        raise EnvironmentUnknown(
            f"{name} must be a shared library, but there is no such file.",
            hint="a relative path counts from the folder that the command runs in.",
        )
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise EnvironmentFault(
            f"{name} must be a shared library for this machine, but it cannot be loaded: {error}.",
            hint=f"compile it with: cc -O2 -shared -fPIC -I{native_include()} game.c -o libgame.so",
        ) from error
    spec = _spec_of(loaded, name)
    functions = {part: _function(loaded, part, name) for part in _FUNCTIONS}
    if hasattr(loaded, "clipper_env_error"):
        functions["error"] = _function(loaded, "error", name)
    return Library(
        path=path,
        name=(spec.name or b"").decode(errors="replace") or path.stem,
        max_episode_steps=spec.max_episode_steps or None,
        observation_space=_space(spec.observation, "observation", (_BOX, _DISCRETE), name),
        action_space=_space(spec.action, "action", (_BOX, _DISCRETE, _MULTI_DISCRETE), name),
        observation_size=spec.observation.size,
        action_size=spec.action.size,
        functions=functions,
    )


def _spec_of(loaded: ctypes.CDLL, name: str) -> _Spec:
    spec = _function(loaded, "spec", name)()
    if not spec:
        raise EnvironmentFault(f"clipper_env_spec of {name} must return a spec, but returned null.")
    if spec.contents.abi != ABI:
        raise EnvironmentFault(
            f"{name} must have version {ABI} of clipper_env.h, but has {spec.contents.abi}.",
            hint="set abi to CLIPPER_ENV_ABI and compile it with the header of this Clipper.",
        )
    found: _Spec = spec.contents
    return found


def _function(loaded: ctypes.CDLL, part: str, name: str) -> Any:
    arguments, returned = {
        "spec": ((), ctypes.POINTER(_Spec)),
        "create": ((ctypes.c_char_p,), ctypes.c_void_p),
        "reset": ((ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p), ctypes.c_int32),
        "step": ((ctypes.c_void_p,) * 4, ctypes.c_int32),
        "close": ((ctypes.c_void_p,), None),
        "error": ((ctypes.c_void_p,), ctypes.c_char_p),
    }[part]
    try:
        found = getattr(loaded, f"clipper_env_{part}")
    except AttributeError:
        raise EnvironmentFault(
            f"{name} must export clipper_env_{part}, but does not.",
            hint='define all functions of clipper_env.h, in C++ within extern "C".',
        ) from None
    found.argtypes, found.restype = arguments, returned
    return found


def _space(space: _Space, what: str, kinds: tuple[int, ...], name: str) -> spaces.Space[Any]:
    """Returns the Gymnasium space that a library describes."""
    most = 1 if space.kind == _DISCRETE else _MOST_NUMBERS
    if space.kind not in kinds or not 1 <= space.size <= most:
        allowed = "Box or Discrete" if what == "observation" else "Box, Discrete or MultiDiscrete"
        raise SpaceError(
            f"the {what} of {name} must be {allowed} with a size from 1 (Discrete: 1), "
            f"but is of kind {space.kind} with size {space.size}.",
            hint="kinds are CLIPPER_BOX, CLIPPER_DISCRETE and CLIPPER_MULTI_DISCRETE.",
        )
    if space.kind == _BOX:
        return _box(space, what, name)
    counts = space.categories[: space.size] if space.categories else []
    if not counts or not all(1 <= count <= _MOST_CATEGORIES for count in counts):
        raise SpaceError(
            f"the {what} of {name} must have 1 to {_MOST_CATEGORIES:,} categories for each choice, "
            f"but has {counts or 'none'}."
        )
    if space.kind == _DISCRETE:
        return spaces.Discrete(counts[0])
    return spaces.MultiDiscrete(counts)


def _box(space: _Space, what: str, name: str) -> spaces.Box:
    shape = (space.size,)
    if bool(space.low) != bool(space.high):
        raise SpaceError(f"the {what} of {name} must have both low and high or neither.")
    if not space.low:
        return spaces.Box(-np.inf, np.inf, shape, np.float32)
    low = np.array(space.low[: space.size], dtype=np.float32)
    high = np.array(space.high[: space.size], dtype=np.float32)
    if not np.all(low < high):
        raise SpaceError(
            f"the {what} of {name} must have low below high, but low is {low} and high is {high}."
        )
    return spaces.Box(low, high, dtype=np.float32)


def are_categories(space: spaces.Space[Any], taken: NDArray[Any]) -> bool:
    """Returns True if numbers are categories of a Discrete or MultiDiscrete space, [..., A]."""
    most = space.n if isinstance(space, spaces.Discrete) else getattr(space, "nvec", 0)
    return bool(np.all((taken >= 0) & (taken < most) & (np.floor(taken) == taken)))


class LibraryEnv(gymnasium.Env[Any, Any]):
    """One environment of a library, for whatever takes Gymnasium environments.

    The episode limit is not kept here, as in all environments that are registered with one.

    Args:
        path: The library.
        render_mode: None; a library does not draw.
        **options: JSON values, handed to `clipper_env_create`.

    Raises:
        EnvironmentUnknown: There is no such file.
        EnvironmentFault: It cannot be loaded or created.
        SpaceError: A space is not supported.
    """

    is_calling: ClassVar[ctypes.c_int32] = ctypes.c_int32(0)
    """Not 0 while a library is called: the engine looks there whether it was who called `exit`."""

    def __init__(self, path: str | Path, render_mode: str | None = None, **options: Any) -> None:
        self._env: int | None = None
        self._has_begun = False
        if render_mode is not None:
            raise EnvironmentFault(f"{path} must draw itself to be filmed, but libraries do not.")
        self.library = library = load_library(str(path))
        self.observation_space = library.observation_space
        self.action_space = library.action_space
        self._is_box = isinstance(library.observation_space, spaces.Box)
        self._obs = np.zeros(library.observation_size, dtype=np.float32)
        self._action = np.zeros(library.action_size, dtype=np.float32)
        self._result = _Step()
        self._pointers = (
            self._action.ctypes.data,
            self._obs.ctypes.data,
            ctypes.addressof(self._result),
        )
        self._env = self._call("create", json.dumps(options).encode())
        if self._env is None:
            raise EnvironmentFault(
                f"{path} must create environments, but failed: {library.reason(None)}."
            )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode; without a seed it gets one from the environment's generator."""
        if self._env is None:
            raise gymnasium.error.ClosedEnvironmentError("reset must come before close.")
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        if self._call("reset", self._env, seed % 2**64, self._obs.ctypes.data) != 0:
            raise self._failure("clipper_env_reset")
        self._has_begun = True
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        """Plays one step."""
        if self._env is None:
            raise gymnasium.error.ClosedEnvironmentError("step must come before close.")
        if not self._has_begun:
            raise gymnasium.error.ResetNeeded("step must come after reset.")
        self._action[:] = self._allowed(action)
        result = self._result
        result.reward, result.terminated, result.truncated = 0.0, 0, 0
        if self._call("step", self._env, *self._pointers) != 0:
            raise self._failure("clipper_env_step")
        flags = bool(result.terminated), bool(result.truncated)
        return self._observation(), result.reward, *flags, {}

    def _allowed(self, action: Any) -> NDArray[Any]:
        """Returns an action as the library may have it: a Box within its bounds, or such a category.

        Raises:
            EnvironmentFault: It has another shape, or is no category.
        """
        taken, space = np.asarray(action), self.action_space
        if taken.shape != space.shape:
            raise EnvironmentFault(
                f"an action must have the shape {space.shape}, but has {taken.shape}."
            )
        if isinstance(space, spaces.Box):
            clipped: NDArray[Any] = np.clip(taken, space.low, space.high)
            return clipped
        if not are_categories(space, taken):
            raise EnvironmentFault(f"an action must belong to {space}, but is {action}.")
        return taken

    def close(self) -> None:
        """Frees the environment."""
        if self._env is not None:
            self._call("close", self._env)
            self._env = None

    def _call(self, name: str, *args: Any) -> Any:
        self.is_calling.value = 1
        try:
            return self.library.functions[name](*args)
        finally:
            self.is_calling.value = 0

    def __del__(self) -> None:
        if getattr(self, "_env", None) is not None:
            self.close()

    def _observation(self) -> NDArray[np.float32] | np.int64:
        if self._is_box:
            return self._obs.copy()
        index = float(self._obs[0])
        if not index.is_integer():
            raise EnvironmentFault(f"a Discrete observation must be whole, but is {index}.")
        return np.int64(index)

    def _failure(self, function: str) -> EnvironmentFault:
        return EnvironmentFault(f"{function} failed: {self.library.reason(self._env)}.")
