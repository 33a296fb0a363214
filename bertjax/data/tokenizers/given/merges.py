"""Merges of byte pair encoding, as `merges.txt` and `tokenizer.json` have them."""

from bertjax.errors import UserError, check, mismatch


def read_merges(path: object, content: bytes) -> list[tuple[str, str]]:
    """Return the pairs of a `merges.txt`, in the order in which they are merged.

    Raises `UserError` naming the line that is no pair.
    """
    try:
        lines = content.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: found bytes that are not UTF-8 ({error}), expected a pair a line"
        ) from error
    merges = []
    for number, line in enumerate(lines, 1):
        # GPT-2's file begins with `#version: 0.2`; further down such a line may be a pair.
        is_header = number == 1 and line.startswith("#version")
        if is_header or not line.strip():
            continue
        pair = line.rstrip("\r").split(" ")
        check(
            len(pair) == 2 and all(pair),
            where=f"{path}, line {number}",
            found=repr(line[:80]),
            expected="two pieces and a space",
        )
        merges.append((pair[0], pair[1]))
    return merges


def engine_merges(file: object, merges: object) -> list[tuple[str, str]]:
    """Return the merges of a file; older ones have "a b" for each pair, newer ["a", "b"]."""
    if not isinstance(merges, list):
        raise mismatch(
            where=f"{file}: merges", found=type(merges).__name__, expected="a list of pairs"
        )
    pairs: list[tuple[str, str]] = []
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        valid = isinstance(pair, list) and len(pair) == 2
        valid = valid and isinstance(pair[0], str) and isinstance(pair[1], str)
        if not valid:
            # Not by `check`: a text of each of 500,000 pairs takes as long as all else here.
            raise mismatch(where=f"{file}: merges", found=repr(pair)[:80], expected="two pieces")
        pairs.append((pair[0], pair[1]))
    return pairs
