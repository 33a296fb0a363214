"""Reader of the normalization rules in a SentencePiece model, and regular expressions for them."""

import struct
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

# A unit of the trie is 32 bits: a label in the lowest eight, whether a rule ends there in the
# ninth, and from the eleventh the distance to its children; of a value all bits but the highest.
# See github.com/s-yata/darts-clone.
_LABEL, _HAS_VALUE, _VALUE, _IS_VALUE = 0x800000FF, 0x100, 0x7FFFFFFF, 1 << 31
# Characters that belong to the one before them, for NFC or where a text is cut into what a reader
# takes for a character, and which no general category tells: jamo of Hangul, vowels of Thai, Lao
# and Kirat Rai, half-width marks of kana, colours of skin, and the end of a line after U+000D.
_JOINING = (
    (0x0A, 0x0A), (0xE33, 0xE33), (0xEB3, 0xEB3), (0x1160, 0x11FF), (0xD7B0, 0xD7FF),
    (0xFF9E, 0xFF9F), (0x16D40, 0x16D7F), (0x1F3FB, 0x1F3FF),
)  # fmt: skip


def read_rules(charsmap: bytes) -> dict[str, str]:
    """Return the rules of a model that SentencePiece has opened: a text, and what replaces it.

    They are the `precompiled_charsmap`: the size of a trie in bytes, the trie (a double array), and
    the replacements, each with a zero after it.
    """
    (size,) = struct.unpack_from("<I", charsmap)
    units = np.frombuffer(charsmap, "<u4", size // 4, 4)
    replacements = charsmap[4 + size :]
    labels = units & _LABEL
    offsets = ((units >> 10) << ((units & 0x200) >> 6)).astype(np.int64)
    indices = np.arange(len(units), dtype=np.int64)
    children: dict[int, list[int]] = {}
    # The child with label b of the node at `base` is at `base` ^ b.
    parents = (indices ^ labels.astype(np.int64)).tolist()
    for index in np.flatnonzero((labels > 0) & (labels < 256)).tolist():
        children.setdefault(parents[index], []).append(index)
    bases, letters = (indices ^ offsets).tolist(), labels.tolist()
    ends, values = (units & _HAS_VALUE).tolist(), (units & _VALUE).tolist()
    rules: dict[str, str] = {}
    unread = [(bases[0], b"")]
    while unread:
        base, read = unread.pop()
        for index in children.get(base, ()):
            key, below = read + bytes((letters[index],)), bases[index]
            if ends[index]:
                begin = values[below]
                end = replacements.index(b"\0", begin)
                rules[key.decode()] = replacements[begin:end].decode()
            unread.append((below, key))
    return rules


def write_rules(rules: Mapping[str, str]) -> bytes:
    """Return the `precompiled_charsmap` of rules for single characters; see `read_rules`."""
    targets = dict.fromkeys(rules.values(), 0)
    replacements = b""
    for target in targets:
        targets[target] = len(replacements)
        replacements += target.encode() + b"\0"
    tree: dict[int, Any] = {}
    for source, target in rules.items():
        node = tree
        for byte in source.encode():
            node = node.setdefault(byte, {})
        # No such character has a zero byte, so it is free for the value.
        node[0] = targets[target]
    units = _double_array(tree)
    # A multiple of 256 units, as SentencePiece wants it.
    units += [0] * (-len(units) % 256)
    trie = np.array(units, "<u4").tobytes()
    return struct.pack("<I", len(trie)) + trie + replacements


def _double_array(tree: Mapping[int, Any]) -> list[int]:
    """The units of a trie whose nodes have their children by byte, and by 0 their value.

    A node with a value has no child, since no character of UTF-8 begins another one. The children
    of a node are within 256 units, so any node may have 256 of its own. But the bytes of a
    character after its first are 64 in number, and four such nodes share 256 units. No two nodes
    have the same base: each would have the other's children too.
    """
    units, bases = [0] * 256, {0}
    taken = {0}
    unread, leaves = [(0, tree)], []
    quarter = 4
    while unread:
        place, node = unread.pop()
        if set(node) == {0}:
            leaves.append((place, node[0]))
            continue
        inside = all(0x80 <= label < 0xC0 for label in node)
        if not inside or quarter == 4:
            units += [0] * 256
            quarter = 0
        base = len(units) - 256 + 64 * quarter
        quarter = quarter + 1 if inside else 4
        bases.add(base)
        units[place] |= (place ^ base) << 10
        for label, child in node.items():
            taken.add(base ^ label)
            units[base ^ label] = label
            unread.append((base ^ label, child))
    # What is left of the units has room for the values of the others.
    base = 0
    for place, value in leaves:
        while base in taken or base in bases:
            base += 1
        units += [0] * (256 if base == len(units) else 0)
        taken.add(base)
        units[place] |= (place ^ base) << 10 | _HAS_VALUE
        units[base] = value | _IS_VALUE
    return units


def joins(character: str) -> bool:
    """Return True if a character may belong to the one before it, as one of later Unicode may."""
    if not character:
        return False
    code = ord(character)
    if any(first <= code <= last for first, last in _JOINING):
        return True
    category = unicodedata.category(character)
    return category[0] in "MC" and category not in ("Cc", "Co")


def joining_pattern(singles: Mapping[str, str]) -> str:
    """Return the expression of a character that `joins`, or that a rule turns into one."""
    ranges = "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in _JOINING)
    turned = [source for source, target in singles.items() if joins(target[:1])]
    # Private use and noncharacters apart, which stand for something else meanwhile.
    others = r"[^\p{L}\p{N}\p{P}\p{Z}\p{S}\p{Cc}\p{Co}\x{10fffe}\x{10ffff}]"
    return f"(?:{others}|[{ranges}{_escaped(turned)}])"


def longest_pattern(texts: Iterable[str]) -> str:
    """Return an expression that matches the longest of `texts`; they share beginnings in it."""
    endings: dict[str, set[str]] = {}
    for text in texts:
        endings.setdefault(text[0], set()).add(text[1:])
    # First characters with the same endings are one class: 1,422 are 84 in NFKC.
    firsts: dict[frozenset[str], list[str]] = {}
    for first, following in endings.items():
        firsts.setdefault(frozenset(following), []).append(first)
    options: list[str] = []
    for ends, characters in firsts.items():
        longer = ends - {""}
        rest = longest_pattern(longer) if longer else ""
        # Greedy: the text that ends here is taken only where no longer one goes on.
        optional = "?" if rest and "" in ends else ""
        options.append(f"[{_escaped(characters)}]{rest}{optional}")
    return f"(?:{'|'.join(sorted(options))})"


def _escaped(characters: Iterable[str]) -> str:
    return "".join(f"\\x{{{ord(character):x}}}" for character in sorted(characters))


def translation(rules: Mapping[str, str]) -> dict[int, Any]:
    """Return the rules for single characters as `str.translate` takes them."""
    return {ord(source): target for source, target in rules.items() if len(source) == 1}
