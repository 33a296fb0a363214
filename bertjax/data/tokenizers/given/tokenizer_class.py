"""The class of `transformers` for which a tokenizer's folder was made."""

from collections.abc import Mapping

from etils import epath

from bertjax.data.tokenizers.given.class_names import (
    BORROWED_CLASSES,
    FILE_AS_IT_IS,
    GENERAL_CLASSES,
    MODEL_CLASSES,
)
from bertjax.data.tokenizers.given.folder import MODEL_FILE, Folder
from bertjax.data.tokenizers.vocabulary import SETTINGS_FILE
from bertjax.errors import check

# What BertJapaneseTokenizer does before WordPiece; its other values need a dictionary of Japanese,
# or cut words into characters or pieces of SentencePiece.
_BERTS_TYPES = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece"}


def declared_class(folder: Folder) -> tuple[str, object]:
    """Return the file and field that names the class, and the name without "Fast"; None: no name.

    As in `transformers`, `tokenizer_config.json` counts before `config.json`. Folders of Japanese
    BERT may name their class in the second alone.
    """
    for file, values in ((SETTINGS_FILE, folder.settings), (MODEL_FILE, folder.model)):
        name = values.get("tokenizer_class")
        if name is not None:
            where = f"{folder.path / file}: tokenizer_class"
            return where, name.removesuffix("Fast") if isinstance(name, str) else name
    return f"{folder.path / SETTINGS_FILE}: tokenizer_class", None


def class_of(folder: Folder) -> str:
    """Return the class that `transformers` takes for a folder; empty where it is not known.

    A folder without a name has that of its model, and the general class if nothing else says what
    the folder is.
    """
    _, name = declared_class(folder)
    model = folder.model.get("model_type")
    if model in FILE_AS_IT_IS and (name is None or name in BORROWED_CLASSES):
        return GENERAL_CLASSES[0]
    if name is not None:
        return name if isinstance(name, str) else ""
    if not model:
        return GENERAL_CLASSES[0]
    return MODEL_CLASSES.get(model, "") if isinstance(model, str) else ""


def check_class(folder: Folder, known: tuple[str, ...]) -> None:
    """Refuse a folder that was made for a class other than the `known` ones.

    A folder without a name is taken for one of them.
    """
    where, name = declared_class(folder)
    check(
        name is None or name in known,
        where=where,
        found=repr(name),
        expected=f"one of {', '.join(known)} (--take-tokenizer False imports the model alone)",
    )


def check_words(folder: Folder) -> None:
    """Refuse a folder whose words are found in another way than BERT's, or by code of its own."""
    for file, values in ((SETTINGS_FILE, folder.settings), (MODEL_FILE, folder.model)):
        for field, berts in _BERTS_TYPES.items():
            given = values.get(field)
            check(
                given in (None, berts),
                where=f"{folder.path / file}: {field}",
                found=repr(given),
                expected=f"{berts!r}, for words as BERT finds them",
            )
        _check_no_code(f"{folder.path / file}: auto_map", values.get("auto_map"))


def check_no_other_pieces(path: epath.Path) -> None:
    """Refuse a vocab.txt of byte pair encoding, as PhoBERT's, which has its merges beside it."""
    file = path / "bpe.codes"
    check(not file.exists(), where=str(file), found="merges", expected="vocab.txt of WordPiece")


def _check_no_code(where: str, auto_map: object) -> None:
    """Refuse a tokenizer that is a program in the folder: what it does to text is not known."""
    own = auto_map.get("AutoTokenizer") if isinstance(auto_map, Mapping) else auto_map
    # In tokenizer_config.json a list names the tokenizer's own code.
    check(not own, where=where, found=repr(own)[:80], expected="no tokenizer of its own code")
