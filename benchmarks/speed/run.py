"""How much of an environment's own speed is left when an agent trains in it.

    python benchmarks/speed/run.py                      # every work, three times, interleaved
    python benchmarks/speed/run.py CartPole-v1 --repeat 5 --out results.csv

For every work: the environments alone with random actions drawn beforehand (the faster of a bare
loop and Gymnasium's SyncVectorEnv), then training from a fresh agent over the first 100,000 steps,
in turns, in a process each, on one core. The ratio is what carries over between machines; the
microseconds of one update and of one act stand beside it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

STEPS = 100_000
# settings of the table that the project is measured by; the goal is a share of the env's speed
WORKS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {
        "goal": 0.65, "num_envs": 8, "num_steps": 128, "num_epochs": 4, "minibatch_size": 256,
    },
    "HalfCheetah-v5": {
        "goal": 0.75, "num_envs": 1, "num_steps": 2048, "num_epochs": 10, "minibatch_size": 64,
        "normalize_reward": True,
    },
    "LunarLander-v3": {
        "goal": 0.86, "num_envs": 16, "num_steps": 1024, "num_epochs": 4, "minibatch_size": 64,
    },
}  # fmt: skip
COLUMNS = ("work", "what", "repetition", "value", "unit", "engine", "command")


def main() -> int:
    """Measures and prints CSV rows, then a table of medians on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("works", nargs="*", choices=[*WORKS, []], metavar="WORK", default=[])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--engine", default="auto", help="auto, native or reference")
    parser.add_argument("--out", help="CSV file; stdout without it")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        work, what = args.one.split(":")
        print(json.dumps(MEASURES[what](work, args)))
        return 0
    with open(args.out or os.dup(sys.stdout.fileno()), "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for work in args.works or WORKS:
            found: dict[str, list[float]] = {}
            for repetition in range(args.repeat):
                for what in MEASURES:
                    for name, value, unit, engine in _in_a_process(work, what, args):
                        found.setdefault(name, []).append(value)
                        command = f"run.py {work} --steps {args.steps} --engine {args.engine}"
                        row = (work, name, repetition, f"{value:.6g}", unit, engine, command)
                        writer.writerow(row)
                        file.flush()
            _report(work, found)
    return 0


def _in_a_process(work: str, what: str, args: argparse.Namespace) -> list[Any]:
    command = [
        sys.executable, __file__, "--one", f"{work}:{what}",
        "--steps", str(args.steps), "--engine", args.engine,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return list(json.loads(done.stdout.splitlines()[-1]))


def _report(work: str, found: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(values) for name, values in found.items()}
    alone = max(medians["env alone, bare loop"], medians["env alone, SyncVectorEnv"])
    ratio = medians["training"] / alone
    lines = [f"{work}: {ratio:.2f} of the environment alone (goal {WORKS[work]['goal']})"]
    lines += [
        f"  {name}: {medians[name]:,.1f} ({min(values):,.1f} to {max(values):,.1f})"
        for name, values in found.items()
    ]
    print("\n".join(lines), file=sys.stderr)


def _pin() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def measure_alone(work: str, args: argparse.Namespace) -> list[Any]:
    """Returns the steps per second of both ways to step the environments without an agent."""
    _pin()
    import gymnasium
    import numpy as np

    num_envs = WORKS[work]["num_envs"]
    rounds = min(args.steps, 40_000) // num_envs
    envs = [gymnasium.make(work) for _ in range(num_envs)]
    envs[0].action_space.seed(0)
    drawn = [[envs[0].action_space.sample() for _ in envs] for _ in range(rounds)]
    for i, env in enumerate(envs):
        env.reset(seed=i)
    started = time.perf_counter()
    for actions in drawn:
        for env, action in zip(envs, actions, strict=True):
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
    bare = rounds * num_envs / (time.perf_counter() - started)

    vector = gymnasium.make_vec(work, num_envs=num_envs, vectorization_mode="sync")
    blocks = [np.asarray(actions) for actions in drawn]
    vector.reset(seed=0)
    started = time.perf_counter()
    for block in blocks:
        vector.step(block)
    sync = rounds * num_envs / (time.perf_counter() - started)
    return [
        ("env alone, bare loop", bare, "steps/s", "none"),
        ("env alone, SyncVectorEnv", sync, "steps/s", "none"),
    ]


def _agent(work: str, args: argparse.Namespace, **changes: Any) -> Any:
    import clipper

    settings = {k: v for k, v in WORKS[work].items() if k != "goal"}
    settings |= {"total_timesteps": args.steps, "eval_every": 0, "engine": args.engine, **changes}
    return clipper.PPO(work, preset="none", hidden_sizes=(64, 64), **settings)


def measure_training(work: str, args: argparse.Namespace) -> list[Any]:
    """Returns the steps per second of the first steps from a fresh agent."""
    _pin()
    agent = _agent(work, args)
    started = time.perf_counter()
    agent.train(progress=False)
    speed = agent.step / (time.perf_counter() - started)
    return [("training", speed, "steps/s", agent.engine)]


def measure_update(work: str, args: argparse.Namespace) -> list[Any]:
    """Returns the microseconds of one update and of one vector step's actions, best of many."""
    _pin()
    import numpy as np
    import torch

    torch.set_num_threads(1)
    agent = _agent(work, args)
    algorithm, policy = agent._run.algorithm, agent.policy
    rollout = agent._playground.ready(policy)[0].collect(policy, agent.config.num_steps)
    updates = agent.config.num_epochs * (rollout.num_rows // agent.config.minibatch_size)
    seconds = []
    for _ in range(20):
        log_probs, values = policy.evaluate(rollout.obs, rollout.actions)
        rollout.log_probs.copy_(log_probs)
        rollout.values.copy_(values)
        started = time.perf_counter()
        algorithm.improve(rollout, 0.0)
        seconds.append((time.perf_counter() - started) / updates)
    shape = (128, agent.config.num_envs)
    layout = policy.action_layout
    noise = np.zeros((*shape, policy.distribution.noise_size), dtype=np.float32)
    obs = np.zeros((*shape, policy.obs_layout.size), dtype=np.float32)
    act = policy.play(obs, noise, np.zeros((*shape, layout.size), dtype=layout.dtype)).act
    acting = []
    for _ in range(50):
        started = time.perf_counter()
        for t in range(128):
            act(t)
        acting.append((time.perf_counter() - started) / 128)
    return [
        ("one update", 1e6 * min(seconds), "us", agent.engine),
        ("one act of all envs", 1e6 * min(acting), "us", agent.engine),
    ]


MEASURES = {"alone": measure_alone, "training": measure_training, "update": measure_update}

if __name__ == "__main__":
    sys.exit(main())
