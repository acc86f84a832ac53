"""What several integration tests share."""

from __future__ import annotations

import pytest

from tests.support.pods import Pods


@pytest.fixture
def pods(openbao, tmp_path):
    """A PKI mount with the root A, and agents with no rights but those that they need."""
    return Pods.on(openbao, tmp_path)
