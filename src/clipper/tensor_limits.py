"""What a file of tensors says of itself in, how many bytes its tensors may have at most out.

The metadata and the table of tensors stand at the start of a file. From them alone is told, before
anything is read or hashed, that a file is out of all proportion to the agent it describes. The limits
are several times what an agent takes; which tensors it must have is checked by those who read them.
torch is not needed. Dimension key: D columns of an observation's row, P outputs of the policy, N envs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, TypeGuard

from clipper.config import Config
from clipper.config_acer import ACERConfig
from clipper.configs import CONFIGS
from clipper.errors import ClipperError, FileError
from clipper.files import is_count

Table = Mapping[str, Any]
"""Every tensor's type, shape and place by its name, as JSON values that anybody may have written."""

# what describes no agent, or one without settings
SMALL_BYTES = 64 << 20
# columns of one observation: four pictures of 1920 x 1080 pixels in three colours
_MOST_COLUMNS = 1 << 25
# of an image: features where the settings do not say, filters of the first layer, weights of all others,
# and the numbers that the last one makes at most where it strides until some eight a side are left
_FEATURES, _FILTERS, _KERNELS, _SMALL_IMAGE = 512, 32, 1 << 17, 1 << 13
_NUM_EXAMPLES = 8


def check_size(table: Table, most: int | None, where: str) -> None:
    """Raises if the tensors of a table have more bytes than they may have.

    Args:
        table: As it was read.
        most: Bytes that all may have; None if nobody knows what a network of the user's takes, whose
            tensors do not count then.
        where: The file's name, for the message.

    Raises:
        FileError: They have, or the table is none.
    """
    free = "policy.network." if most is None else None
    counted = {n: t for n, t in table.items() if free is None or not n.startswith(free)}
    found, limit = num_bytes(counted, where), SMALL_BYTES if most is None else most
    if most is None:
        limit += 64 * (_columns(table, "example.obs") + _columns(table, "example.params"))
    if found > limit:
        largest = max(counted, key=lambda name: num_bytes({name: counted[name]}, where))
        raise FileError(
            f"{where} must have tensors of at most {limit:,} bytes for what it describes, "
            f"but has {found:,}, most of them in {largest!r:.80}."
        )


def num_bytes(table: Table, where: str) -> int:
    """Returns how many bytes the tensors of a table have.

    Raises:
        FileError: A tensor has no place in the file.
    """
    total = 0
    for name, tensor in table.items():
        place = tensor.get("data_offsets") if isinstance(tensor, dict) else None
        if not _are_counts(place) or len(place) != 2 or place[0] > place[1]:
            raise FileError(f"{where} must say where its tensors are, but not of {name!r:.80}.")
        total += place[1] - place[0]
    return total


def most_agent_bytes(meta: Mapping[str, Any], table: Table) -> int | None:
    """Returns how many bytes the tensors of an agent file may have; None with a user's module.

    Args:
        meta: Its metadata; what is none of an agent is refused by whoever reads on.
        table: Its table of tensors.
    """
    config = _config_of(meta)
    if config is None:
        return SMALL_BYTES
    if meta.get("module") == "user":
        return None
    columns, outputs = _columns(table, "example.obs"), _columns(table, "example.params")
    images = _image_widths(table) if meta.get("module") == "cnn" else []
    features = config.cnn_features or _FEATURES
    numbers = 0
    value_sizes = getattr(config, "value_hidden_sizes", None)
    for sizes in (config.hidden_sizes, value_sizes or config.hidden_sizes):
        widths = (columns + len(images) * features, *sizes, outputs + 1)
        numbers += sum((inputs + 1) * out for inputs, out in itertools.pairwise(widths))
        numbers += sum(features * (width + 1) + _KERNELS for width in images) + _FILTERS * columns
    # float32; and bounds, normaliser and examples of each column
    return 4 * numbers + 64 * (columns + outputs) + (1 << 16)


def most_training_bytes(
    meta: Mapping[str, Any], agent_table: Table, agent_bytes: int, step: int
) -> int:
    """Returns how many bytes the tensors beside the agent may have in a checkpoint.

    Args:
        meta: Metadata of the agent.
        agent_table: Its table of tensors.
        agent_bytes: What its tensors take.
        step: Transitions done, over all environments.
    """
    config = _config_of(meta)
    if config is None:
        return SMALL_BYTES
    columns, outputs = _columns(agent_table, "example.obs"), _columns(agent_table, "example.params")
    rows = config.num_envs
    if isinstance(config, ACERConfig):
        # two observations of each; what is remembered is rounded up to whole rollouts
        rows += 2 * config.num_envs * (config.replay_capacity + 2 * config.num_steps)
    # moments, averages and a search's float64 take at most four times what the agent does; actions
    # since the reset of each environment are kept
    actions = 8 * (outputs + 1) * (step + config.num_envs)
    return 8 * agent_bytes + rows * (4 * columns + 4 * outputs + 64) + actions + (1 << 16)


def _config_of(meta: Mapping[str, Any]) -> Config | None:
    """Returns the settings of an agent's metadata, or None if there are none."""
    config, algorithm = meta.get("config"), meta.get("algorithm")
    if not isinstance(config, dict) or not isinstance(algorithm, str) or algorithm not in CONFIGS:
        return None
    try:
        return CONFIGS[algorithm].from_json(config)
    except ClipperError:  # said by whoever reads on
        return None


def _columns(table: Table, name: str) -> int:
    """Returns how many columns an example of 8 rows has; 0 if it is none."""
    shape = _shape(table.get(name))
    return min(shape[1], _MOST_COLUMNS) if len(shape) == 2 and shape[0] == _NUM_EXAMPLES else 0


def _image_widths(table: Table) -> list[int]:
    """Returns how many numbers convolutions make at most of each part of an observation.

    Those of Mnih et al. 2015 make 64 for every 8 x 8 pixels, and their kernels end at the image's sides.
    """
    found = []
    for name, tensor in table.items():
        if name.startswith("space.obs") and name.endswith(".low"):
            height, width = [1, 1, *sorted(_shape(tensor))][-2:]
            pixels = min((height + 8) * (width + 8), 9 * _MOST_COLUMNS)
            found.append(max(_SMALL_IMAGE, pixels))
    return found


def _shape(tensor: Any) -> list[int]:
    """Returns the shape of a tensor of a table, or none."""
    shape = tensor.get("shape") if isinstance(tensor, dict) else None
    return shape if _are_counts(shape) else []


def _are_counts(found: Any) -> TypeGuard[list[int]]:
    return isinstance(found, list) and all(map(is_count, found))
