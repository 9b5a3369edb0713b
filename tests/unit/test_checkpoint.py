"""Laws of what is written to disk: whole or not at all, checked when read, and never code."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipper import checkpoint as module
from clipper.checkpoint import (
    FORMAT,
    Checkpoint,
    CheckpointRules,
    checkpoints_in,
    dump_json,
    parameters_sha256,
    parse_json,
    prefixed,
    read_checkpoint,
    read_tensors,
    without_prefix,
    write_atomically,
    write_checkpoint,
    write_tensors,
)
from clipper.errors import ClipperError, ConfigError, FileError, FormatError

MEMBERS = ("agent.safetensors", "training.safetensors", "state.json")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Does not wait for the disk; in which order files are synced has a test of its own."""
    monkeypatch.setattr(module.os, "fsync", lambda descriptor: None)


def sample(step: int, mark: float = 0.0) -> Checkpoint:
    """Returns a checkpoint whose every part says which one it is."""
    return Checkpoint(
        step=step,
        agent={"policy.w": np.full((2, 3), step + mark, np.float32)},
        agent_meta={"format": FORMAT, "step": step, "mark": mark},
        training={
            "engine.m": np.arange(5.0) * step + mark,
            "sampler.actions": np.zeros((0, 2), np.int64),
            "sampler.steps": np.array([2**62]),
        },
        state={"training": {"step": step, "reward": 0.1 + mark, "none": None}},
    )


def assert_is(found: Checkpoint, step: int, mark: float = 0.0) -> None:
    """Fails unless all parts of a checkpoint are those of `sample`, to the last bit and type."""
    wanted = sample(step, mark)
    assert found.step == step
    for name in ("agent", "training"):
        arrays, others = getattr(found, name), getattr(wanted, name)
        assert arrays.keys() == others.keys()
        for key in arrays:
            assert np.array_equal(arrays[key], others[key])
            assert arrays[key].dtype == others[key].dtype
            assert arrays[key].shape == others[key].shape
    assert found.agent_meta == wanted.agent_meta
    assert {k: v for k, v in found.state.items() if k != "format"} == wanted.state


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---- write and read ------------------------------------------------------------------------------


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Every array, type and number comes back, empty arrays and large integers among them."""
    path = write_checkpoint(tmp_path / "deep" / "checkpoints", sample(7))
    found, problems = read_checkpoint(tmp_path / "deep" / "checkpoints")
    assert_is(found, 7)
    assert problems == []
    assert path.name == "step-000000000007"


def test_the_manifest_has_the_sha256_of_every_member(tmp_path: Path) -> None:
    """The sums are those of coreutils' `sha256sum`, and no member is left out."""
    path = write_checkpoint(tmp_path, sample(7))
    assert {p.name for p in path.iterdir()} == {*MEMBERS, "manifest.json"}
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["format"] == FORMAT
    assert set(manifest["members"]) == set(MEMBERS)
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("there is no sha256sum on this machine")
    for name, expected in manifest["members"].items():
        line = subprocess.run([tool, path / name], capture_output=True, text=True, check=True)
        assert line.stdout.split()[0] == expected


def test_the_newest_is_read_by_number(tmp_path: Path) -> None:
    """Step 10 is newer than step 9, whatever was written last."""
    for step in (10, 9, 2):
        write_checkpoint(tmp_path, sample(step), keep=9)
    assert_is(read_checkpoint(tmp_path)[0], 10)
    assert [int(p.name[5:]) for p in checkpoints_in(tmp_path)] == [2, 9, 10]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_few_are_kept(tmp_path: Path, keep: int) -> None:
    """Old checkpoints go when a new one stands, the previous one stays as the fallback."""
    for step in range(1, 6):
        write_checkpoint(tmp_path, sample(step), keep=keep)
        steps = [int(p.name[5:]) for p in checkpoints_in(tmp_path)]
        assert steps == list(range(max(1, step - keep + 1), step + 1))
    assert len(list(tmp_path.iterdir())) == keep


def test_two_are_kept_unasked(tmp_path: Path) -> None:
    """The default leaves a previous checkpoint to fall back to."""
    for step in range(1, 5):
        write_checkpoint(tmp_path, sample(step))
    assert [int(p.name[5:]) for p in checkpoints_in(tmp_path)] == [3, 4]


