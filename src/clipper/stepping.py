"""How environments are stepped, which decides nothing that the native engine learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from clipper.errors import ConfigError
from clipper.setting_values import read_duration


@dataclass(frozen=True, kw_only=True)
class Stepping:
    """How environments are stepped; a run's own stand in its `config.json`, and it resumes with them.

    Attributes:
        workers: Worker processes beside this one, or None to measure how many pay (`auto`).
        vectorization: What steps them: `auto`, `gymnasium` or `native`.
        isolate: True to step them in worker processes alone, one at least.
        env_timeout: Seconds after which a step in a worker counts as hanging, or None to judge by its
            pace.
    """

    workers: int | None = 0
    vectorization: str = "auto"
    isolate: bool = False
    env_timeout: float | None = None

    def replaced(
        self,
        *,
        workers: int | str | None = None,
        vectorization: str | None = None,
        isolate: bool | None = None,
        env_timeout: float | str | None = None,
    ) -> Self:
        """Returns this with what is given in its place; None is not given.

        Raises:
            ConfigError: A number or a time is wrong.
        """
        return type(self)(
            workers=self.workers if workers is None else read_workers(workers),
            vectorization=self.vectorization if vectorization is None else vectorization,
            isolate=self.isolate if isolate is None else isolate,
            env_timeout=self.env_timeout
            if env_timeout is None
            else read_duration("env_timeout", env_timeout),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Returns what `to_json` wrote.

        Raises:
            ConfigError: A name is unknown, or a value is of another kind.
        """
        kinds: dict[str, type | tuple[type, ...]] = {
            "workers": int,
            "vectorization": str,
            "isolate": bool,
            "env_timeout": (int, float),
        }
        if not isinstance(data, Mapping) or not set(data) <= set(kinds):
            raise ConfigError(f"stepping must be an object with {sorted(kinds)} alone.")
        for name, value in data.items():
            is_kind = isinstance(value, kinds[name]) and (
                kinds[name] is bool or not isinstance(value, bool)
            )
            if value is not None and not is_kind:
                raise ConfigError(f"{name} of stepping must be of its kind, but is {value!r:.50}.")
        return cls().replaced(**data)


def read_workers(workers: int | str) -> int | None:
    """Returns a number of workers, or None for `auto`.

    Raises:
        ConfigError: It is neither.
    """
    if workers == "auto":
        return None
    try:
        number = int(workers)
    except (TypeError, ValueError):
        number = -1
    if number < 0 or isinstance(workers, (bool, float)):
        raise ConfigError(f"workers must be auto or a whole number from 0, but is {workers!r}.")
    return number
