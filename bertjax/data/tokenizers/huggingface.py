"""Reader of the tokenizer in a model folder of `transformers` or of the original BERT.

The files are untrusted. Every setting with which text would be split differently than here is
refused with an error that names it.
"""

from etils import epath

from bertjax.data.tokenizers import byte_bpe, sentencepiece, wordpiece
from bertjax.data.tokenizers.byte_bpe import ByteBPE, open_byte_bpe
from bertjax.data.tokenizers.declared.agreement import (
    check_rules,
    check_same_merges,
    check_same_vocabulary,
    takes_file,
)
from bertjax.data.tokenizers.declared.class_rules import CLASS_RULES, class_differences
from bertjax.data.tokenizers.declared.content import read_model, section
from bertjax.data.tokenizers.declared.reader import read_declared, vocab_lines
from bertjax.data.tokenizers.declared.rules import bert_differences, roberta_differences
from bertjax.data.tokenizers.given.class_names import GENERAL_CLASSES
from bertjax.data.tokenizers.given.folder import Folder
from bertjax.data.tokenizers.given.letter_case import case_advice, is_uncased
from bertjax.data.tokenizers.given.listed_tokens import check_roles, is_saved_by_others
from bertjax.data.tokenizers.given.merges import engine_merges
from bertjax.data.tokenizers.given.piece_models import (
    check_no_other_model,
    piece_model_in,
    read_piece_model,
)
from bertjax.data.tokenizers.given.reachable import (
    is_found_as_written,
    is_word,
    warn_of_unreachable,
)
from bertjax.data.tokenizers.given.registered_tokens import Kept, kept_of
from bertjax.data.tokenizers.given.tokenizer_class import (
    check_class,
    check_no_other_pieces,
    check_words,
    class_of,
)
from bertjax.data.tokenizers.given.vocab_txt import (
    read_entries,
    warn_of_odd_lines,
    with_new_entries,
)
from bertjax.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from bertjax.data.tokenizers.vocabulary import (
    CONTINUES,
    ENGINE_FILE,
    SETTINGS_FILE,
    SPECIAL_TOKENS,
    check_bool,
    read_vocabulary,
)
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import check, mismatch
from bertjax.given_files import place_of

# Classes of `transformers` that split text like our tokenizer of each kind; the names may end with
# "Fast". The general classes read tokenizer.json, where there is one.
WORDPIECE_CLASSES = ("BertTokenizer", "ElectraTokenizer", "DistilBertTokenizer", *GENERAL_CLASSES)
BYTE_BPE_CLASSES = ("RobertaTokenizer", "GPT2Tokenizer", *GENERAL_CLASSES)


def read_tokenizer_folder(path: epath.PathLike, lowercase: bool | None = None) -> Tokenizer | None:
    """Return the tokenizer of a model folder; None if the folder has no file of one.

    It is read from the first of these that exists: what bertjax saved, a `tokenizer.json` that
    `transformers` takes as it is (`takes_file`) or whose rules are those of its class
    (`CLASS_RULES`), `vocab.txt`, a model of SentencePiece (`piece_models`), `vocab.json` with
    `merges.txt`, and `tokenizer.json` alone. `lowercase` counts only where the folder does not say
    (one with `vocab.txt` alone); None: uncased then. Raises `UserError` naming the file that is
    broken, or that asks for what is not supported: registered tokens for which the model has no
    row, or text treated otherwise than by BERT, RoBERTa or ALBERT where the folder's class is one
    of theirs.
    """
    folder = Folder(place_of(path))
    # Only bertjax writes this field.
    if "kind" in folder.settings and not _is_changed(folder):
        return load_tokenizer(folder.path)
    tokenizer = _read_foreign(folder, lowercase)
    if tokenizer is not None:
        check_words(folder)
    if isinstance(tokenizer, WordPiece):
        entries = tokenizer.pieces(range(tokenizer.vocab_size))
        advice = case_advice(folder.settings, lowercase)
        if (folder.path / ENGINE_FILE).exists() and takes_file(folder):
            advice = f"as {ENGINE_FILE} says"
        warn_of_odd_lines(folder.path, entries)
        warn_of_unreachable(
            folder.path,
            entries,
            tokenizer.lowercase,
            tokenizer.strip_accents,
            [token.content for token in tokenizer.registered],
            advice,
        )
    return tokenizer


