"""Rules of alarms about the value function; as in `clipper.alarms`."""

from __future__ import annotations

from math import hypot
from statistics import fmean, median

from clipper.alarm_facts import WINDOW, Alarm, Past

# median of ten rows of the loss, in units of what the best constant would have, and of what 0 would
VALUE_LOSS_LIMIT = 10.0
VALUE_LOSS_OF_ZERO = 2.0
# of what the loss was ten rows ago; one that is less is falling
VALUE_LOSS_FALLS = 0.5
# mean of the last rows, none of which is above 0
EXPLAINED_VARIANCE_LIMIT = -0.1
# of ten rows, after a tenth of the run: the largest share of the variance that is explained, the median
# of the loss in units of a constant's, and of the targets' size; networks begin with values of about 0
SCALE_EXPLAINED = 0.15
SCALE_LOSS = 1.5
SCALE_SIZE = 50.0
SCALE_PROGRESS = 0.1


def value_loss_alarm(past: Past) -> Alarm | None:
    """The value function diverges: its loss is ten times that of a constant, and stays there.

    A loss that is no more than twice that of 0, with which it begins, or that falls is not there yet.
    """
    losses = past.last("loss/value", WINDOW)
    scales = past.target_scales(WINDOW // 2)
    if losses is None or scales is None:
        return None
    pairs = list(zip(losses[-len(scales) :], scales, strict=True))
    value = median(2.0 * loss / (std**2 + floor**2) for loss, (std, floor) in pairs)
    of_zero = median(2.0 * loss / (std**2 + 100.0 * floor**2) for loss, (std, floor) in pairs)
    if not (value > VALUE_LOSS_LIMIT and of_zero > VALUE_LOSS_OF_ZERO):
        return None
    if pairs[-1][0] < VALUE_LOSS_FALLS * pairs[0][0]:
        return None
    return Alarm(
        "value_loss",
        value,
        f"the value function diverges: its loss is {value:.3g} times that of a constant",
        ("lower learning_rate", "lower max_grad_norm", "set normalize_reward true"),
    )


def explained_variance_alarm(past: Past) -> Alarm | None:
    """The value function has long been worse than a constant."""
    raw = past.last("value/explained_variance", WINDOW)
    if raw is None or max(raw) > 0.0 or (scales := past.target_scales(WINDOW)) is None:
        return None
    # what is left unexplained, (1 - x) std^2, may be next to nothing where targets hardly differ
    found = [
        1.0 - (1.0 - x) * std**2 / (std**2 + floor**2)
        for x, (std, floor) in zip(raw, scales, strict=True)
    ]
    if max(found) > 0.0 or not (mean := fmean(found)) < EXPLAINED_VARIANCE_LIMIT:
        return None
    return Alarm(
        "explained_variance",
        mean,
        f"the value function explains {mean:.2f} of the variance of its targets over {WINDOW} "
        "iterations: a constant would do better",
        ("set normalize_obs true", "set normalize_reward true", "raise num_epochs", "lower gamma"),
    )


def scale_alarm(past: Past) -> Alarm | None:
    """Targets are large, and the value function does not get to them."""
    count = WINDOW // 2
    explained = past.last("value/explained_variance", count)
    losses, scales = past.last("loss/value", count), past.target_scales(count)
    if explained is None or losses is None or scales is None or past.progress < SCALE_PROGRESS:
        return None
    if not max(map(abs, explained)) < SCALE_EXPLAINED:
        return None
    pairs = zip(losses, scales, strict=True)
    excess = median(2.0 * loss / (std**2 + floor**2) for loss, (std, floor) in pairs)
    size = median(hypot(std, 10.0 * floor) for std, floor in scales)
    if not (excess > SCALE_LOSS and size > SCALE_SIZE):
        return None
    return Alarm(
        "scale",
        size,
        f"the value function explains {fmean(explained):.2f} of the variance of its targets, which are "
        f"{size:.3g} in size: it begins near 0 and does not get there",
        ("set normalize_reward true",),
    )
