import pytest

from bertjax.tasks.files.python_docs import MAX_CHARACTERS, PACKAGES, rows
from bertjax.tasks.files.splits import DataLocation, read_rows


@pytest.mark.quick
def test_the_docstrings_are_parted_once_and_for_all():
    splits = {
        split: [row.values for row in rows(split)] for split in ("train", "validation", "test")
    }
    texts = [values["text"] for result in splits.values() for values in result]
    assert len(set(texts)) == len(texts)
    assert all(0 < len(text) <= MAX_CHARACTERS for text in texts)
    assert {values["label"] for values in splits["train"]} == set(PACKAGES)
    train, validation = len(splits["train"]), len(splits["validation"])
    assert train > 1500
    assert 0.05 < validation / (train + validation) < 0.2
    assert splits["validation"] == [
        row.values for row in read_rows(DataLocation("python-docs"), "validation")
    ]