def _is_changed(folder: Folder) -> bool:
    """Return whether `transformers` saved a folder that bertjax had made.

    Models of SentencePiece are read as before: there only bertjax's own fields say how.
    """
    has_model = (folder.path / sentencepiece.FILE).exists()
    return is_saved_by_others(folder.path, folder.settings) and not has_model


def _read_foreign(folder: Folder, lowercase: bool | None) -> Tokenizer | None:
    """The tokenizer of a folder that another program made."""
    engine_file, vocab_txt = folder.path / ENGINE_FILE, folder.path / wordpiece.FILE
    has_model = (folder.path / sentencepiece.FILE).exists()
    has_engine = bool(folder.engine.get("model")) and not has_model
    if has_engine and takes_file(folder):
        if vocab_txt.exists():
            entries, _ = read_entries(vocab_txt, read_vocabulary(vocab_txt))
            check_same_vocabulary(engine_file, folder.engine, entries)
        return read_declared(engine_file, folder.engine, folder.settings)
    if has_engine and class_of(folder) in CLASS_RULES:
        return _of_class_rules(folder)
    if vocab_txt.exists():
        return _wordpiece(folder, lowercase, read_vocabulary(vocab_txt), vocab_txt)
    piece_model = piece_model_in(folder.path)
    if piece_model is not None:
        return read_piece_model(folder, piece_model, lowercase)
    if (folder.path / byte_bpe.FILE).exists():
        return _byte_bpe(folder)
    if folder.engine:
        return _from_engine(folder, lowercase)
    check_no_other_model(folder.path)
    return None


def _of_class_rules(folder: Folder) -> Tokenizer:
    """The tokenizer of a class of `CLASS_RULES`, whose rules the file must have.

    A file of other rules was made by version 4 of `transformers` of the model beside it, if there
    is one, which has its own.
    """
    file, name = folder.path / ENGINE_FILE, class_of(folder)
    differences = list(class_differences(name, str(file), folder.engine, folder.settings))
    piece_model = piece_model_in(folder.path)
    if differences and piece_model is not None:
        return read_piece_model(folder, piece_model, None)
    check_rules(file, differences)
    return read_declared(file, folder.engine, folder.settings, engine_first=False)


def _wordpiece(
    folder: Folder, lowercase: bool | None, content: bytes, file: epath.Path
) -> WordPiece:
    """The tokenizer of a `vocab.txt` with these bytes; `file` is its name for errors."""
    path, settings, engine = folder.path, folder.settings, folder.engine
    check_class(folder, WORDPIECE_CLASSES)
    check_no_other_pieces(path)
    where = path / (SETTINGS_FILE if settings else ENGINE_FILE)
    # Without basic tokenization BertTokenizer divides words at white space only.
    basic, never_split = settings.get("do_basic_tokenize", True), settings.get("never_split")
    check(basic is True, where=f"{where}: do_basic_tokenize", found=basic, expected="true")
    check(not never_split, where=f"{where}: never_split", found=never_split, expected="none")
    normalizer = section(str(path / ENGINE_FILE), engine, "normalizer")
    uncased = is_uncased(path, settings, normalizer, lowercase, where)
    # BERT's classes read their settings alone.
    accents = settings.get("strip_accents")
    if accents is not None:
        check_bool(f"{where}: strip_accents", accents)
    chinese = settings.get("tokenize_chinese_chars", normalizer.get("handle_chinese_chars", True))
    check(chinese is True, where=f"{where}: tokenize_chinese_chars", found=chinese, expected="true")
    entries, _ = read_entries(file, content)
    kept = kept_of(folder, entries, SPECIAL_TOKENS)
    _check_new_words(path, kept, uncased, accents)
    content = with_new_entries(file, content, kept.new)
    tokenizer = WordPiece(file, content, uncased, accents, registered=kept.tokens)
    check_same_vocabulary(path / ENGINE_FILE, engine, entries)
    check_rules(path / ENGINE_FILE, bert_differences(engine))
    check_roles(path, settings, SPECIAL_TOKENS)
    return tokenizer


