"""What every kind of tokenizer shares: the special tokens, the saved folder, the fingerprint."""

import hashlib
import json
from typing import Any

from etils import epath

from bertjax.data.files import write_whole
from bertjax.errors import check, disk_errors

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SETTINGS_FILE = "tokenizer_config.json"


def save_files(folder: epath.PathLike, kind: str, lowercase: bool, name: str, content: bytes) -> None:
    """Write a tokenizer's folder; the settings last, so that a folder with them is whole."""
    path = epath.Path(folder)
    settings: dict[str, Any] = {"kind": kind, "do_lower_case": lowercase, "vocab_file": name}
    settings |= {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}
    if kind == "wordpiece":
        settings |= {"tokenizer_class": "BertTokenizer", "tokenize_chinese_chars": True, "strip_accents": None}
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    write_whole(path / name, content)
    write_whole(path / SETTINGS_FILE, json.dumps(settings, indent=2).encode())


def fingerprint(kind: str, lowercase: bool, content: bytes) -> str:
    """The digest of what decides a tokenizer's ids."""
    return hashlib.sha256(f"{kind} {lowercase} ".encode() + content).hexdigest()


def special_ids_of(path: object, ids: dict[str, int]) -> list[int]:
    """The ids of the special tokens in their order; `UserError` naming the one that `path` lacks."""
    for token in SPECIAL_TOKENS:
        check(token in ids, str(path), f"no {token} among {len(ids)} entries", "all of " + " ".join(SPECIAL_TOKENS))
    return [ids[token] for token in SPECIAL_TOKENS]
