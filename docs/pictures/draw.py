"""Draws the pictures of these pages from the library's own code: python docs/pictures/draw.py [NAME]

clip        the clipped surrogate of one row, over the ratio (needs nothing)
surrogates  the objectives along the line from old to new parameters (needs MuJoCo, seconds)
beta        the adaptive KL penalty over a run (needs MuJoCo, a minute)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import clipper
from clipper.advantages import normalize_advantages
from clipper.algorithms.ppo import PPO
from clipper.engine.native_envs import local_sampler
from clipper.envs.make import env_source
from clipper.losses import clip_objective, cpi_objective
from clipper.plotting import COLOURS, dress, save_figure
from clipper.training_report import Report

HERE = Path(__file__).parent
CLIP_RANGE = 0.2
TASK = "Hopper-v5"


def clip() -> Figure:
    """Returns the objective of a row as a function of its ratio, for A = 1 and A = -1."""
    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    ratios = torch.linspace(0.0, 2.0, 401)
    for axes, sign, edge in zip(panels, (1.0, -1.0), (1 + CLIP_RANGE, 1 - CLIP_RANGE), strict=True):
        advantage = torch.tensor([sign])
        clipped = [float(clip_objective(r[None], advantage, CLIP_RANGE)) for r in ratios]
        plain = [float(cpi_objective(r[None], advantage)) for r in ratios]
        axes.plot(ratios, plain, color=COLOURS[1], lw=1.4, ls="--", label="ratio · A, not clipped")
        axes.plot(
            ratios, clipped, color=COLOURS[0], lw=2.4, label="min(ratio · A, clip(ratio) · A)"
        )
        axes.plot([1.0], [sign], "o", color="#333333", ms=6, label="where every update begins")
        axes.axvline(edge, color="#999999", lw=1, ls=":")
        word = f"1 {'+' if sign > 0 else '-'} ε"
        axes.annotate(
            word,
            (edge, 0 if sign > 0 else -2),
            xytext=(4, 4),
            textcoords="offset points",
            color="#555555",
        )
        low, high = (edge, 2.0) if sign > 0 else (0.0, edge)
        axes.axvspan(low, high, color=COLOURS[0], alpha=0.08, lw=0)
        middle = (low + high) / 2
        axes.text(middle, 0.35 if sign > 0 else -1.75, "no gradient", ha="center", color="#555555")
        text = "A > 0: a good action" if sign > 0 else "A < 0: a bad action"
        axes.set_title(text, loc="left")
        axes.set_xlabel("ratio π(a|s) / π_old(a|s)")
        dress(axes, engineering=False)
    panels[0].set_ylabel("objective of the row, |A| = 1")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def surrogates() -> Figure:
    """Returns the objectives between the parameters before and after one real PPO update, and beyond."""
    agent = clipper.PPO(TASK, preset=f"paper/{TASK}", seed=1, engine="reference")
    policy, config = agent.policy, agent.config
    sampler = local_sampler(env_source(TASK), range(config.num_envs), agent.seed, "auto")
    rollout = sampler.collect(policy, config.num_steps)
    algorithm = PPO(policy, config, config.num_envs, agent.seed)
    old = [p.detach().clone() for p in policy.parameters()]
    obs = policy.normalize(rollout.obs)
    with torch.no_grad():
        old_params = policy(obs.flatten(0, 1))[0]
    algorithm.improve(rollout, 0.0)
    new = [p.detach().clone() for p in policy.parameters()]
    batch = algorithm.judge(rollout, obs)
    advantages = normalize_advantages(batch.advantages, batch.counted)
    shares = np.linspace(0.0, 3.0, 121)
    lines: dict[str, list[float]] = {"kl": [], "cpi": [], "half": [], "clip": []}
    for share in shares:
        with torch.no_grad():
            for p, a, b in zip(policy.parameters(), old, new, strict=True):
                p.copy_(a + float(share) * (b - a))
            params = policy(batch.obs)[0]
            ratio = (policy.distribution.log_prob(params, batch.actions) - batch.log_probs).exp()
            inside = ratio.clamp(1 - CLIP_RANGE, 1 + CLIP_RANGE)
            lines["kl"].append(float(policy.distribution.kl(old_params, params).mean()))
            lines["cpi"].append(float(cpi_objective(ratio, advantages)))
            lines["half"].append(float((inside * advantages).mean()))
            lines["clip"].append(float(clip_objective(ratio, advantages, CLIP_RANGE)))
    sampler.close()
    agent.close()
    best = shares[int(np.argmax(lines["clip"]))]
    kl_there = np.interp(1.0, shares, lines["kl"])
    print(f"clipped surrogate highest at {best:.2f} of the update; KL at 1: {kl_there:.4f}")
    figure = Figure(figsize=(8, 4.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    named = {
        "kl": ("KL(old || new), exact", COLOURS[2], ":"),
        "cpi": ("E[ratio · A], not clipped", COLOURS[1], "--"),
        "half": ("E[clip(ratio) · A], clipped without the minimum", COLOURS[3], "-."),
        "clip": ("E[min(...)]: the clipped surrogate, what PPO maximises", COLOURS[0], "-"),
    }
    for name, (label, colour, style) in named.items():
        axes.plot(shares, lines[name], color=colour, ls=style, lw=2, label=label)
    axes.set_ylim(-0.08, 1.15 * max(*lines["half"], *lines["clip"], 0.2))
    for share, text in ((0.0, "old"), (1.0, "new")):
        axes.axvline(share, color="#999999", lw=1, ls=":")
        axes.annotate(
            text, (share, -0.07), xytext=(4, 2), textcoords="offset points", color="#555555"
        )
    axes.set_xlabel(f"share of the first update's way through the parameters ({TASK})")
    dress(axes, engineering=False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def beta() -> Figure:
    """Returns the KL of every iteration of a run with the adaptive penalty, and its coefficient."""
    goal = 0.01
    agent = clipper.PPO(
        TASK,
        preset=f"paper/{TASK}",
        seed=1,
        objective="kl_adaptive",
        adaptive_kl_target=goal,
        eval_every=0,
        total_timesteps=200_000,
    )
    steps, kls, coefs = [], [], []

    def note(report: Report) -> None:
        steps.append(report.step)
        kls.append(report.metrics["policy/kl"])
        coefs.append(report.metrics["policy/kl_coef"])

    agent.train(progress=False, callback=note)
    agent.close()
    held = np.mean([(goal / 1.5 <= kl <= 1.5 * goal) for kl in kls])
    print(
        f"{len(kls)} iterations, {100 * held:.0f} % of them with KL within d_targ / 1.5 and 1.5 d_targ"
    )
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.axhspan(goal / 1.5, goal * 1.5, color=COLOURS[2], alpha=0.18, lw=0)
    above.plot(steps, kls, ".-", color=COLOURS[0], ms=4, lw=1)
    above.set_yscale("log")
    above.set_title("KL(old || new) after the iteration; green: β stays", loc="left", fontsize=10)
    below.step(steps, coefs, where="post", color=COLOURS[1], lw=1.6)
    below.set_yscale("log", base=2)
    below.set_title(
        "β of the iteration: doubled above the band, halved below", loc="left", fontsize=10
    )
    below.set_xlabel(f"environment steps ({TASK}, d_targ = {goal:g})")
    for axes in (above, below):
        dress(axes)
    return figure


if __name__ == "__main__":
    pictures = {"clip": clip, "surrogates": surrogates, "beta": beta}
    for name in sys.argv[1:] or pictures:
        save_figure(pictures[name](), HERE / f"{name}.png")
        print(HERE / f"{name}.png")
