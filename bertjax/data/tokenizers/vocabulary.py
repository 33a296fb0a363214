"""Parts that all kinds of tokenizer share: special tokens, the saved folder, the fingerprint."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
from etils import epath
from tokenizers import AddedToken, processors
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.word_starts import FIRST_RULE
from bertjax.errors import check, disk_errors, mismatch
from bertjax.given_files import read_file
from bertjax.storage import write_whole

ROLES = ("pad", "unk", "cls", "sep", "mask")
PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Names of the same roles in other models.
ROBERTA_TOKENS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
ALBERT_TOKENS = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
SETTINGS_FILE = "tokenizer_config.json"
ENGINE_FILE = "tokenizer.json"
CONTINUES = "##"  # WordPiece's mark before a piece that continues a word
# The original's `WordpieceTokenizer` takes 200.
MAX_WORD_CHARACTERS = 100  # longer words become [UNK] in WordPiece, as in transformers
SPACE = "Ġ"  # the character that stands for the byte of a space in GPT-2's alphabet of bytes


def _bytes_by_character() -> dict[str, int]:
    """GPT-2's alphabet: the visible characters of Latin-1 are bytes, those from U+0100 the rest."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    alphabet = {chr(byte): byte for byte in visible}
    return alphabet | {chr(0x100 + number): byte for number, byte in enumerate(others)}


_BYTES = _bytes_by_character()


def flatten_ids(sequences: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return all ids one after another, and the begin of each sequence in them.

    The ids are int32 [n], the begins int64 [len(sequences) + 1]; the last one is n.
    """
    # `fromiter` with a known length avoids a list of all ids and an array that grows.
    offsets = np.fromiter(accumulate(map(len, sequences), initial=0), np.int64, len(sequences) + 1)
    return np.fromiter(chain.from_iterable(sequences), np.int32, int(offsets[-1])), offsets


def token_begins(offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return the first character of each token from the tokens' (begin, end)."""
    return [begin for begin, _ in offsets]


def read_vocabulary(path: epath.Path) -> bytes:
    """Return the bytes of a vocabulary's file; `UserError` naming it where it cannot be read."""
    return read_file(path, "a vocabulary")


def check_bool(where: str, value: object) -> None:
    """Raise `UserError` unless a setting's value is true or false."""
    check(isinstance(value, bool), where=where, found=repr(value), expected="true or false")


def save_files(
    folder: epath.PathLike,
    kind: str,
    lowercase: bool,
    files: Mapping[str, bytes],
    special: Sequence[str | None] = SPECIAL_TOKENS,
    settings: Mapping[str, Any] | None = None,
    model_max_length: int | None = None,
    word_rule: int = FIRST_RULE,
) -> None:
    """Write a tokenizer's folder.

    Args:
        files: contents by file name. The settings do not name them: slow tokenizers of
            `transformers` 4 would take a name there for a path, from the folder in which they run.
        special: names of the special tokens in the order of `ROLES`; None for a role without one.
        settings: further settings of the kind, for `load_tokenizer` or for `transformers`.
        model_max_length: number of ids to which `transformers` truncates text when it is asked to.
        word_rule: where words begin; the first rule is not written, as before there were others.
    """
    path = epath.Path(folder)
    # pad_token and so on: the names under which `transformers` looks for them.
    pairs = zip(ROLES, special, strict=True)
    role_settings = {f"{role}_token": token for role, token in pairs if token is not None}
    all_settings = {
        "kind": kind,
        "do_lower_case": lowercase,
        **role_settings,
        **(settings or {}),
    }
    if word_rule != FIRST_RULE:
        all_settings["word_rule"] = word_rule
    if model_max_length is not None:
        all_settings["model_max_length"] = model_max_length
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(path / name, content)
    # The settings are written last, so that a folder with settings is complete.
    write_whole(path / SETTINGS_FILE, json.dumps(all_settings, indent=2).encode())


def engine_json(
    engine: Engine,
    special: Sequence[str],
    post_processor: processors.PostProcessor,
    mask_takes_space: bool = False,
) -> bytes:
    """Return `tokenizer.json`, from which the `tokenizers` package makes `engine`.

    The file contains the special tokens. So, unlike in bertjax, text that spells a special token
    becomes this token. `post_processor` puts special tokens around one text or two. With
    `mask_takes_space` the mask absorbs the space before it.
    """
    # A copy is changed, because `engine` itself must not know the special tokens.
    complete = Engine.from_str(engine.to_str())
    mask = special[ROLES.index("mask")]
    added = []
    for token in special:
        lstrip = mask_takes_space and token == mask
        # Found in the text as it is written: a lower-cased one has no [MASK] in it.
        added.append(AddedToken(token, normalized=False, lstrip=lstrip, special=True))
    complete.add_special_tokens(added)
    complete.post_processor = post_processor
    return complete.to_str().encode()


def bert_post_processor(
    cls: tuple[str, int], sep: tuple[str, int]
) -> processors.TemplateProcessing:
    """[CLS] A [SEP] for one text, [CLS] A [SEP] B [SEP] with segments 0 and 1 for two.

    `cls` and `sep` are names with their ids.
    """
    begin, end = cls[0], sep[0]
    return processors.TemplateProcessing(
        single=[f"{begin}:0", "$A:0", f"{end}:0"],
        pair=[f"{begin}:0", "$A:0", f"{end}:0", "$B:1", f"{end}:1"],
        special_tokens=[cls, sep],
    )


def fingerprint(kind: str, lowercase: bool, content: bytes) -> str:
    """Return the digest of everything that decides a tokenizer's ids."""
    return hashlib.sha256(f"{kind} {lowercase} ".encode() + content).hexdigest()


def special_tokens_in(path: object, ids: Mapping[str, int], *known: Sequence[str]) -> Sequence[str]:
    """Return the first set of names among `known` that `ids` holds completely.

    The names are in the order of `ROLES`. Raises `UserError` naming what `path` lacks of the set
    that it lacks least of.
    """
    missing_by_set = {tuple(names): _missing(names, ids) for names in known}
    best = min(missing_by_set, key=lambda names: len(missing_by_set[names]))
    missing = missing_by_set[best]
    if missing:
        raise mismatch(
            where=str(path),
            found=f"no {missing[0]} among {len(ids)} entries",
            expected="all of " + " ".join(best),
        )
    return best


def _missing(names: Sequence[str], ids: Mapping[str, int]) -> list[str]:
    return [name for name in names if name not in ids]


def missing_bytes(ids: Mapping[str, int]) -> set[int]:
    """Return the bytes that no entry alone stands for, so that text may lose them."""
    return {byte for character, byte in _BYTES.items() if character not in ids}


def bytes_of(entry: str) -> bytes:
    """Return the bytes that an entry stands for; none for one not of GPT-2's alphabet."""
    if any(character not in _BYTES for character in entry):
        return b""
    return bytes(_BYTES[character] for character in entry)
