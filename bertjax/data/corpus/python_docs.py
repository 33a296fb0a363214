"""Corpus that needs no download: the English documentation that comes with every CPython."""

import ast
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

# Folders that do not belong to the public modules of the standard library.
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
    """The topics of `pydoc_data`, then one text per standard-library module: its docstrings.

    Docstrings are read from the source files, so no module is imported.
    """
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield topics[name]
    for _, docstrings in modules():
        yield "\n\n".join(docstrings)


def modules() -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """(parts of the path, docstrings) of each standard-library module that has docstrings."""
    root = Path(sysconfig.get_path("stdlib"))
    # Sorted, because the order of the files in a folder differs between file systems.
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not SKIPPED.intersection(parts[:-1]):
            docstrings = _docstrings(path)
            if docstrings:
                yield parts, docstrings


def _docstrings(path: Path) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes such as "\d" in old modules
            # As bytes, so that the parser obeys the coding line of old modules (PEP 263).
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []  # templates, or examples of code that is wrong on purpose
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, owners)]
    # `walk` goes breadth-first, so the nodes are sorted back into the order of the file.
    nodes.sort(key=_line_number)
    docstrings = [ast.get_docstring(node, clean=False) for node in nodes]
    return [inspect.cleandoc(text) for text in docstrings if text and text.strip()]


def _line_number(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)  # a module has none
