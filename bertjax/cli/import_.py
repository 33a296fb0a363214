"""`bertjax import SOURCE --to RUN [--drop PATTERN ...] [--lowercase yes|no]`"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bertjax.cli.arguments import need, parse_subject, quiet_libraries, run_terminal


@dataclass(frozen=True)
class ImportCommand:
    """Make a run, which all verbs can read, from a model folder of transformers (BERT, RoBERTa,
    ModernBERT, DeBERTa and others: docs/interchange.md) or of the original BERT.
    """

    to: str = ""
    """The new run's folder."""
    drop: tuple[str, ...] = ()
    """Tensors to leave out: beginnings of their names, such as `classifier`, or endings, or
    patterns such as `*adapter*`.
    """
    lowercase: Literal["auto", "yes", "no"] = "auto"
    """Treat a vocab.txt as one for lower-case text; auto: as a file beside it says, else yes."""
    take_tokenizer: bool = True
    """Also import the tokenizer."""


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, command = parse_subject("import", ImportCommand(), words, "a model folder", "SOURCE")
    need(command.to, "import", "--to with the new run's folder")
    quiet_libraries()
    # Imported after the checks: so a mistake is told without waiting for JAX.
    from bertjax.cli.inspect import describe_model
    from bertjax.interop.import_model import import_model

    lowercase = {"auto": None, "yes": True, "no": False}[command.lowercase]
    with run_terminal():
        imported = import_model(
            subject,
            command.to,
            drop=command.drop,
            lowercase=lowercase,
            take_tokenizer=command.take_tokenizer,
        )
    print(describe_model(imported.config.model))
    if imported.tokenizer is None:
        print("tokenizer: none")
    else:
        kind, registered = imported.config.tokenizer.kind, len(imported.tokenizer.registered)
        kept = f", {registered:,} of them registered tokens" if registered else ""
        print(f"tokenizer: {kind}, {imported.tokenizer.vocab_size:,} entries{kept}")
    print(f"checkpoint: {imported.checkpoint}")
    return 0
