"""Names of special tokens in a `tokenizer.json`, against words of text.

Text that spells a special token does not become one. So a name must be none of text's words: they
would be lost.
"""

from bertjax.data.tokenizers.declared.content import Content
from bertjax.data.tokenizers.declared.engines import open_engine, plain_engine
from bertjax.errors import check

SHORTEST_NAME = 3  # characters of a name in capitals, such as PAD


def check_names(content: Content) -> None:
    """Refuse a special token whose name is a word that the rules find in text, such as `fox`."""
    for role, name in content.roles.items():
        check(
            _is_marked(name) or not _is_found(content, name),
            where=f"{content.file}: {role}_token",
            found=f"{name!r}, which text may have",
            expected="a name in brackets, as [PAD] or <pad>, or in capitals",
        )


def _is_marked(name: str) -> bool:
    """Return whether a name is one by its form: `[PAD]`, `<pad>`, `__pad__`, `PAD`."""
    if len(name) < SHORTEST_NAME:
        return False
    has_letters = any(character.isalnum() for character in name)
    is_enclosed = not name[0].isalnum() and not name[-1].isalnum()
    return (is_enclosed and has_letters) or (name.isalpha() and name.isupper())


def _is_found(content: Content, name: str) -> bool:
    """Return whether the rules make the name's entry of text, without looking for it."""
    model = content.engine["model"]
    if content.ids[name] >= len(model["vocab"]):
        return False
    others = [token for token in content.added() if token["content"] not in content.special]
    rules = {**content.engine, "added_tokens": others, "post_processor": None}
    i = content.ids[name]
    engines = [open_engine(content.file, rules)]
    if name == content.roles.get("unk"):
        # Text that is unknown without the name becomes this token anyway.
        engines.append(plain_engine(content, content.special))
    rest = name.removeprefix(model.get("continuing_subword_prefix") or "")
    spelt = engines[0].decode([i], skip_special_tokens=False)
    found = []
    for engine in engines:
        encodings = engine.encode_batch([name, f" {name}", f"a{rest}", spelt])
        found.append([i in encoding.ids for encoding in encodings])
    return any(found[0]) and (len(found) == 1 or found[0] != found[1])
