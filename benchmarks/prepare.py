"""Speed and memory of `prepare`, on growing corpora, with one and two workers.

    python benchmarks/prepare.py [--text FILE] [--megabytes 8 32 128] [--workers 1 2] \\
        [--original SCRIPT]

The corpus is real text: CPython's documentation, or FILE, with a sentence a line and a blank line
between documents. It is repeated up to each size, with one word in 200 changed in each copy, so
that no document is a duplicate. The vocabulary is made once, and not timed. `--original` names a
copy of the original BERT script create_pretraining_data.py that runs with the TensorFlow installed
here. It is run on the smallest corpus, before and after, with the same vocabulary, length, masks
and dupe factor.
"""

import argparse
import json
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from reporting import argument_parser, print_header, print_line

from bertjax.config import Config, DataConfig, TokenizerConfig, from_dict, to_dict
from bertjax.data.records.foreign_files import record_spans

LENGTH, PREDICTIONS, DUPE_FACTOR = 128, 20, 5
COLUMNS = (
    "corpus, MB",
    "workers",
    "rows/s",
    "MB/s",
    "tokens/s",
    "peak MiB a process",
    "shard bytes a row",
    "s",
)


def main() -> None:
    arguments = parsed_arguments()
    if arguments.run:
        run_job(json.loads(arguments.run))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, Path(folder))


def parsed_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dupe-factor", type=int, default=DUPE_FACTOR)
    masking_help = "the original's, for comparison; whole_word is the default of `prepare`"
    parser.add_argument("--masking", default="token", help=masking_help)
    parser.add_argument("--original", type=Path)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    documents = list(read(arguments.text))
    corpora = {}
    for size in arguments.megabytes:
        corpora[size] = write_corpus(folder / f"{size}.txt", documents, size * 10**6)
    smallest = corpora[arguments.megabytes[0]]
    vocabulary = make_vocabulary(folder, smallest)
    original_rates = []
    if arguments.original:
        original_rates.append(run_original(arguments, folder, smallest, vocabulary))
    print_header(COLUMNS)
    best_rate = 0.0
    for size, corpus in corpora.items():
        for workers in arguments.workers:
            config = config_of(arguments, corpus, vocabulary, workers)
            figures = measure(config, folder / "prepared")
            best_rate = max(best_rate, figures["rows"] / figures["seconds"])
            print_entry(size, workers, figures)
    print_stages(measure(config_of(arguments, smallest, vocabulary, 1), folder / "prepared", True))
    if arguments.original:
        original_rates.append(run_original(arguments, folder, smallest, vocabulary))
        rate = sum(original_rates) / 2
        print(
            f"\nThe original script, one process: {rate:,.0f} rows/s (without TensorFlow's start);"
            f" ratio of the best above: {best_rate / rate:.1f}"
        )


def print_entry(size: int, workers: int, figures: dict[str, Any]) -> None:
    seconds = figures["seconds"]
    print_line(
        (
            size,
            workers,
            f"{figures['rows'] / seconds:,.0f}",
            f"{size / seconds:.2f}",
            f"{figures['tokens'] / seconds:,.0f}",
            f"{figures['peak']:,.0f}",
            f"{figures['bytes'] / figures['rows']:.0f}",
            f"{seconds:.1f}",
        )
    )


def print_stages(figures: dict[str, Any]) -> None:
    print("\nTime of each stage, one worker, smallest corpus:")
    total = sum(figures["stages"].values())
    longest_first = sorted(figures["stages"].items(), key=lambda item: -item[1])
    for stage, seconds in longest_first:
        print(f"  {seconds / total:6.1%}  {seconds:6.2f} s  {stage}")


def read(path: Path | None) -> Iterator[str]:
    """Yield documents, with a sentence a line."""
    if path:
        for document in path.read_text().split("\n\n"):
            if document.strip():
                yield document
        return
    from bertjax.data.corpus.python_docs import documents
    from bertjax.data.corpus.sentences import split_sentences

    for text in documents():
        yield "\n".join(split_sentences(text))


