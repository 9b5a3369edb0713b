"""Renders `docs/RELIABILITY.md`: each promise beside the tests that keep it, and what they measured.

    python tests/reliability.py --tests     the tests to run, for pytest
    python tests/reliability.py FOLDER      takes over what they noted there, and renders the page

`make reliability` does both. The numbers are kept in `docs/reliability.json`; those of tests that were
not run this time stay.
"""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import facts  # noqa: E402

PAGE = ROOT / "docs" / "RELIABILITY.md"
NUMBERS = ROOT / "docs" / "reliability.json"


@dataclass(frozen=True)
class Promise:
    """What Clipper promises, and what keeps it.

    Attributes:
        text: The promise.
        tests: Files below `tests`, or `file::test`.
        figure: What was measured, with facts in it as `{name[number]}`; the number of cases that
            passed is put behind it.
    """

    text: str
    tests: tuple[str, ...]
    figure: str = ""

    @property
    def facts(self) -> set[str]:
        """Names of the facts in its figure."""
        found = (name for _, name, _, _ in string.Formatter().parse(self.figure) if name)
        return {name.partition("[")[0] for name in found}


SECTIONS: dict[str, list[Promise]] = {
    "Going on exactly": [
        Promise(
            "A run killed at any instant resumes to the identical bits: parameters, optimiser, "
            "normalisers, memory, counters, best agent, every row but for times. Six tasks, all "
            "algorithms, both engines, with and without workers, in every pair",
            ("golden/test_resume_matrix.py::test_killed_and_resumed_is_the_straight_run",),
            "{matrix[records]:.0f} runs killed {matrix[kills]:.0f} times, 0 differences",
        ),
        Promise(
            "However often it is killed, while it learns, saves, writes its rows or is resumed",
            ("golden/test_resume_matrix.py::test_any_number_of_kills",),
            "{kills[kills]:.0f} random SIGKILLs in {kills[records]:.0f} runs, 0 differences",
        ),
        Promise(
            "Every part of the state counts: the comparison above fails when any one is left out",
            (
                "golden/test_resume_controls.py",
                "golden/test_resume.py::test_every_part_of_the_checkpoint_counts",
                "golden/test_resume_a2c_acer.py::test_every_part_of_the_checkpoint_counts",
                "golden/test_resume_relatives.py::test_every_part_of_the_checkpoint_counts",
            ),
        ),
        Promise(
            "`exact` for every environment that Gymnasium ships",
            (
                "golden/test_exact_everywhere.py::test_shipped_environments_resume_exactly",
                "golden/test_exact_everywhere.py::test_most_of_what_is_shipped_is_tried",
            ),
            "{registry[exact]:.0f} environments; {registry[left_out]:.0f} more that are registered "
            "cannot be made with the packages here or no longer exist; not tried: three "
            "`phys2d/` and two `tabular/`, which need JAX, and the two doors to the old gym",
        ),
        Promise(
            "An environment that no seed decides (global generators, the clock) goes on from new "
            "episodes, and `clipper inspect` says so with the reason",
            (
                "golden/test_exact_everywhere.py::test_what_cannot_be_replayed_begins_anew_and_says_so",
                "golden/test_exact_everywhere.py::test_what_no_seed_decides_is_found_at_the_end_of_an_episode",
            ),
        ),
        Promise(
            "With the native engine any number of workers learns the same bits",
            (
                "golden/test_bits.py::test_workers_learn_the_same_bits",
                "unit/test_workers.py::test_one_process_or_many_collect_the_same",
                "golden/test_resume_a2c_acer.py::test_workers_change_no_bit",
                "golden/test_resume_relatives.py::test_workers_change_nothing",
            ),
        ),
        Promise(
            "A run goes on with the workers, isolation and deadline it had; other shares of "
            "environments, by which torch rounds, are told",
            (
                "unit/test_workers.py::test_a_run_goes_on_with_the_workers_it_had",
                "unit/test_workers.py::test_other_shares_are_told_where_torch_rounds_by_them",
            ),
        ),
    ],
    "Stopping": [
        Promise(
            "SIGINT, SIGTERM and SIGHUP save the last finished iteration, rows included",
            ("faults/test_interrupts.py",),
        ),
        Promise(
            "A terminal that closes ends a run as Ctrl-C does, and is nothing to one under `nohup`",
            (
                "faults/test_signals.py::test_a_terminal_that_closes_ends_a_run_as_ctrl_c_does",
                "faults/test_signals.py::test_a_hang_up_is_nothing_to_a_run_under_nohup",
                "faults/test_signals.py::test_a_hang_up_hastens_nothing",
            ),
        ),
        Promise(
            "One signal stops training, evaluating or filming within 10 s, also with workers (stuck "
            "ones, and such as are told too), in an evaluation, in a save and in an update of minutes; "
            "no process and no shared memory stay",
            (
                "faults/test_signals.py::test_a_run_with_workers_stops_with_all_of_them",
                "faults/test_signals.py::test_a_machine_that_stops_tells_everyone_at_once",
                "faults/test_signals.py::test_a_stuck_worker_does_not_hold_up_a_stop",
                "faults/test_signals.py::test_a_signal_in_an_evaluation_takes_its_iteration_back",
                "faults/test_signals.py::test_a_signal_during_a_save_waits_for_it",
                "faults/test_signals.py::test_a_long_update_hears_the_signal",
                "faults/test_signals.py::test_playing_stops_too",
            ),
            "at most {signals_once[most_seconds]:.1f} s",
        ),
        Promise(
            "A second signal ends it within 2 s, on Linux also where an environment's C code never "
            "returns; the older checkpoint is whole and the run goes on",
            (
                "faults/test_signals.py::test_a_second_signal_ends_it_at_once",
                "faults/test_signals.py::test_a_second_signal_ends_what_hears_none",
            ),
            "at most {signals_twice[most_seconds]:.1f} s",
        ),
        Promise(
            "An iteration that a callback ends by raising is saved with its rows",
            (
                "unit/test_training.py::test_a_callback_that_raises_loses_nothing",
                "unit/experiments/test_run_sweep.py::test_a_run_whose_sweep_is_gone_loses_no_row",
            ),
        ),
        Promise(
            "A sweep that is killed loses and doubles no run",
            (
                "faults/test_sweeps.py::test_kill_9_of_the_sweep_loses_nothing",
                "faults/test_sweeps.py::test_kill_9_of_everything_loses_nothing",
            ),
        ),
        Promise(
            "Workers end with a killed parent, within 5 seconds",
            (
                "faults/test_signals.py::test_workers_end_with_a_killed_parent",
                "faults/test_signals.py::test_a_worker_deep_in_a_call_ends_with_a_killed_parent",
                "unit/test_workers.py::test_workers_end_with_a_killed_parent",
            ),
            "{signals_killed[most_seconds]:.1f} s",
        ),
    ],
    "Files": [
        Promise(
            "A writer that is killed, or refused by the disk, in any system call leaves a whole "
            "checkpoint, old or new, and the run ends with the bits of one that nothing befell",
            (
                "unit/test_checkpoint.py::test_a_writer_killed_at_any_instant_leaves_a_whole_checkpoint",
                "unit/test_checkpoint.py::test_a_full_disk_at_any_instant_leaves_a_whole_checkpoint",
                "faults/test_checkpoint_faults.py::test_a_kill_in_any_call_leaves_a_whole_checkpoint",
                "faults/test_checkpoint_faults.py::test_a_refusal_of_any_call_loses_nothing",
                "faults/test_checkpoint_faults.py::test_a_run_killed_in_any_call_goes_on",
                "faults/test_checkpoint_faults.py::test_a_run_whose_disk_refuses_any_call_goes_on",
            ),
        ),
        Promise(
            "A full disk does not end training; it is said, shown until it is made up for, and a last "
            "save that fails is no success",
            (
                "faults/test_checkpoint_faults.py::test_training_goes_on_while_the_disk_is_full",
                "faults/test_checkpoint_faults.py::test_a_last_save_that_fails_is_no_success",
                "faults/test_checkpoint_faults.py::test_a_run_that_learnt_is_never_removed",
                "unit/test_run_folder.py::test_rows_that_find_no_room_wait_for_it",
            ),
        ),
        Promise(
            "A damaged checkpoint is found, set aside and told; the one before it is read",
            (
                "unit/test_checkpoint.py::test_a_damaged_checkpoint_falls_back_to_the_previous",
                "unit/test_checkpoint.py::test_any_flipped_bit_is_found",
            ),
        ),
        Promise(
            "Cut to any length, or with any bit flipped, no file of a checkpoint and no agent file is "
            "taken for whole",
            (
                "faults/test_checkpoint_faults.py::test_no_truncated_member_is_taken_for_whole",
                "faults/test_checkpoint_faults.py::test_no_flipped_bit_is_taken_for_whole",
                "faults/test_checkpoint_faults.py::test_no_flipped_bit_of_an_agent_file_is_taken_for_whole",
            ),
            "{cuts[lengths]:.0f} lengths, {flips[bits]:.0f} flipped bits",
        ),
        Promise(
            "Whatever the bytes, a reader ends with an error of ours or with what was written: agents, "
            "checkpoints, `config.json`, metrics, faults (`make fuzz` does it by coverage)",
            ("properties/test_readers.py",),
        ),
        Promise(
            "Checkpoints are written by steps and minutes and kept as many as asked for; the best agent "
            "is never replaced by a worse one; those by time cost a percent of the time at most",
            (
                "faults/test_checkpoint_faults.py::test_checkpoints_by_time_cost_a_percent",
                "faults/test_checkpoint_faults.py::test_a_slow_save_makes_the_next_ones_rarer",
                "faults/test_checkpoint_faults.py::test_checkpoints_are_written_by_steps_and_kept_by_number",
                "faults/test_checkpoint_faults.py::test_checkpoints_are_written_by_time",
                "faults/test_checkpoint_faults.py::test_the_best_is_not_replaced_by_a_worse_one_after_a_kill",
                "faults/test_checkpoint_faults.py::test_a_best_agent_that_was_not_written_is_not_the_best",
            ),
        ),
        Promise(
            "Files are data: no pickle is opened, nothing that they name is imported, opened or "
            "connected to, whatever they claim to be is refused at once",
            (
                "unit/test_agent_file.py::test_a_pickle_is_never_opened",
                "unit/test_agent_file.py::test_a_module_that_a_file_names_is_not_imported",
                "faults/test_files_are_data.py",
            ),
        ),
        Promise(
            "Files of every format that was ever written are read; newer ones are refused with both "
            "versions",
            ("golden/test_formats.py",),
        ),
        Promise(
            "A folder holds one run: a checkpoint of another one, an edited `config.json` and a table "
            "with a damaged header are refused, and no row is lost by it; a folder that goes away while "
            "it is written is told of at once",
            (
                "faults/test_mixed_up_folders.py",
                "unit/test_run_folder.py::test_a_config_with_other_parts_is_refused",
            ),
        ),
        Promise(
            "One process writes a run folder; a second is told within 2 s, and a lock ends with its "
            "process",
            ("faults/test_one_writer.py",),
        ),
    ],
    "Faults": [
        Promise(
            "An environment that raises, crashes, is killed or hangs in a worker does not end the run",
            (
                "faults/test_supervision.py::test_the_run_goes_on",
                "faults/test_supervision.py::test_what_was_collected_before_is_kept",
                "faults/test_supervision.py::test_three_faults_of_one_environment_end_the_run",
                "faults/test_supervision.py::test_a_worker_that_dies_while_nothing_is_collected_costs_no_checkpoint",
                "faults/test_supervision.py::test_a_death_is_seen_though_something_of_it_lives_on",
            ),
        ),
        Promise(
            "A worker whose environment raises, is killed, crashes, exits or hangs is replaced; batches "
            "keep their size, no episode is played twice, no process stays",
            ("faults/test_supervision.py::test_thirty_faults_of_a_kind",),
            "{worker_faults[faults]:.0f} faults of 5 kinds",
        ),
        Promise(
            "A worker lost while CEM scores, or while a resumed run replays, is replaced; a resumed run "
            "remembers faults of the last hour",
            (
                "faults/test_supervision.py::test_a_worker_that_is_lost_while_scoring_is_replaced",
                "faults/test_supervision.py::test_a_worker_that_is_lost_in_a_replay_is_replaced",
                "faults/test_supervision.py::test_a_resumed_run_remembers_faults",
            ),
        ),
        Promise(
            "A slow worker is shown and waited for; the deadline is the larger of 10 s and 20 times the "
            "99th percentile of its steps",
            (
                "faults/test_supervision.py::test_a_slow_worker_is_told_of_and_a_hanging_one_replaced",
                "faults/test_supervision.py::test_slow_steps_of_long_ago_do_not_shorten_the_deadline",
                "faults/test_supervision.py::test_a_worker_may_judge_its_rollout_for_longer_than_a_step",
            ),
        ),
        Promise(
            "`clipper check-env` finds every one of a list of classic defects and nothing else, and "
            "nothing worse than a note in Gymnasium's own environments",
            (
                "unit/envs/test_check.py::test_a_defect_is_found_and_nothing_else",
                "unit/envs/test_check.py::test_the_end_of_its_process_is_found",
                "unit/envs/test_check.py::test_nothing_is_found_in_a_sound_environment",
                "unit/envs/test_check.py::test_no_false_alarm_on_gymnasiums_own",
            ),
            "{defects[records]:.0f} defects, {sound[records]:.0f} of the 44 environments that "
            "Gymnasium has itself (five need JAX, Pusher-v4 a MuJoCo before 3)",
        ),
        Promise(
            "A constructor that hangs in a worker is spoken of after 30 s, and ends the run after ten "
            "minutes",
            ("faults/test_supervision.py::test_environments_that_are_never_made_are_given_up",),
        ),
        Promise(
            "Environments of workers are closed at the end, as those of the run's own process are",
            ("faults/test_supervision.py::test_environments_of_workers_are_closed",),
        ),
        Promise(
            "Two updates at once in two threads of a process both come to their end",
            ("unit/test_engine_choice.py::test_two_updates_at_once_do_not_wait_for_each_other",),
        ),
        Promise(
            "A library that calls `exit` in a step does not look like a run that is done",
            ("unit/engine/test_native_envs.py::test_a_library_that_exits_is_not_done",),
        ),
        Promise(
            "With `--isolate` an environment that crashes or hangs in an evaluation is an error that "
            "names episode, step, seed",
            ("faults/test_supervision.py::test_a_crash_in_an_evaluation_is_an_error",),
        ),
        Promise(
            "NaN or infinity from the environment, and whatever else breaks its contract, moves no "
            "parameter, with every algorithm; the error names environment, episode, step, part and "
            "value",
            ("faults/test_finite.py::test_a_breach_moves_nothing",),
        ),
        Promise(
            "Observations outside the bounds of their space are told of once",
            ("unit/test_block_checks.py::test_observations_outside_their_bounds_are_told_of_once",),
        ),
        Promise(
            "NaN in values, log-probabilities or gradients of a module moves no parameter; a step that "
            "is too long is taken back; an agent that is not finite is never written",
            (
                "faults/test_finite.py::test_what_a_module_gives_moves_nothing",
                "faults/test_finite.py::test_a_step_that_is_too_long_is_taken_back",
                "faults/test_finite.py::test_an_agent_that_is_not_finite_is_never_written",
                "faults/test_finite.py::test_values_of_successors_are_looked_at",
                "unit/test_block_checks.py",
            ),
        ),
        Promise(
            "`on_nonfinite` `drop-episode`: every row is a good step and none is missing, the same in "
            "all loops and with workers, exactly resumable",
            ("faults/test_nonfinite.py",),
            "{dropped[steps]:.0f} steps dropped and found again by an oracle that plays each "
            "environment anew",
        ),
        Promise(
            "Alarms are silent over healthy runs of the presets, and each is raised by a broken setting",
            (
                "unit/test_alarms.py::test_healthy_runs_raise_no_alarm",
                "unit/test_alarms.py::test_a_broken_setting_raises_its_alarm",
            ),
            "0 alarms in {healthy[rows]:.0f} rows of {healthy[records]:.0f} runs",
        ),
        Promise(
            "A run's memory, files and threads do not grow",
            ("faults/test_memory.py",),
            "{memory[most_peak_megabytes]:.0f} MB at most in `clipper train CartPole-v1`",
        ),
    ],
    "Right numbers": [
        Promise(
            "One iteration leaves the parameters that Stable-Baselines3 leaves",
            ("golden/test_against_sb3.py", "golden/test_a2c_against_sb3.py"),
        ),
        Promise(
            "Both engines compute the same losses, gradients and updates",
            (
                "properties/test_native.py::test_losses_and_gradients",
                "properties/test_native.py::test_ten_updates",
            ),
        ),
        Promise(
            "A truncation is bootstrapped from the true final observation, a termination is an end",
            (
                "properties/test_advantages.py",
                "learning/test_probes.py::test_truncation_is_no_death",
                "learning/test_probes.py::test_termination_is_death",
                "learning/test_probes.py::test_value_of_the_true_final_observation",
            ),
        ),
        Promise(
            "Bugs that other implementations have had do not pass the tests (`make mutants`)",
            ("unit/test_mutants.py",),
            "{mutants[killed]:.0f} of {mutants[records]:.0f} found, {mutants[native]:.0f} of them in "
            "C++, each within {mutants[most_seconds]:.0f} s of CPU time",
        ),
    ],
}
PROMISES = [promise for promises in SECTIONS.values() for promise in promises]
INTRODUCTION = """\
# What is promised, and what keeps it

Each promise stands beside the tests that keep it. `make reliability` runs them all, the slow ones
too (about half an hour on two cores), and writes the last column. One file's rows are measured anew by
`CLIPPER_FACTS=build/facts pytest tests/FILE` and `python tests/reliability.py build/facts`.
"""


