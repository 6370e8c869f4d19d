"""What decoders print is caught, and what other code prints is not."""

from __future__ import annotations

import os
import warnings

import pytest

from dsclora_cli.imaging.decoder_messages import collect_complaints, silent


def test_warnings_of_decoders_are_dropped_and_others_stay(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with silent():
            warnings.warn("from a decoder", stacklevel=1)
        with pytest.warns(UserWarning, match="elsewhere"):
            warnings.warn("from elsewhere", stacklevel=1)
    assert "from a decoder" not in capfd.readouterr().err


def test_lines_of_libtiff_are_collected_and_other_lines_pass(capfd):
    with collect_complaints() as complaints:
        os.write(2, b"Fax4Decode: Bad code word at line 3.\nnote: of ours\nTIFFFetchNormalTag: odd.\na.png -> b.png\n")
    assert complaints == ["Fax4Decode: Bad code word at line 3."]
    assert capfd.readouterr().err == "note: of ours\na.png -> b.png\n"


def test_an_error_inside_is_raised_and_standard_error_is_back(capfd):
    with pytest.raises(KeyError), collect_complaints():
        raise KeyError
    os.write(2, b"visible\n")
    assert capfd.readouterr().err == "visible\n"
