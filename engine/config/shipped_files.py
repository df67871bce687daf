"""The mapping sets and schemas that ship with the program, and those in files of the user's."""

import json
from pathlib import Path
from typing import Any

from engine.config.tables import read_document, reading
from engine.errors import InputError

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = {"mapping": "mappings", "schema": "schemas"}


def find(kind: str, wanted: str) -> tuple[str, Any]:
    """Return the name and the JSON document of a mapping set or a schema.

    `kind` is "mapping" or "schema"; `wanted` the name of a shipped one, or a path. InputError if
    there is none, or if the file is not JSON.
    """
    shipped = _shipped(kind)
    path = shipped.get(wanted, Path(wanted))
    with reading(path):
        exists = path.exists()
    if not exists:
        raise InputError(
            f'There is no {kind} "{wanted}". Give the path of a JSON file, or the name of a '
            f"shipped one: {', '.join(shipped) or 'none'}."
        )
    return path.name.removesuffix(".json"), read_document(path, json.loads, "JSON")


def _shipped(kind: str) -> dict[str, Path]:
    """List shipped files by name: inside an installed package, beside it in a checkout."""
    folders = [root / _FOLDERS[kind] for root in (_PACKAGE, _PACKAGE.parent)]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    files = sorted(folder.glob("*.json"))
    return {file.stem: file for file in files if not file.name.endswith(".cases.json")}
