"""Tables of word vectors: the vector of a text is the mean of the vectors of its pieces.

Two layouts of a folder are read: that of `model2vec` and that of the module StaticEmbedding of
`sentence-transformers`. Both have `modules.json`, `tokenizer.json` and `model.safetensors`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath
from safetensors import SafetensorError
from safetensors.numpy import load
from scipy.sparse import csr_array
from tokenizers import Tokenizer as Engine

from bertjax.data.ragged import ranges
from bertjax.data.tokenizers.declared.engines import engine_errors
from bertjax.data.tokenizers.vocabulary import ENGINE_FILE, flatten_ids
from bertjax.errors import UserError, check, mismatch, one_line
from bertjax.given_files import place_of, read_file, read_json_value
from bertjax.storage import is_plain_name, read_json_if_there
from bertjax.storage.output_record import check_whole

MODULES, WEIGHTS = "modules.json", "model.safetensors"
PROMPTS = "config_sentence_transformers.json"
TABLE = "embeddings"
"""Name of the table in a file of `model2vec`, which `sentence-transformers` reads too."""
_NAMES = (TABLE, "embedding.weight")
# Of `model2vec`: several pieces may share a row, and rows may have weights of their own.
_REFUSED = ("mapping", "weights")
MODULE, NORMALIZE = "StaticEmbedding", "Normalize"
SMALLEST_NORM = 1e-12  # of `torch.nn.functional.normalize`: a vector of zeros stays one


@dataclass(frozen=True)
class StaticTable:
    """A table that was read from a folder."""

    folder: epath.Path
    engine: Engine
    """What divides text into pieces, as the folder's `tokenizer.json` says."""
    vectors: np.ndarray
    """The vector of each piece; float32 [V, D]."""
    normalizes: bool
    """True if vectors of texts get length 1."""

    @property
    def width(self) -> int:
        """Number of values in a vector."""
        return int(self.vectors.shape[1])

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of all texts, int32 [n], and the offset of each, int64 [texts + 1]."""
        # A vocabulary may lack the token for unknown words, which is told at the first such word.
        with engine_errors(str(self.folder / ENGINE_FILE)):
            encodings = self.engine.encode_batch_fast(list(texts), add_special_tokens=False)
        return flatten_ids([encoding.ids for encoding in encodings])

    def text_vectors(self, ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Return the vector of each text, float32 [texts, D]; zeros for a text without a piece."""
        lengths = np.diff(offsets)
        # A product with a sparse matrix: the vectors of all tokens would take 1 KB for each.
        shape = (len(lengths), len(self.vectors))
        ones = np.ones(len(ids), np.float32)
        sums: np.ndarray = csr_array((ones, ids, offsets), shape=shape) @ self.vectors
        means = sums / np.maximum(lengths, 1)[:, None].astype(np.float32)
        if not self.normalizes:
            return means
        norms = np.linalg.norm(means, axis=1, keepdims=True)
        return means / np.maximum(norms, SMALLEST_NORM)