def _check_new_words(
    path: epath.Path, kept: Kept, lowercase: bool, strip_accents: bool | None
) -> None:
    """Refuse a new token that text has as a word too, where `transformers` does not find it.

    There it is no entry of the vocabulary. Here it becomes one, of which WordPiece makes words.
    """
    whole = {token.content: token for token in kept.tokens}
    for entry in kept.new:
        token = whole.get(entry)
        is_found = token is not None and not token.single_word
        is_whole = token is not None and token.normalized and not entry.startswith(CONTINUES)
        if (is_found and is_whole) or not is_word(entry, lowercase, strip_accents):
            continue
        check(
            is_found and len(entry) == 1 and is_found_as_written(entry, lowercase, strip_accents),
            where=f"{path}: registered tokens",
            found=f"{entry!r}, a word that is no entry of the vocabulary",
            expected="one with marks, as <user>, or one that is found in any text: normalized, "
            "not single_word, and without ##",
        )


def _byte_bpe(folder: Folder) -> ByteBPE:
    path, engine_file, engine = folder.path, folder.path / ENGINE_FILE, folder.engine
    check_class(folder, BYTE_BPE_CLASSES)
    tokenizer = open_byte_bpe(
        path / byte_bpe.FILE, False, path / byte_bpe.MERGES_FILE, _prefix(folder)
    )
    if engine:
        check_same_vocabulary(engine_file, engine, tokenizer.pieces(range(tokenizer.vocab_size)))
        check_rules(engine_file, roberta_differences(engine))
        check_same_merges(engine_file, engine, tokenizer.merges)
    return _with_registered(folder, tokenizer)


def _with_registered(folder: Folder, tokenizer: ByteBPE) -> ByteBPE:
    """The tokenizer with the folder's registered tokens."""
    roles = tokenizer.role_pieces()
    check_roles(folder.path, folder.settings, roles)
    kept = kept_of(folder, tokenizer.pieces(range(tokenizer.vocab_size)), roles)
    return tokenizer.with_registered(folder.path, kept)


def _prefix(folder: Folder) -> bool:
    """Return whether a space is put before text: as the settings say, and not where they do not.

    RobertaTokenizer reads its settings alone, whatever tokenizer.json says.
    """
    prefix = folder.settings.get("add_prefix_space", False)
    check_bool(f"{folder.path / SETTINGS_FILE}: add_prefix_space", prefix)
    return bool(prefix)


def _from_engine(folder: Folder, lowercase: bool | None) -> Tokenizer:
    """The tokenizer of a class with rules of its own, of which the file is the vocabulary."""
    file = folder.path / ENGINE_FILE
    model = read_model(str(file), folder.engine)
    if model["type"] == "WordPiece":
        # As a vocab.txt, so that the fingerprint is that of the same entries in such a file.
        lines = vocab_lines(file, byte_bpe.by_id(file, model["vocab"]))
        if lines is None:
            raise mismatch(
                where=str(file),
                found="entries with white space at an end",
                expected="such as a vocab.txt can have, for a class with BERT's rules",
            )
        return _wordpiece(folder, lowercase, lines, file)
    check_class(folder, BYTE_BPE_CLASSES)
    check_rules(file, roberta_differences(folder.engine))
    merges = engine_merges(file, model.get("merges", []))
    tokenizer = ByteBPE(file, model["vocab"], merges, _prefix(folder))
    return _with_registered(folder, tokenizer)
