"""`bertjax embed RUN TEXT_FILE --output-file FILE [--layers last] [--pooling mean]`"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from bertjax.cli.arguments import log_of_verb, parse_subject, quiet_libraries
from bertjax.errors import check

if TYPE_CHECKING:
    from etils import epath


@dataclass(frozen=True)
class EmbedCommand:
    """Write a vector for each line of a text file, or for each token."""

    text_file: Annotated[str, tyro.conf.Positional] = ""
    """Text file in UTF-8 with one text on each line, may be .gz, .bz2, .xz or .zst; - is standard
    input.
    An empty line also gets a vector, that of the special tokens.
    """
    output_file: str = ""
    """File to write. NAME.npy is an array [lines, width]; NAME.parquet has the columns `line` (from
    1) and `vector`. With pooling tokens, NAME.npy is [all tokens, width], and NAME.offsets.npy
    says where each line begins; NAME.parquet has the columns `line`, `tokens` and `vectors`.
    """
    layers: Literal["last", "second_to_last", "sum_last_four", "concat_last_four"] = "last"
    """Layers whose output is used: the last, the second to last, or the sum or the concatenation of
    the last four.
    """
    pooling: Literal["cls", "mean", "max", "tokens"] = "mean"
    """Vector of a line. cls: the vector of [CLS]. mean, max: the mean or maximum over all tokens,
    including special tokens. tokens: one vector for each token.
    """
    batch_size: int = 64
    """Number of lines in a batch; it is rounded up to a multiple of the local devices."""
    max_seq_length: int = 0
    """Maximum number of ids of a line, including special tokens; longer lines are cut. 0: 512, or
    the model's number of positions if that is smaller; with a table of word vectors, none is cut.
    """
    vector_dtype: Literal["float32", "float16"] = "float32"
    """Type of the numbers in the file."""


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, command = parse_subject(
        "embed", EmbedCommand(), words, "a run, a checkpoint or a table of word vectors"
    )
    check(
        command.text_file != "",
        where="embed",
        found="no text file",
        expected="a file of one text a line, or - for standard input",
    )
    check(
        command.output_file != "",
        where="--output-file",
        found="none",
        expected="NAME.npy or NAME.parquet",
    )
    check(
        command.batch_size > 0,
        where="--batch-size",
        found=command.batch_size,
        expected="a number above 0",
    )
    quiet_libraries()
    # Imported after the checks: so a mistake is told without waiting for JAX.
    from bertjax.inference.vector_files import offsets_file, vector_file
    from bertjax.storage.outputs import files_held

    path = vector_file(command.output_file)
    # Before the model is loaded: a second command with this output is told at once.
    written = [path, offsets_file(path)] if path.suffix == ".npy" else [path]
    with files_held("embed", *written):
        _embed(subject, command, path)
    return 0


def _embed(subject: str, command: EmbedCommand, path: "epath.Path") -> None:
    """Write the vectors to `path`, and print what was done."""
    from bertjax.inference.embed import EmbedOptions, embed_windows, opened_for_embed
    from bertjax.inference.static_table import StaticTable
    from bertjax.inference.vector_files import count_lines, read_lines, write_vectors
    from bertjax.parallel import compile_cache
    from bertjax.report.terminal import terminal_progress

    compile_cache.start()
    model = opened_for_embed(subject)
    options = EmbedOptions(
        command.layers, command.pooling, command.batch_size, command.max_seq_length or None
    )
    longest, width = options.longest(model), options.width(model)
    begin = time.monotonic()
    with log_of_verb(), terminal_progress() as progress:
        windows = embed_windows(
            model,
            read_lines(command.text_file),
            options,
            progress=progress,
            total=count_lines(command.text_file),
        )
        counts = write_vectors(
            path,
            windows,
            None if isinstance(model, StaticTable) else model.tokenizer,
            width=width,
            pooling=command.pooling,
            dtype=command.vector_dtype,
        )
    seconds = time.monotonic() - begin
    if isinstance(model, StaticTable):
        print(f"table of word vectors: {model.folder}")
    else:
        print(f"checkpoint: {model.checkpoint}")
    print(f"lines: {counts.texts:,}")
    if longest is not None:
        print(f"truncated lines: {counts.truncated:,} (longer than {longest} ids)")
    print(f"vectors: {counts.vectors:,} of {width:,} numbers, {command.vector_dtype}")
    print(f"seconds: {seconds:.1f} ({counts.texts / max(seconds, 1e-9):,.0f} lines/s)")
    print(f"written: {path}")
