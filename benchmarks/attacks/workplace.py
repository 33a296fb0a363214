"""The folder that the attacks work in, with one small thing of each kind that a verb makes.

Everything in `place/` is made by the verbs from a text drawn here. Commands run inside it. What is
damaged there is restored from `backup/`, since a run knows its tokenizer by an absolute path.
"""

import json
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from attacks import processes
from attacks.values import differences, values_of
from attacks.verbs import OUT, VERBS, output_path

PRETRAIN = """
from bertjax.config import *

def get_config():
    return Config(
        tokenizer=TokenizerConfig(vocab_size=120),
        data=DataConfig(corpus=("corpus.txt",), prepared_dir="prepared", max_seq_length=32,
                        max_predictions_per_seq=5, validation_fraction=0.2, dupe_factor=2,
                        num_shards=3, workers=2),
        model=ModelConfig(vocab_size=120, hidden_size=32, num_hidden_layers=2,
                          num_attention_heads=2, intermediate_size=32, max_position_embeddings=32),
        optimizer=OptimizerConfig(warmup_steps=1),
        train=TrainConfig(steps=6, batch_size=8, log_every_steps=1, eval_every_steps=3,
                          save_every_steps=2, keep_checkpoints=2),
    )
"""
TASK = """
from bertjax.config import *

def get_config():
    return Config(
        model_from_init=True,
        init_from="run",
        optimizer=OptimizerConfig(peak_learning_rate=1e-3, warmup_steps=0),
        train=TrainConfig(batch_size=8, log_every_steps=1),
        finetune=FinetuneConfig(tasks=("mood:classification=mood",), epochs=3, max_seq_length=16,
                                length_buckets=()),
    )
"""
LARGE = """
from bertjax.config import *

def get_config():
    return Config(
        tokenizer=TokenizerConfig(vocab_size=120),
        data=DataConfig(corpus=("large.txt",), max_seq_length=32, max_predictions_per_seq=5,
                        validation_fraction=0.2, dupe_factor=2, num_shards=8, workers=2),
    )
"""
WORDS = (
    *("the", "cat", "dog", "bird", "fish", "sees", "hears"),
    *("follows", "other", "no", "one", "good", "bad"),
)


def make(folder: Path) -> Path:
    """Make `place/` in `folder`, unless it was made before; return its path."""
    place = folder.resolve() / "place"
    if _backup(place).exists():
        restore(place)
        return place
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    _write_sources(place)
    _run(["prepare", "config.py", "--output-dir", "prepared"], place)
    seconds = {}
    for name, verb in VERBS.items():
        print(f"making what {name} makes", file=sys.stderr, flush=True)
        _made(place, name, place / verb.reference, verb.reference)
        # Once more: for the time without compiling, and because outputs that differ unattacked
        # would show nothing.
        out = new_output(place, f"again-{name}")
        again = _made(place, name, out, out)
        paths = [output_path(name, path) for path in (out, place / verb.reference)]
        wrong = differences(*map(values_of, paths))
        if wrong:
            raise SystemExit(f"two undisturbed {name} differ: {', '.join(wrong)}")
        seconds[name] = {"cpu": again.cpu_s, "wall": again.wall_s}
    (place / "made").write_text(json.dumps(seconds, indent=1))
    unfinished = place.with_name("unfinished-backup")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(place, unfinished)
    unfinished.rename(_backup(place))
    return place


def _backup(place: Path) -> Path:
    return place.with_name("backup")


def _made(place: Path, name: str, out: Path, word: str | Path) -> processes.Ended:
    """Run a verb that must end with status 0; `word` is how the command names `out`."""
    VERBS[name].begin(place, out)
    return _run(VERBS[name].command(word), place)


def _run(words: Sequence[str], place: Path) -> processes.Ended:
    ended = processes.run(words, place)
    if ended.status != 0:
        raise SystemExit(f"bertjax {' '.join(words)}: status {ended.status}\n{ended.err}")
    return ended


def seconds_of(place: Path, verb: str) -> dict[str, float]:
    """Return how long a verb took, undisturbed: `cpu` and `wall`."""
    return json.loads((place / "made").read_text())[verb]


def new_output(place: Path, name: str) -> Path:
    """Return the path for an attack's output, in an empty folder of its own."""
    remove_output(place, name)
    folder = _output_folder(place, name)
    folder.mkdir(parents=True)
    return folder / OUT


def remove_output(place: Path, name: str) -> None:
    """Delete what an attack has written."""
    shutil.rmtree(_output_folder(place, name), ignore_errors=True)


def _output_folder(place: Path, name: str) -> Path:
    return place.parent / "outputs" / name.replace(" ", "-")


def restore(place: Path) -> None:
    """Make a damaged workplace like its backup again."""
    backup = _backup(place)
    for path in place.iterdir():
        if not (backup / path.name).exists():
            _remove(path)
    for path in backup.iterdir():
        damaged = place / path.name
        if _listing(path) == _listing(damaged):
            continue
        _remove(damaged)
        if path.is_dir():
            shutil.copytree(path, damaged)
        else:
            shutil.copy2(path, damaged)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _listing(top: Path) -> dict[str, tuple[int, int] | None]:
    """Return size and time of each file in `top`, which may be a file itself."""
    listing: dict[str, tuple[int, int] | None] = {}
    for path in [top, *top.rglob("*")]:
        name = str(path.relative_to(top))
        if path.is_dir():
            listing[name] = None
        elif path.exists():
            stat = path.stat()
            listing[name] = (stat.st_size, stat.st_mtime_ns)
    return listing


def _write_sources(folder: Path) -> None:
    rng = random.Random(0)

    def sentence() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(3, 8)))

    def corpus(size: int) -> str:
        documents = ["\n".join(f"{sentence()}." for _ in range(6)) for _ in range(size)]
        return "\n\n".join(documents) + "\n"

    (folder / "corpus.txt").write_text(corpus(120))
    (folder / "texts.txt").write_text("".join(f"{sentence()}\n" for _ in range(200)))
    (folder / "words.txt").write_text("zebra\nlion\n")
    (folder / "config.py").write_text(PRETRAIN)
    (folder / "task.py").write_text(TASK)
    (folder / "mood").mkdir()
    for split, count in (("train", 32), ("dev", 16), ("test", 16)):
        texts = [sentence() for _ in range(count)]
        labels = ["yes" if "good" in text else "no" for text in texts]
        # Both classes, in every split.
        rows = [*zip(texts, labels, strict=True), ("the good cat", "yes"), ("the cat", "no")]
        lines = ["sentence\tlabel", *("\t".join(row) for row in rows)]
        (folder / "mood" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    (folder / "large.py").write_text(LARGE)
    (folder / "large.txt").write_text(corpus(10_000))