def write_corpus(path: Path, documents: list[str], size: int) -> Path:
    """Write copies of the documents, each a bit different, up to `size` bytes."""
    rng = random.Random(0)
    with path.open("w") as file:
        while file.tell() < size:
            for document in documents:
                words = document.split(" ")
                for _ in range(1 + len(words) // 200):
                    words[rng.randrange(len(words))] = f"word{rng.randrange(10**6)}"
                file.write(" ".join(words) + "\n\n")
                if file.tell() >= size:
                    break
    return path


def make_vocabulary(folder: Path, corpus: Path) -> Path:
    from bertjax.data.preparation.prepare import prepare

    config = Config(
        data=DataConfig(corpus=(str(corpus),), dupe_factor=1),
        tokenizer=TokenizerConfig(vocab_size=8192),
    )
    prepare(config, folder / "vocabulary")
    return folder / "vocabulary" / "tokenizer" / "vocab.txt"


def config_of(
    arguments: argparse.Namespace, corpus: Path, vocabulary: Path, workers: int
) -> Config:
    return Config(
        data=DataConfig(
            corpus=(str(corpus),),
            max_seq_length=LENGTH,
            max_predictions_per_seq=PREDICTIONS,
            dupe_factor=arguments.dupe_factor,
            masking=arguments.masking,
            workers=workers,
        ),
        tokenizer=TokenizerConfig(vocab_file=str(vocabulary)),
    )


def measure(config: Config, output: Path, timed: bool = False) -> dict[str, Any]:
    """Return the figures of a preparation in a process of its own, whose peak memory is its own."""
    job = json.dumps({"config": to_dict(config), "output": str(output), "timed": timed})
    command = [sys.executable, __file__, "--run", job]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    shutil.rmtree(output)
    return json.loads(run.stdout.splitlines()[-1])


def run_job(job: dict[str, Any]) -> None:
    """Prepare, and print the figures as one line of JSON."""
    from bertjax.data.preparation.prepare import prepare

    stages = time_stages() if job["timed"] else {}
    begin = time.perf_counter()
    manifest = prepare(from_dict(Config, job["config"]), job["output"])
    seconds = time.perf_counter() - begin
    if job["timed"]:
        stages["the rest"] = seconds - sum(stages.values())
    figures = {
        "seconds": seconds,
        "rows": sum(shard.records for shard in manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "tokens": manifest.counts["train_tokens"] + manifest.counts["validation_tokens"],
        "peak": peak_mebibytes(),
        "stages": stages,
    }
    print(json.dumps(figures))


def peak_mebibytes() -> float:
    """Return the peak memory of the largest process: this one or one of its workers."""
    # Linux keeps the parent's peak in a new program's ru_maxrss; VmHWM begins anew.
    match = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert match is not None
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(int(match.group(1)), workers) / 1024  # both are kB on Linux


def time_stages() -> dict[str, float]:
    """Time the functions that do the work, from now on: seconds by stage.

    They do not call one another, so that no time counts twice.
    """
    from bertjax.data.corpus import sentences, work_units
    from bertjax.data.corpus.formats import lines
    from bertjax.data.preparation import build_shard, tokenize_corpus
    from bertjax.data.preparation.inputs import packing
    from bertjax.data.records import record_format
    from bertjax.data.tokenizers.wordpiece import WordPiece
    from bertjax.masking import static as static_masks

    stages: dict[str, float] = {}

    def clock(owner: Any, name: str, stage: str) -> None:
        function = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                stages[stage] = stages.get(stage, 0.0) + time.perf_counter() - begin

        setattr(owner, name, timed)

    clock(lines, "decode", "decode UTF-8")
    clock(work_units, "clean", "clean")
    clock(sentences, "_by_lines", "split into sentences")
    clock(WordPiece, "encode_batch", "tokenize")
    clock(tokenize_corpus, "_write_part", "write ids by range")
    clock(build_shard, "open_pool", "gather documents, drop duplicates")
    clock(build_shard, "make_sequences", "choose pairs of segments")
    clock(build_shard, "lay_out_rows", "lay out rows")
    clock(static_masks, "mask_rows", "mask")
    clock(packing, "pack", "pack")
    clock(record_format, "encode", "encode records, with checksums")
    return stages


def run_original(
    arguments: argparse.Namespace, folder: Path, corpus: Path, vocabulary: Path
) -> float:
    """Return the rows a second of the original script.

    The time that its start takes, that of a run on four sentences, is left out.
    """
    four_sentences = folder / "four_sentences.txt"
    four_sentences.write_text(
        "One sentence here.\nAnother one there.\n\nA third of them.\nAnd a fourth.\n"
    )
    start_seconds = original_seconds(arguments, folder, four_sentences, vocabulary)
    seconds = original_seconds(arguments, folder, corpus, vocabulary)
    written = epath.Path(folder) / "original"
    rows = len(record_spans(written, np.memmap(written, np.uint8, "r")))
    return rows / (seconds - start_seconds)


def original_seconds(
    arguments: argparse.Namespace, folder: Path, corpus: Path, vocabulary: Path
) -> float:
    command = [
        sys.executable,
        str(arguments.original),
        f"--input_file={corpus}",
        f"--output_file={folder}/original",
        f"--vocab_file={vocabulary}",
        "--do_lower_case=True",
        f"--max_seq_length={LENGTH}",
        f"--max_predictions_per_seq={PREDICTIONS}",
        f"--dupe_factor={arguments.dupe_factor}",
    ]
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
