"""Fine-tuned models of each family in the classes of `transformers`."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.config import family
from bertjax.errors import UserError
from bertjax.finetuning.objective import TaskObjective
from bertjax.interop.checkpoints import huggingface
from bertjax.interop.checkpoints.families.family import TASK_HEAD
from bertjax.interop.checkpoints.families.table import FAMILIES
from bertjax.interop.checkpoints.tensor_mapping import without_groups
from bertjax.model import functional
from bertjax.model.functional import TASKS
from bertjax.model.layout import ANYWHERE
from bertjax.tasks import registry
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.multiple_choice.task import Choice
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.tagging.task import Tagging
from tests.interop.checkpoints.families.references import padded_rows
from tests.tasks.tiny import TOKENIZER

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

NUMBERS = {
    "classification": SingleLabel("topics", ("art", "law", "war")),
    "choice": Choice("swag", 2),
    "tagging": Tagging("ner", ("O", "B-LOC", "I-LOC")),
    "spans": Spans("squad"),
}
CLASSES = {
    "classification": "AutoModelForSequenceClassification",
    "choice": "AutoModelForMultipleChoice",
    "tagging": "AutoModelForTokenClassification",
    "spans": "AutoModelForQuestionAnswering",
}
SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}


def fine_tuned(name, kind, **fields):
    """A model with a task's head, as it is exported: its configuration, parameters and head."""
    task = NUMBERS[kind]
    sizes = {**SIZES, "heads": ("mlm",), **fields}
    needed = registry.KINDS[kind].heads
    if task.per_token and family(name, **sizes).token_pooler:
        needed = ("pooler",)
    config = family(name, **{**sizes, "heads": ("mlm", *needed)})
    params = TaskObjective(config, (task,)).init(jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: np.float32(leaf + 0.2 * rng.standard_normal(leaf.shape)), params
    )
    return config, params, task, registry.KINDS[kind].task_head(task)


def save(folder, config, params, task, head):
    exported = without_groups(params, [TASKS]) | {TASK_HEAD: params[TASKS][task.name]}
    huggingface.save(folder, config, exported, head=head)


