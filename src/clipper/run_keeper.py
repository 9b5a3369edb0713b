"""A run's reports and states in, the files of its folder out."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clipper import agent_file
from clipper.checkpoint import (
    Checkpoint,
    CheckpointRules,
    prefixed,
    read_tensors,
    write_checkpoint,
    write_tensors,
)
from clipper.envs.names import needs_trust
from clipper.envs.raised import text_of
from clipper.errors import ClipperError, ConfigError, FileError, FormatError
from clipper.fault_file import write_fault
from clipper.faults import Fault
from clipper.plotting import plot_run
from clipper.policies.actor_critic import ActorCritic
from clipper.profile_files import write_profile
from clipper.profiling import RunProfile
from clipper.provenance import provenance, versions
from clipper.run_config import MAY_CHANGE
from clipper.run_folder import RunFolder, read_config
from clipper.setting_values import show
from clipper.stepping import Stepping
from clipper.training_report import Outcome, Report
from clipper.training_state import TrainingState

_LOG = logging.getLogger("clipper")


class RunKeeper:
    """Keeps a run in its folder: rows, checkpoints, last and best agent.

    Args:
        folder: Where.
        policy: The policy that is trained.
        describe: Returns what is known of the agent as it is now, for the metadata of its file.
        rules: How many checkpoints stay.
        stepping: Returns how environments are stepped.
    """

    def __init__(
        self,
        folder: RunFolder,
        policy: ActorCritic,
        describe: Callable[[], dict[str, Any]],
        rules: CheckpointRules,
        stepping: Callable[[], Stepping],
    ) -> None:
        self.folder = folder
        self.rules = rules
        self._policy = policy
        self._describe = describe
        self._stepping = stepping

    def begin(self, transforms: list[str]) -> None:
        """Writes what runs.

        Args:
            transforms: Lines that name the spaces and what is done to them.
        """
        meta = self._describe()
        env, seed = meta["env"], meta["seed"]
        settings = {
            k: meta[k]
            for k in (
                "algorithm",
                "preset",
                "seed",
                "config",
                "module",
                "engine",
            )
        }
        self.folder.write_config(
            {
                **settings,
                "name": self.folder.path.name.removesuffix(f"-{seed}"),
                "env": env["name"],
                "env_kwargs": env["kwargs"],
                "max_episode_steps": env["max_episode_steps"],
                "env_is_named": env["is_named"],
                "transforms": transforms,
                "checkpoints": self.rules.to_json(),
                "stepping": self._stepping().to_json(),
                **provenance(),
            }
        )
        self.folder.log(
            f"started {env['name']}, seed {seed}, preset {meta['preset']}, engine {meta['engine']}"
        )

    def go_on(self, step: int) -> None:
        """Notes in `log.txt` and `config.json` that the run goes on, and with which settings."""
        self.folder.log(f"resumed at step {step:,}")
        config = read_config(self.folder.path)
        meta = self._describe()
        changed = meta["config"]
        for name in MAY_CHANGE:
            if changed[name] != config["config"].get(name):
                value = changed[name]
                shown = f"{value:,}" if isinstance(value, int) else show(value)
                self.folder.log(f"{name} is now {shown}")
        resumed = [*config.get("resumed", []), {"step": step, **provenance(is_resumed=True)}]
        now = {
            "config": changed,
            "engine": meta["engine"],
            "resumed": resumed,
            "checkpoints": self.rules.to_json(),
            "stepping": self._stepping().to_json(),
        }
        self.folder.write_config({**config, **now})

    def write(self, report: Report, wall_seconds: float) -> None:
        """Appends an iteration's numbers and episodes."""
        self.folder.write_iteration(report.step, report.metrics, report.episodes, wall_seconds)
        if "eval/return_deterministic" in report.metrics:
            score = report.metrics["eval/return_deterministic"]
            self.folder.log(f"step {report.step:,}: evaluation {score:.2f}")

    def save_best(self, score: float) -> None:
        """Keeps the agent as it is now as the best so far, and its score with it."""
        self.folder.check_in_place()
        agent_file.write(self.folder.best_file, self._policy, {**self._describe(), "score": score})

    def save(
        self,
        state: TrainingState,
        algorithm_state: Mapping[str, Mapping[str, Any]],
        sampler_state: Mapping[str, Any],
    ) -> None:
        """Writes a checkpoint and the last agent."""
        self.folder.check_in_place()
        agent, agent_meta = agent_file.build(self._policy, self._describe())
        training = prefixed("sampler", sampler_state)
        for part, tensors in algorithm_state.items():
            if part != "policy":  # which is in the agent
                arrays = {k: v.numpy(force=True) for k, v in tensors.items()}
                training |= prefixed(part, arrays)
        device = str(self._policy.device)
        written = {"training": state.to_json(), "rows": self.folder.rows(), "device": device}
        frozen = [n for n, p in self._policy.named_parameters() if not p.requires_grad]
        if frozen:
            written["frozen"] = frozen
        checkpoint = Checkpoint(state.step, agent, agent_meta, training, written)
        write_checkpoint(self.folder.checkpoints, checkpoint, self.rules.keep)
        write_tensors(self.folder.agent_file, agent, agent_meta)

    def write_fault(self, fault: Fault) -> str:
        """Writes an environment's fault into `faults/`; returns the command that shows it again."""
        env = self._describe()["env"]
        file = write_fault(fault, env, self.folder.path / "faults")
        command = f"clipper replay {shlex.quote(str(file))}"
        if not env["is_named"]:
            command += " --env MODULE:ENV"
        elif needs_trust(env["name"], env["kwargs"]):
            command += " --trust-env"
        self.folder.log(f"{fault}")
        self.folder.log(f"to see it again: {command}")
        return command

    def finish(self, outcome: Outcome) -> None:
        """Notes how the run ended and draws its curve."""
        self.folder.log(f"ended at step {outcome.step:,}: {outcome.reason}")
        if self.folder.rows()["episodes"]:
            try:
                plot_run(self.folder.path, self.folder.path / "curve.png")
            except ClipperError:
                raise
            except Exception as error:  # memory, fonts: all is kept but the picture
                _LOG.warning("curve.png could not be drawn: %s", text_of(error))

    def write_profile(self, profile: RunProfile) -> None:
        """Writes where the time went as a table and a picture."""
        path = self.folder.path
        write_profile(profile, path, f"{self._describe()['env']['name']} · {path.name}")


