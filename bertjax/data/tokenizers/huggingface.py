"""The tokenizer of another program's model folder."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from bertjax.data.tokenizers import byte_bpe, sentencepiece, wordpiece
from bertjax.data.tokenizers.byte_bpe import ByteBPE, open_byte_bpe
from bertjax.data.tokenizers.sentencepiece import SentencePiece
from bertjax.data.tokenizers.sentencepiece_model import UNIGRAM, read_model
from bertjax.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from bertjax.data.tokenizers.vocabulary import ENGINE_FILE, SETTINGS_FILE
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError, check
from bertjax.storage import read_json

ADDED_FILE = "added_tokens.json"
# Classes of `transformers` that cut text as ours of each kind do; "Fast" may follow, and the
# general ones read tokenizer.json, with which the vocabulary is compared.
GENERAL = ("PreTrainedTokenizer", "TokenizersBackend")
WORDPIECE_CLASSES = ("BertTokenizer", "ElectraTokenizer", "DistilBertTokenizer", *GENERAL)
BYTE_BPE_CLASSES = ("RobertaTokenizer", "GPT2Tokenizer", *GENERAL)


def read_tokenizer_folder(
    folder: epath.PathLike, lowercase: bool | None = None
) -> Tokenizer | None:
    """The tokenizer of a model folder of `transformers` or of the original BERT; None if it has no
    such file.

    It is read from the first of these that is there: what bertjax saved, `vocab.txt`,
    `spiece.model`, `vocab.json` with `merges.txt`, and `tokenizer.json` alone, if that holds
    WordPiece or byte-level BPE. `lowercase` counts where the folder does not say, as one with
    `vocab.txt` alone; without it, that is read as uncased. Raises `UserError` naming the file that
    is broken, or asks for what there is not here: tokens beyond the vocabulary, or text treated
    otherwise than BERT, RoBERTa or ALBERT do.
    """
    path = epath.Path(folder)
    settings = read_json(path / SETTINGS_FILE) if (path / SETTINGS_FILE).exists() else {}
    if "kind" in settings:
        return load_tokenizer(path)
    engine = read_json(path / ENGINE_FILE) if (path / ENGINE_FILE).exists() else {}
    if (path / wordpiece.FILE).exists():
        return _wordpiece(
            path, settings, engine, lowercase, _bytes(path / wordpiece.FILE), path / wordpiece.FILE
        )
    if (path / sentencepiece.FILE).exists():
        return _sentencepiece(path, settings, lowercase)
    if (path / byte_bpe.FILE).exists():
        return _byte_bpe(path, settings, engine)
    return _from_engine(path, settings, engine, lowercase) if engine else None


def _wordpiece(
    path: epath.Path,
    settings: Mapping[str, Any],
    engine: Mapping[str, Any],
    lowercase: bool | None,
    content: bytes,
    file: epath.Path,
) -> WordPiece:
    _check_class(path, settings, WORDPIECE_CLASSES)
    told = _part(path, engine, "normalizer")
    options = {
        "strip_accents": settings.get("strip_accents", told.get("strip_accents")),
        "tokenize_chinese_chars": settings.get(
            "tokenize_chinese_chars", told.get("handle_chinese_chars", True)
        ),
    }
    where = path / (SETTINGS_FILE if settings else ENGINE_FILE)
    basic, never = settings.get("do_basic_tokenize", True), settings.get("never_split")
    check(basic is True, where=f"{where}: do_basic_tokenize", found=basic, expected="true")
    check(not never, where=f"{where}: never_split", found=never, expected="none")
    uncased = _first_of(settings.get("do_lower_case"), lowercase, True)
    # `transformers` lower-cases where its own settings do not say; the file may mean otherwise.
    agreed = (
        "do_lower_case" in settings
        or lowercase is not None
        or told.get("lowercase") in (None, uncased)
    )
    check(
        agreed,
        where=f"{path / ENGINE_FILE}: lowercase",
        found=told.get("lowercase"),
        expected=f"{uncased}, or --lowercase to say which",
    )
    check(
        isinstance(uncased, bool),
        where=f"{where}: do_lower_case",
        found=repr(uncased),
        expected="true or false",
    )
    accents, chinese = options["strip_accents"], options["tokenize_chinese_chars"]
    check(
        accents in (None, uncased),
        where=f"{where}: strip_accents",
        found=accents,
        expected=f"null or {uncased}, as do_lower_case is",
    )
    check(chinese is True, where=f"{where}: tokenize_chinese_chars", found=chinese, expected="true")
    tokenizer = WordPiece(file, content, bool(uncased))
    _check_same(path, engine, tokenizer)
    _check_added(path, settings, engine, tokenizer)
    return tokenizer


def _sentencepiece(
    path: epath.Path, settings: Mapping[str, Any], lowercase: bool | None
) -> SentencePiece:
    file = path / sentencepiece.FILE
    made_for = settings.get("tokenizer_class") or "AlbertTokenizer"
    albert = str(made_for).startswith("Albert")
    check(
        albert,
        where=f"{path / SETTINGS_FILE}: tokenizer_class",
        found=made_for,
        expected="AlbertTokenizer, for a SentencePiece model",
    )
    kept = settings.get("keep_accents", False)
    check(
        kept is False, where=f"{path / SETTINGS_FILE}: keep_accents", found=kept, expected="false"
    )
    uncased = _first_of(settings.get("do_lower_case"), lowercase, True)
    check(
        isinstance(uncased, bool),
        where=f"{path / SETTINGS_FILE}: do_lower_case",
        found=repr(uncased),
        expected="true or false",
    )
    content = _bytes(file)
    tokenizer = SentencePiece(file, content, "unigram", bool(uncased), "albert")
    algorithm = read_model(content).algorithm
    check(
        algorithm == UNIGRAM,
        where=str(file),
        found=f"a model of SentencePiece's algorithm {algorithm}",
        expected="unigram, as ALBERT's",
    )
    _check_added(path, settings, {}, tokenizer)
    return tokenizer


def _byte_bpe(path: epath.Path, settings: Mapping[str, Any], engine: Mapping[str, Any]) -> ByteBPE:
    _check_class(path, settings, BYTE_BPE_CLASSES)
    before = _part(path, engine, "pre_tokenizer").get("type", "ByteLevel")
    check(
        before == "ByteLevel",
        where=f"{path / ENGINE_FILE}: pre_tokenizer",
        found=repr(before),
        expected="'ByteLevel'",
    )
    prefix = settings.get(
        "add_prefix_space", _part(path, engine, "pre_tokenizer").get("add_prefix_space", False)
    )
    check(
        isinstance(prefix, bool),
        where=f"{path / SETTINGS_FILE}: add_prefix_space",
        found=repr(prefix),
        expected="true or false",
    )
    tokenizer = open_byte_bpe(path / byte_bpe.FILE, False, path / byte_bpe.MERGES_FILE, prefix)
    _check_same(path, engine, tokenizer)
    _check_added(path, settings, engine, tokenizer)
    return tokenizer


def _from_engine(
    path: epath.Path, settings: Mapping[str, Any], engine: Mapping[str, Any], lowercase: bool | None
) -> Tokenizer:
    file = path / ENGINE_FILE
    model = _part(path, engine, "model")
    kind, ids = model.get("type"), model.get("vocab", {})
    expected = f"WordPiece or BPE, or {sentencepiece.FILE}, from which it was made, beside it"
    check(
        kind in ("WordPiece", "BPE"),
        where=str(file),
        found=f"a model of type {kind!r}",
        expected=expected,
    )
    check(
        isinstance(ids, dict),
        where=str(file),
        found=f"a vocabulary of type {type(ids).__name__}",
        expected="an object of ids",
    )
    entries = byte_bpe.by_id(file, ids)
    if kind == "WordPiece":
        return _wordpiece(
            path, settings, engine, lowercase, "".join(f"{e}\n" for e in entries).encode(), file
        )
    before, normalizer = _part(path, engine, "pre_tokenizer"), _part(path, engine, "normalizer")
    check(
        before.get("type") == "ByteLevel",
        where=f"{file}: pre_tokenizer",
        found=repr(before.get("type")),
        expected="'ByteLevel'",
    )
    check(
        not normalizer,
        where=f"{file}: normalizer",
        found=repr(normalizer.get("type")),
        expected="none, as RoBERTa's",
    )
    merges = model.get("merges", [])
    check(
        isinstance(merges, list),
        where=f"{file}: merges",
        found=type(merges).__name__,
        expected="a list of pairs",
    )
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    for pair in pairs:
        whole = (
            isinstance(pair, list)
            and len(pair) == 2
            and all(isinstance(piece, str) for piece in pair)
        )
        check(whole, where=f"{file}: merges", found=repr(pair)[:80], expected="two pieces")
    tokenizer = ByteBPE(
        file, ids, [(a, b) for a, b in pairs], before.get("add_prefix_space") is True
    )
    _check_added(path, settings, engine, tokenizer)
    return tokenizer


def _check_class(path: epath.Path, settings: Mapping[str, Any], known: tuple[str, ...]) -> None:
    made_for = settings.get("tokenizer_class") or known[0]
    good = isinstance(made_for, str) and made_for.removesuffix("Fast") in known
    check(
        good,
        where=f"{path / SETTINGS_FILE}: tokenizer_class",
        found=repr(made_for),
        expected=f"one of {', '.join(known)}",
    )


def _check_same(path: epath.Path, engine: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """Refuse a vocabulary that is not that of tokenizer.json beside it, which `transformers` reads
    first.
    """
    ids = _part(path, engine, "model").get("vocab")
    entries = tokenizer.pieces(range(tokenizer.vocab_size))
    same = ids is None or ids == {entry: i for i, entry in enumerate(entries)}
    check(
        same,
        where=str(path / ENGINE_FILE),
        found="another vocabulary than that of the file beside it",
        expected="the same",
    )


def _check_added(
    path: epath.Path, settings: Mapping[str, Any], engine: Mapping[str, Any], tokenizer: Tokenizer
) -> None:
    """Refuse tokens that were added to the vocabulary's own: their ids would be taken for something
    else.
    """
    decoder, listed = settings.get("added_tokens_decoder") or {}, engine.get("added_tokens") or []
    check(
        isinstance(decoder, dict),
        where=f"{path / SETTINGS_FILE}: added_tokens_decoder",
        found=repr(decoder)[:80],
        expected="an object",
    )
    check(
        isinstance(listed, list),
        where=f"{path / ENGINE_FILE}: added_tokens",
        found=repr(listed)[:80],
        expected="a list",
    )
    added: list[tuple[Any, Any]] = []
    if (path / ADDED_FILE).exists():
        added += read_json(path / ADDED_FILE).items()
    added += [
        (token.get("content"), token.get("id")) for token in listed if isinstance(token, dict)
    ]
    added += [
        (token.get("content"), _number(i))
        for i, token in decoder.items()
        if isinstance(token, dict)
    ]
    entries = tokenizer.pieces(range(tokenizer.vocab_size))
    for token, i in added:
        known = type(i) is int and 0 <= i < len(entries) and entries[i] == token
        found = f"the token {token!r} of id {str(i)[:20]} added to a vocabulary of {len(entries)}"
        check(known, where=str(path), found=found, expected="none added")


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text


def _part(path: epath.Path, engine: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = engine.get(name) or {}
    check(
        isinstance(part, dict),
        where=f"{path / ENGINE_FILE}: {name}",
        found=type(part).__name__,
        expected="an object",
    )
    return part


def _first_of(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _bytes(path: epath.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read as a vocabulary ({error.strerror or error})"
        ) from error
