"""Description of a task's linear head, for exports to other programs."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TaskHead:
    """A linear head: its outputs, and the class of `transformers` that has the same head."""

    task: str
    """The name of the task."""
    kind: str
    """The name of the kind of task."""
    labels: tuple[str, ...]
    """The label of each output; empty if the only output is a number."""
    transformers_class: str
    """The end of the class's name: SequenceClassification for BertForSequenceClassification."""
    label_type: str = "class"
    """class (softmax over the outputs), classes (a sigmoid for each output) or number."""
    on_tokens: bool = False
    """True if the head is on every token's hidden state; False if it is on the sentence vector."""
    problem_type: str = ""
    """`problem_type` in the config.json of `transformers`; empty: it is not written."""

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        return len(self.labels) or 1

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `task.json`, which describes the logits of an exported program."""
        return {
            "task": self.task,
            "kind": self.kind,
            "labels": list(self.labels),
            "label_type": self.label_type,
        }
