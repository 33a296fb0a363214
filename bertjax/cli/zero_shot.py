"""`bertjax zero-shot RUN TEXT ... --labels WORD WORD ... [--template "{} This text is about
[MASK]."]`
"""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Literal

import tyro

from bertjax.cli.arguments import need, parse, quiet_libraries, split_subject, wants_help
from bertjax.errors import check

WINDOW = 64  # batches of texts that are judged, and printed, together


@dataclass(frozen=True)
class ZeroShotCommand:
    """Print the labels that fit each text best, by a pretrained model that was not fine-tuned."""

    texts: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Texts to classify; they stand before the options."""
    text_file: str = ""
    """Instead of texts a file of them, a line each, UTF-8 (.gz, .bz2 and .xz too); - for standard
    input.
    """
    labels: tuple[str, ...] = ()
    """Two or more labels, of one or several words each."""
    template: str = "{} This text is about [MASK]."
    """Where the text goes, {}, and where the label goes, [MASK]."""
    method: Literal["mask", "next-sentence"] = "mask"
    """mask: how likely the label is where the template has [MASK], by the masked-word head.
    next-sentence: how likely the template with the label follows the text (goes before it, where
    {} ends the template), by the sentence head.
    """
    calibrate: bool = False
    """Take off each label's score with an empty text, so that frequent words are not preferred
    (arXiv 2104.08315).
    """
    json: bool = False
    """Print a JSON object for each text instead: text, label, and by label probabilities and
    scores.
    """
    batch_size: int = 64
    """Rows that are computed together, a multiple of the devices here (else rounded up)."""
    max_seq_length: int = 0
    """Ids of a row at most, the template's among them; longer texts are cut. 0: 512, or the model's
    own limit.
    """


def run(words: Sequence[str]) -> int:
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, "zero-shot", "a run or checkpoint folder")
    command = parse("zero-shot RUN", ZeroShotCommand(), rest)
    one = bool(command.texts) != bool(command.text_file)
    found = "both" if command.texts else "neither (texts stand before the options)"
    check(one, where="zero-shot: texts and --text-file", found=found, expected="one of them")
    check(
        len(command.labels) > 1,
        where="--labels",
        found=" ".join(command.labels) or "none",
        expected="two or more",
    )
    check(
        command.batch_size > 0,
        where="--batch-size",
        found=command.batch_size,
        expected="a number above 0",
    )
    quiet_libraries()
    from bertjax.data.tokenizers.tokenizer import load_tokenizer
    from bertjax.inference.vector_files import read_lines
    from bertjax.inference.zero_shot import zero_shot
    from bertjax.parallel import compile_cache
    from bertjax.training.saved_model import load_model

    compile_cache.start()
    loaded = load_model(subject)
    tokenizer = load_tokenizer(loaded.run_dir / "tokenizer")
    texts: Iterable[str] = iter(command.texts or read_lines(command.text_file))
    number = truncated = 0
    while window := list(islice(texts, WINDOW * command.batch_size)):
        judged = zero_shot(
            loaded.config.model,
            loaded.params,
            tokenizer,
            window,
            command.labels,
            template=command.template,
            method=command.method,
            calibrate=command.calibrate,
            batch_size=command.batch_size,
            max_seq_length=command.max_seq_length or None,
        )
        for text, scores, probabilities in zip(
            window, judged.scores, judged.probabilities, strict=True
        ):
            _print(
                text, command.labels, scores.tolist(), probabilities.tolist(), as_json=command.json
            )
        number, truncated = number + len(window), truncated + judged.truncated
    if truncated:
        print(f"truncated texts: {truncated:,} of {number:,}", file=sys.stderr)
    return 0


def _print(
    text: str,
    labels: Sequence[str],
    scores: Sequence[float],
    probabilities: Sequence[float],
    *,
    as_json: bool,
) -> None:
    order = sorted(range(len(labels)), key=lambda i: -scores[i])
    if as_json:
        by_label = {"probabilities": probabilities, "scores": scores}
        ranked = {name: {labels[i]: values[i] for i in order} for name, values in by_label.items()}
        print(json.dumps({"text": text, "label": labels[order[0]], **ranked}, ensure_ascii=False))
        return
    print(text)
    print("    " + "   ".join(f"{labels[i]} {probabilities[i]:.1%}" for i in order))
