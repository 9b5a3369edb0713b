"""A policy and an environment in, a GIF or MP4 of its episodes out, the return written on it."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from clipper.envs.make import EnvSource
from clipper.errors import EnvironmentFault
from clipper.exam import play_frames
from clipper.headless import headless_hint, prepare_headless
from clipper.policies.actor_critic import ActorCritic
from clipper.progress import frame_status
from clipper.rendering import VideoWriter, check_video_path, draw_caption


def film(
    policy: ActorCritic,
    source: EnvSource,
    path: str | Path,
    *,
    episodes: int,
    seed: int,
    deterministic: bool,
) -> list[float]:
    """Writes a film of fresh episodes and returns their returns.

    Args:
        policy: Plays with frozen normalisation.
        source: Makes the environment, with `render_mode="rgb_array"`.
        path: Ends in `.gif` or `.mp4`.
        episodes: How many to play; the same as an evaluation with this seed.
        seed: The evaluation's seed.
        deterministic: Take the most likely action, or sample.

    Raises:
        ConfigError: The suffix is another one.
        EnvironmentFault: The environment does not render arrays.
        FileError: The file cannot be written.
    """
    target = check_video_path(path)
    prepare_headless()
    env = source.make(render_mode="rgb_array")
    returns: dict[int, float] = {}
    try:
        fps = float(env.metadata.get("render_fps") or 30)
        with VideoWriter(target, fps) as video, frame_status() as status:
            frames = play_frames(
                policy,
                env,
                source.name,
                episodes=episodes,
                seed=seed,
                deterministic=deterministic,
                remake=partial(source.make, render_mode="rgb_array")
                if source.is_fresh_per_episode
                else None,
            )
            for number, (frame, episode, total) in enumerate(frames, start=1):
                label = f"episode {episode + 1}  " if episodes > 1 else ""
                video.add(draw_caption(frame, f"{label}return {total:.1f}"))
                status.update(f"frame {number:,}  {label}return {total:.1f}")
                returns[episode] = total
    except EnvironmentFault as fault:
        if "mujoco" in sys.modules and (hint := headless_hint()) is not None:
            raise EnvironmentFault(fault.message, hint=hint) from fault
        raise
    finally:
        env.close()
    return list(returns.values())
