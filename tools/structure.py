"""Figures of a checkout's structure: the size of its folders, its imports, its density.

    python tools/structure.py [CHECKOUT ...] [--rooms] [--dense]

Prints one column for each checkout (by default this one), so that two states of the project can
be compared. `--rooms` adds the figures of each folder; `--dense` lists the places that do several
steps in one line. Reads files only; nothing of the checkout is imported.
"""

import argparse
import ast
import io
import re
import statistics
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
VAGUE_NAMES = ("told", "said", "found", "goal", "examine", "several", "lots", "fate", "strangers")
MOST_FILES = 15
# Openings that a reader has to think about: a docstring begins with a noun phrase or a verb.
ODD_OPENINGS = ("What", "Whether", "Where", "How", "Which", "Who", "Of", "Whose")


@dataclass
class Figures:
    """Counts of one folder, or of a whole package."""

    files: int = 0
    statements: int = 0
    comprehensions: int = 0
    conditionals: int = 0
    nested: int = 0
    walruses_inside: int = 0
    vague_names: int = 0
    docstrings: int = 0
    odd_openings: int = 0
    comment_lines: int = 0
    lengths: list[int] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Figures") -> None:
        """Add the counts of `other`."""
        for name, value in vars(other).items():
            if isinstance(value, list):
                getattr(self, name).extend(value)
            elif isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)


def main() -> None:
    """Print the tables for the checkouts named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(__file__).parents[1]])
    parser.add_argument("--rooms", action="store_true", help="the figures of each folder too")
    parser.add_argument("--dense", action="store_true", help="list nested and hidden steps")
    options = parser.parse_args()
    tables = [summary(checkout) for checkout in options.checkouts]
    for name in tables[0]:
        print(f"{name:48}", *(f"{table[name]:>14}" for table in tables))
    for checkout in options.checkouts:
        if options.rooms:
            print_rooms(checkout)
        if options.dense:
            print_dense(checkout)


def summary(checkout: Path) -> dict[str, str]:
    """The figures of a checkout's package, as text by name."""
    total = Figures()
    folders: Counter[str] = Counter()
    for path in sources(checkout):
        total.add(figures_of(path))
        if path.name != "__init__.py":
            folders[str(path.parent.relative_to(checkout))] += 1
    crowded = [f"{name} {count}" for name, count in folders.most_common() if count > MOST_FILES]
    depths = import_depths(checkout)
    return {
        "files": str(total.files),
        "folders": str(len(folders)),
        f"folders of more than {MOST_FILES} files": str(len(crowded)),
        "most files in one folder": str(max(folders.values())),
        "longest chain of imports": str(max(depths.values())),
        "mean depth of imports": f"{statistics.mean(depths.values()):.1f}",
        "statements": str(total.statements),
        "comprehensions a hundred statements": per_hundred(total.comprehensions, total.statements),
        "conditionals a hundred statements": per_hundred(total.conditionals, total.statements),
        "nested comprehensions or conditionals": str(total.nested),
        "assignments inside comprehensions": str(total.walruses_inside),
        "mean line, characters": f"{statistics.mean(total.lengths):.1f}",
        "lines over 100 characters": str(sum(length > 100 for length in total.lengths)),
        "lines with a comment, %": per_hundred(total.comment_lines, len(total.lengths)),
        "docstrings": str(total.docstrings),
        "docstrings that begin with a question word": str(total.odd_openings),
        "names that do not say what they hold": str(total.vague_names),
        "bindings named rows": str(sum(total.rows.values())),
        "files that bind rows": str(len(total.rows)),
    }


def per_hundred(count: int, whole: int) -> str:
    """`count` for each hundred of `whole`, with one decimal."""
    return f"{100 * count / whole:.1f}"


def sources(checkout: Path) -> list[Path]:
    """The Python files of the package."""
    return sorted((checkout / "bertjax").rglob("*.py"))


