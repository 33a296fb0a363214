"""Checks that a `tokenizer.json` agrees with its folder: with the class, and the files beside it.

Versions 4 and 5 of `transformers` read another of them first, and would give two sets of ids.
"""

from collections.abc import Iterable, Sequence

from etils import epath

from bertjax.data.tokenizers.declared.content import section
from bertjax.data.tokenizers.declared.rules import Difference
from bertjax.data.tokenizers.given.class_names import GENERAL_CLASSES
from bertjax.data.tokenizers.given.folder import Folder
from bertjax.data.tokenizers.given.merges import engine_merges
from bertjax.data.tokenizers.given.tokenizer_class import class_of
from bertjax.errors import check, mismatch
from bertjax.storage import Json


def takes_file(folder: Folder) -> bool:
    """Return whether `transformers` takes a folder's file as it is, whatever it declares."""
    return class_of(folder) in GENERAL_CLASSES


def check_rules(file: epath.Path, differences: Iterable[Difference]) -> None:
    """Refuse a file with other rules than those of the class that the folder names."""
    for field, found, expected in differences:
        raise mismatch(
            where=f"{file}: {field}",
            found=repr(found),
            expected=(
                f"{expected!r}, as the class of the tokenizer has it (the tokenizer_class "
                "'PreTrainedTokenizerFast' takes the file as it is)"
            ),
        )


def check_same_vocabulary(file: epath.Path, engine: Json, entries: Sequence[str]) -> None:
    """Refuse a file with other entries than those of the vocabulary beside it."""
    ids = section(str(file), engine, "model").get("vocab")
    check(
        ids is None or ids == {entry: i for i, entry in enumerate(entries)},
        where=str(file),
        found="another vocabulary than that of the file beside it",
        expected="the same",
    )


def check_same_merges(file: epath.Path, engine: Json, merges: Sequence[tuple[str, str]]) -> None:
    """Refuse a file with other merges than those of `merges.txt` beside it."""
    own = section(str(file), engine, "model").get("merges")
    check(
        own is None or engine_merges(file, own) == list(merges),
        where=str(file),
        found="other merges than those of merges.txt beside it",
        expected="the same",
    )
