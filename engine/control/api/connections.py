"""Base, source and target connections: their checks, their secrets and their items."""

from typing import Any

from fastapi import APIRouter

from engine.catalog.resources import Json, Resource
from engine.config.fields import SHOWN
from engine.config.value_types import MASK, trimmed
from engine.control.api.app_state import AppState
from engine.control.api.password_leaks import check_own_texts, check_texts
from engine.control.api.problems import invalid
from engine.control.api.resource_routes import ResourceRoutes
from engine.control.api.serializers import item
from engine.control.to_flow import check_host
from engine.control.validation import (
    PROVIDER,
    check_connection,
    check_parts,
    check_source,
    credentials_of,
    has_project_as_zone,
)
from engine.log import log
from engine.model.flow import HOST

_SECRETS = ("password", "secret", "token", "apikey", "credential", "privatekey")


def without_secrets(value: Any) -> Any:
    """Return a value of a body with every field masked whose name is that of a secret (P7)."""
    if isinstance(value, dict):
        return {
            key: MASK if _names_secret(key) else without_secrets(each)
            for key, each in value.items()
        }
    return [without_secrets(each) for each in value] if isinstance(value, list) else value


def _names_secret(key: str) -> bool:  # `api-key`, `apiKey`, `db_password`
    letters = "".join(each for each in key.lower() if each.isalnum())
    return any(word in letters for word in _SECRETS)


def encrypt_nothing(state: AppState, body: Json, before: Resource | None) -> tuple[Json, None]:
    """Return a body that has no secrets; raise Problem for one with a connection's password."""
    body = without_secrets(body)
    check_texts(state, body)
    return body, None


def _encrypt(state: AppState, body: Json, before: Resource | None) -> tuple[Json, bytes | None]:
    """Encrypt everything in `auth.params`, but for SHOWN fields.

    A mask that a client sends back stands for the secret from before, for the same host and user
    only. Else a client with the token, but without the password, could have it sent to another
    host (P7).
    """
    auth = body.get("auth")
    params = auth.get("params") if isinstance(auth, dict) else None
    if not isinstance(auth, dict) or not isinstance(params, dict):
        return encrypt_nothing(state, body, before)
    params = {k: trimmed(v) if isinstance(v, str) else v for k, v in params.items()}
    body = body | {"auth": auth | {"params": params}}
    hidden = {name: value for name, value in params.items() if name not in SHOWN}
    masked = {name for name, value in hidden.items() if value == MASK}
    secret_before = before.secret if before and masked else None
    stored: Json = state.secret_store.try_decrypt(secret_before) or {}
    if before and masked & stored.keys() and _receiver(body) != _receiver(before.body):
        raise invalid(
            "1304-400",
            f"The mandatory field auth.params.{min(masked & stored.keys())} is not provided. It "
            "was given for another host or another user name: please provide it again.",
        )
    secret = {name: value for name, value in hidden.items() if name not in masked}
    secret |= {name: stored[name] for name in masked if name in stored}
    shown = {name: MASK if name in hidden else value for name, value in params.items()}
    body = without_secrets(body) | {"auth": without_secrets(auth) | {"params": shown}}
    check_own_texts(body, secret, str(params.get("username", "")))
    check_texts(state, body)
    return body, state.secret_store.encrypt(secret) if secret else None


def _receiver(body: Json) -> Json:
    return {"host": HOST} | credentials_of(body, {"password": MASK})


def _check_base(state: AppState, resource: Resource) -> None:
    secret = state.secret_store.decrypt(resource.secret) if resource.secret else {}
    check_connection(resource.body, secret)
    check_host(resource, state.hosts)


def _check_source(state: AppState, resource: Resource) -> None:
    check_source(resource.body)
    state.resources.get("connections", resource.body["baseConnectionId"])
    if has_project_as_zone(resource.body):
        log.warning("the time zone is the project's number: UTC is meant", source=resource.id)


def _check_target(state: AppState, resource: Resource) -> None:
    check_parts("targetConnections", resource.body)
    state.resources.get("dataSets", resource.body["params"]["dataSetId"])


def _serialize_source(state: AppState, resource: Resource) -> Json:
    spec = resource.body["connectionSpec"]
    base = {"id": resource.body["baseConnectionId"], "connectionSpec": spec}
    return item(resource, providerRefId=PROVIDER, inheritedAttributes={"baseConnection": base})


router = APIRouter()
for routes in (
    ResourceRoutes(
        "connections", ("name", "description", "auth"),
        _check_base, lambda _, base: item(base), _encrypt,
    ),
    ResourceRoutes(
        "sourceConnections", ("name", "description", "data", "params"),
        _check_source, _serialize_source, encrypt_nothing,
    ),
    ResourceRoutes(
        "targetConnections", ("name", "description", "data", "params"),
        _check_target, lambda _, target: item(target, providerRefId=PROVIDER), encrypt_nothing,
    ),
):  # fmt: skip
    router.include_router(routes.router())
