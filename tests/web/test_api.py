"""The API on a real cluster, as a program uses it: a job from its submission to its removal, asked of any node."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from p2premap.client.private import PrivateCluster
from tests.web.api import Answer, Api, events, soon

OVER = ("done", "failed", "cancelled")


def submit(api: Api, **fields: Any) -> str:
    answer = api.post("/jobs", fields)
    assert answer.status == 201, answer.body
    assert answer.headers["location"] == f"/api/v1/jobs/{answer.json['id']}"
    return str(answer.json["id"])


def end_of(api: Api, job: str) -> dict[str, Any]:
    """The job once it is over."""

    def over() -> dict[str, Any] | None:
        found: dict[str, Any] = api.get(f"/jobs/{job}").json
        return found if found["phase"] in OVER else None

    found = soon(over)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def counted(api: Api, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job that has counted words."""
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    path.write_text("one two two three three three\n" * 200)
    job = submit(api, file="count", inputs=[str(path)], partitions=2)
    assert end_of(api, job)["phase"] == "done"
    return job


def is_problem(answer: Answer, status: int, *words: str) -> None:
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    for word in words:
        assert word in problem["detail"]


def test_who_answers(api: Api) -> None:
    root = api.get("").json
    assert root["name"] == "n1"
    assert root["origin"] == api.origin
    cluster = api.get("/cluster").json
    assert cluster["members"] == 3
    assert cluster["node"]["name"] == "n1"
    assert cluster["forks"] == []


def test_nodes(api: Api) -> None:
    page = api.get("/nodes").json
    assert [node["name"] for node in page["items"]] == ["n1", "n2", "n3"]
    assert page["next"] is None
    second = page["items"][1]
    assert api.get(f"/nodes/{second['id'][:8]}").json["name"] == "n2"
    assert api.get("/nodes/n2").json["id"] == second["id"]
    assert api.get("/nodes/n2/why").json["text"].startswith("n2 (")
    is_problem(api.get("/nodes/nobody"), 404, "nobody")


def test_pages_of_a_list(api: Api) -> None:
    names, cursor = [], ""
    while True:
        page = api.get(f"/nodes?limit=2&cursor={cursor}").json
        names += [node["name"] for node in page["items"]]
        if page["next"] is None:
            break
        cursor = page["next"]
    assert names == ["n1", "n2", "n3"]
    is_problem(api.get("/nodes?limit=0"), 400, "limit")
    is_problem(api.get("/nodes?cursor=x"), 400, "cursor")
    is_problem(api.get("/nodes?colour=red"), 400, "colour")


def test_a_node_is_steered_from_another_one(api: Api) -> None:
    changed = api.ask("PATCH", "/api/v1/nodes/n3", {"slots": 2, "refused_actions": ["resize"]})
    assert changed.status == 200
    assert changed.json["slots"] == 2
    try:
        soon(lambda: api.get("/nodes/n3").json["slots"] == 2)
        soon(lambda: api.get("/kinds").json["refused_actions"] == [{"name": "resize", "nodes": ["n3"]}])
    finally:
        api.ask("PATCH", "/api/v1/nodes/n3", {"slots": 1, "refused_actions": []})
        soon(lambda: api.get("/nodes/n3").json["slots"] == 1)
        soon(lambda: api.get("/kinds").json["refused_actions"] == [])
    is_problem(api.ask("PATCH", "/api/v1/nodes/n3", {"slots": -1}), 422, "slots")
    is_problem(api.ask("PATCH", "/api/v1/nodes/n3", {"colour": 1}), 422, "colour")


