"""`bertjax distill --static RUN --to FOLDER [--dimensions N] [--pooling mean] [--corpus FILE]`"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bertjax.cli.arguments import log_of_verb, need, parse, quiet_libraries, wants_help


@dataclass(frozen=True)
class StaticCommand:
    """Make a table of word vectors of a model: the vector of a text is the mean of the vectors of
    its pieces. sentence-transformers, model2vec and bertjax embed read the folder.
    """

    static: str = ""
    """The model: a run, a checkpoint or a model folder of transformers."""
    to: str = ""
    """The new folder."""
    dimensions: int = -1
    """Numbers in a vector: that many principal components of the model's vectors. 0: the model's
    vectors as they are. -1: 256, or as many as there are where the model has fewer.
    """
    pooling: Literal["", "cls", "mean", "max"] = ""
    """Vector of a piece: that of [CLS], or the mean or maximum over the piece and the special
    tokens around it. By default as an imported model of sentence-transformers says, else mean.
    """
    corpus: str = ""
    """Text file with one text on each line, as for embed, in which the pieces are counted. By
    default their frequencies follow from their order in the vocabulary, by Zipf's law.
    """
    sif_coefficient: float = 1e-4
    """Weight of a piece of probability p: a / (a + p), with this a. 0: all have the weight 1."""
    sts: str = ""
    """File of rated pairs of sentences, SCORE TAB A TAB B on each line, on which the table and the
    model are measured. Then the folder has card.json and README.md.
    """
    max_loss: str = ""
    """Most that the table may lose of the model's figure on --sts, such as 15%: else nothing is
    left, and the exit status is 3.
    """
    seconds: float = 1.0
    """Seconds that the latency of each is measured for each shape; 0: it is not."""
    license: str = ""
    """Licence that the card names, such as apache-2.0; by default that of the model's own card."""


def is_static(words: Sequence[str]) -> bool:
    """Return whether the words of `bertjax distill` ask for a table of word vectors."""
    return any(word.partition("=")[0] == "--static" for word in words)


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    # Alone, since `--static` may stand before it without a value.
    command = parse("distill", StaticCommand(), ["--help"] if wants_help(words) else words)
    need(command.static, "distill", "--static with a run, a checkpoint or a model folder")
    need(command.to, "distill", "--to with the new folder")
    quiet_libraries()
    # Imported after the checks: so a mistake is told without waiting for JAX.
    from bertjax.compression.card import table_lines
    from bertjax.compression.static.distill_static import distill_static
    from bertjax.parallel import compile_cache
    from bertjax.report.terminal import terminal_progress

    compile_cache.start()
    with log_of_verb(), terminal_progress() as progress:
        facts = distill_static(
            command.static,
            command.to,
            dimensions=None if command.dimensions == -1 else command.dimensions,
            pooling=command.pooling,
            corpus=command.corpus,
            sif_coefficient=command.sif_coefficient,
            sts=command.sts,
            max_loss=command.max_loss,
            seconds=command.seconds,
            license=command.license,
            progress=progress,
        )
    if facts is None:
        return 0
    print(f"from: {facts.source}")
    print(f"pieces: {facts.pieces:,}, of which {facts.zeros:,} mean nothing: zeros")
    print(f"pooling: {facts.pooling}")
    share = f", {100 * facts.explained:.1f} % of the variance" if facts.components else ""
    print(f"numbers in a vector: {facts.dimensions}{share}")
    for line in table_lines(facts.card) if facts.card else ():
        print(line)
    print(f"seconds: {facts.seconds:.1f}")
    print(f"bytes: {facts.bytes:,}")
    print(f"written: {facts.folder}")
    return 0
