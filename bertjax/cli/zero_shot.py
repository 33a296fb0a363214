"""`bertjax zero-shot RUN TEXT ... --labels WORD WORD ... [--template "{} About [MASK]."]`"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from bertjax.cli.arguments import log_of_verb, parse_subject, quiet_libraries
from bertjax.errors import check
from bertjax.number_text import number_text


@dataclass(frozen=True)
class ZeroShotCommand:
    """Print the labels that fit each text best, by a pretrained model without fine-tuning."""

    texts: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Texts to classify; write them before the options, or after -- at the end."""
    text_file: str = ""
    """File with one text on each line, instead of texts; UTF-8, may be .gz, .bz2, .xz or .zst; - is
    standard input.
    """
    labels: tuple[str, ...] = ()
    """Two or more labels; a label may have several words."""
    template: str = "{} This text is about [MASK]."
    """Sentence with {} in place of the text and [MASK] in place of the label."""
    method: Literal["mask", "next-sentence"] = "mask"
    """Score of a label. mask: how likely it is at [MASK], by the masked-word head. next-sentence:
    how likely the template with the label follows the text (or comes before it, if the template
    ends with {}), by the sentence head.
    """
    calibrate: bool = False
    """Subtract each label's score for an empty text, so that frequent words are not preferred
    (arXiv 2104.08315).
    """
    json: bool = False
    """Print a JSON object for each text, with text, best label, and the probability and score of
    each label.
    """
    batch_size: int = 64
    """Number of rows in a batch; it is rounded up to a multiple of the local devices."""
    max_seq_length: int = 0
    """Maximum number of ids in a row, including the template; longer texts are cut. 0: 512, or the
    model's number of positions if that is smaller.
    """


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, command = parse_subject(
        "zero-shot", ZeroShotCommand(), words, "a run or checkpoint folder", texts="texts"
    )
    _check(command)
    quiet_libraries()
    # Imported after the checks: so a mistake is told without waiting for JAX.
    from bertjax.inference.vector_files import read_lines, windows
    from bertjax.inference.zero_shot import zero_shot
    from bertjax.parallel import compile_cache
    from bertjax.training.saved_model import load_model

    compile_cache.start()
    model = load_model(subject)
    texts = command.texts or read_lines(command.text_file)
    count = truncated = 0
    for window in windows(texts, command.batch_size):
        with log_of_verb():
            scored = zero_shot(
                model,
                window,
                command.labels,
                template=command.template,
                method=command.method,
                calibrate=command.calibrate,
                batch_size=command.batch_size,
                max_seq_length=command.max_seq_length or None,
            )
        for text, scores, probabilities in zip(
            window, scored.scores.tolist(), scored.probabilities.tolist(), strict=True
        ):
            _print(text, command.labels, scores, probabilities, as_json=command.json)
        count += len(window)
        truncated += scored.truncated
    if truncated:
        # On stderr: stdout has the answers alone, which a program may read.
        print(f"truncated texts: {truncated:,} of {count:,}", file=sys.stderr)
    return 0


def _check(command: ZeroShotCommand) -> None:
    """Raise `UserError` for options that cannot go together."""
    check(
        bool(command.texts) != bool(command.text_file),
        where="zero-shot: texts and --text-file",
        found="both" if command.texts else "neither (texts stand before the options)",
        expected="one of them",
    )
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


def _print(
    text: str,
    labels: Sequence[str],
    scores: Sequence[float],
    probabilities: Sequence[float],
    *,
    as_json: bool,
) -> None:
    """Print a text with its labels, the best first."""
    order = sorted(range(len(labels)), key=lambda i: -scores[i])
    if as_json:
        answer = {
            "text": text,
            "label": labels[order[0]],
            "probabilities": {labels[i]: probabilities[i] for i in order},
            "scores": {labels[i]: scores[i] for i in order},
        }
        print(json.dumps(answer, ensure_ascii=False))
        return
    print(text)
    print("    " + "   ".join(f"{labels[i]} {number_text(probabilities[i], '.1%')}" for i in order))
