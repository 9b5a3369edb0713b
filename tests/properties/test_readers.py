"""Laws of readers under any input: an error of ours, or something whole; at length in `make fuzz`.

Honest files are changed at the level of bytes, where lengths and types go wrong, and of JSON, where
values are well written and mean something else.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.readers import TARGETS, Place, quiet, seeds

FEW = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ODD = st.sampled_from(
    [None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**40, 10**308, 10**400, 10**4000, 0.5, -0.0,
     1e308, "", "x", "1", "\0", "../x", "/etc/passwd", "x" * 1000, "none", "linear:1:0", [], [[]], [0],
     {}, {"a": 1}, [1, "a"]]
)  # fmt: skip


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """An honest run to be damaged."""
    with Place() as found:
        yield found


@pytest.mark.parametrize("target", TARGETS)
def test_honest_files_are_taken(target: str, place: Place) -> None:
    """Negative control: what is not changed is not refused."""
    for seed in seeds(place)[target]:
        assert TARGETS[target](place, seed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@FEW
def test_any_bytes_are_read_or_refused(target: str, place: Place, data: st.DataObject) -> None:
    """A piece is taken out, put in or written over, anywhere."""
    quiet()
    content = data.draw(st.sampled_from(seeds(place)[target]))
    head = int(target in ("checkpoint", "metrics"))  # which names the file
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(head, len(content)))
        cut = data.draw(st.sampled_from([0, 0, 1, 2, 8, len(content)]))
        put = data.draw(st.binary(max_size=8))
        content = content[:at] + put + content[at + cut :]
    TARGETS[target](place, content)


def changed(data: st.DataObject, value: Any) -> Any:
    """Returns a JSON value of which one part, however deep, is another, missing or doubled."""
    if isinstance(value, (dict, list)) and value and data.draw(st.integers(0, 3)):
        keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = data.draw(st.sampled_from(keys))
        copy = value.copy()
        how = data.draw(st.sampled_from(["into", "into", "into", "drop", "add"]))
        if how == "into":
            copy[key] = changed(data, value[key])
        elif how == "drop":
            del copy[key]
        elif isinstance(copy, dict):
            copy[data.draw(st.text(max_size=5))] = data.draw(ODD)
        else:
            copy.insert(key, copy[key])
        return copy
    return data.draw(ODD)


def changed_header(data: st.DataObject, content: bytes) -> bytes:
    """Returns a safetensors file with a part of its metadata or of its table changed."""
    size = struct.unpack("<Q", content[:8])[0]
    table = json.loads(content[8 : 8 + size])
    if data.draw(st.integers(0, 3)):
        meta = json.loads(table["__metadata__"]["clipper"])
        table["__metadata__"]["clipper"] = json.dumps(changed(data, meta))
    else:
        table = changed(data, table)
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", [name for name in TARGETS if name != "metrics"])
@given(data=st.data())
@FEW
def test_any_json_is_read_or_refused(target: str, place: Place, data: st.DataObject) -> None:
    """A value somewhere in an honest file is of another type or size, unknown, missing or doubled."""
    quiet()
    content = data.draw(st.sampled_from(seeds(place)[target]))
    head, content = (content[:1], content[1:]) if target == "checkpoint" else (b"", content)
    if content.startswith(b"{"):
        content = json.dumps(changed(data, json.loads(content))).encode()
    else:
        content = changed_header(data, content)
    TARGETS[target](place, head + content)
