"""Engines of the `tokenizers` package, made of the content of a `tokenizer.json`."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tokenizers import Tokenizer as Engine

from bertjax.errors import UserError, one_line


def open_engine(file: str, content: Mapping[str, Any]) -> Engine:
    """Return the engine of a file's content; `UserError`, naming `file`, where there is none."""
    with engine_errors(file):
        return Engine.from_str(json.dumps(content))


@contextmanager
def engine_errors(file: str) -> Iterator[None]:
    """Turn what the package raises on a content that it does not expect into a `UserError`."""
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit):
        raise
    # A panic of Rust is no `Exception`.
    except BaseException as error:
        raise UserError(
            f"{file}: cannot be read by the package tokenizers ({one_line(error)})"
        ) from error
