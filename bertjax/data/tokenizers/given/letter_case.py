"""Whether a folder's text is to be lower-cased, as its files say."""

from typing import Any

from etils import epath

from bertjax.data.tokenizers.vocabulary import ENGINE_FILE, SETTINGS_FILE, check_bool
from bertjax.errors import check
from bertjax.storage import Json


def is_uncased(
    path: epath.Path, settings: Json, normalizer: Json, lowercase: bool | None, where: object
) -> bool:
    """Return True if text is to be lower-cased: as the folder says, else `lowercase`, else True."""
    uncased = first_given(settings.get("do_lower_case"), lowercase, True)
    # Where its own settings do not say, `transformers` lower-cases; tokenizer.json may say no.
    in_engine = normalizer.get("lowercase")
    decided = "do_lower_case" in settings or lowercase is not None
    check(
        decided or in_engine in (None, uncased),
        where=f"{path / ENGINE_FILE}: lowercase",
        found=in_engine,
        expected=f"{uncased}, or --lowercase to say which",
    )
    check_bool(f"{where}: do_lower_case", uncased)
    return bool(uncased)


def case_advice(settings: Json, lowercase: bool | None) -> str:
    """Return what to do about capital letters in a vocabulary that is read as lower-case."""
    if settings.get("do_lower_case") is not None:
        return f"as do_lower_case in {SETTINGS_FILE} says"
    if lowercase is not None:
        return "as --lowercase says"
    return "no file says that it is: --lowercase no keeps capital letters"


def first_given(*values: Any) -> Any:
    """Return the first value that is not None."""
    return next(value for value in values if value is not None)
