"""Check whether a flow can run, as it is or after a change, without a request to Mixpanel."""

from pathlib import Path

from engine.catalog.resources import Resource, Resources
from engine.control import to_flow
from engine.control.api.app_state import AppState
from engine.control.api.problems import invalid
from engine.control.validation import DISABLED
from engine.dataset.storage.local import canonical
from engine.errors import InputError
from engine.mapping import mapping_set
from engine.model.flow import Flow
from engine.sync import open_flow
from engine.transform.schema import Schema


def check_flow(state: AppState, resource: Resource, resources: Resources | None = None) -> None:
    """Raise InvalidResource, NotFound or Problem if a flow cannot run with these resources."""
    resources = resources or state.resources
    flow = to_flow.flow_of(resource, resources, state.secret_store, state.datasets, state.hosts)
    _refuse_shared_table(state, flow)
    assert isinstance(flow.mapping, tuple)
    assert isinstance(flow.schema, tuple)
    try:
        mapping_set.parse(*flow.mapping, Schema.parse(*flow.schema))
    except InputError as error:
        raise invalid("1419-400", f"Error while validating mapping. {error}") from None
    if Path(canonical(flow.dataset)).exists():
        _check_table(flow)


def check_users(state: AppState, changed: Resource) -> None:
    """Raise if a flow that uses a resource could not run once that is `changed`."""
    resources = _ChangedResources(state, changed)
    for kind, id_ in resources.users(changed.id):
        user = resources.get(kind, id_)
        if kind == "flows" and user.body.get("state") != DISABLED:
            check_flow(state, user, resources)


class _ChangedResources(Resources):
    def __init__(self, state: AppState, changed: Resource) -> None:
        super().__init__(state.catalog)
        self._changed = changed

    def get(self, kind: str, id_: str) -> Resource:
        """Return the changed resource for its id, else the stored one; NotFound without one."""
        changed = self._changed
        return changed if (kind, id_) == (changed.kind, changed.id) else super().get(kind, id_)


def _check_table(flow: Flow) -> None:
    from engine.dataset import positions
    from engine.sync import incremental  # they import Arrow, which an idle daemon spares

    dataset = open_flow.dataset_of(flow, open_flow.rules_of(flow))
    positions.check_owner(flow, dataset)
    incremental.check_kind(flow, dataset)


def _refuse_shared_table(state: AppState, flow: Flow) -> None:
    """Raise if another flow has the table: the two would replace each other's days (P4)."""
    place = canonical(flow.dataset)
    for other in state.resources.all("flows"):
        if to_flow.name_of(other) == flow.name:
            continue
        if place == to_flow.table_of(other, state.resources, state.datasets):
            raise invalid(
                "1400-400",
                f"The dataset of the target connection is the table of flow {other.id}: "
                "two flows cannot share one. Make another dataset.",
            )
