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
from bertjax.interop.checkpoints.tensor_mapping import without_groups
from bertjax.model.functional import TASKS
from bertjax.model.layout import ANYWHERE
from bertjax.tasks import registry
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.multiple_choice.task import Choice
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.tagging.task import Tagging
from tests.interop.checkpoints.families.references import padded_rows

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
def test_a_pooler_of_another_kind_is_named(tmp_path):
    tags = fine_tuned("modernbert", "tagging", token_pooler=False)
    with pytest.raises(UserError, match="model.token_pooler: found False, expected True, as in mo"):
        save(tmp_path / "out", *tags)
    config, params, task, head = fine_tuned("eurobert", "classification")
    config = dataclasses.replace(config, pooler_act="tanh")
    with pytest.raises(UserError, match="model.pooler_act: found tanh, expected gelu, as in euro"):
        save(tmp_path / "out", config, params, task, head)
