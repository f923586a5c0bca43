"""The served OpenAPI document is what is served: schemathesis asks for everything in it, rightly and wrongly.

No answer may be a server error, or one that the document does not know: another status, type or shape. And nothing in
it answers who may not ask. (What fits a schema may still be refused: a file that is not there, say.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from p2premap.client.private import PrivateCluster
from p2premap.web.app import ENDPOINTS
from p2premap.web.endpoints import document
from p2premap.web.world import Update
from tests.cluster import private
from tests.web.api import Api, events, soon

EVENTS, DRAIN = "/api/v1/events", "/api/v1/nodes/{node}/drain"
ANSWER_S = 60
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    negative_data_rejection,
    unsupported_method,
]
SOME = settings(
    max_examples=2,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,  # two examples find nothing by chance; what a generator's next release thinks of would
)

schema = schemathesis.openapi.from_dict(document(ENDPOINTS, "http://127.0.0.1"))
usual = schema.exclude(path=EVENTS).exclude(path=DRAIN)
stream = schema.include(path=EVENTS)
drain = schema.include(path=DRAIN)


def asking(api: Api) -> dict[str, Any]:
    """Where and as whom."""
    headers = {"Authorization": f"Bearer {api.token}", "Host": api.host}
    return {"base_url": f"http://127.0.0.1:{api.port}", "headers": headers}


@pytest.mark.slow
@usual.parametrize()
@SOME
def test_what_is_documented_is_what_is_served(case: schemathesis.Case, api: Api) -> None:
    case.call_and_validate(**asking(api), checks=CHECKS, timeout=ANSWER_S)


@stream.parametrize()
@SOME
def test_the_stream_of_events_as_far_as_it_was_listened_to(case: schemathesis.Case, api: Api) -> None:
    with requests.request(**case.as_transport_kwargs(**asking(api)), stream=True, timeout=ANSWER_S) as answer:
        if answer.ok:  # it has no end
            answer._content = b"".join(iter(lambda: answer.raw.readline(), b"\n"))
            (data,) = [line for line in answer.content.splitlines() if line.startswith(b"data: ")]
            assert msgspec.json.decode(data[6:], type=Update).nodes, "what is in an event is documented"
        case.validate_response(answer, checks=CHECKS)


@pytest.fixture(scope="module")
def two() -> Iterator[PrivateCluster]:
    """Nodes that may be drained."""
    with private(("d1", "d2")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def one_of_two(two: PrivateCluster) -> Api:
    return Api(two.home, "d1")


@drain.parametrize()
@SOME
def test_draining_who_is_not_there(case: schemathesis.Case, one_of_two: Api) -> None:
    case.call_and_validate(**asking(one_of_two), checks=CHECKS, timeout=ANSWER_S)


def test_draining_a_node(two: PrivateCluster, one_of_two: Api) -> None:
    case = schema[DRAIN]["POST"].Case(path_parameters={"node": "d2"}, body={"wait_s": 1})
    answer = case.call_and_validate(**asking(one_of_two), checks=CHECKS, timeout=ANSWER_S)
    assert answer.status_code == 202
    drained = psutil.Process(two.pids[1])
    soon(lambda: drained.status() == psutil.STATUS_ZOMBIE)
    soon(lambda: one_of_two.get("/nodes/d2").json.get("state") != "alive")


def test_every_event_is_documented_and_the_last_says_that_the_node_stops(two: PrivateCluster, one_of_two: Api) -> None:
    with one_of_two.stream("/events") as stream:
        told = events(stream)
        first = next(told)
        two.stop("d1")
        found = [first, *told]
    assert (found[0].name, found[-1].name) == ("snapshot", "bye")
    for event in found:
        msgspec.convert(event.data, Update)


# --- who may not --------------------------------------------------------------------------------------------------

SAMPLES = {"job": "00000000", "node": "nobody", "task": "0.0", "part": "0"}
PUBLIC = {("GET", "/alive"), ("GET", "/login"), ("GET", "/api/v1/openapi.json")}


def test_nothing_that_is_served_answers_who_may_not_ask(api: Api) -> None:
    served = api.get("/openapi.json").json["paths"]
    operations = [(method.upper(), path) for path, methods in served.items() for method in methods]
    assert {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS} == set(operations)
    public = {one for one in operations if served[one[1]][one[0].lower()].get("security") == []}
    assert public == PUBLIC
    for method, path in operations:
        place = re.sub(r"\{(\w+)\}", lambda found: SAMPLES[found[1]], path)

        def status(**headers: str | None) -> int:
            return api.ask(method, place, headers=headers).status  # noqa: B023

        if (method, path) not in public:
            assert status(Authorization=None) == 401, (method, path)
        assert status(Host="evil.example") == 421, (method, path)
        assert status(Host=f"evil.example:{api.port}") == 421, (method, path)
        assert status(Origin="http://evil.example") == 403, (method, path)
        assert status(Origin=f"http://localhost:{api.port + 1}") == 403, (method, path)
