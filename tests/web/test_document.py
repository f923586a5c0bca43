"""The served OpenAPI document is what is served: schemathesis asks for everything in it, rightly and wrongly.

No answer may be a server error, or one that the document does not know: another status, type or shape. Draining and the
stream without end are asked elsewhere. (What fits a schema may still be refused: a file that is not there, say.)
"""

from __future__ import annotations

import pytest
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

from p2premap.web.app import ENDPOINTS
from p2premap.web.endpoints import document
from tests.web.api import Api

schema = schemathesis.openapi.from_dict(document(ENDPOINTS, "http://127.0.0.1"))
schema = schema.exclude(path_regex="events|drain")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    negative_data_rejection,
    unsupported_method,
]


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=2, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
def test_what_is_documented_is_what_is_served(case: schemathesis.Case, api: Api) -> None:
    headers = {"Authorization": f"Bearer {api.token}", "Host": api.host}
    case.call_and_validate(base_url=f"http://127.0.0.1:{api.port}", headers=headers, checks=CHECKS)
