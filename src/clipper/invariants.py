"""Numbers that must be what theory says in, nothing or an error that says what is broken out."""

from __future__ import annotations

import warnings

from clipper.errors import InvariantBreach

# in torch, rounding moves the first ratio from 1 by 1e-6 or so; a policy that depends on more than
# its observation (dropout, batch statistics) by far more. Native rows are the same to the bit.
FIRST_RATIO_TOLERANCE = 1e-2
FIRST_RATIO_WARNING = 1e-3


def check_first_ratio(error: float, tolerance: float) -> None:
    """Raises unless the ratio pi(a|s) / pi_old(a|s) was 1 before any update.

    Args:
        error: Largest |ratio - 1| of the first minibatch.
        tolerance: What rounding may do.

    Raises:
        InvariantBreach: It was not.
    """
    hint = (
        "a module's output must depend on the observation alone: no dropout, no batch statistics, "
        "no state between calls."
    )
    if not error <= tolerance:
        raise InvariantBreach(
            "the ratio must be 1 on the first minibatch, before any update, "
            f"but is off by up to {error:.3g}.",
            hint=hint,
        )
    if error > FIRST_RATIO_WARNING:
        warnings.warn(
            f"the ratio of the first minibatch is off by {error:.3g} from 1, more than rounding does: "
            f"{hint}",
            stacklevel=2,
        )
