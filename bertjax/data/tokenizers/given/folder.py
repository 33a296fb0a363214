"""The JSON files of a model folder of `transformers`."""

from functools import cached_property

from etils import epath

from bertjax.data.tokenizers.vocabulary import ENGINE_FILE, SETTINGS_FILE
from bertjax.storage import Json, read_json_if_there

MODEL_FILE = "config.json"


class Folder:
    """The files of a folder that say how text is split, each read once; empty where missing.

    A file is read when it is first asked for. Raises `UserError` naming one that cannot be read.
    """

    def __init__(self, path: epath.Path):
        self.path = path

    @cached_property
    def settings(self) -> Json:
        """The object in `tokenizer_config.json`."""
        return read_json_if_there(self.path / SETTINGS_FILE)

    @cached_property
    def engine(self) -> Json:
        """The object in `tokenizer.json`."""
        return read_json_if_there(self.path / ENGINE_FILE)

    @cached_property
    def model(self) -> Json:
        """The object in `config.json`."""
        return read_json_if_there(self.path / MODEL_FILE)