def test_the_same_step_may_be_written_again(tmp_path: Path) -> None:
    """The later one counts, and nothing else is left of the earlier."""
    write_checkpoint(tmp_path, sample(5))
    write_checkpoint(tmp_path, sample(5, mark=0.5))
    assert_is(read_checkpoint(tmp_path)[0], 5, mark=0.5)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000000005"]


def test_leftovers_are_ignored_and_swept_up(tmp_path: Path) -> None:
    """What a killed writer left is never read, and the next checkpoint removes it."""
    write_checkpoint(tmp_path, sample(5))
    shutil.copytree(tmp_path / "step-000000000005", tmp_path / "step-000000000009.tmp-123")
    (tmp_path / "step-000000000008.tmp-77").mkdir()
    (tmp_path / "notes.txt").write_text("the user's own")
    (tmp_path / "step-000000000011").write_text("a file is no checkpoint")
    found, problems = read_checkpoint(tmp_path)
    assert_is(found, 5)
    assert problems == []
    write_checkpoint(tmp_path, sample(6))
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {
        "notes.txt",
        "step-000000000005",
        "step-000000000006",
        "step-000000000011",
    }


def test_no_checkpoint_is_one_error_with_a_way_out(tmp_path: Path) -> None:
    """An empty or missing folder says that there is none and what to do."""
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileError, match="complete checkpoint") as caught:
            read_checkpoint(folder)
        assert "clipper train" in str(caught.value.hint)
    assert checkpoints_in(tmp_path / "missing") == []


# ---- damage --------------------------------------------------------------------------------------


def truncate(path: Path, to: int) -> None:
    path.write_bytes(path.read_bytes()[:to])


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def swap(folder: Path) -> None:
    first, second = (folder / name for name in MEMBERS[:2])
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def swap_in_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    sums = manifest["members"]
    sums[MEMBERS[0]], sums[MEMBERS[1]] = sums[MEMBERS[1]], sums[MEMBERS[0]]
    path.write_text(json.dumps(manifest))


