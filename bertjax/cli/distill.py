"""`bertjax distill --static RUN --to FOLDER`"""

from collections.abc import Sequence

from bertjax.cli import distill_static
from bertjax.cli.distill_static import StaticCommand as DistillCommand

__all__ = ["DistillCommand", "run"]


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    return distill_static.run(words)
