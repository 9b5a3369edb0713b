"""Laws of the reference engine that no other file states."""

from __future__ import annotations

import pytest
from torch import nn

from clipper.engine.reference import ReferenceEngine
from clipper.errors import ConfigError


def test_a_module_that_is_frozen_altogether_is_told() -> None:
    """Nothing to learn is one error of ours; a single parameter is enough."""
    module = nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(ConfigError, match="all are frozen") as caught:
        ReferenceEngine(module, betas=(0.9, 0.999), eps=1e-5, max_grad_norm=None)
    assert "requires_grad_(True)" in str(caught.value.hint)
    module.bias.requires_grad_(True)
    ReferenceEngine(module, betas=(0.9, 0.999), eps=1e-5, max_grad_norm=None)
