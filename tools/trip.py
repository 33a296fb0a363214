"""Files that a fine-tuning example passes through, and files that a configuration is handed to.

    python tools/trip.py CHECKOUT [CHECKOUT ...]

Fine-tunes a tiny model on a table of sentences, with each checkout's own package in a process of
its own, and notes which of the package's files are entered, in order: by any function ("example":
from the first one that reads the table until the first loss is known), and by functions that have
a parameter for the configuration ("config": from the command line to the end of the run).
"""

import inspect
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

CONFIG = """
from bertjax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TokenizerConfig
from bertjax.config import TrainConfig

def get_config():
    return Config(
        tokenizer=TokenizerConfig(vocab_size=100),
        data=DataConfig(corpus=("corpus.txt",), prepared_dir="prepared", max_seq_length=16,
                        max_predictions_per_seq=4, validation_fraction=0.3),
        model=ModelConfig(vocab_size=100, hidden_size=16, num_hidden_layers=1,
                          num_attention_heads=2, intermediate_size=32, max_position_embeddings=16),
        optimizer=OptimizerConfig(warmup_steps=0),
        train=TrainConfig(steps=1, batch_size=2, save_every_steps=1, eval_every_steps=1),
    )
"""
WORDS = ["the", "cat", "sees", "a", "dog", "while", "the", "bird", "hears", "a", "cat"]
CONFIG_NAMES = ("config", "model_config", "finetune_config", "options", "told")


def main() -> None:
    """Print both lists for each checkout."""
    for checkout in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            write_inputs(Path(folder))
            environment = dict(os.environ, PYTHONPATH=checkout, JAX_PLATFORMS="cpu")
            for number, arguments in enumerate(commands(checkout)):
                last = number == len(commands(checkout)) - 1
                entry = [__file__, "--trace" if last else "--run", checkout, *arguments]
                output = subprocess.run(
                    [sys.executable, *entry],
                    cwd=folder, env=environment, check=True, text=True, stdout=subprocess.PIPE,
                ).stdout  # fmt: skip
            print(f"{checkout}\n{output[output.index('example:') :]}")


def commands(checkout: str) -> list[list[str]]:
    """The command lines that lead to a fine-tuned model; the last one is followed."""
    paper = str(Path(checkout) / "configs" / "finetune" / "paper.py")
    return [
        ["prepare", "config.py"],
        ["train", "config.py", "--run-dir", "run"],
        ["finetune", paper, "--init-from", "run", "--finetune.tasks", "cats:classification=cats",
         "--finetune.max-seq-length", "16", "--train.batch-size", "4", "--finetune.epochs", "1",
         "--run-dir", "tuned"],
    ]  # fmt: skip


def write_inputs(folder: Path) -> None:
    """Write a corpus, a configuration, and a table of sentences with labels."""
    (folder / "config.py").write_text(CONFIG)
    sentences = [" ".join(WORDS[i % 7 : i % 7 + 4 + i % 3]) for i in range(40)]
    documents = ["\n".join(sentences[i : i + 4]) for i in range(0, 40, 4)]
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n")
    (folder / "cats").mkdir()
    lines = [f"{sentence}\t{int('cat' in sentence)}\n" for sentence in sentences]
    for name in ("train", "dev"):
        (folder / "cats" / f"{name}.tsv").write_text("sentence\tlabel\n" + "".join(lines))


class Trace:
    """The package's files in the order in which they are entered."""

    def __init__(self, package: str) -> None:
        """Follow calls into files below the folder `package`."""
        self.package = package
        self.example: dict[str, None] = {}
        self.config: dict[str, None] = {}
        self.began = False
        self.ended = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Note the file of a call; a profile function of `sys.setprofile`."""
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(self.package):
            return
        name = path.removeprefix(self.package)
        code = frame.f_code
        if not code.co_flags & inspect.CO_OPTIMIZED:
            return  # a module or a class body that is imported, no function
        parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if any(parameter in CONFIG_NAMES for parameter in parameters):
            self.config[name] = None
        self.began = self.began or "tables" in name
        self.ended = self.ended or name.endswith(("ledger.py", "step_log.py"))
        if self.began and not self.ended:
            self.example[name] = None


def run(checkout: str, arguments: list[str], *, traced: bool) -> None:
    """Run the command of a checkout in this process; print the trace of it if `traced`."""
    from bertjax.cli.main import main as command

    trace = Trace(str(Path(checkout).resolve() / "bertjax") + os.sep)
    if traced:
        threading.setprofile(trace)
        sys.setprofile(trace)
    status = command(arguments)
    sys.setprofile(None)
    assert status == 0, status
    for name in ("example", "config") if traced else ():
        files = list(getattr(trace, name))
        print(f"{name}: {len(files)} files\n    " + "\n    ".join(files))


if __name__ == "__main__":
    if sys.argv[1] in ("--run", "--trace"):
        run(sys.argv[2], sys.argv[3:], traced=sys.argv[1] == "--trace")
    else:
        main()
