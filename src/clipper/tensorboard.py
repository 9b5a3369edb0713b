"""Reports of a run in, TensorBoard event files out (extra: track)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from clipper.errors import ConfigError
from clipper.training_report import Report


def check_tensorboard() -> None:
    """Raises unless TensorBoard is installed.

    Raises:
        ConfigError: It is not.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "TensorBoard events need the package tensorboard, which is not installed.",
            hint='pip install "clipper-rl[track]"',
        )


def has_events(folder: Path) -> bool:
    """True if a run wrote TensorBoard events."""
    return any(folder.glob("events.out.tfevents*"))


class TensorBoardWriter:
    """A callback that writes every metric under its path.

    Args:
        folder: Where the event file goes.
        done: Transitions done before; events of later ones, of a run that went on from a checkpoint, are
            not shown.
    """

    def __init__(self, folder: Path, done: int = 0) -> None:
        check_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None)

    def __call__(self, report: Report) -> None:
        """Writes a report."""
        for name, value in report.metrics.items():
            self._writer.add_scalar(name, value, report.step)
        self._writer.flush()