def test_a_job_from_its_submission_to_its_removal(api: Api, text: Path) -> None:
    job = submit(api, file="count", inputs=[str(text)], name="words", partitions=2, priority=5)
    found = end_of(api, job)
    assert (found["phase"], found["name"], found["progress"]) == ("done", "words", 1.0)
    assert found["options"]["priority"] == 5
    assert found["history"][-1]["leader"]["name"] == found["leader"]["name"]
    assert len(found["history"]) == 1 + found["takeovers"]
    assert len(found["replicas"]) == 3
    results = api.get(f"/jobs/{job}/results").json
    assert results["phase"] == "done"
    output = b"".join(api.ask("GET", part["href"]).body for part in results["parts"])
    assert sorted(output.decode().split()) == sorted(["one", "200", "two", "400", "three", "600"])
    assert {node for part in results["parts"] for node in part["nodes"]} <= {"n1", "n2", "n3"}
    assert api.ask("DELETE", f"/api/v1/jobs/{job}").status == 204
    is_problem(api.get(f"/jobs/{job}"), 404, "No job")
    is_problem(api.ask("DELETE", f"/api/v1/jobs/{job}"), 404)


def test_any_node_shows_it(api: Api, counted: str, three_nodes: PrivateCluster) -> None:
    other = Api(three_nodes.home, "n2")
    assert other.host != api.host
    assert end_of(other, counted)["phase"] == "done"
    parts = other.get(f"/jobs/{counted}/results").json["parts"]
    assert other.ask("GET", parts[0]["href"]).body == api.ask("GET", parts[0]["href"]).body
    assert other.ask("GET", "/api/v1/jobs", headers={"Authorization": f"Bearer {api.token}"}).status == 401


def test_lists_of_jobs(api: Api, counted: str) -> None:
    def ids(query: str) -> list[str]:
        return [job["id"] for job in api.get(f"/jobs?{query}").json["items"]]

    assert counted in ids("phase=done,failed&kind=mapreduce&name=coun")
    assert counted not in ids("phase=running")
    assert counted not in ids("kind=action")
    is_problem(api.get("/jobs?phase=asleep"), 400, "phase='asleep' does not fit: some of waiting, running, done")
    is_problem(api.get("/jobs/xyz"), 400, "xyz")
    is_problem(api.get("/jobs/00000000"), 404)


def test_what_a_client_has_is_not_sent_again(api: Api, counted: str) -> None:
    for path in (f"/jobs/{counted}", "/jobs", "/kinds", f"/jobs/{counted}/results", "/openapi.json"):

        def unchanged() -> bool:
            again = api.get(path, If_None_Match=api.get(path).headers["etag"])  # noqa: B023
            return (again.status, again.body) == (304, b"")

        soon(unchanged)  # what other tests have left may change once more in between
        assert api.get(path, If_None_Match='"other"').status == 200


def test_ranges_of_a_part(api: Api, counted: str) -> None:
    href = api.get(f"/jobs/{counted}/results").json["parts"][0]["href"]
    whole = api.ask("GET", href)
    assert whole.headers["accept-ranges"] == "bytes"

    def ranged(text: str, **more: str) -> Answer:
        return api.ask("GET", href, headers={"Range": text, **{k.replace("_", "-"): v for k, v in more.items()}})

    size = len(whole.body)
    for text, start, stop in (("bytes=0-2", 0, 3), ("bytes=3-", 3, size), ("bytes=-2", size - 2, size)):
        part = ranged(text)
        assert (part.status, part.body) == (206, whole.body[start:stop])
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    none = ranged(f"bytes={size}-")
    is_problem(none, 416)
    assert none.headers["content-range"] == f"bytes */{size}"
    for text in ("bytes=2-1", "lines=1-2", "bytes=0-1,3-4", "bytes=-"):
        assert ranged(text).status == 200
    assert ranged("bytes=0-2", If_Range='"other"').body == whole.body
    assert ranged("bytes=0-2", If_Range=whole.headers["etag"]).status == 206
    assert api.ask("GET", href, headers={"If-None-Match": whole.headers["etag"]}).status == 304
    head = api.ask("HEAD", href)
    assert (head.headers["content-length"], head.body) == (str(size), b"")
    is_problem(api.get(f"/jobs/{counted}/results/999"), 404, "999")


FAILING = """
def map(key, value):
    print("looking at", value)
    raise ValueError("the value is " + value)
"""


