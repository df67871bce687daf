"""Connections to Mixpanel, what is read through them, and where it goes."""

from typing import Any

from fastapi import APIRouter

from engine.catalog.resources import Json, Resource
from engine.control.api.app_state import AppState
from engine.control.api.password_leaks import check_own_texts, check_texts, opened
from engine.control.api.problems import invalid
from engine.control.api.resource_routes import Collection, router_of
from engine.control.api.serializers import item
from engine.control.to_flow import check_host
from engine.control.validation import (
    MASK,
    PROVIDER,
    SHOWN,
    check_connection,
    check_source,
    check_target,
    credentials_of,
    has_project_as_zone,
)
from engine.log import log
from engine.model.flow import HOST

_SECRETS = ("password", "secret", "token", "apikey", "credential", "privatekey")


def without_secrets(value: Any) -> Any:
    """A body's value, without what is named like a secret: it has no business there (P7)."""
    if isinstance(value, dict):
        return {
            key: MASK if _is_secret(key) else without_secrets(each) for key, each in value.items()
        }
    return [without_secrets(each) for each in value] if isinstance(value, list) else value


def _is_secret(key: str) -> bool:
    """Whether a name is that of a secret, with or without a sign between its words."""
    letters = "".join(each for each in key.lower() if each.isalnum())
    return any(word in letters for word in _SECRETS)


def plain(state: AppState, body: Json, before: Resource | None) -> tuple[Json, None]:
    """A body that has no secrets of its own; Problem for one that holds a connection's."""
    body = without_secrets(body)
    check_texts(state, body)
    return body, None


def _sealed(state: AppState, body: Json, before: Resource | None) -> tuple[Json, bytes | None]:
    """Everything in `auth.params` is a secret, but for what is known to be none.

    What a client had shown, a mask, and sends back as it is, is the secret from before: for the
    host and the user that it was given for, and no other. Else whoever knows the token, and not
    the password, could have it sent to himself (P7).
    """
    auth = body.get("auth")
    params = auth.get("params") if isinstance(auth, dict) else None
    if not isinstance(auth, dict) or not isinstance(params, dict):
        return plain(state, body, before)
    params = {key: _trimmed(value) for key, value in params.items()}
    body = body | {"auth": auth | {"params": params}}
    given = {name: value for name, value in params.items() if name not in SHOWN}
    masked = {name for name, value in given.items() if value == MASK}
    kept = opened(state, before) if masked else {}
    if before and masked & kept.keys() and _receiver(body) != _receiver(before.body):
        raise invalid(
            "1304-400",
            f"The mandatory field auth.params.{min(masked & kept.keys())} is not provided. It was "
            "given for another host or another user name: please provide it again.",
        )
    secret = {name: value for name, value in given.items() if name not in masked}
    secret |= {name: kept[name] for name in masked if name in kept}
    shown = {name: MASK if name in given else value for name, value in params.items()}
    body = without_secrets(body) | {"auth": without_secrets(auth) | {"params": shown}}
    check_own_texts(body, secret, str(params.get("username", "")))
    check_texts(state, body)
    return body, state.secret_store.seal(secret) if secret else None


def _trimmed(value: Any) -> Any:
    """A value without the line ends that a file or a shell leaves round it."""
    return value.strip("\r\n") if isinstance(value, str) else value


def _receiver(body: Json) -> Json:
    """Who gets the secrets: a host, and there a user."""
    return {"host": HOST} | credentials_of(body, {"password": MASK})


def _check_base(state: AppState, resource: Resource) -> None:
    check_connection(
        resource.body, state.secret_store.open(resource.secret) if resource.secret else {}
    )
    check_host(resource, state.hosts)


def _check_source(state: AppState, resource: Resource) -> None:
    check_source(resource.body)
    state.resources.get("connections", resource.body["baseConnectionId"])
    if has_project_as_zone(resource.body):
        log.warning("the time zone is the project's number: UTC is meant", source=resource.id)


def _check_target(state: AppState, resource: Resource) -> None:
    check_target(resource.body)
    state.resources.get("dataSets", resource.body["params"]["dataSetId"])


def _show(state: AppState, resource: Resource) -> Json:
    return item(resource)


def _show_source(state: AppState, resource: Resource) -> Json:
    spec = resource.body["connectionSpec"]
    base = {"id": resource.body["baseConnectionId"], "connectionSpec": spec}
    return item(resource, providerRefId=PROVIDER, inheritedAttributes={"baseConnection": base})


def _show_target(state: AppState, resource: Resource) -> Json:
    return item(resource, providerRefId=PROVIDER)


router = APIRouter()
for each in (
    Collection("connections", ("name", "description", "auth"), _check_base, _show, _sealed),
    Collection(
        "sourceConnections", ("name", "description", "data", "params"),
        _check_source, _show_source, plain,
    ),
    Collection(
        "targetConnections", ("name", "description", "data", "params"),
        _check_target, _show_target, plain,
    ),
):  # fmt: skip
    router.include_router(router_of(each))
