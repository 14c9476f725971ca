"""What all tests share: the real data where it is, small georeferenced files, and a home for caches."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real imagery beside the checkout; the test skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real imagery is absent: no ../shared/data beside the checkout")
    return SHARED_DATA
