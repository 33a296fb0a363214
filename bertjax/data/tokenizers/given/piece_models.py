"""Models of SentencePiece in the folders of `transformers`, which are run by their own package."""

import logging

from etils import epath

from bertjax.data.tokenizers import sentencepiece
from bertjax.data.tokenizers.given.class_names import UNIGRAM_OF_TEXT
from bertjax.data.tokenizers.given.folder import Folder
from bertjax.data.tokenizers.given.letter_case import first_given
from bertjax.data.tokenizers.given.listed_tokens import check_roles
from bertjax.data.tokenizers.given.registered_tokens import kept_of
from bertjax.data.tokenizers.given.tokenizer_class import check_class
from bertjax.data.tokenizers.sentencepiece import SentencePiece
from bertjax.data.tokenizers.sentencepiece_model import UNIGRAM, read_model, with_control_piece
from bertjax.data.tokenizers.text_cleaning import ALBERT
from bertjax.data.tokenizers.vocabulary import (
    ENGINE_FILE,
    MASK,
    SETTINGS_FILE,
    check_bool,
    read_vocabulary,
)
from bertjax.errors import check

ALBERT_CLASSES = ("AlbertTokenizer",)
TEXT_FILE = "spm.model"
"""The model of the class `UNIGRAM_OF_TEXT`."""
# Models whose ids are others in `transformers`: its classes put special tokens before the pieces.
OTHER_FILES = ("sentencepiece.bpe.model", "tokenizer.model")

log = logging.getLogger("bertjax")


def piece_model_in(path: epath.Path) -> epath.Path | None:
    """Return the model of SentencePiece that is read in a folder; None without one."""
    for name in (sentencepiece.FILE, TEXT_FILE):
        if (path / name).exists():
            return path / name
    return None


def check_no_other_model(path: epath.Path) -> None:
    """Refuse a folder that has nothing but a model of `OTHER_FILES`."""
    for name in OTHER_FILES:
        check(
            not (path / name).exists(),
            where=f"{path / name}",
            found="a SentencePiece model alone",
            expected=f"{ENGINE_FILE} beside it, which save_pretrained of AutoTokenizer writes",
        )


def read_piece_model(folder: Folder, file: epath.Path, lowercase: bool | None) -> SentencePiece:
    """Return the tokenizer of a folder's `piece_model_in`.

    `lowercase` counts where the folder does not say. Raises `UserError` naming the setting with
    which text would be treated otherwise than by the file's class.
    """
    content = read_vocabulary(file)
    if file.name == TEXT_FILE:
        tokenizer = _of_text(folder, file, content)
    else:
        tokenizer = _alberts(folder, file, content, lowercase)
    # After `SentencePiece` has opened the file: `read_model` relies on a sound one.
    algorithm = read_model(content).algorithm
    check(
        algorithm == UNIGRAM,
        where=str(file),
        found=f"a model of SentencePiece's algorithm {algorithm}",
        expected="unigram, as the class of the tokenizer",
    )
    tokenizer.check_word_starts(file)
    roles = tokenizer.role_pieces()
    kept = kept_of(folder, tokenizer.pieces(range(tokenizer.vocab_size)), roles)
    check(
        not kept.tokens,
        where=f"{folder.path}: registered tokens",
        found=repr(kept.tokens[0].content if kept.tokens else ""),
        expected="none beside a SentencePiece model, but its special tokens",
    )
    check_roles(folder.path, folder.settings, roles)
    return tokenizer


def _alberts(
    folder: Folder, file: epath.Path, content: bytes, lowercase: bool | None
) -> SentencePiece:
    # T5 and XLNet have a spiece.model too, and clean text in other ways.
    check_class(folder, ALBERT_CLASSES)
    # The cleaning here always removes accents, as ALBERT's tokenizer does by default.
    _check_settings(folder, keep_accents=False)
    uncased = first_given(folder.settings.get("do_lower_case"), lowercase, True)
    check_bool(f"{folder.path / SETTINGS_FILE}: do_lower_case", uncased)
    return SentencePiece(file, content, "unigram", bool(uncased), ALBERT)


def _of_text(folder: Folder, file: epath.Path, content: bytes) -> SentencePiece:
    """The model as it is; the mask, which no text becomes, is the entry after its own."""
    check_class(folder, (UNIGRAM_OF_TEXT,))
    _check_settings(folder, do_lower_case=False, split_by_punct=False, add_prefix_space=True)
    # Opens the file: `read_model` relies on a sound one.
    sentencepiece.check_model(file, content)
    if MASK not in [piece.name for piece in read_model(content).pieces]:
        content = with_control_piece(content, MASK)
    log.warning(
        "%s: read by its own rules, as the model was trained and version 4 of transformers reads "
        "it; version 5 composes letters (NFC) in their place, with other ids for text such as %a",
        file,
        "\ufb01",
    )
    return SentencePiece(file, content, "unigram", lowercase=False)


def _check_settings(folder: Folder, **expected: bool) -> None:
    for field, value in expected.items():
        found = folder.settings.get(field, value)
        check(
            found is value,
            where=f"{folder.path / SETTINGS_FILE}: {field}",
            found=found,
            expected=str(value).lower(),
        )
