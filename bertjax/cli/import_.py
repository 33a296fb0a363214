"""`bertjax import SOURCE --to RUN [--drop BEGINNING ...] [--lowercase yes|no]`"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bertjax.cli.arguments import need, parse, quiet_libraries, split_subject, wants_help


@dataclass(frozen=True)
class ImportCommand:
    """Make a run, which every verb reads, from a model folder of transformers (BERT, RoBERTa,
    ELECTRA, ALBERT) or of the original BERT.
    """

    to: str = ""
    """The new run's folder."""
    drop: tuple[str, ...] = ()
    """Leave out the tensors whose names begin so, such as `classifier`."""
    lowercase: Literal["auto", "yes", "no"] = "auto"
    """How a vocab.txt is meant; auto: as a file beside it says, else yes."""
    take_tokenizer: bool = True
    """Take the tokenizer along."""


def run(words: Sequence[str]) -> int:
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, "import", "a model folder")
    command = parse("import SOURCE", ImportCommand(), rest)
    need(command.to, "import", "--to with the new run's folder")
    quiet_libraries()
    from bertjax.cli.inspect import describe_model
    from bertjax.interop.import_model import import_model

    lowercase = {"auto": None, "yes": True, "no": False}[command.lowercase]
    made = import_model(
        subject,
        command.to,
        drop=command.drop,
        lowercase=lowercase,
        take_tokenizer=command.take_tokenizer,
    )
    print(describe_model(made.config.model))
    if made.tokenizer is None:
        print("tokenizer: none")
    else:
        print(f"tokenizer: {made.config.tokenizer.kind}, {made.tokenizer.vocab_size:,} entries")
    print(f"checkpoint: {made.checkpoint}")
    return 0