def test_a_failure_with_its_traceback_and_log(api: Api, tmp_path: Path, text: Path) -> None:
    uploaded = api.ask("POST", "/api/v1/uploads?name=failing.py", FAILING.encode())
    assert uploaded.status == 201
    assert (uploaded.json["name"], uploaded.json["bytes"]) == ("failing.py", len(FAILING))
    job = submit(api, file={"upload": uploaded.json["id"]}, inputs=[str(text)])
    found = end_of(api, job)
    assert found["phase"] == "failed"
    assert "ValueError" in found["detail"]
    assert [(one["outcome"], one["good"]) for one in found["failures"]] == [("raised", False)]
    failed = api.get(f"/jobs/{job}/tasks?state=failed").json["items"]
    assert len(failed) == 1
    name = f"0.{failed[0]['task']}"
    task = api.get(f"/jobs/{job}/tasks/{name}").json
    assert [one["outcome"] for one in task["attempts"]] == ["raised"]
    assert "the value is one" in task["attempts"][0]["detail"]
    assert "has failed" in task["why"]
    assert "looking at one" in api.get(f"/jobs/{job}/logs?task={name}").body.decode()
    assert api.get(f"/jobs/{job}/logs?tail=1").body.count(b"\n") <= 1
    assert "has failed" in api.get(f"/jobs/{job}/why").json["text"]


SPILLING = """
def map(key, value):
    for number in range(60_000):
        yield f"{value} {number}", "x" * 100


def reduce(key, values):
    yield key, len(list(values))
"""


def test_what_does_not_fit_into_memory_is_told_of_the_attempt_and_of_its_stage(api: Api, tmp_path: Path) -> None:
    source, one = tmp_path / "spilling.py", tmp_path / "one.txt"
    source.write_text(SPILLING)
    one.write_text("one\n")
    with api.stream("/events") as stream:
        job = submit(api, file=str(source), inputs=[str(one)], partitions=1, memory_limit_bytes=40_000_000)
        told = (task for event in events(stream) for task in event.data.get("tasks", ()) if task["job"] == job)
        ended = next(task for task in told if task["ended_at"] is not None and task["stage"] == 0)
    assert ended["outcome"] == "done", ended
    assert 0 < ended["spill_s"] <= ended["ended_at"] - ended["began_at"] + 0.002
    stages = end_of(api, job)["stages"]
    assert stages[0]["spilled_bytes"] > 1_000_000
    assert stages[1]["spilled_bytes"] == 0
    assert "Spilled to disk" in api.get(f"/jobs/{job}/report").body.decode()


WAITING = """
import pathlib, time

def map(key, value):
    print("waiting", flush=True)
    while not pathlib.Path({path!r}).exists():
        time.sleep(0.02)
    yield value, 1
"""


def test_a_job_that_runs_is_watched_and_cancelled(api: Api, tmp_path: Path, text: Path) -> None:
    source = tmp_path / "waiting.py"
    source.write_text(WAITING.format(path=str(tmp_path / "go")))
    job = submit(api, file=str(source), inputs=[str(text)])
    soon(lambda: api.get(f"/jobs/{job}/tasks?state=running").json["items"])
    task = api.get(f"/jobs/{job}/tasks/0.0").json
    assert (task["state"], task["attempts"][0]["outcome"]) == ("running", "running")
    assert task["attempts"][0]["node"]["name"] == task["node"]
    is_problem(api.ask("DELETE", f"/api/v1/jobs/{job}"), 409, "cancel")
    cancelled = api.post(f"/jobs/{job}/cancel", {"reason": "enough"})
    assert (cancelled.status, cancelled.json["phase"]) == (200, "cancelled")
    (tmp_path / "go").touch()
    again = api.post(f"/jobs/{job}/restart")
    assert again.status == 201
    assert again.json["id"] != job
    assert end_of(api, again.json["id"])["phase"] == "done"


