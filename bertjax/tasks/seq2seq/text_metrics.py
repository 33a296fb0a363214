"""Metrics of generated texts: BLEU by sacrebleu, and the share of texts that are equal.

A metric's name says where it differs from sacrebleu's default: `bleu` is what sacrebleu prints for
the same two files. `bleu_lc` compares both in lower case; `bleu_zh`, `bleu_char` and `bleu_intl`
divide them into words in another way than by its tokenizer 13a.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from bertjax.errors import UserError
from bertjax.tasks.metric_table import Metric, Scale
from bertjax.tasks.scripts import Script, script_of

if TYPE_CHECKING:
    import sacrebleu

DEFAULT_TOKENIZER = "13a"
TOKENIZERS = (DEFAULT_TOKENIZER, "intl", "zh", "char")
"""The tokenizers of sacrebleu that divide texts into words here."""
EXACT_MATCH = "exact_match"
LOWER_CASE = "_lc"
"""End of the name of a metric that ignores case."""
MAX_TARGETS = 10_000
"""Number of targets that tell the script of all."""


class TextMetric(NamedTuple):
    """A metric of generated texts."""

    tokenizer: str | None
    """What divides the texts into words, for BLEU; None for exact match."""
    lowercase: bool
    """True if upper and lower case are the same."""

    @property
    def name(self) -> str:
        """The name of the figure, such as `bleu_zh_lc`."""
        name = EXACT_MATCH
        if self.tokenizer is not None:
            has_default = self.tokenizer == DEFAULT_TOKENIZER
            name = "bleu" if has_default else f"bleu_{self.tokenizer}"
        return name + LOWER_CASE if self.lowercase else name

    @property
    def listed(self) -> Metric:
        """The entry in a table of metrics."""
        return Metric(self.name, Scale.SHARE if self.tokenizer is None else Scale.POINTS)

    @property
    def signature(self) -> str:
        """How the metric is computed; for BLEU sacrebleu's signature."""
        if self.tokenizer is None:
            return f"case:{'lc' if self.lowercase else 'mixed'}|words"
        scorer = _scorer(self)
        # The number of references is known after the first use.
        scorer.corpus_score(["a"], [["a"]])
        return str(scorer.get_signature())

    def value(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        """Return the metric of the texts, with one reference each.

        BLEU is of the corpus, in 0..100 (arXiv 1804.08771). Exact match is the share of texts with
        the same words, in 0..1. Raises `UserError` if sacrebleu is needed and not installed.
        """
        if self.tokenizer is not None:
            # A list in a list: sacrebleu can take several references for each text.
            result = _scorer(self).corpus_score(list(predictions), [list(references)])
            return float(result.score)
        pairs = zip(predictions, references, strict=True)
        equal = [is_equal(*pair, lowercase=self.lowercase) for pair in pairs]
        return sum(equal) / len(equal)


def is_equal(text: str, reference: str, *, lowercase: bool) -> bool:
    """Return whether two texts have the same words."""
    if lowercase:
        text, reference = text.lower(), reference.lower()
    # By words: decoding does not give back the white space of a text.
    return text.split() == reference.split()


def metrics_of(tokenizer: str) -> tuple[TextMetric, ...]:
    """Return the metrics of a task whose texts are divided by `tokenizer`."""
    kinds = (tokenizer, None)
    return tuple(TextMetric(kind, lowercase) for kind in kinds for lowercase in (False, True))


ALL_METRICS = tuple(dict.fromkeys(metric for name in TOKENIZERS for metric in metrics_of(name)))
"""The metrics of all tasks."""


def tokenizer_for(targets: Sequence[str]) -> str:
    """Return the tokenizer for the script of the targets: `zh`, `char` or `13a`.

    13a takes a Chinese sentence for one word, so that BLEU would be 0 for all but a copy.
    """
    script = script_of("\n".join(targets[:MAX_TARGETS]))
    by_script = {Script.CHINESE: "zh", Script.SPACELESS: "char"}
    return by_script.get(script, DEFAULT_TOKENIZER)


def check_installed() -> None:
    """Raise `UserError` if sacrebleu is not installed."""
    _scorer(TextMetric(DEFAULT_TOKENIZER, False))


def _scorer(metric: TextMetric) -> "sacrebleu.BLEU":
    try:
        import sacrebleu
    except ModuleNotFoundError as error:
        raise UserError(
            "bleu: found no package sacrebleu, expected it: pip install sacrebleu"
        ) from error
    return sacrebleu.BLEU(lowercase=metric.lowercase, tokenize=metric.tokenizer)