def stepping_of(path: Path) -> Stepping:
    """Returns how a run steps its environments; those of its first days do not say it.

    Raises:
        FileError: There is no run, or it says something else.
    """
    try:
        return Stepping.from_json(read_config(path).get("stepping", {}))
    except ConfigError as error:
        raise FileError(f"{path / 'config.json'} must say how it runs, but {error}") from None


def best_score(folder: RunFolder, known: float | None) -> float | None:
    """Returns the score of the best agent that a run has kept, or None if there is none.

    It may be of an evaluation after the last checkpoint, which the checkpoint cannot know. A file
    that cannot be read is set aside, and the next evaluation writes another.

    Args:
        folder: The run's.
        known: The score that the checkpoint knows.
    """
    file = folder.best_file
    if not file.exists():
        return None
    try:
        score: float | None = agent_file.check_meta(read_tensors(file)[1], str(file)).get("score")
    except FormatError:
        raise  # it is whole: of a newer Clipper, whose best must not be replaced by a worse one
    except FileError as error:
        folder.log(f"damaged agent set aside: {error.message}")
        _LOG.warning("damaged agent set aside: %s", error.message)
        file.rename(file.with_name(f"{file.name}.bad"))
        return None
    if score is None or known is None:
        return known if score is None else score
    return max(score, known)


def changes_since(checkpoint: Checkpoint, device: str, engine: str) -> list[str]:
    """Returns what differs from where a checkpoint was written, and changes bits."""
    meta, now = checkpoint.agent_meta, versions()
    before = meta["versions"]
    changed = [f"{k} {before.get(k)} -> {v}" for k, v in now.items() if before.get(k) != v]
    saved_on, saved_by = checkpoint.state.get("device", device), meta.get("engine", engine)
    if saved_on != device:
        changed.append(f"device {saved_on} -> {device}")
    found = [f"the run went on with {', '.join(changed)}"] if changed else []
    if saved_by != engine:
        found.append(f"the engine changed from {saved_by} to {engine} at step {checkpoint.step:,}")
    return found
