"""Documents of the schema registry: those that clients and files made, and XDM's own.

A schema is stored as it was sent, with `$ref` to others; whatever uses it needs all in one.
"""

from collections.abc import Callable

from engine.catalog.resources import Json, Resource, Resources
from engine.config.shipped_files import standard
from engine.errors import InvalidResource, NotFound
from engine.transform.schema_refs import RefError, bundled

KINDS = ("schemas", "classes", "fieldgroups", "datatypes")
"""The kinds that clients make; each `$ref` leads to one of these, or to a standard document."""


class Registry:
    """All documents at the time of one request. `changed` replaces one before it is stored."""

    def __init__(self, resources: Resources, changed: Resource | None = None) -> None:
        self._resources = resources
        self._changed = changed
        self._by_id: dict[str, Resource] | None = None

    def resource(self, id_: str) -> Resource | None:
        """Return the resource that clients or files made with a `$id`, if there is one."""
        if self._by_id is None:
            self._by_id = {}
            for kind in KINDS:
                for each in self._resources.all(kind):
                    self._by_id.setdefault(str(each.body.get("$id", each.id)), each)
                    self._by_id[each.id] = each
            if self._changed:
                self._by_id[self._changed.id] = self._changed
        return self._by_id.get(id_)

    def document(self, id_: str) -> Json | None:
        """Return the document with a `$id`, if there is one."""
        if id_ in standard():
            found: Json = standard()[id_]
            return found
        resource = self.resource(id_)
        return resource.body if resource else None

    def whole(self, document: Json) -> Json:
        """Return a document with all that it names; InvalidResource where a `$ref` fails."""
        return self.checked(lambda: bundled(document, self.document))

    def checked(self, make: Callable[[], Json]) -> Json:
        """Return what `make` returns; InvalidResource for its RefError."""
        try:
            return make()
        except RefError as error:
            raise InvalidResource("1400-400", f"The schema cannot be used: {error}.") from None


def schema_named(resources: Resources, name: str) -> Resource:
    """Return the schema with an id, else with a `$id` or `meta:altId`; NotFound if none has it."""
    for schema in sorted(resources.all("schemas"), key=lambda each: each.id != name):
        if name in names_of(schema):
            return schema
    raise NotFound("schemas", name)


def names_of(schema: Resource) -> tuple[str, ...]:
    """Return the names that a schema is found by."""
    return schema.id, schema.body.get("$id", schema.id), schema.body.get("meta:altId", schema.id)


def standalone(schema: Resource, resources: Resources) -> tuple[str, Json]:
    """Return the title and the document of a schema, with all documents that it names."""
    document = Registry(resources).whole(schema.body)
    return str(schema.body.get("title") or schema.id), document
