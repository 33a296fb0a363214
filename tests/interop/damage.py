"""Damage that may befall a file, drawn by hypothesis."""

from hypothesis import strategies as st


@st.composite
def damages(draw):
    """Draw what to do to a file: (kind, position as a share of its length, bytes)."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "overwrite", "length"]))
    return kind, draw(st.floats(0, 1)), draw(st.binary(min_size=1, max_size=9))


def damage(content, kind, position, data):
    at = int(position * len(content))
    if kind == "cut":
        return content[:at]
    if kind == "insert":
        return content[:at] + data + content[at:]
    if kind == "length":
        # The header's own: 8 bytes of safetensors, and whatever else begins a file.
        return (data * 8)[:8] + content[8:]
    if kind == "flip":
        at = min(at, len(content) - 1)
        return content[:at] + bytes([content[at] ^ (data[0] or 1)]) + content[at + 1 :]
    return content[:at] + data + content[at + len(data) :]
