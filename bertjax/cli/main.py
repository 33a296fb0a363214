"""The `bertjax` command, which runs a verb; a user's mistake gives one line and exit status 2."""

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from bertjax.cli import huge_pages, process_title
from bertjax.errors import UserError, nearest

VERBS = {
    "prepare": "make shards of masked records from a corpus",
    "train": "pretrain on prepared shards, or continue a run",
    "branch": "make a run from a checkpoint of a run, with other later phases",
    "replay": "print the batch of a step with its masks, or the steps that saw a sentence",
    "average": "make a run of the mean of a run's checkpoints, or of its weights' moving average",
    "finetune": "train a model on tasks (GLUE, tagging, question answering, multiple choice,"
    " sequence to sequence), or sweep settings",
    "distill": "train a smaller model to compute what a teacher computes, on text or on tasks, or"
    " make a table of word vectors of a model (--static)",
    "predict": "write a fine-tuned model's predictions of a test set, in the task's own format",
    "zero-shot": "classify text without training, by filling a mask or by next-sentence prediction",
    "evaluate": "compute held-out metrics of a pretrained or fine-tuned model (or eval)",
    "fill-mask": "print the likeliest words for each [MASK] of a sentence",
    "inspect": "verify and describe prepared shards, or describe a run",
    "embed": "write vectors of lines of text, from chosen layers",
    "import": "make a run of a model of transformers or of the original BERT",
    "export": "write a checkpoint for transformers, TensorFlow, StableHLO or ONNX",
    "quantize": "write a model as an ONNX program of int8, within a bound on what it loses",
    "grow": "give a model more positions or words, or words' vectors from a file",
    "prune": "make a smaller model without the heads, units and layers that matter least",
    "compile": "estimate the cost of a train step on a TPU slice, by the TPU compiler",
    "completion": "print a script by which a shell completes verbs, presets and options",
}
ALIASES = {"eval": "evaluate"}
MODULES = {"import": "import_"}  # import is a keyword of Python

INTERRUPTED_PIPE = 141  # what a shell reports of a process that SIGPIPE ended: 128 + 13


def usage() -> str:
    """Return the text of `bertjax --help`."""
    lines = [f"  {verb:<10} {description}" for verb, description in VERBS.items()]
    return "\n".join(["usage: bertjax VERB ... [--help]", "       bertjax --version", "", *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status.

    0: done. 2: a user's mistake. 3: a compressed model loses more than its bound allows. 75:
    stopped early by a signal, to be continued by the same command.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        import bertjax

        print(f"bertjax {bertjax.__version__}")
        return 0
    try:
        return verb_module(words[0]).run(words[1:])
    except UserError as error:
        # A cause that is quoted in the message may have several lines.
        print(f"bertjax: {' '.join(str(error).split())}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        # The reader of our output has closed the pipe. Without this, Python would flush stdout at
        # exit and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED_PIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"bertjax: {error.filename or 'a file'}: the disk is full", file=sys.stderr)
        return 2


def verb_module(verb: str) -> ModuleType:
    """Import the module of a verb; `UserError` with the most similar verb if it does not exist."""
    verb = ALIASES.get(verb, verb)
    if verb not in VERBS:
        raise UserError(
            f"{verb}: no such verb, expected one of {', '.join(VERBS)}{nearest(verb, VERBS)}"
        )
    # Only this verb's module is imported: importing all of them would slow down `bertjax --help`.
    name = MODULES.get(verb, verb.replace("-", "_"))
    return importlib.import_module(f"bertjax.cli.{name}")


def command() -> int:
    """Run `main` as the process that the shell started."""
    # `prepare` starts many processes, which must use little memory.
    if sys.argv[1:2] != ["prepare"]:
        huge_pages.restart_with_huge_pages()
    process_title.hide_passwords()
    sys.unraisablehook = _show_unless_loop_closed
    return main()


def _show_unless_loop_closed(unraisable: "sys.UnraisableHookArgs") -> None:
    """Show an exception that nobody can catch, but one that follows from a failed save.

    TensorStore reports the other tasks of such a save to an event loop that Orbax has closed.
    """
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    sys.exit(command())
