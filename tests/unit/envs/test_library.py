"""Laws of environments in shared libraries, as Gymnasium environments and as files named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

import clipper
from clipper.engine.library_vector import LibraryVectorEnv
from clipper.envs.library import LibraryEnv
from clipper.envs.make import env_source, episode_limit
from clipper.envs.names import imports_what_it_names
from clipper.errors import ClipperError, EnvironmentFault, EnvironmentUnknown, SpaceError
from libraries import walk


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("macros", [(), ("BOX",)])
def test_gymnasiums_own_checker_is_content(macros: tuple[str, ...]) -> None:
    """Seeds, spaces and types are what Gymnasium's `check_env` asks for."""
    env = LibraryEnv(walk(*macros))
    check_env(env, skip_render_check=True)
    env.close()
    env.close()


def test_spaces_and_limit_are_the_librarys() -> None:
    """Discrete and MultiDiscrete, Box with bounds; the limit can be set by the user."""
    env = env_source(walk()).make()
    assert env.observation_space == spaces.Discrete(10)
    assert env.action_space == spaces.MultiDiscrete([3, 2])
    assert episode_limit(env) == 25
    assert episode_limit(env_source(walk(), max_episode_steps=7).make()) == 7
    box = env_source(walk("BOX", "LIMIT=0")).make()
    low, high = np.array([-1, -3], np.float32), np.array([3, 3], np.float32)
    assert box.action_space == spaces.Box(low, high, dtype=np.float32)
    assert episode_limit(box) is None


def test_options_arrive_as_json() -> None:
    """`start` moves the first place from 0 .. 3 to 4 .. 7; a refusal is told."""
    env = env_source(walk(), env_kwargs={"start": 4}).make()
    assert {int(env.reset(seed=seed)[0]) for seed in range(40)} == {4, 5, 6, 7}
    with pytest.raises(EnvironmentFault, match="refused"):
        env_source(walk(), env_kwargs={"refuse": True}).make()


def test_a_reset_without_a_seed_goes_on_drawing() -> None:
    """As Gymnasium's environments: the first seed decides the episodes after it."""
    env = LibraryEnv(walk("BOX"))
    first = [env.reset(seed=3)[0].tolist(), env.reset()[0].tolist(), env.reset()[0].tolist()]
    assert first[1] != first[2]
    assert [env.reset(seed=3)[0].tolist(), env.reset()[0].tolist()] == first[:2]


@pytest.mark.parametrize(
    ("macros", "error", "text"),
    [
        (("NO_STEP",), EnvironmentFault, "must export clipper_env_step, but does not"),
        (("ABI=9",), EnvironmentFault, "must have version 1 of clipper_env.h, but has 9"),
        (("NUM_PLACES=0",), SpaceError, "must have 1 to 16,777,216 categories"),
        (("BOX", "HIGHEST=0.0f"), SpaceError, "must have low below high"),
    ],
)
def test_what_is_wrong_is_told(
    macros: tuple[str, ...], error: type[ClipperError], text: str
) -> None:
    """A function that is missing, another version, a space that cannot be."""
    with pytest.raises(error, match=text):
        env_source(walk(*macros))


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    """Missing, or something else: said before anything is built."""
    with pytest.raises(EnvironmentUnknown, match="no such file"):
        clipper.PPO(str(tmp_path / "libgone.so"))
    (tmp_path / "libtext.so").write_text("no library")
    with pytest.raises(EnvironmentFault, match="cannot be loaded"):
        clipper.PPO(str(tmp_path / "libtext.so"))


def test_a_failing_step_says_why() -> None:
    """The library's own words."""
    env = LibraryEnv(walk("FAIL_AT=2"))
    env.reset(seed=0)
    env.step([1, 0])
    with pytest.raises(EnvironmentFault, match="the floor is missing"):
        env.step([1, 0])


def test_a_file_must_not_choose_what_library_is_loaded() -> None:
    """A library named in a file runs code, as a module does."""
    assert imports_what_it_names("./libgame.so")
    assert imports_what_it_names("/tmp/game.dylib")
    assert not imports_what_it_names("CartPole-v1")


@pytest.mark.parametrize(
    ("macros", "action", "law"),
    [
        ((), [3, 0], "must belong to"),
        ((), [0, -1], "must belong to"),
        ((), 1, "must have the shape"),
        (("BOX",), [0.5], "must have the shape"),
    ],
)
def test_a_library_is_given_no_action_that_it_does_not_have(
    macros: tuple[str, ...], action: Any, law: str
) -> None:
    """A game may use the number as an index."""
    env = LibraryEnv(walk(*macros))
    env.reset(seed=1)
    with pytest.raises(EnvironmentFault, match=law):
        env.step(action)


def test_actions_of_a_box_arrive_within_its_bounds() -> None:
    """Bounds are -1 to 3 and -3 to 3; the reward is 0.1 of the first less 0.01 of the second."""
    env = LibraryEnv(walk("BOX"))
    env.reset(seed=1)
    assert env.step(np.array([1e6, -1e6], np.float32))[1] == pytest.approx(0.1 * 3 + 0.01 * 3)


def test_a_closed_environment_is_not_handed_to_the_library() -> None:
    """It is freed there: a call with it would take the process down; nor is one that has not begun."""
    env = LibraryEnv(walk())
    action = env.action_space.sample()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(action)
    env.reset(seed=1)
    env.step(action)
    env.close()
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        env.step(action)
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        env.reset()
    many = LibraryVectorEnv(walk(), 2)
    many.reset(seed=1)
    many.close()
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        many.step(many.action_space.sample())
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        many.reset()
