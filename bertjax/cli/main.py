"""The `bertjax` command: finds the verb, runs it, turns mistakes into one line and exit status 2."""

import errno
import importlib
import os
import sys
from collections.abc import Sequence

from bertjax.cli import huge_pages
from bertjax.cli.arguments import nearest
from bertjax.errors import UserError

VERBS = {
    "prepare": "make shards of masked instances from a corpus",
    "train": "pretrain on prepared shards, or continue where a run stopped",
    "finetune": "train a model on tasks: GLUE's, tagging, questions, choices, pairs of texts; or a sweep of them",
    "predict": "what a fine-tuned model says of a test set, in the task's own format",
    "zero-shot": "classify text without training, by filling a mask or by next-sentence prediction",
    "evaluate": "held-out figures of a pretrained or fine-tuned model (or eval)",
    "fill-mask": "the likeliest words for each [MASK] of a sentence",
    "inspect": "verify and describe prepared shards, or a run",
    "embed": "vectors of lines of text, from chosen layers",
    "import": "a model of transformers or of the original BERT, as a run",
    "export": "a checkpoint as a model of transformers, TensorFlow, StableHLO or ONNX",
    "grow": "a model with more positions or words, or with words' vectors from a file",
    "compile": "what a train step would cost on a TPU slice, by the TPU compiler",
}
ALIASES = {"eval": "evaluate"}
MODULES = {"import": "import_"}  # a word that Python keeps for itself
USAGE = "usage: bertjax VERB ... [--help]\n\n" + "".join(
    f"  {verb:<10} {what}\n" for verb, what in VERBS.items()
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0 done, 2 a user's mistake, 75 stopped early and to be
    continued.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if words else 2
    try:
        words[0] = ALIASES.get(words[0], words[0])
        if words[0] not in VERBS:
            raise UserError(
                f"{words[0]}: no such verb, expected one of {', '.join(VERBS)}{nearest(words[0], VERBS)}"
            )
        verb = importlib.import_module(
            f"bertjax.cli.{MODULES.get(words[0], words[0].replace('-', '_'))}"
        )
        return verb.run(words[1:])
    except UserError as error:
        print(f"bertjax: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output went away: nothing to say, and nowhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"bertjax: {error.filename or 'a file'}: the disk is full", file=sys.stderr)
        return 2


def command() -> int:
    """`main`, as the process that the shell started."""
    if sys.argv[1:2] != ["prepare"]:  # whose many processes are to stay small
        huge_pages.restart_with_them()
    return main()


if __name__ == "__main__":
    sys.exit(command())
