"""Laws of a single setting: how it is read, checked, shown, and written."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import ConfigError
from clipper.foreign_names import FOREIGN_NAMES, name_hint
from clipper.setting_values import Schedule, read_duration, read_value, setting_to_json, show
from clipper.settings import check_range, describe_field, read_settings, setting

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A config class with a field of every kind, apart from Clipper's own."""

    count: int = setting(3, "how many", low=1, unit="steps")
    weight: float = setting(0.5, "how much", low=0, high=1)
    rate: Schedule = setting(Schedule(0.2, 0.2), "how fast", low=0, open_low=True)
    bound: float | None = setting(None, "how far", low=0, open_low=True)
    widths: tuple[int, ...] = setting((64, 64), "how wide", low=1)
    pair: tuple[float, float] = setting((0.9, 0.999), "two numbers", low=0, high=1)
    mode: Literal["warm", "cold"] = setting("warm", "which")
    active: bool = setting(True, "whether")


SPECS = {spec.name: spec for spec in dataclasses.fields(Sample)}


def read(**values: Any) -> Any:
    """Returns the one value after reading it as a field of `Sample`."""
    (found,) = read_settings(Sample, values).values()
    return found


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("count", "4", 4),
        ("count", "1e3", 1000),
        ("count", "1_000", 1000),
        ("count", "1,000", 1000),
        ("count", 4.0, 4),
        ("weight", "0.25", 0.25),
        ("weight", 1, 1.0),
        ("rate", "0.2", Schedule(0.2, 0.2)),
        ("rate", 0.2, Schedule(0.2, 0.2)),
        ("rate", "linear:1e-3:0", Schedule(0.001, 0.0)),
        ("rate", Schedule(1.0, 2.0), Schedule(1.0, 2.0)),
        ("bound", "none", None),
        ("bound", None, None),
        ("bound", "0.5", 0.5),
        ("widths", "64,32", (64, 32)),
        ("widths", "64, 32", (64, 32)),
        ("widths", "64 32", (64, 32)),
        ("widths", "(64, 32)", (64, 32)),
        ("widths", "[64]", (64,)),
        ("widths", 64, (64,)),
        ("widths", [64, 32, 16], (64, 32, 16)),
        ("widths", " 64 ,32 ", (64, 32)),
        ("widths", "(64,)", (64,)),
        ("widths", "", ()),
        ("widths", "[]", ()),
        ("widths", np.int64(64), (64,)),
        ("count", np.int64(4), 4),
        ("pair", "0.5,0.75", (0.5, 0.75)),
        ("mode", "cold", "cold"),
        ("active", "true", True),
        ("active", "No", False),
        ("active", "on", True),
        ("active", 0, False),
        ("active", False, False),
    ],
)
def test_text_and_python_values_read_as_the_fields_type(
    name: str, given: Any, expected: Any
) -> None:
    """What is typed on the command line and what Python gives are the same value."""
    found = read(**{name: given})
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("count", "4.5", "a whole number"),
        ("count", "four", "a whole number"),
        ("count", "nan", "a whole number"),
        ("count", True, "a whole number"),
        ("count", None, "a whole number"),
        ("weight", "nan", "a finite number"),
        ("weight", math.inf, "a finite number"),
        ("weight", True, "a finite number"),
        ("rate", "linear:1", "linear:START:END"),
        ("rate", "linear:1:2:3", "linear:START:END"),
        ("rate", "linear:a:b", "linear:START:END"),
        ("rate", "linear:inf:0", "linear:START:END"),
        ("rate", "fast", "linear:START:END"),
        ("rate", False, "linear:START:END"),
        ("widths", "64,wide", "widths"),
        ("widths", "64,32.5", "widths"),
        ("widths", "64,,", "widths"),
        ("widths", "64,", "widths"),
        ("widths", "64,,32", "widths"),
        ("widths", ",64", "widths"),
        ("widths", "(64,,)", "widths"),
        ("pair", "0.5", "pair"),
        ("pair", "0.1,0.2,0.3", "pair"),
        ("mode", "hot", "warm, cold"),
        ("active", "maybe", "true or false"),
        ("active", 2, "true or false"),
    ],
)
def test_what_cannot_be_read_says_what_it_must_be(name: str, given: Any, words: str) -> None:
    """A value of the wrong type names the setting and what it must be."""
    with pytest.raises(ConfigError, match=rf"^{name} must be") as caught:
        read(**{name: given})
    assert words in caught.value.message


@pytest.mark.parametrize("given", ["inf", "-inf", "1e999"])
def test_infinity_is_no_whole_number(given: str) -> None:
    """Infinity where a count is meant is one clear error, like every other wrong value."""
    with pytest.raises(ConfigError, match="whole number"):
        read(count=given)


def test_an_unknown_name_hints_at_the_nearest_setting() -> None:
    """A misspelt setting fails and names the one that was meant."""
    with pytest.raises(ConfigError, match="'cuont'") as caught:
        read_settings(Sample, {"cuont": 1})
    assert caught.value.hint == "did you mean count?"


def test_an_unknown_name_far_from_all_lists_them() -> None:
    """If nothing is near, the hint lists what there is."""
    with pytest.raises(ConfigError) as caught:
        read_settings(Sample, {"zzzzzz": 1})
    assert all(name in str(caught.value.hint) for name in SPECS)


