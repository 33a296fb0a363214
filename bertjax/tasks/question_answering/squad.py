"""Reading of questions from files in SQuAD's form, from tables of questions, and from TFDS.

The files may be of version 1.1 (arXiv 1606.05250) or 2.0 (arXiv 1806.03822).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from bertjax.data.corpus.formats.tfds import tfds_builder
from bertjax.errors import UserError, check, mismatch, needs_extra, one_line
from bertjax.storage import opened
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.files.lines import UTF8, decoded_lines
from bertjax.tasks.files.row import TableRow
from bertjax.tasks.files.tables import ending_of, read_table
from bertjax.tasks.question_answering.fields import (
    field,
    field_place,
    objects,
    type_name,
)
from bertjax.tasks.question_answering.located_answers import LocatedQuestion, usable


def read_questions(
    path: epath.PathLike,
    *,
    training: bool,
    place_of_id: dict[str, str] | None = None,
    encoding: str = UTF8,
) -> list[QuestionExample]:
    """Return the questions of a file, in its order; it is in SQuAD's form or a table.

    In SQuAD's form (`.json`) each of `data[].paragraphs[]` has a `context` and questions, `qas[]`.
    In a table each row is a question with its `context`, as `datasets` has it: JSON lines, a JSON
    array (alone or in `data`), or Parquet (`bertjax.tasks.files.tables`). There the answers are
    `{"text": [...], "answer_start": [...]}`, or a list as in SQuAD's form. Without an `id` it is
    the number of the row.

    A question with `is_impossible`, or whose answers are all empty, has no answers; its
    `plausible_answers` are not read. The answers of a question without the field `answers` are
    None; with `training` this is an error. `place_of_id` is that of `usable`, `encoding` that of
    the text (`bertjax.tasks.files.lines.decoded_lines`).

    With `training`, each answer must be in the paragraph at its `answer_start`, a number of Unicode
    code points, where only white space may differ. Other answers are left out, and also questions
    that lose all their answers; the log says how many. More than `MAX_MISPLACED` are an error.
    Without `training`, the answers are not checked, because only their texts are used.

    Raises `UserError` with the file and the place in it (data[3].paragraphs[0].qas[2], or line 3)
    if the file has another structure.
    """
    name = str(path)
    content = _squad_content(name, encoding)
    if content is None:
        questions = _row_questions(read_table(path, encoding=encoding))
    else:
        questions = _squad(content, name)
    return usable(questions, name, training, place_of_id)


def _squad_content(name: str, encoding: str) -> dict[str, Any] | None:
    """Return the object in a file of SQuAD's form; None if the file is a table."""
    if ending_of(name) != ".json":
        return None
    content = _content(name, encoding)
    try:
        values = json.loads(content)
    # JSON lines, or broken: the reader of tables tells them apart, and names the line. A file that
    # nests thousands of lists exhausts the parser's recursion.
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    data = values.get("data")
    first = data[0] if isinstance(data, list) and data else values
    is_row = isinstance(first, dict) and "context" in first
    return None if is_row else values


def _content(name: str, encoding: str) -> str | bytes:
    if encoding != UTF8:
        return "".join(line.text + line.end for line in decoded_lines(name, encoding))
    # Bytes: JSON may also be in UTF-16.
    with opened(name) as file:
        return file.read()


def _squad(content: Mapping[str, Any], name: str) -> Iterator[LocatedQuestion]:
    """Yield the questions of a file in SQuAD's form."""
    for article in objects(content, "data", f"{name}:"):
        for paragraph in objects(article.values, "paragraphs", article.where):
            context = field(paragraph.values, "context", str, paragraph.where)
            for question in objects(paragraph.values, "qas", paragraph.where):
                example = _question(question.values, context, question.where)
                yield LocatedQuestion(question.where, example)


def _row_questions(rows: Iterable[TableRow]) -> Iterator[LocatedQuestion]:
    """Yield the question of each row of a table."""
    for row in rows:
        values = {"id": str(row.number), **row.values}
        where = f"{row.where}:"
        context = field(values, "context", str, where)
        yield LocatedQuestion(row.where, _question(values, context, where))


