"""`bertjax grow RUN --to NEW_RUN [--max-seq-length N] [--new-tokens FILE] [--word-vectors FILE]`"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bertjax.cli.arguments import parse_subject, quiet_libraries
from bertjax.errors import check


@dataclass(frozen=True)
class GrowCommand:
    """Make a new run from a run's model: with longer inputs, more words, or words with vectors from
    a file.
    """

    to: str = ""
    """Folder of the new run."""
    max_seq_length: int = 0
    """Ids in the longest input from now on; 0: as before."""
    positions: Literal["tile", "interpolate"] = "tile"
    """The new positions: the learned ones repeated (inputs of the old lengths give the same bits),
    or stretched.
    """
    new_tokens: str = ""
    """A file of new vocabulary entries, a whole word a line (WordPiece only)."""
    new_rows: Literal["mean", "pieces"] = "pieces"
    """Their embeddings: the mean of all entries, or of the pieces that the word was before."""
    vocab_multiple: int = 1
    """Divisor of the rows of the table of embeddings, if it grows; 128 suits a TPU."""
    word_vectors: str = ""
    """A file of GloVe or word2vec vectors, as wide as the model's embeddings; its words' embeddings
    become these.
    """
    word_vectors_format: Literal["auto", "glove", "word2vec", "word2vec-binary"] = "auto"
    """Format of that file."""


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, command = parse_subject("grow", GrowCommand(), words, "a run or checkpoint folder")
    check(command.to != "", where="--to", found="nothing", expected="a folder for the new run")
    check(
        command.max_seq_length or command.new_tokens or command.word_vectors,
        where="bertjax grow",
        found="nothing to do",
        expected="--max-seq-length, --new-tokens or --word-vectors",
    )
    check(
        command.vocab_multiple > 0,
        where="--vocab-multiple",
        found=command.vocab_multiple,
        expected="a number above 0",
    )
    quiet_libraries()
    # Imported after the checks: so a mistake is told without waiting for JAX.
    from bertjax.interop.extend.grow import GrowOptions, grow_model
    from bertjax.report.terminal import terminal_progress

    options = GrowOptions(
        max_seq_length=command.max_seq_length,
        positions=command.positions,
        new_tokens=command.new_tokens,
        new_rows=command.new_rows,
        vocab_multiple=command.vocab_multiple,
        word_vectors=command.word_vectors,
        word_vectors_format=command.word_vectors_format,
    )
    with terminal_progress() as progress:
        grown = grow_model(subject, command.to, options, progress=progress)
    print(f"from: {grown.source}")
    for change in grown.changes:
        print(change)
    print(f"checkpoint: {grown.checkpoint}")
    return 0
