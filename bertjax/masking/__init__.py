"""Choice of the masked words: `selection.py` in any array library, `static.py`, `dynamic.py`."""
