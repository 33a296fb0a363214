"""The corpus that needs no download: the English documentation in every CPython."""

import ast
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "__phello__",
}


def documents() -> Iterator[str]:
    """The topics of `pydoc_data`, then the docstrings of each standard-library module, one text
    each.

    Read from source, not by import: nothing of the library is run.
    """
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield topics[name]
    for _, docstrings in modules():
        yield "\n\n".join(docstrings)


def modules() -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Each module of the standard library that has docstrings: the parts of its path there, and
    them.
    """
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not SKIPPED.intersection(parts[:-1]):
            docstrings = _docstrings(path)
            if docstrings:
                yield parts, docstrings


def _docstrings(path: Path) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in old modules
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []  # templates and samples of bad code
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, owners)]
    nodes.sort(
        key=lambda node: getattr(node, "lineno", 0)
    )  # as they are read: a class, then its methods
    found = [ast.get_docstring(node, clean=False) for node in nodes]
    return [inspect.cleandoc(text) for text in found if text and text.strip()]