PAIRS = [
    ("modernbert", "classification"),
    ("modernbert", "choice"),
    ("modernbert", "tagging"),
    ("modernbert", "spans"),
    ("eurobert", "classification"),
    ("eurobert", "tagging"),
    ("ultrabert", "classification"),
    ("ultrabert", "tagging"),
    ("ultrabert", "spans"),
    ("nomic_bert", "classification"),
    ("nomic_bert", "tagging"),
    ("gte", "classification"),
    ("gte", "tagging"),
    ("deberta-v2", "classification"),
    ("deberta-v2", "tagging"),
    ("deberta-v2", "spans"),
    ("deberta-v2", "choice"),
    ("distilbert", "classification"),
    ("distilbert", "tagging"),
    ("distilbert", "spans"),
    ("distilbert", "choice"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name, kind", PAIRS)
def test_transformers_gives_the_scores_that_the_task_has_here(name, kind, tmp_path, largest):
    fields = {"relative_positions": 16} if name == "deberta-v2" else {}
    config, params, task, head = fine_tuned(name, kind, **fields)
    save(tmp_path, config, params, task, head)
    loader = getattr(transformers, CLASSES[kind])
    model, report = loader.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report

    ids, mask = padded_rows()
    shape = (1, *ids.shape) if kind == "choice" else ids.shape
    batch = {"input_ids": ids.reshape(shape), "input_mask": mask.reshape(shape)}
    batch["segment_ids"] = np.zeros(shape, np.int32)
    with torch.no_grad():
        given = torch.tensor(batch["input_ids"]), torch.tensor(batch["input_mask"])
        outputs = model.eval()(input_ids=given[0], attention_mask=given[1])
    if kind == "spans":
        logits = torch.stack([outputs.start_logits, outputs.end_logits], -1).numpy()
    else:
        logits = outputs.logits.numpy()
    own = np.asarray(task.logits(config, params, batch, key=None, layout=ANYWHERE))
    real = mask[:, :, None] if head.on_tokens else 1
    largest(f"{name}, {kind}", float(np.abs((own - logits) * real).max()), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_both_ways_of_pooling_are_written(pooling, tmp_path):
    for name in ("modernbert", "eurobert"):
        config, params, task, head = fine_tuned(name, "classification", pooling=pooling)
        save(tmp_path / name, config, params, task, head)
        loader = transformers.AutoModelForSequenceClassification
        model = loader.from_pretrained(tmp_path / name).eval()
        ids, mask = padded_rows()
        with torch.no_grad():
            logits = model(torch.tensor(ids), attention_mask=torch.tensor(mask)).logits.numpy()
        batch = {"input_ids": ids, "input_mask": mask}
        own = task.logits(config, params, batch, key=None, layout=ANYWHERE)
        assert np.abs(own - logits).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, kind, expected",
    [
        ("eurobert", "spans", "task squad: found a head of QuestionAnswering, expected one of Seq"),
        ("gte", "choice", "task swag: found a head of MultipleChoice"),
        ("neobert", "tagging", "task ner: found a head of TokenClassification"),
        ("gpt_bert", "classification", "model.heads: found pooler, expected a head of gpt_bert"),
        ("gpt_bert", "tagging", "found a head of TokenClassification, expected one of none"),
    ],
)
def test_a_task_without_a_class_is_refused_and_nothing_is_written(name, kind, expected, tmp_path):
    config, params, task, head = fine_tuned(name, kind)
    with pytest.raises(UserError) as error:
        save(tmp_path / "out", config, params, task, head)
    assert expected in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, has, expected", [("modernbert", False, True), ("eurobert", True, False)]
)
def test_a_head_on_tokens_that_reads_something_else_is_refused(name, has, expected, tmp_path):
    tags = fine_tuned(name, "tagging", token_pooler=has)
    message = f"model.token_pooler: found {has}, expected {expected}, as in {name}"
    with pytest.raises(UserError, match=message):
        save(tmp_path / "tokens", *tags)
    # A task on sentence vectors does not depend on the field.
    save(tmp_path / "sentences", *fine_tuned(name, "classification", token_pooler=has))


@pytest.mark.slow
def test_a_pooler_of_another_kind_is_named(tmp_path):
    config, params, task, head = fine_tuned("eurobert", "classification")
    config = dataclasses.replace(config, pooler_act="tanh")
    with pytest.raises(UserError, match="model.pooler_act: found tanh, expected gelu, as in euro"):
        save(tmp_path / "out", config, params, task, head)


# The published tokenizers of some families have their special tokens at the end of a large
# vocabulary, and the defaults of the classes are those ids.
WITH_CLASSES = [name for name, described in FAMILIES.items() if described.has_class]
ROLES = {"pad": "pad", "bos": "cls", "cls": "cls", "eos": "sep", "sep": "sep", "mask": "mask"}


@pytest.mark.parametrize(
    "name",
    [
        name if name == "modernbert" else pytest.param(name, marks=pytest.mark.slow)
        for name in WITH_CLASSES
    ],
)
def test_the_ids_in_config_json_are_those_of_the_tokenizer_beside_it(name, tmp_path, caplog):
    # RoBERTa's positions begin after the id of padding, which is 0 here.
    fields = {"position_offset": 1} if "roberta" in name else {}
    fields |= {"relative_positions": 16} if name == "deberta-v2" else {}
    config = family(name, **SIZES, **fields)
    params = jax.device_get(jax.jit(functional.init, static_argnums=0)(config, jax.random.key(0)))
    huggingface.save(tmp_path, config, params, TOKENIZER)
    transformers.logging.enable_propagation()
    transformers.utils.logging.warning_once.cache_clear()
    try:
        loaded = transformers.AutoConfig.from_pretrained(tmp_path).to_dict()
    finally:
        transformers.logging.disable_propagation()
    assert not caplog.records
    ids = {field: value for field, value in loaded.items() if field.endswith("_token_id")}
    ids = {
        field.removesuffix("_token_id"): value for field, value in ids.items() if value is not None
    }
    assert ids == {role: getattr(TOKENIZER, f"{ROLES[role]}_id") for role in ids}
    assert "pad" in ids
