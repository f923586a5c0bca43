"""The table of everything that is served, from which both the routes and the OpenAPI document are made."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from p2premap import __version__
from p2premap.web.problems import MEDIA, ProblemShape

if TYPE_CHECKING:
    from p2premap.web.service import Service

Json = dict[str, Any]
Shaped = type[msgspec.Struct]

_PARAMETER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_REFERENCES: Final = "#/components/schemas/{name}"

PATHS: Final[dict[str, tuple[str, Json]]] = {
    "job": ("A job's id, or its first four or more digits.", {"type": "string", "pattern": "^[0-9a-f]{4,32}$"}),
    "node": (
        "A node's id, its first four or more digits, or its name.",
        {"type": "string", "minLength": 1, "maxLength": 63},
    ),
    "task": ("Stage and task, such as 0.17.", {"type": "string", "pattern": r"^[0-9]{1,4}\.[0-9]{1,9}$"}),
    "part": ("The part's number.", {"type": "integer", "minimum": 0, "maximum": 2147483647}),
}
"""What stands for what in a path."""

ALWAYS: Final = {
    400: "the request makes no sense",
    401: "no token, and no cookie that is good",
    403: "from another origin",
    421: "under a name that is not this node's",
    429: "too many requests",
    503: "the node stops, or does not answer",
}
"""What may happen to any request."""
WITH_BODY: Final = {413: "the body is too long", 415: "the body is not JSON", 422: "the body has a wrong shape"}


@dataclass(frozen=True, slots=True)
class Call:
    """A request that may be answered: its path and its query are what the table says, and so is its body."""

    web: Service
    request: Request
    path: dict[str, str]
    query: Any = None
    body: Any = None


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Media:
    """An answer, or a body, that is not JSON.

    Args:
        events: of server-sent events, what their data is; a struct's type for JSON.
    """

    type: str
    empty: bool = False
    events: Shaped | None = None


NOTHING: Final = Media("", empty=True)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One thing to ask for.

    Args:
        answers: by status; a struct's type for JSON.
        query: a struct whose fields are what may be asked.
        body: of the request; a struct's type for JSON.
        optional_body: it may be left out.
        fails: how it may, besides `ALWAYS`.
        headers: that may be sent, and that programs should know of.
        public: it needs no token.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answers: dict[int, type | Media]
    query: type[msgspec.Struct] | None = None
    body: type | Media | None = None
    optional_body: bool = False
    fails: dict[int, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    public: bool = False


def document(endpoints: list[Endpoint], origin: str) -> Json:
    """The OpenAPI document (3.1)."""
    named = [t for e in endpoints for t in (*e.answers.values(), e.body, e.query)]
    types = {t for t in (*named, *(m.events for m in named if isinstance(m, Media))) if isinstance(t, type)}
    ordered = sorted(types | {ProblemShape}, key=lambda one: one.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REFERENCES)
    schema_of = dict(zip(ordered, schemas, strict=True))
    components = _plain_patterns(components)
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        plain = _PARAMETER.sub(r"{\1}", endpoint.path)
        paths.setdefault(plain, {})[endpoint.method.lower()] = _operation(endpoint, schema_of, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "p2premap", "version": __version__, "description": "See docs/api.md."},
        "servers": [{"url": origin}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _plain_patterns(schema: Any) -> Any:  # noqa: ANN401  (JSON)
    """The same with ends of patterns as JSON Schema, which has ECMAScript's, writes them."""
    if isinstance(schema, dict):
        return {
            key: value.replace(r"\Z", "$") if key == "pattern" and isinstance(value, str) else _plain_patterns(value)
            for key, value in schema.items()
        }
    return [_plain_patterns(one) for one in schema] if isinstance(schema, list) else schema


def _operation(endpoint: Endpoint, schema_of: dict[type, Json], components: Json) -> Json:
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "description": PATHS[name][0], "schema": PATHS[name][1]}
        for name in _PARAMETER.findall(endpoint.path)
    ]
    if endpoint.query is not None:
        described = components[endpoint.query.__name__]
        parameters += [
            {"name": name, "in": "query", "required": name in described.get("required", ()), "schema": _flat(schema)}
            for name, schema in described["properties"].items()
        ]
    parameters += [
        {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in endpoint.headers.items()
    ]
    operation: Json = {
        "summary": endpoint.summary,
        "operationId": endpoint.handler.__name__,
        "parameters": parameters,
        "responses": {
            **{
                str(status): {"description": text, "content": {MEDIA: {"schema": schema_of[ProblemShape]}}}
                for status, text in sorted(_fails(endpoint).items())
            },
            **{str(status): _answer(kind, schema_of) for status, kind in endpoint.answers.items()},
        },
    }
    if endpoint.public:
        operation["security"] = []
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": not endpoint.optional_body,
            "content": _content(endpoint.body, schema_of),
        }
    return operation


def _fails(endpoint: Endpoint) -> dict[int, str]:
    return {**ALWAYS, 502: "another node does not answer", **(WITH_BODY if endpoint.body else {}), **endpoint.fails}


def _flat(schema: Json) -> Json:
    """A query has no null: what is left out is not there."""
    if "anyOf" in schema:
        kinds = [kind for kind in schema["anyOf"] if kind != {"type": "null"}]
        if len(kinds) == 1:
            return {**kinds[0]}
    return {key: value for key, value in schema.items() if key != "default" or value is not None}


def _answer(kind: type | Media, schema_of: dict[type, Json]) -> Json:
    if isinstance(kind, Media) and kind.empty:
        return {"description": "done" if not kind.type else kind.type}
    return {"description": "as asked", "content": _content(kind, schema_of)}


def _content(kind: type | Media, schema_of: dict[type, Json]) -> Json:
    if isinstance(kind, Media) and kind.events is not None:
        return {kind.type: {"schema": _event(schema_of[kind.events])}}
    if isinstance(kind, Media):
        plain = {"type": "object"} if kind.type == "application/json" else {"type": "string", "format": "binary"}
        return {kind.type: {"schema": plain}}
    return {"application/json": {"schema": schema_of[kind]}}


def _event(data: Json) -> Json:
    """One event of a stream, by its fields; its data is JSON in a string."""
    text: Json = {"type": "string"}
    return {
        "type": "object",
        "properties": {
            "id": text,
            "event": text,
            "data": {**text, "contentMediaType": "application/json", "contentSchema": data},
            "retry": {"type": "integer"},
        },
        "required": ["event", "data"],
        "additionalProperties": False,
    }
