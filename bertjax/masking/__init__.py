"""Selection of masked words: `selection.py` for any array library, `static.py`, `dynamic.py`."""
