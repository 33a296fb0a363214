"""The verbs that write: their command lines in the workplace, and where their output is."""

import shutil
from dataclasses import dataclass
from pathlib import Path

OUT = "out"
"""Name of an attack's output."""


@dataclass(frozen=True)
class Verb:
    """A command line, with `{out}` in the place of its output."""

    words: str
    reference: str
    """Name of the output of an undisturbed command in the workplace."""
    copies: str = ""
    """Folder of the workplace that the output is at first a copy of: `evaluate` writes into a run.
    """
    checkpoints: bool = False
    """True if checkpoints are written one after another."""

    def begin(self, place: Path, out: Path) -> None:
        """Put there what the command needs to find at its output."""
        if self.copies:
            shutil.copytree(place / self.copies, out)

    def command(self, out: str | Path) -> list[str]:
        """Return the words of the command line."""
        return [word.replace("{out}", str(out)) for word in self.words.split()]


VERBS = {
    # Of a larger text than the others use, so that two processes are at work at the same time.
    "prepare": Verb("prepare large.py --output-dir {out}", "prepared_large"),
    "train": Verb("train config.py --run-dir {out}", "run", checkpoints=True),
    "finetune": Verb("finetune task.py --run-dir {out}", "finetuned", checkpoints=True),
    "sweep": Verb("finetune task.py --run-dir {out} --seeds 1 2", "swept", checkpoints=True),
    "export": Verb("export run --to {out}", "exported"),
    "import": Verb("import exported --to {out}", "imported"),
    "grow": Verb("grow run --to {out} --max-seq-length 48", "grown"),
    "embed": Verb("embed run texts.txt --output-file {out}.npy", "vectors"),
    "predict": Verb("predict finetuned --output-dir {out}", "predicted"),
    "evaluate": Verb("evaluate {out}", "evaluated", copies="finetuned"),
}
"""In an order in which each finds what those before it made."""


def output_path(verb: str, out: Path) -> Path:
    """Return the path of what a verb writes for the output `out`."""
    return out.with_name(f"{out.name}.npy") if verb == "embed" else out