def render(numbers: dict[str, Any]) -> str:
    """Returns the page."""
    lines = [INTRODUCTION]
    for title, promises in SECTIONS.items():
        lines += [f"## {title}", "", "| promise | kept by | measured |", "|---|---|---|"]
        lines += [row(promise, numbers) for promise in promises]
        lines += [""]
    return "\n".join(lines)


def row(promise: Promise, numbers: dict[str, Any]) -> str:
    """Returns a promise as a row of a table."""
    names = "<br>".join(
        f"[`{name.rpartition('::')[2].rpartition('/')[2]}`](../tests/{name.partition('::')[0]})"
        for name in promise.tests
    )
    if not is_measured(promise, numbers):
        return f"| {promise.text} | {names} | not measured yet |"
    passed = sum(counts["passed"] for counts in outcomes_of(promise, numbers).values())
    found = f"{passed} cases pass" if passed != 1 else "1 case passes"
    if promise.figure:
        found = f"{promise.figure.format(**numbers['facts'])}; {found}"
    return f"| {promise.text} | {names} | {found} |"


def outcomes_of(promise: Promise, numbers: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Returns how the tests of a promise ended."""
    return {
        test: counts
        for test, counts in numbers["outcomes"].items()
        if any(
            test == f"tests/{name}" or test.startswith(f"tests/{name}::") for name in promise.tests
        )
    }


def is_measured(promise: Promise, numbers: dict[str, Any]) -> bool:
    """Returns True if every test of a promise has passed cases, and every number was noted."""
    if not promise.facts <= set(numbers["facts"]):
        return False
    ended = [outcomes_of(Promise("", (name,)), numbers).values() for name in promise.tests]
    return all(any(counts["passed"] for counts in found) for found in ended)


def failures(numbers: dict[str, Any]) -> list[str]:
    """Returns the tests of promises that failed, each once."""
    ended = [pair for promise in PROMISES for pair in outcomes_of(promise, numbers).items()]
    return list(dict.fromkeys(test for test, counts in ended if counts["failed"]))


def main(words: Sequence[str]) -> int:
    """Names the tests, or takes over what they noted."""
    if list(words) == ["--tests"]:
        print(*dict.fromkeys(f"tests/{name}" for p in PROMISES for name in p.tests))
        return 0
    if len(words) != 1 or not Path(words[0]).is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    numbers = {"facts": {}, "outcomes": {}}
    if NUMBERS.exists():
        numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    for part, found in zip(("facts", "outcomes"), facts.read(Path(words[0])), strict=True):
        numbers[part] |= found
    failed = failures(numbers)
    if failed:
        print(
            "the page is left as it is, for these tests failed:", *failed, sep="\n", file=sys.stderr
        )
        return 1
    for promise in PROMISES:
        if not is_measured(promise, numbers):
            print(f"not measured yet: {promise.text}", file=sys.stderr)
    kept = {
        "facts": {k: v for p in PROMISES for k, v in numbers["facts"].items() if k in p.facts},
        "outcomes": {k: v for p in PROMISES for k, v in outcomes_of(p, numbers).items()},
    }
    NUMBERS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(render(kept), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}: {len(PROMISES)} promises")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
