"""Laws of what an agent is apart from its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clipper.errors import ConfigError
from clipper.identity import check_seed


@pytest.mark.parametrize("seed", [0, 3, 2**63 - 1, np.int64(3), np.uint8(3)])
def test_any_whole_number_is_a_seed(seed: Any) -> None:
    """numpy's too, as they come out of a sweep; what is kept is Python's, which JSON can write."""
    found = check_seed(seed)
    assert found == seed
    assert type(found) is int


@pytest.mark.parametrize("seed", [-1, 2**63, True, np.bool_(True), 3.0, "3", None, np.array([3])])
def test_what_is_no_seed_is_told(seed: Any) -> None:
    """Truth values, texts and fractions are not taken for numbers."""
    with pytest.raises(ConfigError, match="seed must be a whole number"):
        check_seed(seed)
