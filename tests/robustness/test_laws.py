"""Laws over random pictures: a few small ones in the fast suite, more and larger ones in the slow suite."""

from __future__ import annotations

import pytest
from laws import LAWS, check


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_a_law_holds_for_small_pictures(law: str, native: None) -> None:
    assert check(law, examples=4, longest=24).cases >= 4


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_a_law_holds_for_all_pictures(law: str, native: None, openvino: None) -> None:
    assert check(law, examples=25, longest=300).cases >= 25