def cut(
    ids: np.ndarray, offsets: np.ndarray, longest: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the first `longest` ids of each text, their offsets, and how many texts were cut."""
    lengths = np.diff(offsets)
    if longest is None or not np.any(lengths > longest):
        return ids, offsets, 0
    kept = np.minimum(lengths, longest)
    begins = offsets[:-1]
    new_offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    return ids[ranges(begins, begins + kept)], new_offsets, int(np.sum(lengths > longest))


def is_static_table(folder: epath.PathLike) -> bool:
    """Return whether the first module of a folder is a table of word vectors."""
    path = place_of(folder) / MODULES
    if not path.exists():
        return False
    modules = read_json_value(path)
    first = modules[0] if isinstance(modules, list) and modules else None
    return isinstance(first, Mapping) and _kind(first) == MODULE


def read_static_table(folder: epath.PathLike) -> StaticTable:
    """Read a table; raise `UserError`, naming file and field, for what is damaged or computed.

    Refused are modules that change the vectors in another way than by normalization, a prompt that
    is put before each text, and tables whose rows are shared or have weights of their own.
    """
    path = place_of(folder)
    check_whole(path)
    modules = read_json_value(path / MODULES)
    check(
        isinstance(modules, list) and all(isinstance(module, Mapping) for module in modules),
        where=str(path / MODULES),
        found=f"a {type(modules).__name__}",
        expected="a list of objects, the modules",
    )
    kinds = [_kind(module) for module in modules]
    check(
        kinds in ([MODULE], [MODULE, NORMALIZE]),
        where=str(path / MODULES),
        found=", ".join(kinds) or "no module",
        expected=f"{MODULE}, and at most {NORMALIZE} after it",
    )
    _check_no_prompt(path)
    files = _folder_of_module(path, modules[0])
    engine = _read_engine(files / ENGINE_FILE)
    vectors = _read_vectors(files / WEIGHTS)
    largest = max(engine.get_vocab(with_added_tokens=True).values(), default=-1)
    check(
        largest < len(vectors),
        where=str(files / WEIGHTS),
        found=f"{len(vectors):,} vectors",
        expected=f"{largest + 1:,}, one for each id of {ENGINE_FILE}",
    )
    return StaticTable(path, engine, vectors, NORMALIZE in kinds)


def _kind(module: Mapping[str, Any]) -> str:
    return str(module.get("type", "")).rpartition(".")[2]


def _folder_of_module(path: epath.Path, module: Mapping[str, Any]) -> epath.Path:
    """Return the folder of a module's files; the name is untrusted."""
    name = module.get("path", "")
    if name in ("", "."):
        return path
    check(
        is_plain_name(name),
        where=f"{path / MODULES}: path",
        found=repr(name)[:80],
        expected="the name of a folder in this folder",
    )
    return place_of(path / str(name))


def _check_no_prompt(path: epath.Path) -> None:
    values = read_json_if_there(path / PROMPTS)
    name, prompts = values.get("default_prompt_name"), values.get("prompts")
    prompt = prompts.get(name) if isinstance(prompts, Mapping) and isinstance(name, str) else None
    check(
        not prompt,
        where=f"{path / PROMPTS}: default_prompt_name",
        found=f"the prompt {prompt!r} before each text"[:100],
        expected="none",
    )


def _read_engine(file: epath.Path) -> Engine:
    content = read_file(file, "a tokenizer")
    with engine_errors(str(file)):
        engine = Engine.from_str(content.decode())
        # Texts of a batch are not padded: a padding id would count in the mean.
        engine.no_padding()
    return engine


def _read_vectors(file: epath.Path) -> np.ndarray:
    """Return the table of a file; float32 [V, D]."""
    try:
        tensors = load(read_file(file, "a table of vectors"))
    # A type that NumPy does not have is a KeyError of the library.
    except (SafetensorError, KeyError, ValueError) as error:
        reason = one_line(error)
        raise UserError(f"{file}: found no whole safetensors file ({reason})") from error
    names = [name for name in _NAMES if name in tensors]
    if len(names) != 1:
        found = ", ".join(sorted(tensors)[:5]) or "no tensor"
        raise mismatch(where=str(file), found=found, expected=f"one of {', '.join(_NAMES)}")
    for name in _REFUSED:
        check(
            name not in tensors,
            where=f"{file}: {name}",
            found="such a tensor",
            expected="none: a row for each piece, which has its weight",
        )
    table = tensors[names[0]]
    check(
        table.ndim == 2 and table.size and np.issubdtype(table.dtype, np.floating),
        where=f"{file}: {names[0]}",
        found=f"{table.dtype} {list(table.shape)}",
        expected="floating-point numbers of [pieces, width]",
    )
    check(
        bool(np.isfinite(table).all()),
        where=f"{file}: {names[0]}",
        found="a number that is not finite",
        expected="finite numbers",
    )
    return table.astype(np.float32)
