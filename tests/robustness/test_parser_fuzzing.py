"""The short form of the fuzzing of our parsers; `run.py parsers` and `run.py coverage` are the long forms."""

from __future__ import annotations

import pytest
from parser_fuzzing import fuzz_parser
from parsers import PARSERS


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_raises_only_what_its_documentation_names(name: str) -> None:
    tally = fuzz_parser(name, 300, seed=2)
    assert tally.findings == {}
    assert tally.inputs >= 300
