"""`bertjax embed RUN TEXT_FILE --output-file FILE [--layers last] [--pooling mean]`"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from bertjax.cli.arguments import need, parse, quiet_libraries, split_subject, wants_help
from bertjax.errors import check


@dataclass(frozen=True)
class EmbedCommand:
    """Write a vector for each line of a text file, or for each token of it."""

    text_file: Annotated[str, tyro.conf.Positional] = ""
    """Text, a line each, UTF-8 (.gz, .bz2 and .xz too); - for standard input. An empty line is
    embedded too, as [CLS] [SEP].
    """
    output_file: str = ""
    """What to write: NAME.npy, an array [lines, width], or NAME.parquet, the columns `line` (from
    1) and `vector`. With pooling tokens NAME.npy is [all tokens, width], and NAME.offsets.npy
    says where each line begins in it; NAME.parquet has the columns `line`, `tokens`, `vectors`.
    """
    layers: Literal["last", "second_to_last", "sum_last_four", "concat_last_four"] = "last"
    """Whose output: the last layer's, the one's before it, the sum or the concatenation of the last
    four's.
    """
    pooling: Literal["cls", "mean", "max", "tokens"] = "mean"
    """A line's vector: [CLS]'s, the mean or the maximum of all tokens', [CLS] and [SEP] among them;
    or each token's.
    """
    batch_size: int = 64
    """Lines that are computed together, a multiple of the devices here (else rounded up)."""
    max_seq_length: int = 0
    """Ids of a line, [CLS] and [SEP] among them, at most; longer lines are cut. 0: 512, or the
    model's own limit.
    """
    vector_dtype: Literal["float32", "float16"] = "float32"
    """Type of the numbers written."""


def run(words: Sequence[str]) -> int:
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, "embed", "a run or checkpoint folder")
    command = parse("embed RUN", EmbedCommand(), rest)
    check(
        command.text_file != "",
        where="embed",
        found="no text file",
        expected="a file of a text a line, or - for standard input",
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
    from bertjax.data.tokenizers.tokenizer import load_tokenizer
    from bertjax.inference import embed as features
    from bertjax.inference import vector_files
    from bertjax.parallel import compile_cache
    from bertjax.report.terminal import terminal_progress
    from bertjax.training.saved_model import load_model

    path = vector_files.vector_file(command.output_file)
    compile_cache.start()
    loaded = load_model(subject)
    model, tokenizer = loaded.config.model, load_tokenizer(loaded.run_dir / "tokenizer")
    length = features.longest(model, command.max_seq_length or None)
    begin = time.monotonic()
    with terminal_progress() as progress:
        windows = features.embed_windows(
            model,
            loaded.params,
            tokenizer,
            vector_files.read_lines(command.text_file),
            layers=command.layers,
            pooling=command.pooling,
            batch_size=command.batch_size,
            max_seq_length=length,
            progress=progress,
            total=vector_files.count_lines(command.text_file),
        )
        width = features.width(model, command.layers)
        written = vector_files.write_vectors(
            path,
            windows,
            tokenizer,
            width=width,
            pooling=command.pooling,
            dtype=command.vector_dtype,
        )
    seconds = time.monotonic() - begin
    print(f"checkpoint: {loaded.checkpoint}")
    print(f"lines: {written.texts:,}")
    print(f"truncated lines: {written.truncated:,} (longer than {length} ids)")
    print(f"vectors: {written.rows:,} of {width:,} numbers, {command.vector_dtype}")
    print(f"seconds: {seconds:.1f} ({written.texts / max(seconds, 1e-9):,.0f} lines/s)")
    print(f"written: {path}")
    return 0