def _answer_list(answers: Any, place: str) -> list[Any]:
    """Return the answers at `place` as a list, in which the form of `datasets` becomes SQuAD's."""
    if isinstance(answers, list):
        return answers
    check(
        isinstance(answers, dict) and {"text", "answer_start"} <= set(answers),
        where=place,
        found=_shape(answers),
        expected='{"text": [...], "answer_start": [...]} or a list of such objects',
    )
    texts, starts = answers["text"], answers["answer_start"]
    if not isinstance(texts, list) and not isinstance(starts, list):
        return [answers]  # one answer
    for key, values in (("text", texts), ("answer_start", starts)):
        check(
            isinstance(values, list),
            where=f"{place}.{key}",
            found=type_name(values),
            expected="a list",
        )
    check(
        len(texts) == len(starts),
        where=place,
        found=f"{len(texts)} texts, {len(starts)} starts",
        expected="as many starts as texts",
    )
    pairs = zip(texts, starts, strict=True)
    return [{"text": text, "answer_start": start} for text, start in pairs]


def _shape(value: Any) -> str:
    """Return what a value is: an object with its fields, or the type of another one."""
    if isinstance(value, dict):
        return f"an object with the fields {', '.join(map(str, value)) or 'none'}"
    return type_name(value)


def read_tfds(name: str, split: str, *, training: bool) -> list[QuestionExample]:
    """Return the questions of a split of a TFDS data set, such as `tfds:squad`.

    `split` may be a part, or several: `train[:90%]`, `train+validation`.

    The fields are id, question, context, answers {text, answer_start} and, if there is one,
    is_impossible, as in `tfds:squad/v2.0`; they mean what `read_questions` says.

    Raises `UserError` if the data set cannot be loaded, or does not have the split or the fields.
    """
    with needs_extra("data"):
        import tensorflow as tf
        import tensorflow_datasets as tfds

    builder = tfds_builder(name)
    where = f"{name}, {split}"
    try:
        # In the order of the files, so that runs have the same examples.
        records = list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)))
    # What TFDS raises for a split that is not there, or not written as it asks.
    except (ValueError, KeyError) as error:
        raise mismatch(
            where=name,
            found=f"the splits {', '.join(builder.info.splits)}",
            expected=f"a split {split}",
        ) from error
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
            texts = [_text(text) for text in answers["text"]]
            starts = [int(start) for start in answers["answer_start"]]
            fields["answers"] = {"text": texts, "answer_start": starts}
        if "is_impossible" in fields:
            # `field` asks for exactly bool, and TFDS has NumPy's.
            fields["is_impossible"] = bool(fields["is_impossible"])
        context = field(fields, "context", str, where)
        yield LocatedQuestion(where, _question(fields, context, where))


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _question(values: Mapping[str, Any], context: str, where: str) -> QuestionExample:
    if type(values.get("id")) is int:  # as GermanQuAD has it
        identifier = str(values["id"])
    else:
        identifier = field(values, "id", str, where)
    question = field(values, "question", str, where)
    check(
        not context.isspace() and context != "",
        where=where.removesuffix(":"),
        found="a context without text",
        expected="text",
    )
    return QuestionExample(identifier, question, context, _answers(values, where))


def _answers(values: Mapping[str, Any], where: str) -> tuple[tuple[str, int], ...] | None:
    """Return the answers of a question; None if the question has no field `answers`."""
    # `datasets` has null where a set lacks the field.
    is_impossible = values.get("is_impossible") is not None and field(
        values, "is_impossible", bool, where
    )
    if values.get("answers") is None and not is_impossible:
        return None
    answers = []
    if values.get("answers") is not None:
        listed = {"answers": _answer_list(values["answers"], field_place(where, "answers"))}
        for answer in objects(listed, "answers", where):
            text = field(answer.values, "text", str, answer.where)
            # An empty text is how some sets write that there is no answer; its start means nothing.
            if text.strip():
                answers.append((text, field(answer.values, "answer_start", int, answer.where)))
    check(
        not (answers and is_impossible),
        where=where.removesuffix(":"),
        found="answers, and is_impossible true",
        expected="the one or the other",
    )
    return tuple(answers)
