"""Choices of a table of word vectors."""

from dataclasses import dataclass
from typing import get_args

from bertjax.compression.card import check_license
from bertjax.compression.gate import parse_bound
from bertjax.errors import check
from bertjax.inference.embed import Pooling

DIMENSIONS = 256
POOLINGS = tuple(name for name in get_args(Pooling) if name != "tokens")


@dataclass(frozen=True)
class StaticOptions:
    """Choices of `distill_static`."""

    dimensions: int | None = None
    """Numbers in a vector: that many principal components. 0: the teacher's vectors as they are.

    None: 256, or as many as there are where the teacher has fewer.
    """
    pooling: str = ""
    """Vector of a piece: cls, mean or max over its row. "": as the imported model says; else mean.
    """
    corpus: str = ""
    """File of texts, one a line, in which pieces are counted. "": by Zipf's law, frequencies follow
    from the order of the vocabulary.
    """
    sif_coefficient: float = 1e-4
    """Weight of a piece of probability p: a / (a + p), with this a. 0: all have weight 1."""
    sts: str = ""
    """File of rated pairs on which the table is measured beside the teacher: `SCORE TAB A TAB B`.

    Then the folder has `card.json` and `README.md`, a model card. "": nothing is measured.
    """
    max_loss: str = ""
    """Most that the table may lose of the teacher's figure, such as `15%`. "": no bound."""
    seconds: float = 1.0
    """Seconds that the latency of each is measured for each shape; 0: it is not."""
    license: str = ""
    """Licence that the card names. "": that of the teacher's own card, or unknown."""

    def __post_init__(self) -> None:
        check(
            self.dimensions is None or self.dimensions >= 0,
            where="dimensions",
            found=self.dimensions,
            expected="0 or more",
        )
        check(
            self.pooling in ("", *POOLINGS),
            where="pooling",
            found=repr(self.pooling),
            expected=f"one of {', '.join(POOLINGS)}",
        )
        check(
            0 <= self.sif_coefficient < 1,
            where="sif_coefficient",
            found=self.sif_coefficient,
            expected="a number from 0 to below 1",
        )
        check(
            not self.max_loss or self.sts,
            where="--max-loss",
            found="no --sts",
            expected="a file of rated pairs, on which the loss is measured",
        )
        check(
            0 <= self.seconds <= 3600,
            where="--seconds",
            found=self.seconds,
            expected="0 to 3600",
        )
        # A text that is no percentage is refused before any work.
        _ = self.bound
        if self.license:
            check_license(self.license)

    @property
    def bound(self) -> float | None:
        """The share that may be lost; None without a bound."""
        return parse_bound(self.max_loss) if self.max_loss else None
