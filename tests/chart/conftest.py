from __future__ import annotations

import pytest

from tests.support.chart import Including


@pytest.fixture(scope="session")
def including(tmp_path_factory):
    """A chart that includes certagent's templates."""
    return Including(tmp_path_factory.mktemp("charts"))
