"""`bertjax grow RUN --to NEW_RUN [--hidden-size N] [--max-seq-length N] [--new-tokens FILE] ...`"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bertjax.cli.arguments import parse_subject, quiet_libraries
from bertjax.errors import check

SIZES = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads")


@dataclass(frozen=True)
class GrowCommand:
    """Make a new run from a run's model: wider or deeper, with longer inputs, with more words, or
    with vectors of words from a file.
    """

    to: str = ""
    """Folder of the new run."""
    max_seq_length: int = 0
    """New maximum length of an input in ids; 0: no change."""
    positions: Literal["auto", "tile", "interpolate", "keep", "scale"] = "auto"
    """How new positions are made.
    auto: tile for learned positions, keep for others. tile: the learned ones are repeated.
    interpolate: the learned ones are stretched. keep: the formula stays. scale: rotary positions
    are divided by the factor of the length. With tile and keep, inputs of the old lengths give
    exactly the same outputs.
    """
    rotary_base: float = 0.0
    """New base of the rotary angles in global layers, such as 160000; 0: no change."""
    rotary_base_local: float = 0.0
    """New base of the rotary angles in layers with local attention; 0: no change."""
    hidden_size: int = 0
    """New width of the hidden states: each weight is in the middle, repeated around it; 0: no
    change.
    """
    num_hidden_layers: int = 0
    """New number of layers, which are copies of the old ones, in their order; 0: no change."""
    intermediate_size: int = 0
    """New width of the feed-forward sublayer; 0: no change."""
    num_attention_heads: int = 0
    """New number of heads; 0: as many as the hidden size has of the old width."""
    new_tokens: str = ""
    """File of new vocabulary entries, one whole word on each line (WordPiece only)."""
    new_rows: Literal["mean", "pieces"] = "pieces"
    """Embedding of a new word: the mean over all old entries (mean), or over the word's old pieces
    (pieces).
    """
    vocab_multiple: int = 1
    """The number of rows of a larger embedding table is a multiple of this; use 128 for a TPU."""
    word_vectors: str = ""
    """File of GloVe or word2vec vectors with the width of the model's embeddings. The words in this
    file get these vectors as embeddings.
    """
    word_vectors_format: Literal["auto", "glove", "word2vec", "word2vec-binary"] = "auto"
    """Format of the file of word vectors."""


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, command = parse_subject("grow", GrowCommand(), words, "a run or checkpoint folder")
    check(command.to != "", where="--to", found="nothing", expected="a folder for the new run")
    sizes = {name: getattr(command, name) for name in SIZES}
    for name, size in sizes.items():
        check(
            size >= 0,
            where=f"--{name.replace('_', '-')}",
            found=size,
            expected="a number above 0",
        )
    others = command.max_seq_length, command.rotary_base, command.rotary_base_local
    check(
        any(sizes.values()) or any(others) or command.new_tokens or command.word_vectors,
        where="bertjax grow",
        found="nothing to do",
        expected="--max-seq-length, --new-tokens, --word-vectors, or a size such as --hidden-size",
    )
    check(
        command.max_seq_length or command.positions == "auto",
        where="--positions",
        found=command.positions,
        expected="--max-seq-length beside it",
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
    from bertjax.interop.extend.sizes import Sizes
    from bertjax.report.terminal import terminal_progress

    options = GrowOptions(
        sizes=Sizes(**sizes),
        max_seq_length=command.max_seq_length,
        positions=command.positions,
        rotary_base=command.rotary_base,
        rotary_base_local=command.rotary_base_local,
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
