"""Open what a flow names: its mapping set, its schema and its table, or raise InputError."""

from typing import TYPE_CHECKING, Any

from engine.config.shipped_files import find
from engine.errors import InputError
from engine.model.flow import Flow

if TYPE_CHECKING:  # they import Arrow, which would delay every --help
    from engine.dataset.dataset import Dataset
    from engine.sync.pull import Rules


def rules_of(flow: Flow) -> "Rules":
    """Return the mapping set and the schema of `flow`, compiled so that every mistake is found."""
    from engine.sync.pull import Rules
    from engine.transform.schema import Schema

    found: dict[str, tuple[str, Any]] = {}
    wrong = list[str]()
    for kind, wanted in (("mapping", flow.mapping), ("schema", flow.schema)):
        try:
            found[kind] = find(kind, wanted) if isinstance(wanted, str) else wanted
            if kind == "schema" and wrong:  # so that the error names its mistakes as well
                Schema.parse(*found[kind])
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        raise InputError("\n".join(wrong))
    rules = Rules(**found)
    rules.compile()
    return rules


def dataset_of(flow: Flow, rules: "Rules") -> "Dataset":
    """Return the table of `flow`, which need not exist."""
    from engine.dataset.dataset import Dataset
    from engine.dataset.storage.local import local_path
    from engine.sync.pull import table_schema

    try:
        return Dataset(local_path(flow.dataset), table_schema(rules), flow.source)
    except OSError as error:
        raise InputError(
            f"The dataset {flow.dataset} cannot be used ({error.strerror}). Give another directory."
        ) from error
