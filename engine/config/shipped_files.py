"""The mapping sets and schemas that ship with the program, and those in files of the user's."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from engine.config.toml_tables import read_document, reading
from engine.errors import InputError
from engine.transform.schema_refs import RefError, bundled

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = {"mapping": "mappings", "schema": "schemas"}


def find(kind: str, wanted: str) -> tuple[str, Any]:
    """Return the name and the JSON document of a mapping set or a schema.

    `kind` is "mapping" or "schema"; `wanted` the name of a shipped one, or a path. A schema has
    the documents among its definitions that it names by `$ref`: standard ones, and shipped schemas.
    InputError if there is none, if the file is not JSON, or if a `$ref` leads nowhere.
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
    document = read_document(path, json.loads, "JSON")
    if kind == "schema" and isinstance(document, dict):
        try:
            document = bundled(document, _lookup)
        except RefError as error:
            raise InputError(f"The schema {path} cannot be used: {error}.") from None
    return path.name.removesuffix(".json"), document


@cache
def standard() -> dict[str, Any]:
    """Return XDM's own classes, behaviors, field groups and data types by `$id`."""
    folder = _folder("schema") / "xdm"
    documents = [read_document(file, json.loads, "JSON") for file in sorted(folder.glob("*.json"))]
    return {document["$id"]: document for document in documents}


def _lookup(id_: str) -> Any:
    """Return a standard document or a shipped schema by its `$id`; None if there is none."""
    if id_ in standard():
        return standard()[id_]
    documents = (read_document(file, json.loads, "JSON") for file in _shipped("schema").values())
    return next((each for each in documents if each.get("$id") == id_), None)


def _shipped(kind: str) -> dict[str, Path]:
    """List shipped files by name."""
    files = sorted(_folder(kind).glob("*.json"))
    return {file.stem: file for file in files if not file.name.endswith(".cases.json")}


def _folder(kind: str) -> Path:
    """Return the folder of shipped files: inside an installed package, beside it in a checkout."""
    folders = [root / _FOLDERS[kind] for root in (_PACKAGE, _PACKAGE.parent)]
    return next((folder for folder in folders if folder.is_dir()), folders[0])
