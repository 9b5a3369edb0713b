"""Laws of the check of environments: each classic defect is found by its name, and nothing else is."""

from __future__ import annotations

import flawed
import pytest

from clipper.envs.check_findings import FINDINGS, Findings
from clipper.envs.check_look import Budget, look_at
from clipper.envs.make import env_source

DEFECTS: dict[type[flawed.Sound], tuple[str, str]] = {
    flawed.NanLate: ("error", "obs_not_finite"),
    flawed.TooLargeForFloat32: ("error", "obs_not_finite"),
    flawed.ShapeLate: ("error", "obs_shape"),
    flawed.DtypeLate: ("warning", "obs_dtype"),
    flawed.ListLate: ("warning", "obs_dtype"),
    flawed.NoneLate: ("error", "obs_not_numbers"),
    flawed.NestedNan: ("error", "obs_not_finite"),
    flawed.NestedMissing: ("error", "obs_part_missing"),
    flawed.NestedOutside: ("error", "obs_outside_space"),
    flawed.OutsideSpace: ("warning", "obs_outside_space"),
    flawed.Reused: ("note", "obs_reused"),
    flawed.UnseededGenerator: ("warning", "seed_ignored"),
    flawed.SeedUnused: ("warning", "seed_ignored"),
    flawed.GlobalNumpy: ("warning", "not_deterministic"),
    flawed.GlobalRandom: ("warning", "not_deterministic"),
    flawed.Clock: ("warning", "not_deterministic"),
    flawed.SameWithoutSeed: ("note", "unseeded_repeats"),
    flawed.SeedWithoutUse: ("note", "seed_changes_nothing"),
    flawed.Leaky: ("warning", "state_leaks"),
    flawed.NoRestart: ("error", "episode_does_not_restart"),
    flawed.CounterGoesOn: ("error", "episode_does_not_restart"),
    flawed.CounterShown: ("error", "episode_does_not_restart"),
    flawed.SharedPlace: ("error", "state_shared"),
    flawed.ClosesAll: ("error", "state_shared"),
    flawed.OneOnly: ("error", "second_instance"),
    flawed.OnceOnly: ("error", "reopen_fails"),
    flawed.CloseRaises: ("warning", "close_fails"),
    flawed.ActionMutated: ("warning", "action_mutated"),
    flawed.RewardNone: ("error", "reward_type"),
    flawed.RewardArray: ("error", "reward_type"),
    flawed.RewardText: ("error", "reward_type"),
    flawed.RewardInfinite: ("error", "reward_not_finite"),
    flawed.RewardZero: ("note", "reward_constant"),
    flawed.RewardHuge: ("note", "reward_scale"),
    flawed.NeverEnds: ("warning", "episode_never_ends"),
    flawed.LimitTerminates: ("warning", "limit_as_terminated"),
    flawed.AlwaysBoth: ("warning", "end_both"),
    flawed.FlagsNone: ("error", "end_type"),
    flawed.FlagsInt: ("warning", "end_type"),
    flawed.FlagsArray: ("warning", "end_type"),
    flawed.InfoList: ("warning", "info_type"),
    flawed.ResetInfoList: ("error", "info_type"),
    flawed.ResetObsOnly: ("error", "reset_result"),
    flawed.ResetOldSignature: ("error", "reset_signature"),
    flawed.StepOfFour: ("error", "step_result"),
    flawed.RaisesAtHigh: ("error", "step_raises"),
    flawed.RaisesLate: ("error", "step_raises"),
    flawed.WideActions: ("warning", "action_bounds"),
    flawed.LopsidedActions: ("warning", "action_bounds"),
    flawed.UnboundedActions: ("warning", "action_bounds"),
    flawed.HugeObs: ("note", "obs_scale"),
    flawed.ConstantColumn: ("note", "obs_constant"),
    flawed.SpaceChanges: ("error", "space_changes"),
    flawed.SpacesDiffer: ("error", "spaces_differ"),
    flawed.GraphSpace: ("error", "space_not_supported"),
    flawed.RenderNone: ("warning", "render_fails"),
    flawed.RenderFloat: ("warning", "render_fails"),
    flawed.RenderRefused: ("warning", "render_fails"),
    flawed.RenderUndeclared: ("warning", "render_undeclared"),
    flawed.Slow: ("note", "step_slow"),
    flawed.SlowReset: ("note", "reset_slow"),
    flawed.LeaksThreads: ("note", "resources_leak"),
    flawed.LeaksMemory: ("note", "resources_leak"),
    flawed.InitRaises: ("error", "make_fails"),
}


def looked_at(env: object, **budget: float) -> Findings:
    return look_at(env_source(env), Budget(**{"steps": 3000, **budget}), seed=0)


@pytest.mark.parametrize("env", [flawed.Sound, flawed.Nested])
def test_nothing_is_found_in_a_sound_environment(env: type[flawed.Sound]) -> None:
    """No finding of any severity, and all was looked at."""
    found = looked_at(env)
    assert list(found) == []
    assert found.coverage.skipped == []
    assert found.coverage.steps >= 3000
    assert found.coverage.instances > 5


@pytest.mark.parametrize("env", DEFECTS, ids=lambda env: env.__name__)
def test_a_defect_is_found_and_nothing_else(env: type[flawed.Sound]) -> None:
    """Exactly the finding of that defect, of its severity, with words and evidence."""
    found = looked_at(env)
    assert [(f.severity, f.name) for f in found] == [DEFECTS[env]]
    assert found[0].message.endswith(".")
    assert found[0].mend
    assert FINDINGS[found[0].name]
