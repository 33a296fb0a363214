"""Files of a table of word vectors, in the layout of `model2vec`.

`model2vec` (https://github.com/MinishLab/model2vec) reads `config.json`, `tokenizer.json` and
`model.safetensors`. `sentence-transformers` reads the same table by `modules.json`.
"""

import json
from typing import Any

import numpy as np
from etils import epath
from safetensors.numpy import save
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.export_check import check_export
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.data.tokenizers.vocabulary import ENGINE_FILE
from bertjax.inference.static_table import MODULE, MODULES, NORMALIZE, TABLE, WEIGHTS
from bertjax.storage import write_whole

CONFIG = "config.json"
# Names that versions 3 to 6 of `sentence-transformers` know.
_PACKAGE = "sentence_transformers.models"
LAST = WEIGHTS
"""The file without which neither program reads the folder."""


def write_table(
    folder: epath.Path,
    tokenizer: Tokenizer,
    vectors_VxD: np.ndarray,
    *,
    dimensions: int,
    sif_coefficient: float,
) -> None:
    """Write the folder of a table, `vectors_VxD` float32.

    `dimensions` is 0 if they are no principal components. Raises `UserError` if other programs
    would read other ids from the tokenizer's `tokenizer.json`.
    """
    # By the package `tokenizers` alone, as both programs read it.
    check_export(tokenizer, folder, with_transformers=False)
    tokenizer.save(folder)
    config = {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        "apply_pca": dimensions or None,
        "sif_coefficient": sif_coefficient or None,
        "hidden_dim": vectors_VxD.shape[1],
        "embedding_dtype": vectors_VxD.dtype.name,
        "normalize": True,
        # By default `model2vec` cuts texts to 512 pieces; `sentence-transformers` never does.
        "max_length": None,
    }
    modules = [
        {"idx": 0, "name": "0", "path": ".", "type": f"{_PACKAGE}.{MODULE}"},
        {"idx": 1, "name": "1", "path": f"1_{NORMALIZE}", "type": f"{_PACKAGE}.{NORMALIZE}"},
    ]
    _write_json(folder / CONFIG, config)
    _write_json(folder / MODULES, modules)
    write_whole(folder / WEIGHTS, save({TABLE: vectors_VxD}, {"format": "pt"}))


def names_in_engine(folder: epath.Path) -> int:
    """Return how many entries the vocabulary of a folder's `tokenizer.json` has."""
    engine = Engine.from_str((folder / ENGINE_FILE).read_text())
    return len(engine.get_vocab(with_added_tokens=True))


def _write_json(path: epath.Path, value: Any) -> None:
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())
