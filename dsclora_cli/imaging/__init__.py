"""Read, write and measure picture files, as NumPy arrays; no engine and no model is known here."""
