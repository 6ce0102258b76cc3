"""A fake board for the tests of the link."""

from __future__ import annotations

import pytest
from fakeboard import FakeBoard


@pytest.fixture
def fake():
    with FakeBoard() as board:
        yield board
