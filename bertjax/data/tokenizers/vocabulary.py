"""What every kind of tokenizer shares: the special tokens, the saved folder, the fingerprint."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from tokenizers import AddedToken, processors
from tokenizers import Tokenizer as Engine

from bertjax.errors import check, disk_errors
from bertjax.storage import write_whole

ROLES = ("pad", "unk", "cls", "sep", "mask")
PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# What other models call the same roles.
ROBERTA_TOKENS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
ALBERT_TOKENS = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
SETTINGS_FILE = "tokenizer_config.json"
ENGINE_FILE = "tokenizer.json"


def save_files(
    folder: epath.PathLike,
    kind: str,
    lowercase: bool,
    files: Mapping[str, bytes],
    special: Sequence[str] = SPECIAL_TOKENS,
    settings: Mapping[str, Any] | None = None,
    model_max_length: int | None = None,
) -> None:
    """Write a tokenizer's folder; the settings last, so that a folder with them is whole.

    The first of `files` is the vocabulary; `special` are the special tokens' names in the order of
    `ROLES`; `settings` are further ones of the kind, for `load_tokenizer` or for `transformers`,
    which cuts text to `model_max_length` ids where it is asked to cut.
    """
    path = epath.Path(folder)
    named = {f"{role}_token": token for role, token in zip(ROLES, special, strict=True)}
    every = {
        "kind": kind,
        "do_lower_case": lowercase,
        "vocab_file": next(iter(files)),
        **named,
        **(settings or {}),
    }
    if model_max_length is not None:
        every["model_max_length"] = model_max_length
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(path / name, content)
    write_whole(path / SETTINGS_FILE, json.dumps(every, indent=2).encode())


def engine_json(
    engine: Engine, special: Sequence[str], ends: Any, mask_takes_space: bool = False
) -> bytes:
    """`tokenizer.json`, from which the `tokenizers` package makes `engine` with its special tokens.

    Unlike here, text that spells a special token becomes it. `ends` is the processor that puts them
    around one text or two; `mask_takes_space`: the mask takes the space before it.
    """
    whole = Engine.from_str(engine.to_str())
    mask = special[ROLES.index("mask")]
    whole.add_special_tokens(
        [
            AddedToken(t, normalized=False, lstrip=mask_takes_space and t == mask, special=True)
            for t in special
        ]
    )
    whole.post_processor = ends
    return whole.to_str().encode()


def bert_ends(special: Sequence[str], cls_id: int, sep_id: int) -> processors.TemplateProcessing:
    """[CLS] A [SEP] for one text, [CLS] A [SEP] B [SEP] with segments 0 and 1 for two."""
    cls, sep = (special[ROLES.index(role)] for role in ("cls", "sep"))
    return processors.TemplateProcessing(
        single=[f"{cls}:0", "$A:0", f"{sep}:0"],
        pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"],
        special_tokens=[(cls, cls_id), (sep, sep_id)],
    )


def fingerprint(kind: str, lowercase: bool, content: bytes) -> str:
    """The digest of what decides a tokenizer's ids."""
    return hashlib.sha256(f"{kind} {lowercase} ".encode() + content).hexdigest()


def special_tokens_in(path: object, ids: Mapping[str, int], *known: Sequence[str]) -> Sequence[str]:
    """The set of names among `known` that `ids` has whole, in the order of `ROLES`.

    `UserError` naming what `path` lacks of the set that it has most of.
    """
    lacking = {tuple(names): [token for token in names if token not in ids] for names in known}
    nearest = min(lacking, key=lambda names: len(lacking[names]))
    missing = lacking[nearest]
    found = f"no {missing[0] if missing else ''} among {len(ids)} entries"
    check(not missing, where=str(path), found=found, expected="all of " + " ".join(nearest))
    return nearest
