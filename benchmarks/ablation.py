"""Forms of pretraining beside each other, at equal tokens and at equal seconds, over seeds.

    python benchmarks/ablation.py --folder bench/ablation --corpus books_en.txt.xz --tasks DATA
    python benchmarks/ablation.py --folder bench/ablation --corpus books_en.txt.xz --tasks DATA \\
        --budget 240 --seeds 0 1 --cores 0 1

`ablations/forms.py` has the forms and their sizes. A cell is a form with a seed. It is trained in
`--budget` seconds of CPU time on one core, with one thread; how many steps that is, is measured
first. Then masked bits per byte of held-out documents are computed for each kept checkpoint, and
its end is fine-tuned on CoLA and MRPC (folders `cola` and `mrpc` in DATA). All of it is kept in the
folder, a line of `results.jsonl` for each cell and stage; a start with the same folder goes on
after a kill. At the end it writes `report.html` and `tables.md` from the lines that are there.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ablations.cells import Ask, on_cores
from ablations.forms import FORMS, Sizes, words_in_row
from ablations.frequencies import bits_of_frequencies
from ablations.page import write_page
from reporting import Results, argument_parser

import bertjax
from bertjax.config import Config, DataConfig, TokenizerConfig
from bertjax.data.corpus.sources import find_sources
from bertjax.data.corpus.work_units import make_work_units, read_documents

CALIBRATE = "calibrate"
STAGES = (CALIBRATE, "train", "bits", "cola", "mrpc")
HELD_OUT = 50
"""One document of so many is held out, by a hash of its text."""
HELD_OUT_CHARACTERS = 4000
"""Length of the beginning of a held-out document that is predicted."""


def main() -> None:
    arguments = parsed_arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    results = Results(arguments.folder / "results.jsonl")
    sizes = Sizes(**json.loads(arguments.sizes))
    check_same(arguments, sizes, results)
    split_corpus(arguments)
    prepare(arguments, sizes)
    stages = [stage for stage in arguments.stages if stage != CALIBRATE]
    if CALIBRATE in arguments.stages:
        seed = arguments.seeds[0]
        measure([[(CALIBRATE, form, seed)] for form in arguments.forms], arguments, sizes, results)
    # All forms of a seed first: a start that is ended has them all, with fewer seeds.
    cells = [(form, seed) for seed in arguments.seeds for form in arguments.forms]
    measure([[(stage, *cell) for stage in stages] for cell in cells], arguments, sizes, results)
    if results.newest(kind="bits") and not results.newest(kind="frequencies"):
        results.add(frequencies(arguments.folder, sizes))
    write_page(arguments.folder, results.entries)


def parsed_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tasks", type=Path, help="the folder with cola and mrpc")
    parser.add_argument("--budget", type=float, default=240.0, help="CPU seconds of a cell")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--cores", type=int, nargs="+", default=sorted(os.sched_getaffinity(0))[:2])
    parser.add_argument("--sizes", default="{}", help="fields of `Sizes` as JSON")
    return parser.parse_args()


def check_same(arguments: argparse.Namespace, sizes: Sizes, results: Results) -> None:
    """End, unless the folder was begun with the same budget, sizes and corpus."""
    asked = {
        "kind": "settings",
        "budget": arguments.budget,
        "sizes": dataclasses.asdict(sizes),
        "corpus": arguments.corpus.name,
    }
    begun = results.newest(kind="settings")
    if begun is None:
        results.add(asked)
    elif begun != asked:
        raise SystemExit(f"{results.path}: begun with {begun}, expected {asked}: another --folder")


def split_corpus(arguments: argparse.Namespace) -> None:
    """Write the documents of the corpus into `train.txt` and `heldout.txt`, by a hash of each."""
    folder = arguments.folder / "text"
    # Written last.
    if (folder / "heldout.txt").exists():
        return
    folder.mkdir(exist_ok=True)
    config = DataConfig(corpus=(str(arguments.corpus),))
    train, heldout = [], []
    for unit in make_work_units(find_sources(config)):
        for sentences in read_documents(unit, config, Counter()):
            text = "\n".join(sentences)
            number = int.from_bytes(
                hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"
            )
            (heldout if number % HELD_OUT == 0 else train).append(text)
    for name, documents in (("train.txt", train), ("heldout.txt", heldout)):
        part = folder / f"{name}.part"
        part.write_text("\n\n".join(documents) + "\n")
        part.rename(folder / name)


def prepare(arguments: argparse.Namespace, sizes: Sizes) -> None:
    """Prepare the shards of all cells, unless they are there."""
    config = Config(
        tokenizer=TokenizerConfig(vocab_size=sizes.vocab_size),
        data=DataConfig(
            corpus=(str(arguments.folder / "text" / "train.txt"),),
            max_seq_length=sizes.length,
            max_predictions_per_seq=words_in_row(sizes.length, 0.15),
            sentence_objective="none",
            dynamic_masking=True,
            dupe_factor=1,
            short_seq_probability=0.0,
            validation_fraction=0.0,
            workers=len(arguments.cores),
        ),
    )
    bertjax.prepare(config, arguments.folder / "prepared")


def measure(
    cells: Sequence[Sequence[tuple[str, str, int]]],
    arguments: argparse.Namespace,
    sizes: Sizes,
    results: Results,
) -> None:
    """Measure what is missing of each cell, a list of (stage, form, seed), on one core each."""

    def measured(cell: Sequence[tuple[str, str, int]], ask: Ask) -> None:
        for stage in cell:
            if not results.newest(**entry_of(*stage)):
                answer = ask(line_for(*stage, arguments, sizes, results))
                results.add({**entry_of(*stage), **answer})

    missing = [cell for cell in cells if not all(results.newest(**entry_of(*own)) for own in cell)]
    pieces = [partial(measured, cell) for cell in missing]
    on_cores(arguments.cores, arguments.folder, pieces)


def entry_of(stage: str, form: str, seed: int) -> dict[str, Any]:
    """Return what tells the result of a stage of a cell."""
    return {"kind": stage, "form": form, "seed": seed}


def line_for(
    stage: str,
    form: str,
    seed: int,
    arguments: argparse.Namespace,
    sizes: Sizes,
    results: Results,
) -> dict[str, Any]:
    """Return the line that asks a worker for a stage of a cell."""
    folder = arguments.folder.absolute()
    run = str(folder / "cells" / f"{form}-{seed}")
    prepared, shared = str(folder / "prepared"), dataclasses.asdict(sizes)
    if stage == CALIBRATE:
        run = str(folder / "calibrate" / form)
        return {"stage": stage, "run": run, "form": form, "prepared": prepared, "sizes": shared}
    if stage == "train":
        measured = results.newest(kind=CALIBRATE, form=form)
        if measured is None:
            raise SystemExit(f"{results.path}: no calibration of {form}: --stages calibrate first")
        steps = round_down(arguments.budget / measured["seconds_per_step"], 2 * sizes.points)
        return {
            **{"stage": stage, "run": run, "form": form, "seed": seed, "steps": steps},
            **{"prepared": prepared, "sizes": shared},
        }
    if not results.newest(kind="train", form=form, seed=seed):
        raise SystemExit(f"{results.path}: {form} with seed {seed} is not trained: --stages train")
    if stage == "bits":
        return {"stage": stage, "run": run, "form": form, "texts": str(heldout_texts(folder))}
    return {
        **{"stage": "finetune", "run": run, "task": stage, "seed": seed},
        **{"data": str(arguments.tasks.absolute()), "folder": f"{run}-{stage}"},
    }


def frequencies(folder: Path, sizes: Sizes) -> dict[str, Any]:
    """Return the entry of the level that frequencies of pieces reach."""
    tokenizer = bertjax.load_tokenizer(folder / "prepared" / "tokenizer")
    texts = json.loads(heldout_texts(folder).read_text())
    with (folder / "text" / "train.txt").open() as training:
        bits = bits_of_frequencies(tokenizer, training, texts, sizes.length)
    return {
        **{"kind": "frequencies", "bits_per_byte": bits.bits_per_byte, "texts": bits.texts},
        **{"words": bits.words, "pieces": bits.pieces, "bytes": bits.bytes},
    }


def round_down(number: float, multiple: int) -> int:
    """Return the largest multiple that is not more than a number; at least one."""
    return max(int(number // multiple), 1) * multiple


def heldout_texts(folder: Path) -> Path:
    """Return the file with the texts to predict: the begin of each held-out document."""
    path = folder / "text" / "heldout.json"
    if not path.exists():
        documents = (folder / "text" / "heldout.txt").read_text().split("\n\n")
        path.write_text(json.dumps([begin_of(document) for document in documents]))
    return path


def begin_of(document: str) -> str:
    """Return the first lines of a document, up to `HELD_OUT_CHARACTERS`, but at least one."""
    lines = document.strip().split("\n")
    sizes = itertools.accumulate(len(line) for line in lines)
    count = sum(size <= HELD_OUT_CHARACTERS for size in sizes)
    return "\n".join(lines[: max(count, 1)])


if __name__ == "__main__":
    main()
