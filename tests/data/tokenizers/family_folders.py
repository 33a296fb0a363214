"""Small tokenizer folders, each in the form in which a family of encoders ships its own.

Vocabularies are trained here on a few lines; rules, names of files and fields, special tokens with
their flags, and the order of ids are those of the published folders.
"""

import base64
import io
import json
from functools import cache

import sentencepiece as spm
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.sentencepiece_model import read_model
from tests.data.tokenizers.declared.folders import FLAGS, put

LINES = [
    "The quick brown fox jumps over the lazy dog, and the dog isn't quick.",
    "Unbelievable things happen: words are cut into smaller pieces, 1,234 of 5678.",
    "Der schnelle Fuchs springt über den faulen Hund; die Straße ist naß und größer.",
    "今天天气很好，我们去公园。", "مرحبا بالعالم، كيف حالك؟", "สวัสดีชาวโลก วันนี้อากาศดี",
    "def f(x):\n    return x[0] + 1  # the sum\n\tif x:\n\t\tpass\r\n", "🙂 👩‍👧 ☃ e\u0301 ﬁ",
] * 8  # fmt: skip
# The expression of Llama 3, by which text is divided before its bytes are merged.
LLAMA_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# That of the script in ltgoslo/gpt-bert.
GPT_BERT_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"| ?\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GENERAL = "PreTrainedTokenizerFast"
BERT = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
ROBERTA = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "pad": "<pad>", "mask": "<mask>"}  # fmt: skip


def named(roles):
    return {f"{role}_token": name for role, name in roles.items()}


def template(single, pair, ids):
    """The post-processor of these templates, as the package writes it."""
    names = {word.partition(":")[0] for word in f"{single} {pair}".split()} - {"$A", "$B"}
    tokens = [(name, ids[name]) for name in sorted(names)]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=tokens)