def edit_manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest.pop("sum", None)
        change(manifest)
        # made good again by whoever changed it, so that what is changed is found and not the sum
        text = json.dumps(manifest, sort_keys=True, ensure_ascii=False)
        manifest["sum"] = hashlib.sha256(text.encode()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return damage


DAMAGE: dict[str, Callable[[Path], Any]] = {
    **{f"{n} truncated": lambda f, n=n: truncate(f / n, 20) for n in (*MEMBERS, "manifest.json")},
    **{f"{n} short of a byte": lambda f, n=n: truncate(f / n, -1) for n in MEMBERS},
    **{f"{n} empty": lambda f, n=n: truncate(f / n, 0) for n in (*MEMBERS, "manifest.json")},
    **{f"{n} flipped first": lambda f, n=n: flip(f / n, 0) for n in (*MEMBERS, "manifest.json")},
    **{f"{n} flipped last": lambda f, n=n: flip(f / n, -1) for n in (*MEMBERS, "manifest.json")},
    **{f"{n} missing": lambda f, n=n: (f / n).unlink() for n in (*MEMBERS, "manifest.json")},
    **{
        f"{n} a folder": lambda f, n=n: ((f / n).unlink(), (f / n).mkdir())
        for n in (*MEMBERS, "manifest.json")
    },
    "longer": lambda f: (f / MEMBERS[0]).write_bytes((f / MEMBERS[0]).read_bytes() + b"\0"),
    "swapped members": swap,
    "swapped sums": swap_in_manifest,
    "a member of another checkpoint": lambda f: shutil.copy(
        f.with_name("step-000000000001") / MEMBERS[1], f / MEMBERS[1]
    ),
    "manifest of another checkpoint": lambda f: shutil.copy(
        f.with_name("step-000000000001") / "manifest.json", f / "manifest.json"
    ),
    "everything gone": lambda f: (shutil.rmtree(f), f.mkdir()),
    "format unknown": edit_manifest(lambda m: m.update(format="new")),
    "format missing": edit_manifest(lambda m: m.pop("format")),
    "member unnamed": edit_manifest(lambda m: m["members"].pop("state.json")),
    "members a list": edit_manifest(lambda m: m.update(members=list(m["members"]))),
    "member outside": edit_manifest(lambda m: m["members"].update({"../x": "0"})),
    "not an object": lambda f: (f / "manifest.json").write_text("[]"),
    "not text": lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_previous(tmp_path: Path, name: str) -> None:
    """Damage of any kind is found, said aloud, set aside for inspection, and never read."""
    write_checkpoint(tmp_path, sample(1))
    newest = write_checkpoint(tmp_path, sample(2))
    DAMAGE[name](newest)
    left = files_in(newest)
    found, problems = read_checkpoint(tmp_path)
    assert_is(found, 1)
    assert len(problems) == 1
    assert problems[0].startswith("step-000000000002: ")
    assert not newest.exists()
    assert files_in(tmp_path / "step-000000000002.bad") == left
    # asked again it is quiet, and the next checkpoint of that step stands beside the bad one
    assert read_checkpoint(tmp_path)[1] == []
    write_checkpoint(tmp_path, sample(2))
    assert_is(read_checkpoint(tmp_path)[0], 2)
    assert (tmp_path / "step-000000000002.bad").is_dir()


def test_a_checkpoint_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """It is whole: it is neither read, nor set aside, nor passed over for an older one."""
    write_checkpoint(tmp_path, sample(1))
    newest = write_checkpoint(tmp_path, sample(2))
    edit_manifest(lambda m: m.update(format=FORMAT + 1))(newest)
    with pytest.raises(FormatError, match="must have the format 1, but has 2") as caught:
        read_checkpoint(tmp_path)
    assert "pip install -U" in str(caught.value.hint)
    assert newest.is_dir()


def test_a_disk_that_cannot_be_read_spoils_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input/output error is said, and the checkpoint keeps its name for another try."""
    newest = write_checkpoint(tmp_path, sample(1))

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", fail)
        with pytest.raises(FileError, match="Input/output error"):
            read_checkpoint(tmp_path)
    assert newest.is_dir()
    assert_is(read_checkpoint(tmp_path)[0], 1)


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_without_a_previous_is_refused(tmp_path: Path, name: str) -> None:
    """With nothing to fall back to it is one typed error that tells what was wrong."""
    write_checkpoint(tmp_path / "other", sample(1))
    newest = write_checkpoint(tmp_path, sample(2))
    shutil.copytree(tmp_path / "other" / "step-000000000001", tmp_path / "step-000000000001")
    DAMAGE[name](newest)
    shutil.rmtree(tmp_path / "step-000000000001")
    with pytest.raises(FileError, match="step-000000000002"):
        read_checkpoint(tmp_path)


def test_damage_twice_to_the_same_step_is_survived(tmp_path: Path) -> None:
    """A `.bad` folder that is there already is no obstacle to falling back again."""
    write_checkpoint(tmp_path, sample(1))
    for _ in range(2):
        newest = write_checkpoint(tmp_path, sample(2))
        flip(newest / "state.json", -1)
        found, problems = read_checkpoint(tmp_path)
        assert_is(found, 1)
        assert len(problems) == 1
    write_checkpoint(tmp_path, sample(2))
    assert_is(read_checkpoint(tmp_path)[0], 2)


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_is_found(tmp_path: Path, data: st.DataObject) -> None:
    """Whichever bit of whichever file is flipped, the reader either refuses or reads the same."""
    folder, path = tmp_path / "bits", tmp_path / "bits" / "step-000000000002"
    whole = tmp_path / "step-000000000002"
    if not whole.exists():
        write_checkpoint(tmp_path, sample(2))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, path)
    name = data.draw(st.sampled_from([*MEMBERS, "manifest.json"]))
    content = bytearray((path / name).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    (path / name).write_bytes(bytes(content))
    try:
        found, _ = read_checkpoint(folder)
    except FileError:
        return
    assert name == "manifest.json"  # in the rest every bit is summed up
    assert_is(found, 2)


# ---- a writer that is killed, or has no room -----------------------------------------------------


class Killed(BaseException):
    """The process ended here, as by SIGKILL: nothing after this line is done."""


CALLS = ("mkdir", "fsync", "rename", "replace", "open")


def dying_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> list[int]:
    """Lets the `number`-th call that touches the disk raise; returns the count of calls so far."""
    count = [0]

    def patched(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            count[0] += 1
            if count[0] == number:
                raise error
            return original(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(module.os, name, patched(getattr(os, name)))
    monkeypatch.setattr(module.shutil, "rmtree", patched(shutil.rmtree))
    return count


def writes_until_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, step: int, keep: int
) -> int:
    """Writes `step` after 1, dying at every call in turn; returns at how many it died."""
    for number in range(1, 100):
        folder = tmp_path / f"at-{number}"
        write_checkpoint(folder, sample(1))
        with monkeypatch.context() as patch:
            count = dying_at(patch, number, error)
            try:
                write_checkpoint(folder, sample(step, mark=0.5), keep=keep)
            except BaseException as raised:
                if raised is not error and not isinstance(raised, FileError):
                    raise
            if count[0] < number:
                return number - 1
        found, problems = read_checkpoint(folder)
        assert problems == [], f"dying at call {number}"
        assert_is(found, *((1, 0.0) if found.agent_meta["mark"] == 0 else (step, 0.5)))
        # and the folder can be written to again
        write_checkpoint(folder, sample(9))
        assert_is(read_checkpoint(folder)[0], 9)
    raise AssertionError("it never got through")


@pytest.mark.parametrize("step", [2, 1])
@pytest.mark.parametrize("keep", [1, 2])
def test_a_writer_killed_at_any_instant_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, keep: int
) -> None:
    """After a kill at any call to the disk the reader finds the old or the new one, whole.

    With `step` 1 the writer replaces the only checkpoint there is by one of the same step.
    """
    assert writes_until_done(tmp_path, monkeypatch, Killed(), step, keep) > 10


@pytest.mark.parametrize("step", [2, 1])
def test_a_full_disk_at_any_instant_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Where the system says no, the error is ours and the older checkpoint is intact."""
    full = OSError(28, "No space left on device")
    assert writes_until_done(tmp_path, monkeypatch, full, step, 2) > 10


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the file and the system's reason; nothing half-written stays."""
    write_checkpoint(tmp_path, sample(1))
    with monkeypatch.context() as patch:
        dying_at(patch, 5, OSError(28, "No space left on device"))
        with pytest.raises(FileError, match="must be writable, but No space left on device"):
            write_checkpoint(tmp_path, sample(2))
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000000001"]


def test_the_folder_is_complete_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are synced, then their folder, then it is renamed, then the parent is synced.

    Otherwise a power cut can leave a folder of the right name with empty files in it.
    """
    log: list[tuple[str, str]] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        log.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        real_fsync(descriptor)

    def rename(source: Any, target: Any) -> None:
        log.append(("rename", os.path.basename(target)))
        real_rename(source, target)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not tell which file a descriptor is")
    monkeypatch.setattr(module.os, "fsync", fsync)
    monkeypatch.setattr(module.os, "rename", rename)
    folder = tmp_path / "checkpoints"
    write_checkpoint(folder, sample(3))
    name = "step-000000000003"
    at = log.index(("rename", name))
    before = [entry for kind, entry in log[:at] if kind == "fsync"]
    assert sum(entry.startswith(name) for entry in before) >= 1
    for member in (*MEMBERS, "manifest.json"):
        assert any(member in entry for entry in before), member
    assert log[at - 1][1].startswith(f"{name}.tmp-")
    assert log[at + 1] == ("fsync", "checkpoints")


def test_a_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer killed at any call leaves the old or the new content under the file's name."""
    path = tmp_path / "deep" / "file.txt"
    for number in range(1, 20):
        write_atomically(path, b"old")
        with monkeypatch.context() as patch:
            count = dying_at(patch, number, Killed())
            try:
                write_atomically(path, b"the new content")
            except Killed:
                assert path.read_bytes() in (b"old", b"the new content")
            else:
                assert path.read_bytes() == b"the new content"
            if count[0] < number:
                break
    else:
        raise AssertionError("it never got through")
    with pytest.raises(FileError, match="must be writable"):
        write_atomically(path / "below", b"a file is no folder")
    assert path.read_bytes() == b"the new content"


# ---- the strict readers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 1}', "stands twice"),
        ('{"a": {"b": 1, "b": 2}}', "stands twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": [Infinity]}', "Infinity"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "1e999"),
        ('{"a": -1e999}', "1e999"),
        ("[]", "object"),
        ("3", "object"),
        ("", "JSON"),
        ("{", "JSON"),
        ('{"a": 1} {}', "JSON"),
        ("{'a': 1}", "JSON"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "JSON"),
        ('{"a": ' + "9" * 5000 + "}", "5,000 digits"),
        ('{"a": 1' + "0" * 400 + "}", "401 digits"),
        ('{"a": -1' + "0" * 309 + "}", "is too large"),
        (f'{{"a": {2**1024}}}', "is too large"),
        ("\ufeff{}", "JSON"),
    ],
)
def test_json_that_is_not_strict_is_refused(text: str, words: str) -> None:
    """Repeated keys, numbers that are none, depth bombs and the like are one typed error."""
    with pytest.raises(FileError, match=words) as caught:
        parse_json(text, "the file")
    assert "the file" in caught.value.message