def test_a_wrong_choice_hints_at_the_nearest() -> None:
    """A choice in the wrong letters is answered with the right ones."""
    with pytest.raises(ConfigError) as caught:
        read(mode="Cold")
    assert caught.value.hint == "did you mean cold?"


def test_a_foreign_name_is_translated_only_where_we_have_the_setting() -> None:
    """`n_steps` means num_steps to those who have it; a verb without it must not promise it."""
    assert "num_steps" in str(name_hint("n_steps", ["num_steps", "seed"]))
    assert name_hint("n_steps", ["seed"]) is None


def test_a_hint_is_written_in_the_callers_style() -> None:
    """On the command line the hint names a flag."""
    hint = name_hint("lr", ["learning_rate"], lambda name: "--" + name.replace("_", "-"))
    assert "--learning-rate" in str(hint)


def test_foreign_names_are_not_our_own() -> None:
    """A foreign name that were also ours would send people away from a setting that exists."""
    assert not set(FOREIGN_NAMES) & set(FOREIGN_NAMES.values())


@given(start=finite, end=finite, progress=st.floats(-1, 2))
def test_a_schedule_stays_between_its_ends(start: float, end: float, progress: float) -> None:
    """At every moment, before the start and after the end included, it is between both ends."""
    start, end = start / 4, end / 4  # their difference must not overflow
    value = Schedule(start, end).at(progress)
    slack = 1e-12 * max(abs(start), abs(end))
    assert min(start, end) - slack <= value <= max(start, end) + slack


def test_a_schedule_is_linear() -> None:
    """Half way it is half way: 1e-3 to 0 is 5e-4 at 0.5 and 2.5e-4 at 0.75."""
    schedule = Schedule.parse("linear:1e-3:0")
    assert schedule.at(0) == 1e-3
    assert schedule.at(0.5) == pytest.approx(5e-4, rel=1e-12)
    assert schedule.at(0.75) == pytest.approx(2.5e-4, rel=1e-12)
    assert schedule.at(1) == 0
    assert not schedule.is_constant
    assert Schedule.parse(3).is_constant


@given(start=finite, end=finite)
def test_a_schedule_survives_json(start: float, end: float) -> None:
    """A schedule written as JSON and read back is the same to the last bit."""
    schedule = Schedule(start, end)
    assert read_value("rate", Schedule, setting_to_json(schedule)) == schedule


@pytest.mark.parametrize("value", [Schedule(3e-4, 3e-4), Schedule(1e-3, 0.0), (64, 32), None, True])
def test_what_is_shown_can_be_typed_again(value: Any) -> None:
    """`show` prints a value as the command line takes it."""
    kinds = {Schedule: Schedule, tuple: tuple[int, ...], type(None): float | None, bool: bool}
    assert read_value("x", kinds[type(value)], show(value)) == value


@pytest.mark.parametrize(
    ("name", "value", "is_allowed"),
    [
        ("count", 1, True),
        ("count", 0, False),
        ("weight", 0.0, True),
        ("weight", 1.0, True),
        ("weight", 1.0000001, False),
        ("weight", -1e-9, False),
        ("rate", Schedule(0.2, 0.0), True),  # an excluded bound may be where a schedule ends
        ("rate", Schedule(0.0, 0.2), False),
        ("rate", Schedule(0.0, 0.0), False),
        ("rate", Schedule(0.2, -0.1), False),
        ("bound", None, True),
        ("bound", 0.0, False),
        ("bound", 1e-300, True),
        ("widths", (), True),
        ("widths", (64, 0), False),
        ("pair", (0.0, 1.1), False),
        ("mode", "warm", True),
        ("active", False, True),
    ],
)
def test_ranges_hold_for_every_number_of_a_value(name: str, value: Any, is_allowed: bool) -> None:
    """Both ends of a schedule and every item of a list lie in the range; bounds as documented."""
    if is_allowed:
        check_range(SPECS[name], value)
    else:
        with pytest.raises(ConfigError, match=rf"^{name} must be"):
            check_range(SPECS[name], value)


def test_the_range_and_unit_stand_in_the_help() -> None:
    """The help says what a number may be and what it counts."""
    assert describe_field(SPECS["count"]) == "at least 1, steps"
    assert describe_field(SPECS["weight"]) == "0 to 1"
    assert describe_field(SPECS["rate"]) == "above 0"
    assert describe_field(SPECS["mode"]) == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10min", 600),
        ("10m", 600),
        ("2h", 7200),
        ("1.5 h", 5400),
        ("45", 45),
        (30, 30),
    ],
)
def test_durations(text: str | float, seconds: float) -> None:
    """A time is a number of seconds, or has its unit behind it."""
    assert read_duration("budget", text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5s", "ten", "5 parsecs", "1e999h", "nan", "s", "5e"])
def test_a_duration_must_be_a_time_above_zero(text: str) -> None:
    """Anything else is an error that shows how to write one."""
    with pytest.raises(ConfigError, match=r"^budget must be a time above 0") as caught:
        read_duration("budget", text)
    assert "10min" in str(caught.value.hint)
