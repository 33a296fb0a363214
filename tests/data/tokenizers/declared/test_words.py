import json

import pytest

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.tokenizer import open_vocabulary
from tests.data.tokenizers.declared.folders import put
from tests.data.tokenizers.declared.makers import (
    space_by_the_normalizer,
)
from tests.data.tokenizers.test_tokenizer import ids_of


@pytest.mark.parametrize("pattern", [{"String": " "}, {"Regex": " "}, {"Regex": "\\s+"}])
def test_pieces_begin_words_by_the_space_that_the_normalizer_writes(tmp_path, pattern):
    folder = space_by_the_normalizer(tmp_path)
    engine = json.loads((folder / "tokenizer.json").read_text())
    engine["normalizer"]["normalizers"][1]["pattern"] = pattern
    put(folder, engine)
    config = TokenizerConfig(vocab_file=str(folder / "tokenizer.json"))
    tokenizer = open_vocabulary(config)
    ids = ids_of(tokenizer, "the dog there")
    starts = [tokenizer.pieces([i])[0] for i in ids if tokenizer.starts_word[i]]
    assert starts == ["\u2581the", "\u2581d", "\u2581the"]
    assert {"the", "d"} <= set(tokenizer.words())
