"""The corpus of the tests of preparation."""

import random

import pytest


@pytest.fixture
def corpus(tmp_path):
    """Write four files of documents, with one document in all of them."""
    rng = random.Random(0)
    words = [f"word{i}" for i in range(300)]
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in "abcd":
        documents = [
            "\n".join(
                " ".join(rng.choices(words, k=rng.randint(2, 15))) + "."
                for _ in range(rng.randint(1, 12))
            )
            for _ in range(60)
        ]
        (folder / f"{name}.txt").write_text(
            "\n\n".join([*documents, "The same text.\nIn every file."]) + "\n"
        )
    return folder