def berts_template(ids, cls="[CLS]", sep="[SEP]"):
    return template(f"{cls}:0 $A:0 {sep}:0", f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1", ids)


def robertas_template(ids):
    return template("<s> $A </s>", "<s> $A </s> </s> $B </s>", ids)


def content_of(engine):
    return json.loads(engine.to_str())


def with_added(content, *tokens):
    """Add tokens, each a content with the flags that are true; ids follow those of the model."""
    vocab = content["model"]["vocab"]
    ids = {entry[0]: i for i, entry in enumerate(vocab)} if isinstance(vocab, list) else vocab
    size = len(ids)
    added = []
    for name, *true in tokens:
        place = ids.get(name, size)
        size += place == size
        added.append({"id": place, "content": name, **FLAGS, **dict.fromkeys(true, True)})
    content["added_tokens"] = sorted(added, key=lambda token: token["id"])
    return content


def ids_in(content):
    vocab = content["model"]["vocab"]
    entries = [entry for entry, _ in vocab] if isinstance(vocab, list) else vocab
    ids = {entry: i for i, entry in enumerate(entries)} if isinstance(vocab, list) else dict(vocab)
    return ids | {token["content"]: token["id"] for token in content["added_tokens"]}


def decoder_by_id(content):
    """`added_tokens_decoder` as version 4 of `transformers` writes it beside the file."""
    tokens = {}
    for token in content["added_tokens"]:
        tokens[str(token["id"])] = {key: value for key, value in token.items() if key != "id"}
    return tokens


@cache
def _bytes_text(split):
    """A byte-level BPE of the lines, divided by `split` before, by GPT-2's words if there is none."""
    engine = Engine(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split)
    steps = [pre_tokenizers.Split(Regex(split), "isolated"), level]
    engine.pre_tokenizer = pre_tokenizers.Sequence(steps) if split else level
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    engine.train_from_iterator(LINES, trainer)
    engine.decoder = decoders.ByteLevel()
    return engine.to_str()


def with_entries_first(content, names):
    """The same file with entries of these names before those of the model."""
    vocab = content["model"]["vocab"]
    entries = [*names, *sorted(vocab, key=vocab.__getitem__)]
    content["model"]["vocab"] = {entry: i for i, entry in enumerate(entries)}
    return content


def modernbert_content():
    """OLMo's: GPT-2's words, runs of spaces as tokens, and BERT's special tokens after them."""
    content = with_entries_first(json.loads(_bytes_text("")), ["|||IP_ADDRESS|||", "<|padding|>"])
    content["normalizer"] = {"type": "NFC"}
    special = [(name, "special") for name in ("<|endoftext|>", "[UNK]", "[CLS]", "[SEP]", "[PAD]")]
    content = with_added(
        content,
        ("|||IP_ADDRESS|||", "normalized"),
        ("<|padding|>", "special"),
        *[(" " * count, "normalized") for count in range(24, 1, -1)],
        ("|||EMAIL_ADDRESS|||", "normalized"),
        ("|||PHONE_NUMBER|||", "normalized"),
        *special,
        ("[MASK]", "special", "lstrip"),
        *[(f"[unused{i}]", "normalized") for i in range(3)],
    )
    content["post_processor"] = json.loads(berts_template(ids_in(content)).__getstate__())
    return content


def modernbert(folder):
    content = modernbert_content()
    settings = {
        "added_tokens_decoder": decoder_by_id(content), "clean_up_tokenization_spaces": True,
        **named(BERT), "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 8192, "tokenizer_class": GENERAL,
    }  # fmt: skip
    mask = next(t for t in content["added_tokens"] if t["content"] == "[MASK]")
    flags = {key: value for key, value in mask.items() if key not in ("id", "special")}
    return put(
        folder,
        content,
        settings,
        config={"model_type": "modernbert", "vocab_size": 512},
        special_tokens_map={**named(BERT), "mask_token": flags},
    )


EURO = {"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>", "pad": "<|end_of_text|>", "mask": "<|mask|>"}  # fmt: skip


def llama_content(single, pair):
    """Llama 3's: words by an expression, whole words before merges, no token for unknown text."""
    content = json.loads(_bytes_text(LLAMA_WORDS))
    content["model"]["ignore_merges"] = True
    names = [EURO["bos"], EURO["eos"], EURO["mask"], "<|parallel_sep|>", "<|reserved_special_token_2|>"]  # fmt: skip
    content = with_added(content, *[(name, "special") for name in names])
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}  # fmt: skip
    around = json.loads(template(single, pair, ids_in(content)).__getstate__())
    content["post_processor"] = {"type": "Sequence", "processors": [level, around]}
    return content


def eurobert(folder, single=f"{EURO['bos']} $A", pair=f"{EURO['bos']} $A {EURO['bos']}:1 $B:1"):
    """Only the token before a text: `Hello World!` has four ids in the tests of transformers."""
    content = llama_content(single, pair)
    settings = {
        "added_tokens_decoder": decoder_by_id(content), "clean_up_tokenization_spaces": True,
        **named(EURO), "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 8192, "tokenizer_class": GENERAL,
    }  # fmt: skip
    return put(
        folder,
        content,
        settings,
        config={"model_type": "eurobert", "vocab_size": 512},
        special_tokens_map=named(EURO),
    )