def test_a_log_is_followed_to_the_end_of_the_job(api: Api, tmp_path: Path, text: Path) -> None:
    source = tmp_path / "waiting.py"
    source.write_text(WAITING.format(path=str(tmp_path / "go")))
    job = submit(api, file=str(source), inputs=[str(text)])
    with api.stream(f"/jobs/{job}/logs?follow=1") as stream:
        assert stream.readline().startswith(b"==> stage 0, task ")
        assert stream.readline() == b"waiting\n", "while it runs"
        assert api.get(f"/jobs/{job}/logs?tail=1").body == b"waiting\n"
        with api.stream(f"/jobs/{job}/logs?follow=1&tail=1") as later:
            assert later.readline() == b"waiting\n"
            (tmp_path / "go").touch()
            told, rest = stream.read().decode(), later.read()
    assert told.count("waiting") == 199, "each line once"
    assert 190 < rest.count(b"waiting") < 200


def test_an_archive_with_modules_beside_the_job(api: Api, tmp_path: Path, text: Path) -> None:
    import io
    import zipfile

    def packed(**files: str) -> bytes:
        into = io.BytesIO()
        with zipfile.ZipFile(into, "w") as archive:
            for name, source in files.items():
                archive.writestr(name, source)
        return into.getvalue()

    good = packed(**{"job.py": "import words\ndef map(k, v):\n    yield words.first(v), 1\n", "words.py": FIRST})
    id = api.ask("POST", "/api/v1/uploads?name=count.zip", good).json["id"]
    data = api.ask("POST", "/api/v1/uploads?name=data.txt", text.read_bytes()).json["id"]
    job = submit(api, file={"upload": id}, inputs=[{"upload": data}])
    assert end_of(api, job)["phase"] == "done"
    for bad in (packed(**{"other.py": ""}), packed(**{"job.py": "", "../../out.py": ""}), b"no archive"):
        is_problem(api.ask("POST", "/api/v1/uploads?name=count.zip", bad), 422, "archive")
    is_problem(api.ask("POST", "/api/v1/uploads?name=..", b"x"), 400, "name")
    is_problem(api.ask("POST", "/api/v1/uploads?name=a%2Fb", b"x"), 400, "name")


FIRST = "def first(line):\n    return line.split()[0]\n"


def test_what_a_job_may_be_told_is_vetted(api: Api, text: Path) -> None:
    inputs = [str(text)]
    is_problem(api.post("/jobs", {"file": "count", "inputs": inputs, "colour": "red"}), 422, "colour")
    is_problem(api.post("/jobs", {"file": "count", "inputs": inputs, "options": {"x": 1}}), 422, "option")
    is_problem(api.post("/jobs", {"file": "count", "inputs": ["text.txt"]}), 422, "absolute")
    is_problem(api.post("/jobs", {"file": "count", "inputs": ["/no/such/file"]}), 422, "/no/such/file")
    is_problem(api.post("/jobs", {"file": "count"}), 422, "input")
    is_problem(api.post("/jobs", {"file": "../count", "inputs": inputs}), 422, "installed")
    is_problem(api.post("/jobs", {"file": "broken", "inputs": inputs}), 422, "broken.py")
    is_problem(api.post("/jobs", {"file": "count", "inputs": inputs, "kind": "calls"}), 422, "calls")
    is_problem(api.post("/jobs", {"file": {"upload": "0" * 32}, "inputs": inputs}), 422, "upload")
    is_problem(api.post("/jobs", {"file": "count", "inputs": inputs, "output": "/tmp/x"}), 422, "URL")
    is_problem(api.post("/jobs", {"inputs": inputs}), 422, "file")
    is_problem(api.post("/jobs", [1]), 422)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    is_problem(api.ask("POST", "/api/v1/jobs", b"file=count", headers={**form}), 415)
    is_problem(api.ask("POST", "/api/v1/jobs", b"{", headers={"Content-Type": "application/json"}), 400)
    is_problem(api.ask("POST", "/api/v1/jobs", {"file": "x" * (1 << 20)}), 413)


def test_a_key_makes_it_one_job(api: Api, text: Path) -> None:
    key = "ab" * 16
    first = submit(api, file="count", inputs=[str(text)], key=key)
    assert submit(api, file="count", inputs=[str(text)], key=key) == first


