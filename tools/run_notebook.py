"""Run notebooks without Jupyter, and keep what their cells print.

    python tools/run_notebook.py NOTEBOOK ... [--write]

Each notebook runs in this process, in the current folder: its code cells in order, in one
namespace, as Jupyter runs them. What a cell prints, and the value of its last expression, are
shown, and with `--write` stored in the notebook. An exception ends the run with status 1.

Only what the notebooks of `examples/` need: Python and text, no magics, no images.
"""

import argparse
import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any, TextIO


class Tee(io.StringIO):
    """A text stream that also writes to another one, so that a long cell can be watched."""

    def __init__(self, other: TextIO):
        super().__init__()
        self._other = other

    def write(self, text: str) -> int:
        """Write to both streams."""
        self._other.write(text)
        self._other.flush()
        return super().write(text)


def main() -> None:
    """Run the notebooks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="store the outputs in the notebooks")
    options = parser.parse_args()
    for path in options.notebooks:
        notebook = json.loads(path.read_text())
        run(notebook, str(path))
        if options.write:
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def run(notebook: dict[str, Any], name: str) -> None:
    """Run the code cells of a notebook (nbformat 4), and put their outputs into it."""
    namespace: dict[str, Any] = {"__name__": "__notebook__"}
    number = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        number += 1
        printed = Tee(sys.stdout)
        with contextlib.redirect_stdout(printed):
            value = run_cell("".join(cell["source"]), f"{name}, cell {number}", namespace)
            if value is not None:
                print(repr(value))
        cell["execution_count"] = number
        cell["outputs"] = outputs(printed.getvalue())


def run_cell(source: str, name: str, namespace: dict[str, Any]) -> object:
    """Run one cell; return the value of its last statement, if that is an expression."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), namespace)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), name, "eval"), namespace)


def outputs(text: str) -> list[dict[str, Any]]:
    """The text that a cell printed, as nbformat 4 stores it; none for an empty text."""
    if not text:
        return []
    return [{"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}]


if __name__ == "__main__":
    main()
