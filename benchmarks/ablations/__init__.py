"""Parts of `ablation.py`: the forms that it compares, its cells, its statistics and its page."""
