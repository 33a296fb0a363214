"""How fast `prepare` is and how much memory it takes, on growing corpora, with 1 and 2 workers.

    python benchmarks/prepare.py [--text FILE] [--megabytes 8 32 128] [--workers 1 2] [--original SCRIPT]

The corpus is real text (default: CPython's documentation; or FILE, a sentence a line, a blank line
between documents), repeated up to each size, a word in 200 changed in each copy, so that no
document is a duplicate. The vocabulary is made once, outside of the times. `--original` names a
copy of the original BERT script create_pretraining_data.py that runs with the TensorFlow installed
here; it is run on the smallest corpus, same vocabulary, length, masks and dupe factor, before and
after.
"""

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import Config, DataConfig, TokenizerConfig, from_dict, to_dict
from bertjax.data.records.reader import record_spans

LENGTH, PREDICTIONS, DUPES = 128, 20, 5


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--text", type=Path)
    options.add_argument("--megabytes", type=int, nargs="+", default=[8, 32, 128])
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options.add_argument("--dupe-factor", type=int, default=DUPES)
    options.add_argument(
        "--masking",
        default="token",
        help="the original's, for comparison; whole_word is the default",
    )
    options.add_argument("--original", type=Path)
    options.add_argument("--run", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.run:
        run_one(json.loads(asked.run))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = list(read(asked.text))
        corpora = [
            write_corpus(folder / f"{size}.txt", documents, size * 10**6)
            for size in asked.megabytes
        ]
        vocabulary = make_vocabulary(folder, corpora[0])
        original = [run_original(asked, folder, corpora[0], vocabulary)] if asked.original else []
        print(
            "| corpus, MB | workers | rows/s | MB/s | tokens/s | peak MiB a process | shard bytes a row | s |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        best = 0.0
        for size, corpus in zip(asked.megabytes, corpora, strict=True):
            for workers in asked.workers:
                found = measure(config_of(asked, corpus, vocabulary, workers), folder / "prepared")
                seconds = found["seconds"]
                best = max(best, found["rows"] / seconds)
                print(
                    f"| {size} | {workers} | {found['rows'] / seconds:,.0f} | {size / seconds:.2f} | "
                    f"{found['tokens'] / seconds:,.0f} | {found['peak']:,.0f} | {found['bytes'] / found['rows']:.0f} | "
                    f"{seconds:.1f} |",
                    flush=True,
                )
        print("\nWhere one worker's time goes, smallest corpus:")
        stages = measure(
            config_of(asked, corpora[0], vocabulary, 1), folder / "prepared", timed=True
        )["stages"]
        for stage, seconds in sorted(stages.items(), key=lambda item: -item[1]):
            print(f"  {seconds / sum(stages.values()):6.1%}  {seconds:6.2f} s  {stage}")
        if asked.original:
            original.append(run_original(asked, folder, corpora[0], vocabulary))
            rate = sum(original) / 2
            print(f"\nThe original script, one process: {rate:,.0f} rows/s (start of TensorFlow left out); "
                  f"ratio of the best above: {best / rate:.1f}")  # fmt: skip


def read(path: Path | None) -> Iterator[str]:
    """Documents, a sentence a line."""
    if path:
        yield from (text for text in path.read_text().split("\n\n") if text.strip())
        return
    from bertjax.data.corpus.python_docs import documents
    from bertjax.data.corpus.sentences import split_sentences

    for text in documents():
        yield "\n".join(split_sentences(text))


def write_corpus(path: Path, documents: list[str], size: int) -> Path:
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


def config_of(asked: argparse.Namespace, corpus: Path, vocabulary: Path, workers: int) -> Config:
    return Config(
        data=DataConfig(
            corpus=(str(corpus),),
            max_seq_length=LENGTH,
            max_predictions_per_seq=PREDICTIONS,
            dupe_factor=asked.dupe_factor,
            masking=asked.masking,
            workers=workers,
        ),
        tokenizer=TokenizerConfig(vocab_file=str(vocabulary)),
    )


def measure(config: Config, output: Path, timed: bool = False) -> dict[str, Any]:
    """A preparation in a process of its own, so that its peak memory is its own."""
    job = json.dumps({"config": to_dict(config), "output": str(output), "timed": timed})
    done = subprocess.run(
        [sys.executable, __file__, "--run", job], stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["rm", "-r", str(output)], check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_one(job: dict[str, Any]) -> None:
    from bertjax.data.preparation.prepare import prepare

    stages = time_stages() if job["timed"] else {}
    begin = time.perf_counter()
    manifest = prepare(from_dict(Config, job["config"]), job["output"])
    seconds = time.perf_counter() - begin
    if job["timed"]:
        stages["the rest"] = seconds - sum(stages.values())
    # Linux keeps the parent's peak in a new program's ru_maxrss; VmHWM begins anew.
    own = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()).group(1))
    usage = [own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]
    print(
        json.dumps({
            "seconds": seconds,
            "rows": sum(shard.records for shard in manifest.shards),
            "bytes": sum(shard.bytes for shard in manifest.shards),
            "tokens": sum(manifest.counts[f"{split}_tokens"] for split in ("train", "validation")),
            "peak": max(usage) / 1024,  # the system's own figure, kB on Linux: the largest process
            "stages": stages,
        })
    )  # fmt: skip


def time_stages() -> dict[str, float]:
    """Clocks around the functions that the work is made of; they do not call one another."""
    from bertjax.data.corpus import formats, work_units
    from bertjax.data.preparation import build_shard as build
    from bertjax.data.preparation import packing
    from bertjax.data.preparation import sequence_layout as rows
    from bertjax.data.preparation import tokenize_corpus as tokenise
    from bertjax.data.records import record_format as shards
    from bertjax.data.tokenizers.wordpiece import WordPiece
    from bertjax.masking import static as static_masks

    stages: dict[str, float] = {}

    def clock(owner: Any, name: str, stage: str) -> None:
        inner = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return inner(*arguments, **named)
            finally:
                stages[stage] = stages.get(stage, 0.0) + time.perf_counter() - begin

        setattr(owner, name, timed)

    clock(formats, "_decode", "decode UTF-8")
    clock(work_units, "clean", "clean")
    clock(work_units, "_by_line", "split into sentences")
    clock(WordPiece, "encode_batch", "tokenise")
    clock(tokenise, "_write_part", "write ids by range")
    clock(build, "_take_range", "gather a range, drop duplicates")
    clock(build, "make_sequences", "choose pairs of segments")
    clock(rows, "layout", "lay out rows")
    clock(static_masks, "mask_rows", "mask")
    clock(packing, "pack", "pack")
    clock(shards, "encode", "encode records, with checksums")
    return stages


def run_original(asked: argparse.Namespace, folder: Path, corpus: Path, vocabulary: Path) -> float:
    """Rows a second of the original script, its start left out by a run on next to nothing."""
    little = folder / "little.txt"
    little.write_text("One sentence here.\nAnother one there.\n\nA third of them.\nAnd a fourth.\n")
    seconds = []
    for source in (little, corpus):
        command = [
            sys.executable,
            str(asked.original),
            f"--input_file={source}",
            f"--output_file={folder}/original",
        ]
        command += [
            f"--vocab_file={vocabulary}",
            "--do_lower_case=True",
            f"--max_seq_length={LENGTH}",
        ]
        command += [
            f"--max_predictions_per_seq={PREDICTIONS}",
            f"--dupe_factor={asked.dupe_factor}",
        ]
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - begin)
    written = epath.Path(folder) / "original"
    rows = len(record_spans(written, np.memmap(written, np.uint8, "r")))
    return rows / (seconds[1] - seconds[0])


if __name__ == "__main__":
    main()