def gemma_content():
    """Gemma 2's: spaces are marks, unknown characters their bytes, and words are not divided."""
    engine = Engine(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    engine.normalizer = normalizers.Replace(" ", "▁")
    # While it is trained no piece goes across words, as in SentencePiece's trainer.
    engine.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[@BOS@]", "<unused0>"]
    pieces = [*first, *[f"<0x{byte:02X}>" for byte in range(256)]]
    trainer = trainers.BpeTrainer(
        vocab_size=520, special_tokens=pieces, limit_alphabet=60, show_progress=False,
        max_token_length=12,
    )  # fmt: skip
    engine.train_from_iterator(LINES, trainer)
    engine.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    engine.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    content = with_added(
        content_of(engine),
        *[(name, "special") for name in first[:5]],
        *[(name,) for name in (*first[5:], "\n\n", "▁▁", "▁▁▁", "<table>")],
    )
    ids = ids_in(content)
    both = template("<bos> $A <eos>", "<bos> $A <eos> $B:1 <eos>:1", ids)
    content["post_processor"] = json.loads(both.__getstate__())
    return content


GEMMA = {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}


def gemma(folder, model=None, **others):
    """The class itself, whose rules the file has."""
    return _gemma_folder(folder, gemma_content(), model or {}, others)


def mmbert(folder, **others):
    """The same vocabulary with the space before a text, and words divided at it."""
    content = gemma_content()
    content["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}  # fmt: skip
    return _gemma_folder(folder, content, {"model_type": "modernbert"}, others)


def _gemma_folder(folder, content, model, others):
    settings = {
        "add_bos_token": True, "add_eos_token": True,
        "added_tokens_decoder": decoder_by_id(content), **named(GEMMA),
        "clean_up_tokenization_spaces": False, "model_max_length": 8192,
        "spaces_between_special_tokens": False, "tokenizer_class": "GemmaTokenizer", **others,
    }  # fmt: skip
    return put(folder, content, settings, config={**model, "vocab_size": 640})


@cache
def piece_model(**options):
    """The bytes of a unigram model that SentencePiece trains, with its usual rules (NFKC)."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, vocab_size=300, model_type="unigram",
        hard_vocab_limit=False, num_threads=1, minloglevel=2, **options,
    )  # fmt: skip
    return model.getvalue()


def precompiled(model):
    charsmap = base64.b64encode(model.charsmap).decode()
    return {"type": "Precompiled", "precompiled_charsmap": charsmap}


def unigram_content(entries, unk_id, normalizer, pre_tokenizer):
    model = {"type": "Unigram", "unk_id": unk_id, "vocab": entries, "byte_fallback": False}
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": normalizer, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*pre_tokenizer, space]},
        "post_processor": None, "decoder": space, "model": model,
    }  # fmt: skip


def xlm_content():
    model = read_model(piece_model())
    pieces = [[piece.name, piece.score] for piece in model.pieces[3:]]
    entries = [*([name, 0.0] for name in ("<s>", "<pad>", "</s>", "<unk>")), *pieces, ["<mask>", 0.0]]  # fmt: skip
    content = unigram_content(entries, 3, precompiled(model), [{"type": "WhitespaceSplit"}])
    special = [(name, "special") for name in ("<s>", "<pad>", "</s>", "<unk>")]
    content = with_added(content, *special, ("<mask>", "special", "lstrip"))
    content["post_processor"] = json.loads(robertas_template(ids_in(content)).__getstate__())
    return content


def xlm_roberta(folder):
    """As the first folders: the class is known by the model alone."""
    return put(
        folder,
        xlm_content(),
        {"model_max_length": 512},
        config={"model_type": "xlm-roberta", "vocab_size": 320},
    )


def gte(folder):
    content = xlm_content()
    settings = {
        "added_tokens_decoder": decoder_by_id(content), **named(ROBERTA),
        "model_max_length": 32768, "tokenizer_class": "XLMRobertaTokenizer",
    }  # fmt: skip
    return put(folder, content, settings, config={"model_type": "gte", "vocab_size": 384})


def deberta_model():
    """The bytes of a model with the special tokens of DeBERTa, of which the mask is none."""
    return piece_model(
        pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]",
    )  # fmt: skip


def deberta(folder):
    """As published: the model of SentencePiece, and the name of its form."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spm.model").write_bytes(deberta_model())
    files = {
        "tokenizer_config": {"do_lower_case": False, "vocab_type": "spm"},
        "config": {"model_type": "deberta-v2", "vocab_size": 384},
    }
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def deberta_content():
    """As version 5 of `transformers` saves it: NFC in place of the model's own rules."""
    model = read_model(deberta_model())
    entries = [[piece.name, piece.score] for piece in model.pieces]
    spaces = {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "}
    strip = {"type": "Strip", "strip_left": False, "strip_right": True}
    rules = {"type": "Sequence", "normalizers": [spaces, {"type": "NFC"}, strip]}
    content = unigram_content(entries, 3, rules, [])
    content = with_added(content, *[(name, "special") for name in BERT.values()])
    content["post_processor"] = json.loads(berts_template(ids_in(content)).__getstate__())
    return content


def deberta_saved(folder, content=None):
    roles = {"bos": "[CLS]", "eos": "[SEP]", **BERT}
    settings = {
        "add_prefix_space": True, "backend": "tokenizers", "do_lower_case": False, **named(roles),
        "split_by_punct": False, "tokenizer_class": "DebertaV2Tokenizer", "unk_id": 3,
    }  # fmt: skip
    return put(
        folder,
        content or deberta_content(),
        settings,
        config={"model_type": "deberta-v2", "vocab_size": 384},
    )


def gpt_bert(folder, single="<s> $A", pair="<s> $A <s> $B"):
    """A space before text, lines without spaces at their end, words of at most 24 bytes, NFKC."""
    content = json.loads(_bytes_text(GPT_BERT_WORDS))
    longest = {"type": "Split", "pattern": {"Regex": ".{1,24}"}, "behavior": "Isolated", "invert": False}  # fmt: skip
    content["pre_tokenizer"]["pretokenizers"].append(longest)
    first = ["<unk>", "<s>", "</s>", "<pad>", "<mask>", *[f"<special_{i}>" for i in range(3)]]
    content = with_entries_first(content, first)
    content["model"] |= {"unk_token": "<unk>", "ignore_merges": True}
    begin = {"type": "Replace", "pattern": {"Regex": "\n"}, "content": "\n "}
    end = {"type": "Replace", "pattern": {"Regex": " *\n"}, "content": "\n"}
    steps = [{"type": "Prepend", "prepend": " "}, {"type": "NFKC"}, begin, end]
    content["normalizer"] = {"type": "Sequence", "normalizers": steps}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    line = {"type": "Replace", "pattern": {"String": "\n "}, "content": "\n"}
    content["decoder"] = {"type": "Sequence", "decoders": [content["decoder"], strip, line]}
    content = with_added(content, *[(name, "special") for name in first])
    around = template(single, pair, ids_in(content))
    content["post_processor"] = json.loads(around.__getstate__())
    settings = {**named(ROBERTA), "tokenizer_class": GENERAL}
    return put(folder, content, settings, config={"model_type": "gpt_bert", "vocab_size": 440})


def one_end_token(folder):
    """Pythia's style: one token is begin, end, padding and what is unknown; the mask is another."""
    content = with_entries_first(json.loads(_bytes_text("")), ["<|endoftext|>"])
    content = with_added(content, ("<|endoftext|>", "special"), ("<|mask|>", "special"))
    end = "<|endoftext|>"
    around = template(f"{end} $A {end}", f"{end} $A {end} $B:1 {end}:1", ids_in(content))
    content["post_processor"] = json.loads(around.__getstate__())
    roles = {**dict.fromkeys(("bos", "eos", "pad", "unk"), end), "mask": "<|mask|>"}
    settings = {**named(roles), "tokenizer_class": GENERAL}
    return put(folder, content, settings, config={"model_type": "ultrabert", "vocab_size": 440})


def both_ends(folder):
    """EuroBERT's, with the token after a text too."""
    bos, eos = EURO["bos"], EURO["eos"]
    return eurobert(folder, f"{bos} $A {eos}", f"{bos} $A {eos} $B:1 {eos}:1")


WITHOUT_END = [eurobert, gpt_bert]
"""Families whose texts have no token after them."""
FAMILIES = [
    modernbert, mmbert, gemma, xlm_roberta, gte, deberta_saved, both_ends, one_end_token, *WITHOUT_END,
]  # fmt: skip
