"""Flows: a flow that cannot run is refused."""

from dataclasses import replace

from engine.catalog.resources import Json, Resource
from engine.control import to_flow
from engine.control.api.app_state import AppState, State
from engine.control.api.connections import encrypt_nothing
from engine.control.api.etag_checks import Bound, bound_to
from engine.control.api.flow_checks import check_flow
from engine.control.api.problems import invalid, unsupported
from engine.control.api.resource_routes import ResourceRoutes, changed
from engine.control.api.serializers import item, made
from engine.control.run_payload import payload
from engine.control.validation import DISABLED, ENABLED

_ACTIONS = {"enable": ENABLED, "disable": DISABLED}
_FIELDS = ("name", "description", "scheduleParams", "transformations", "options")


def _serialize(state: AppState, resource: Resource) -> Json:
    return item(
        resource,
        inheritedAttributes=_inherited(state, resource.body),
        runs=f"/runs?property=flowId=={resource.id}",
        lastOperation={
            "started": resource.updated_at,
            "updated": resource.updated_at,
            "operation": "create" if resource.created_at == resource.updated_at else "update",
        },
        **_last_run(state, resource),
    )


def _inherited(state: AppState, body: Json) -> Json:
    sources, targets = list[Json](), list[Json]()
    for id_ in body["sourceConnectionIds"]:
        source = state.resources.get("sourceConnections", id_).body
        base = state.resources.get("connections", source["baseConnectionId"])
        spec = base.body["connectionSpec"]
        sources.append(
            {
                "id": id_,
                "connectionSpec": source["connectionSpec"],
                "baseConnection": {"id": base.id, "connectionSpec": spec},
            }
        )
    for id_ in body["targetConnectionIds"]:
        target = state.resources.get("targetConnections", id_).body
        targets.append({"id": id_, "connectionSpec": target["connectionSpec"]})
    return {
        "sourceConnections": sources,
        "targetConnections": targets,
        "properties": {"isSourceFlow": True, "isDestinationFlow": False},
    }


def _last_run(state: AppState, resource: Resource) -> Json:
    history = state.catalog.history(to_flow.name_of(resource), limit=1)
    if not history:
        return {}
    run = payload(history[0])
    details = {"id": run["id"], "state": history[0].status}
    return {"lastRunDetails": details | run["metrics"]["durationSummary"]}


def _encrypt(state: AppState, body: Json, before: Resource | None) -> tuple[Json, None]:
    if before is None and "state" in body:
        raise invalid("1410-400", "`State` is not allowed in the create flow request.")
    return encrypt_nothing(state, body, before)


router = ResourceRoutes("flows", _FIELDS, check_flow, _serialize, _encrypt).router()


@router.post("/{id}/action", openapi_extra=bound_to(required=False))
def action(state: State, id: str, op: str, bound: Bound) -> Json:  # noqa: A002 - its name in the path
    """Enable or disable a flow (ENABLE, DISABLE)."""
    target_state = _ACTIONS.get(op.lower())
    if target_state is None:
        raise unsupported(op, ("ENABLE", "DISABLE"))

    def edit(before: Resource) -> Resource:
        was = before.body.get("state", ENABLED)
        if was == target_state:
            raise invalid(
                "1422-400",
                f"The action {op.lower()} cannot be applied on the current state {was}. "
                "Please update the action and try again.",
            )
        after = replace(before, body=before.body | {"state": target_state})
        if target_state == ENABLED:
            check_flow(state, after)
        return after

    return made(changed(state, "flows", id, bound, edit))