def test_whole_numbers_that_a_float_can_hold_are_taken() -> None:
    """Seeds and counters need 63 bits, arguments of environments may have more; all digits are kept."""
    for number in (2**63, 2**64 - 1, -(2**63), 2**100 + 1, int(sys.float_info.max)):
        assert parse_json(f'{{"a": {number}}}', "x") == {"a": number}
    text = "9" * 400 + "\ud800"
    assert parse_json(dump_json({"a": text, "b": 1}), "x") == {"a": text, "b": 1}


@pytest.mark.parametrize(
    "given",
    [
        {"checkpoint_minutes": 10**400},
        {"checkpoint_minutes": math.nan},
        {"checkpoint_minutes": math.inf},
        {"checkpoint_minutes": -0.1},
        {"checkpoint_minutes": True},
        {"checkpoint_every": 0.5},
        {"checkpoint_every": 10**400},
        {"keep": 0},
    ],
    ids=lambda given: "".join(given),
)
def test_rules_that_are_none_are_refused(given: dict[str, Any]) -> None:
    """Too large for a float, no number, not whole or too small: one error of ours with the name."""
    with pytest.raises(ConfigError, match="".join(given)):
        CheckpointRules().replaced(**given)
    assert CheckpointRules().replaced(checkpoint_minutes=np.float64(0.5)) == CheckpointRules()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(data=st.dictionaries(st.text(), json_values, max_size=4))
