"""Check of the field, or column, that holds the text."""

from collections.abc import Iterable

from bertjax.config import DataConfig
from bertjax.errors import check, one_line


def check_field(
    names: Iterable[object], config: DataConfig, where: str, kind: str = "fields"
) -> None:
    listed = one_line(", ".join(map(str, names))) or "none"
    check(
        config.text_field in names,
        where=where,
        found=f"the {kind} {listed}",
        expected=f"data.text_field {config.text_field!r}",
    )
