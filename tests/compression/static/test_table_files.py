import json

import numpy as np
import pytest
from etils import epath
from safetensors import safe_open
from tokenizers import Tokenizer as Engine

from bertjax.compression.static.table_files import names_in_engine, write_table
from tests.compression.static.teachers import TEXTS, byte_bpe, wordpiece


@pytest.mark.parametrize("tokenizer", [wordpiece(), byte_bpe()], ids=["wordpiece", "byte_bpe"])
def test_the_files_say_what_the_table_is(tokenizer, tmp_path):
    folder = epath.Path(tmp_path)
    rows = np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 4)).astype(np.float32)
    write_table(folder, tokenizer, rows, dimensions=4, sif_coefficient=1e-3)
    with safe_open(folder / "model.safetensors", "numpy") as file:
        assert list(file.keys()) == ["embeddings"]
        np.testing.assert_array_equal(file.get_tensor("embeddings"), rows)
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "model2vec"
    assert (config["apply_pca"], config["sif_coefficient"], config["hidden_dim"]) == (4, 1e-3, 4)
    assert config["normalize"] is True
    assert config["max_length"] is None
    kinds = [module["type"].rpartition(".")[2] for module in json.loads((folder / "modules.json").read_text())]  # fmt: skip
    assert kinds == ["StaticEmbedding", "Normalize"]
    assert names_in_engine(folder) == len(rows)


def test_the_tokenizer_beside_it_gives_the_same_ids(tmp_path):
    tokenizer = wordpiece()
    folder, rows = epath.Path(tmp_path), np.zeros((tokenizer.vocab_size, 2), np.float32)
    write_table(folder, tokenizer, rows, dimensions=0, sif_coefficient=0)
    engine = Engine.from_file(str(folder / "tokenizer.json"))
    for text in TEXTS[:4]:  # the fifth spells a special token
        ids = engine.encode(text, add_special_tokens=False).ids
        assert ids == tokenizer.encode_batch([text])[0].tolist()