def test_json_round_trip_is_exact_and_canonical(data: dict[str, Any]) -> None:
    """Floats come back to the last bit; the order in which keys were put in does not matter."""
    text = dump_json(data)
    assert parse_json(text, "x") == data
    assert dump_json(dict(reversed(data.items()))) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")]])
def test_json_that_could_not_be_read_is_not_written(value: Any) -> None:
    """A number that is none is refused on the way out too."""
    with pytest.raises(ValueError, match="JSON"):
        dump_json({"a": value})


def safetensors_file(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    """Returns a file of the format's layout: length of the header, header, tensors."""
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def header_with(metadata: Any, **tensors: Any) -> bytes:
    return json.dumps({"__metadata__": metadata, **tensors}).encode()


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
GOOD = {"clipper": json.dumps({"format": FORMAT})}
NO_FILES: dict[str, bytes] = {
    "empty": b"",
    "short": b"abc",
    "text": b"hello, this is no tensor file at all",
    "a header longer than the file": safetensors_file(b"{}", length=10_000),
    "a header of an exabyte": safetensors_file(b"{}", length=2**60),
    "a header that is no JSON": safetensors_file(b"{nope"),
    "a header that is no text": safetensors_file(b"\xff\xff\xff\xff"),
    "a tensor past the end": safetensors_file(header_with(GOOD, x=TENSOR), b"\0" * 4),
    "bytes past the tensors": safetensors_file(header_with(GOOD, x=TENSOR), b"\0" * 12),
    "offsets against the shape": safetensors_file(
        header_with(GOOD, x={**TENSOR, "shape": [3]}), b"\0" * 8
    ),
    "overlapping tensors": safetensors_file(header_with(GOOD, x=TENSOR, y=TENSOR), b"\0" * 8),
    "an unknown type": safetensors_file(header_with(GOOD, x={**TENSOR, "dtype": "F31"}), b"\0" * 8),
    "a shape that overflows": safetensors_file(
        header_with(GOOD, x={**TENSOR, "shape": [2**62, 2**62]}), b"\0" * 8
    ),
    "metadata that is no text": safetensors_file(header_with({"clipper": 3})),
    "no metadata": safetensors_file(json.dumps({"x": TENSOR}).encode(), b"\0" * 8),
    "metadata of another": safetensors_file(header_with({"format": "pt"}, x=TENSOR), b"\0" * 8),
    "metadata that is no JSON": safetensors_file(header_with({"clipper": "nope"})),
    "metadata that is a list": safetensors_file(header_with({"clipper": "[]"})),
    "no format": safetensors_file(header_with({"clipper": "{}"})),
    "a newer format": safetensors_file(header_with({"clipper": '{"format": 2}'})),
    "a format that is text": safetensors_file(header_with({"clipper": '{"format": "1"}'})),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_of_ours_is_a_typed_error(tmp_path: Path, name: str) -> None:
    """Whatever the bytes are, reading them is one error of ours that names the file."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(NO_FILES[name])
    with pytest.raises(FileError) as caught:
        read_tensors(path)
    assert str(path) in caught.value.message


def test_the_control_of_the_above(tmp_path: Path) -> None:
    """Negative control: the same layout without a fault is read."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_file(header_with(GOOD, x=TENSOR), struct.pack("<2f", 1.5, -2.0)))
    arrays, meta = read_tensors(path)
    assert arrays["x"].tolist() == [1.5, -2.0]
    assert meta == {"format": FORMAT}


@given(content=st.binary(max_size=200))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_are_a_typed_error(tmp_path: Path, content: bytes) -> None:
    """No bytes whatever raise anything but an error of ours."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ClipperError):
        read_tensors(path)


def test_missing_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    """A run folder given as a file says so, with the file that was probably meant."""
    with pytest.raises(FileError, match="there is none"):
        read_tensors(tmp_path / "missing.safetensors")
    with pytest.raises(FileError, match="is a folder") as caught:
        read_tensors(tmp_path)
    assert "agent.safetensors" in str(caught.value.hint)


# ---- small things --------------------------------------------------------------------------------


def test_arrays_need_not_be_contiguous(tmp_path: Path) -> None:
    """A transposed or strided array is written as what it says, not as it lies in memory."""
    base = np.arange(12.0).reshape(3, 4)
    arrays = {"t": base.T, "s": base[:, ::2], "zero": np.array(3.0)}
    write_tensors(tmp_path / "x.safetensors", arrays, {"format": FORMAT})
    found, _ = read_tensors(tmp_path / "x.safetensors")
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_the_parameters_sum_depends_on_the_policy_alone() -> None:
    """Names, types, shapes and bytes of the policy count; the order and other tensors do not."""
    base = {"policy.a": np.zeros(4, np.float32), "policy.b": np.ones(2)}
    total = parameters_sha256(base)
    assert parameters_sha256(dict(reversed(base.items()))) == total
    assert parameters_sha256({**base, "engine.m": np.ones(3)}) == total
    others: list[dict[str, Any]] = [
        {**base, "policy.a": np.zeros((2, 2), np.float32)},
        {**base, "policy.a": np.zeros(4, np.int32)},
        {**base, "policy.b": np.array([1.0, np.nextafter(1.0, 2.0)])},
        {"policy.a": base["policy.a"], "policy.c": base["policy.b"]},
        {**base, "policy.c": np.zeros(0)},
    ]
    assert len({total, *map(parameters_sha256, others)}) == 6


def test_prefixes_are_put_on_and_taken_off() -> None:
    """Only whole names before a dot count: `engine2.m` is not of `engine`."""
    arrays = {"m": np.zeros(1), "a.b": np.ones(1)}
    assert without_prefix("engine", prefixed("engine", arrays)) == arrays
    both = {**prefixed("engine", arrays), "engine2.m": np.zeros(2)}
    assert without_prefix("engine", both).keys() == arrays.keys()
