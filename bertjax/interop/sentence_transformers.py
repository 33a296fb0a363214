"""What a folder of `sentence-transformers` has beside its encoder, and `import` does not take."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from bertjax.errors import mismatch, one_line
from bertjax.given_files import read_json_value
from bertjax.storage import is_plain_name, read_json, read_json_if_there

MODULES, PROMPTS = "modules.json", "config_sentence_transformers.json"
LENGTHS = "sentence_*_config.json"  # bert, roberta, albert, …
_ENCODER = "Transformer"
# Names of the poolings that `embed` has too, in fields of older folders.
_MODE = "pooling_mode_"
_OURS = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}


def not_taken(folder: epath.Path) -> list[str]:
    """Return what becomes of the encoder's vectors, and of texts before it, in this folder.

    Each is a few words, such as `pooling mean (1_Pooling)`. Empty for a folder of another kind. In
    older folders the encoder has a folder of its own, which may be the one that is given.
    """
    root = _root(folder)
    parts: list[str] = []
    for module in _modules(root / MODULES):
        name, kind = str(module.get("path", "")), str(module.get("type", "")).rpartition(".")[2]
        if kind == _ENCODER:
            continue
        config = _config(root, name)
        parts.append(f"{_described(kind, config)} ({name})" if name else _described(kind, config))
    for file in sorted(folder.glob(LENGTHS)):
        parts += _of_texts(read_json(file))
    parts += _prompts(read_json_if_there(root / PROMPTS))
    return [one_line(part, limit=120) for part in parts]


def encoder_folder(folder: epath.Path) -> str:
    """Return the name of the encoder's own folder in `folder`; "" where there is none."""
    for module in _modules(folder / MODULES):
        name = module.get("path", "")
        is_encoder = str(module.get("type", "")).endswith(f".{_ENCODER}")
        if is_encoder and is_plain_name(name) and (folder / name).is_dir():
            return str(name)
    return ""


def _root(folder: epath.Path) -> epath.Path:
    """The folder of the whole model, where the given one may be that of its encoder."""
    parent = folder.parent
    if not (folder / MODULES).exists() and (parent / MODULES).exists():
        paths = [module.get("path") for module in _modules(parent / MODULES)]
        if folder.name in paths:
            return parent
    return folder


def _modules(file: epath.Path) -> list[Mapping[str, Any]]:
    """The modules in their order; `UserError` naming a file that does not list any."""
    if not file.exists():
        return []
    modules = read_json_value(file)
    is_list = isinstance(modules, list)
    if not is_list or not all(isinstance(module, dict) for module in modules):
        found = f"a {type(modules).__name__}"
        raise mismatch(where=str(file), found=found, expected="a list of objects, the modules")
    return modules


def _config(root: epath.Path, name: str) -> Mapping[str, Any]:
    # The name is untrusted: no file outside of the folder is read.
    return read_json_if_there(root / name / "config.json") if is_plain_name(name) else {}


def _described(kind: str, config: Mapping[str, Any]) -> str:
    if kind == "Pooling":
        return f"pooling {_pooling(config)}"
    if kind == "Dense":
        sizes = f"{config.get('in_features')} to {config.get('out_features')}"
        activation = str(config.get("activation_function", "")).rpartition(".")[2]
        return f"dense layer of {sizes} {activation}".rstrip()
    return {"Normalize": "normalization"}.get(kind, kind or "a module without type")


def _pooling(config: Mapping[str, Any]) -> str:
    named = config.get("pooling_mode")
    if named:
        modes = named if isinstance(named, list) else [named]
    else:
        chosen = [k for k, v in config.items() if k.startswith(_MODE) and v is True]
        modes = [key.removeprefix(_MODE) for key in chosen]
    return " + ".join(_OURS.get(str(mode), str(mode)) for mode in modes) or "mean"


def _of_texts(config: Mapping[str, Any]) -> list[str]:
    parts = []
    if config.get("max_seq_length"):
        parts.append(f"max_seq_length {config['max_seq_length']}")
    # The text is lower-cased before the tokenizer sees it.
    if config.get("do_lower_case"):
        parts.append("lower case")
    return parts


def _prompts(config: Mapping[str, Any]) -> list[str]:
    prompts = config.get("prompts")
    # Newer folders have empty ones for `query` and `document`.
    given = [f"{name} {text!r}" for name, text in _items(prompts) if text]
    if not given:
        return []
    default = config.get("default_prompt_name")
    return [f"prompts {', '.join(given)}" + (f", default {default}" if default else "")]


def _items(value: object) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []
