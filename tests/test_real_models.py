"""Published models under the logical engine: bf16, one sequence of 131,072 tokens, each number derived by hand."""

from __future__ import annotations

from typing import Any

import pytest
from fifteen import FIFTEEN, PUBLISHED_TOTALS, T

from memcurve import load


@pytest.mark.parametrize(("name", "source", "derived"), FIFTEEN, ids=[name for name, _, _ in FIFTEEN])
def test_logical_bytes(name: str, source: Any, derived: int) -> None:
    assert derived == PUBLISHED_TOTALS[name]
    assert load(source).curve("logical", "bf16").bytes(T) == derived


def test_all_fifteen_are_derived() -> None:
    assert {name for name, _, _ in FIFTEEN} == set(PUBLISHED_TOTALS)