def figures_of(path: Path) -> Figures:
    """The counts of one file."""
    text = path.read_text()
    tree = ast.parse(text)
    figures = Figures(files=1)
    figures.lengths = [len(line) for line in text.splitlines() if line.strip()]
    figures.comment_lines = len(comment_lines(text))
    for node in ast.walk(tree):
        figures.statements += isinstance(node, ast.stmt)
        figures.comprehensions += isinstance(node, COMPREHENSIONS)
        figures.conditionals += isinstance(node, ast.IfExp)
    figures.nested = sum(1 for _ in nested_steps(tree))
    figures.walruses_inside = sum(1 for _ in hidden_assignments(tree))
    for name in bound_names(tree):
        figures.vague_names += name in VAGUE_NAMES
        if name == "rows":
            figures.rows[str(path)] += 1
    for docstring in docstrings(tree):
        figures.docstrings += 1
        figures.odd_openings += docstring.split(None, 1)[0] in ODD_OPENINGS
    return figures


def comment_lines(text: str) -> set[int]:
    """Numbers of the lines that hold a comment which a reader is meant to read."""
    numbers = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not re.match(r"# (type:|noqa|fmt:)", token.string):
            numbers.add(token.start[0])
    return numbers


def nested_steps(tree: ast.AST) -> Iterator[ast.expr]:
    """Comprehensions within comprehensions, and conditional expressions within such ones."""
    for kinds in (COMPREHENSIONS, (ast.IfExp,)):
        for outer in ast.walk(tree):
            if not isinstance(outer, kinds):
                continue
            for inner in ast.walk(outer):
                if inner is not outer and isinstance(inner, kinds):
                    yield inner


def hidden_assignments(tree: ast.AST) -> Iterator[ast.NamedExpr]:
    """Assignment expressions inside comprehensions."""
    for outer in ast.walk(tree):
        if isinstance(outer, COMPREHENSIONS):
            for inner in ast.walk(outer):
                if isinstance(inner, ast.NamedExpr):
                    yield inner


def bound_names(tree: ast.AST) -> Iterator[str]:
    """Every name that is given a value: variables, arguments, attributes of classes, functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


def docstrings(tree: ast.AST) -> Iterator[str]:
    """The docstrings of the module, its classes, functions and attributes."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for statement in body:
            if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
                continue
            text = statement.value.value
            if isinstance(text, str) and text.strip():
                yield text.strip()


def import_depths(checkout: Path) -> dict[str, int]:
    """For each module, the length of the longest chain of imports within the package below it."""
    names = {module_name(checkout, path): path for path in sources(checkout)}
    imports = {name: imported(path, names) - {name} for name, path in names.items()}
    depths: dict[str, int] = {}

    def depth(name: str, above: frozenset[str]) -> int:
        if name not in depths:
            below = [depth(other, above | {name}) for other in imports[name] - above]
            depths[name] = 1 + max(below, default=-1)
        return depths[name]

    for name in names:
        depth(name, frozenset())
    return depths


def module_name(checkout: Path, path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(checkout).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported(path: Path, names: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports, at its top or inside of functions."""
    result = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            wanted = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        else:
            continue
        result.update(
            name for name in wanted if name in names and names[name].name != "__init__.py"
        )
    return result


def print_rooms(checkout: Path) -> None:
    """Print the density of each folder."""
    rooms: dict[str, Figures] = {}
    for path in sources(checkout):
        room = str(path.parent.relative_to(checkout))
        rooms.setdefault(room, Figures()).add(figures_of(path))
    print(f"\n{checkout}\n{'folder':40} files  compr.  cond.  nested  comments  odd  vague  rows")
    for room, figures in rooms.items():
        if not figures.statements:
            continue
        print(
            f"{room:40} {figures.files:5}",
            f"{per_hundred(figures.comprehensions, figures.statements):>7}",
            f"{per_hundred(figures.conditionals, figures.statements):>6}",
            f"{figures.nested:7}",
            f"{per_hundred(figures.comment_lines, len(figures.lengths)):>9}",
            f"{figures.odd_openings:4} {figures.vague_names:6} {sum(figures.rows.values()):5}",
        )


def print_dense(checkout: Path) -> None:
    """Print the file and line of nested steps and of assignments inside comprehensions."""
    for path in sources(checkout):
        tree = ast.parse(path.read_text())
        for node in (*nested_steps(tree), *hidden_assignments(tree)):
            print(f"{path.relative_to(checkout)}:{node.lineno}: {ast.unparse(node)[:90]}")


if __name__ == "__main__":
    main()
