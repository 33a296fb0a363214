"""Reading of questions from SQuAD's files.

The files may be of version 1.1 (arXiv 1606.05250) or 2.0 (arXiv 1806.03822).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from bertjax.data.corpus.formats.tfds import tfds_builder
from bertjax.errors import UserError, check, needs_extra, one_line
from bertjax.storage import read_json
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.question_answering.fields import field, objects
from bertjax.tasks.question_answering.located_answers import LocatedQuestion, usable


def read_squad(path: epath.PathLike, *, training: bool) -> list[QuestionExample]:
    """Return the questions of a SQuAD file, in the order of the file.

    Each of `data[].paragraphs[]` in the file has a `context` and questions, `qas[]`. A question
    with `is_impossible` has no answers; its `plausible_answers` are not read. The answers of a
    question without the field `answers` are None; with `training` this is an error.

    With `training`, each answer must be in the paragraph at its `answer_start`, where only white
    space may differ. Other answers are left out, and also questions that lose all their answers;
    the log says how many. Without `training`, the answers are not checked, because only their texts
    are used.

    Raises `UserError` with the file and the place in it (data[3].paragraphs[0].qas[2]) if the file
    has another structure.
    """
    path = epath.Path(path)
    return usable(_file_questions(path), str(path), training)


def read_tfds(name: str, split: str, *, training: bool) -> list[QuestionExample]:
    """Return the questions of a split of a TFDS data set, such as `tfds:squad`, like `read_squad`.

    The fields are id, question, context, answers {text, answer_start} and, if there is one,
    is_impossible, as in `tfds:squad/v2.0`. Raises `UserError` if the data set cannot be loaded, or
    does not have the split or the fields.
    """
    with needs_extra("data"):
        import tensorflow as tf
        import tensorflow_datasets as tfds

    builder = tfds_builder(name)
    splits = list(builder.info.splits)
    check(
        split in splits,
        where=name,
        found=f"the splits {', '.join(splits)}",
        expected=f"a split {split}",
    )
    where = f"{name}, {split}"
    try:
        # In the order of the files, so that runs have the same examples.
        records = list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)))
    except tf.errors.OpError as error:
        raise UserError(f"{where}: is truncated or damaged ({one_line(error.message)})") from error
    return usable(tfds_questions(records, where), where, training)


def tfds_questions(records: Iterable[Mapping[str, Any]], name: str) -> Iterator[LocatedQuestion]:
    """Yield the question of each record of TFDS, in which texts are bytes and lists are arrays."""
    for number, record in enumerate(records):
        where = f"{name}, example {number}"
        fields: dict[str, Any] = {key: _text(value) for key, value in record.items()}
        answers = fields.get("answers")
        if isinstance(answers, Mapping) and {"text", "answer_start"} <= set(answers):
            fields["answers"] = _answer_objects(answers["text"], answers["answer_start"])
        if "is_impossible" in fields:
            # `field` asks for exactly bool, and TFDS has NumPy's.
            fields["is_impossible"] = bool(fields["is_impossible"])
        context = field(fields, "context", str, where)
        yield LocatedQuestion(where, _question(fields, context, where))


def _answer_objects(texts: Iterable[Any], starts: Iterable[Any]) -> list[dict[str, Any]]:
    """Return answers in the form of SQuAD's files, from the two arrays of TFDS."""
    pairs = zip(texts, starts, strict=True)
    return [{"text": _text(text), "answer_start": int(start)} for text, start in pairs]


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _file_questions(path: epath.Path) -> Iterator[LocatedQuestion]:
    for article in objects(read_json(path), "data", f"{path}:"):
        for paragraph in objects(article.values, "paragraphs", article.where):
            context = field(paragraph.values, "context", str, paragraph.where)
            for question in objects(paragraph.values, "qas", paragraph.where):
                example = _question(question.values, context, question.where)
                yield LocatedQuestion(question.where, example)


def _question(values: Mapping[str, Any], context: str, where: str) -> QuestionExample:
    if type(values.get("id")) is int:  # as GermanQuAD has it
        identifier = str(values["id"])
    else:
        identifier = field(values, "id", str, where)
    question = field(values, "question", str, where)
    check(
        not context.isspace() and context != "",
        where=where,
        found="a context without text",
        expected="text",
    )
    return QuestionExample(identifier, question, context, _answers(values, where))


def _answers(values: Mapping[str, Any], where: str) -> tuple[tuple[str, int], ...] | None:
    """Return the answers of a question; None if the question has no field `answers`."""
    is_impossible = False
    if "is_impossible" in values:
        is_impossible = field(values, "is_impossible", bool, where)
    if values.get("answers") is None and not is_impossible:
        return None
    answers = []
    if "answers" in values or not is_impossible:
        for answer in objects(values, "answers", where):
            text = field(answer.values, "text", str, answer.where)
            answers.append((text, field(answer.values, "answer_start", int, answer.where)))
    check(
        not (answers and is_impossible),
        where=where,
        found="answers, and is_impossible true",
        expected="the one or the other",
    )
    return tuple(answers)
