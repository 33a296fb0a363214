"""Names of tokenizer classes in `transformers`, and of the models whose class they are.

A name is without its "Fast". Only this file and `huggingface` know them.
"""

from collections.abc import Mapping

# `PreTrainedTokenizerFast` is an alias of `TokenizersBackend` since transformers 5.
GENERAL_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend")
"""They take `tokenizer.json` as it is, whatever it declares."""

# Classes that build their engine themselves, of the vocabulary in the file.
UNIGRAM_OF_WORDS = "XLMRobertaTokenizer"
UNIGRAM_OF_TEXT = "DebertaV2Tokenizer"
BPE_OF_TEXT = "GemmaTokenizer"

MODEL_CLASSES: Mapping[str, str] = {
    "modernbert": GENERAL_CLASSES[0],
    "eurobert": GENERAL_CLASSES[0],
    "ultrabert": GENERAL_CLASSES[0],
    "xlm-roberta": UNIGRAM_OF_WORDS,
    "gte": UNIGRAM_OF_WORDS,
    "deberta-v2": UNIGRAM_OF_TEXT,
}
"""The class of a `model_type` where the folder names none."""
FILE_AS_IT_IS = ("modernbert",)
"""Models whose folders name classes of other models; version 5 takes the file as it is."""
BORROWED_CLASSES = (BPE_OF_TEXT, UNIGRAM_OF_WORDS, UNIGRAM_OF_TEXT, "LlamaTokenizer")
"""Classes of other models in such folders of which version 4 takes the file as it is too."""