def test_installed_files_and_kinds(api: Api) -> None:
    files = {file["name"]: file for file in api.get("/files").json["items"]}
    assert (files["count"]["kind"], files["count"]["text"]) == ("mapreduce", "Counts words.")
    assert "broken.py" in files["broken"]["error"]
    kinds = {kind["name"]: kind["runs_files"] for kind in api.get("/kinds").json["kinds"]}
    assert kinds["mapreduce"]
    assert not kinds["calls"]


def test_a_link_logs_in_once(api: Api, three_nodes: PrivateCluster) -> None:
    url = Api(three_nodes.home, "n1").opened["url"]
    assert url.startswith(f"{api.origin}/login?ticket=")
    path = url.removeprefix(api.origin)
    first = api.ask("GET", path, headers={"Authorization": None})
    assert first.status == 200
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    again = api.ask("GET", path, headers={"Authorization": None})
    assert again.status == 401
    assert "set-cookie" not in again.headers
    shown = {"Authorization": None, "Cookie": cookie.partition(";")[0]}
    assert api.ask("GET", "/api/v1/jobs", headers=shown).status == 200
    assert api.ask("DELETE", "/api/v1/session", headers={**shown, "Origin": api.origin}).status == 204
    assert api.ask("GET", "/api/v1/jobs", headers=shown).status == 401


def test_a_page_gets_a_login_at_another_node(api: Api) -> None:
    ticket = api.post("/nodes/n2/ticket").json
    host = ticket["url"].partition("//")[2].partition("/")[0]
    assert host.startswith("n2-")
    assert host != api.host
    path = ticket["url"].partition(host)[2]
    other = Api.__new__(Api)
    other.host, other.port, other.token = host, int(host.rpartition(":")[2]), ""
    assert other.ask("GET", path, headers={"Authorization": None}).status == 200
    alive = other.ask("GET", "/alive", headers={"Authorization": None, "Sec-Fetch-Site": "cross-site"})
    assert (alive.status, alive.headers["cross-origin-resource-policy"]) == (204, "cross-origin")


def test_events_tell_of_a_job_and_go_on_where_they_were(api: Api, text: Path) -> None:
    with api.stream("/events") as stream:
        follow = events(stream)
        first = next(follow)
        assert first.name == "snapshot"
        assert {node["name"] for node in first.data["nodes"]} == {"n1", "n2", "n3"}
        job = submit(api, file="count", inputs=[str(text)])
        phases, tasks, last = [], [], first
        while not phases or phases[-1] not in OVER:
            last = next(follow)
            assert last.name == "update"
            phases += [one["phase"] for one in last.data.get("jobs", ()) if one["id"] == job]
            tasks += [one for one in last.data.get("tasks", ()) if one["job"] == job]
    assert phases[-1] == "done"
    with api.stream("/events", Last_Event_ID=first.id) as stream:
        follow = events(stream)
        again = next(follow)
        assert (again.name, again.id.rpartition("-")[2]) == ("update", str(int(first.id.rpartition("-")[2]) + 1))
        while not {"done"} <= {one["outcome"] for one in tasks}:
            tasks += [one for one in next(follow).data.get("tasks", ()) if one["job"] == job]
    done = [one for one in tasks if one["ended_at"] is not None]
    assert done
    assert all(time.time() - 600 < one["began_at"] <= one["ended_at"] <= time.time() + 1 for one in done)
    with api.stream("/events", Last_Event_ID="00000000-5") as stream:
        assert next(events(stream)).name == "snapshot"


def test_everything_else_is_a_problem_too(api: Api) -> None:
    is_problem(api.get("/nothing"), 404)
    is_problem(api.get("/jobs/"), 404, "/api/v1/jobs/")
    wrong = api.ask("PUT", "/api/v1/jobs", {})
    is_problem(wrong, 405)
    assert {"GET", "POST"} <= {method.strip() for method in wrong.headers["allow"].split(",")}
    is_problem(api.ask("GET", "/page/../../pyproject.toml"), 404)
    is_problem(api.ask("GET", "/page/%2e%2e/app.py"), 404)
    assert json.loads(api.ask("GET", "/api/v1/openapi.json", headers={"Authorization": None}).body)["openapi"]
