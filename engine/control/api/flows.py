"""Flows: made only if they can run, and run from then on."""

from dataclasses import replace

from engine.catalog.resources import Json, Resource
from engine.control import to_flow
from engine.control.api.collection import Collection, changed, router_of
from engine.control.api.connections import plain
from engine.control.api.fit import check_flow
from engine.control.api.items import item, made
from engine.control.api.plane import AppState, Shared
from engine.control.api.preconditions import Bound, bound_to
from engine.control.api.problems import invalid, unsupported
from engine.control.run_payload import payload
from engine.control.validation import DISABLED, ENABLED

_ACTIONS = {"enable": ENABLED, "disable": DISABLED}
_FIELDS = ("name", "description", "scheduleParams", "transformations", "options")


def _check(plane: AppState, resource: Resource) -> None:
    check_flow(plane, resource, plane.resources)


def _show(plane: AppState, resource: Resource) -> Json:
    """As in the examples: with what it inherits, and its last run."""
    return item(
        resource,
        inheritedAttributes=_inherited(plane, resource.body),
        runs=f"/runs?property=flowId=={resource.id}",
        lastOperation={
            "started": resource.updated_at,
            "updated": resource.updated_at,
            "operation": "create" if resource.created_at == resource.updated_at else "update",
        },
        **_last_run(plane, resource),
    )


def _inherited(plane: AppState, body: Json) -> Json:
    sources, targets = list[Json](), list[Json]()
    for id_ in body["sourceConnectionIds"]:
        source = plane.resources.get("sourceConnections", id_).body
        base = plane.resources.get("connections", source["baseConnectionId"])
        spec = base.body["connectionSpec"]
        sources.append(
            {
                "id": id_,
                "connectionSpec": source["connectionSpec"],
                "baseConnection": {"id": base.id, "connectionSpec": spec},
            }
        )
    for id_ in body["targetConnectionIds"]:
        target = plane.resources.get("targetConnections", id_).body
        targets.append({"id": id_, "connectionSpec": target["connectionSpec"]})
    direction = {"isSourceFlow": True, "isDestinationFlow": False}
    return {
        "sourceConnections": sources,
        "targetConnections": targets,
        "properties": direction,
    }


def _last_run(plane: AppState, resource: Resource) -> Json:
    history = plane.catalog.history(to_flow.name_of(resource), limit=1)
    if not history:
        return {}
    run = payload(history[0])
    details = {"id": run["id"], "state": history[0].status}
    return {"lastRunDetails": details | run["metrics"]["durationSummary"]}


def _seal(plane: AppState, body: Json, before: Resource | None) -> tuple[Json, None]:
    """It has no secrets; when it is made, nor a state: that is an action's."""
    if before is None and "state" in body:
        raise invalid("1410-400", "`State` is not allowed in the create flow request.")
    return plain(plane, body, before)


router = router_of(Collection("flows", _FIELDS, _check, _show, _seal))


@router.post("/{id}/action", openapi_extra=bound_to(required=False))
def action(plane: Shared, id: str, op: str, bound: Bound) -> Json:  # noqa: A002 - its name in the path
    """Let a flow run (ENABLE), or let it rest (DISABLE)."""
    state = _ACTIONS.get(op.lower())
    if state is None:
        raise unsupported(op, ("ENABLE", "DISABLE"))

    def edit(before: Resource) -> Resource:
        was = before.body.get("state", ENABLED)
        if was == state:
            raise invalid(
                "1422-400",
                f"The action {op.lower()} cannot be applied on the current state {was}. "
                "Please update the action and try again.",
            )
        after = replace(before, body=before.body | {"state": state})
        if state == ENABLED:
            _check(plane, after)
        return after

    return made(changed(plane, "flows", id, bound, edit))
