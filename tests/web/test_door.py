"""The process that serves HTTP: there when it is wanted, gone with its node; and followers who take nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from p2premap.client.private import PrivateCluster
from tests.cluster import p2premap, private
from tests.web.api import Api, ended, events, soon, web_of

FOLLOWERS = 100
DEAF = 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    """Two nodes whose web processes may be hurt."""
    with private(("m1", "m2")) as one:
        yield one


def test_it_starts_without_what_it_does_not_need() -> None:
    unwanted = {"trio", "cryptography", "rich"}
    program = f"import sys; import p2premap.web.app; print(sorted({unwanted} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_nobody_serves_until_somebody_asks(cluster: PrivateCluster) -> None:
    assert web_of(cluster.pids[1]) == []
    api = Api(cluster.home, "m2")
    (process,) = web_of(cluster.pids[1])
    assert api.get("").status == 200
    for name in ("token_file", "header_file"):
        assert Path(api.opened[name]).stat().st_mode & 0o777 == 0o600
    assert not {"key", api.token} & {word for part in process.cmdline() for word in part.split()}
    shared = [c for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
    assert [c.laddr.ip for c in shared] == ["127.0.0.1"]


def test_one_that_died_is_begun_anew_under_the_same_token(cluster: PrivateCluster) -> None:
    api = Api(cluster.home, "m2")
    (process,) = web_of(cluster.pids[1])
    process.kill()
    soon(lambda: ended(process))
    again = Api(cluster.home, "m2")
    assert again.token == api.token
    # the node of another test may have taken the port meanwhile
    assert again.origin == api.origin or listens(api.port)
    assert again.get("").status == 200


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_revoking_makes_everything_void_that_was_given_out(cluster: PrivateCluster) -> None:
    api = Api(cluster.home, "m2")
    login = api.ask("GET", api.opened["url"].removeprefix(api.origin), headers={"Authorization": None})
    shown = {"Authorization": None, "Cookie": login.headers["set-cookie"].partition(";")[0]}
    assert p2premap(cluster.home, "--node", "m2", "dashboard", "--revoke").exit_code == 0
    again = Api(cluster.home, "m2")
    assert again.token != api.token
    api.port, api.host = again.port, again.host
    assert api.ask("GET", "/api/v1/nodes").status == 401
    assert api.ask("GET", "/api/v1/nodes", headers=shown).status == 401
    assert again.get("/nodes").status == 200


def test_a_connection_that_asks_nothing_too_long_or_too_much(cluster: PrivateCluster) -> None:
    api = Api(cluster.home, "m2")
    with socket.create_connection(("127.0.0.1", api.port)) as one, contextlib.suppress(ConnectionError):
        one.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)
        answer = one.recv(1000)
        assert answer == b"" or b" 400 " in answer
    with socket.create_connection(("127.0.0.1", api.port)) as one:
        one.sendall(f"POST /api/v1/jobs HTTP/1.1\r\nHost: {api.host}\r\nAuthorization: Bearer {api.token}\r\n"
                    "Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n".encode())  # fmt: skip
        assert b" 413 " in one.recv(1000)


def test_a_hundred_followers_of_whom_twenty_take_nothing(tmp_path: Path) -> None:
    job = tmp_path / "job.py"
    job.write_text("import time\ndef map(key, value):\n    time.sleep(0.01)\n    yield value, 1\n")
    text = tmp_path / "text.txt"
    text.write_text("x\n")
    with private(("f1", "f2", "f3")) as cluster, contextlib.ExitStack() as stack:
        api = Api(cluster.home, "f1")
        daemon, (web,) = psutil.Process(cluster.pids[0]), web_of(cluster.pids[0])
        deaf = [stack.enter_context(api.raw("/api/v1/events", receive_bytes=4096)) for _ in range(DEAF)]
        streams = [events(stack.enter_context(api.stream("/events"))) for _ in range(FOLLOWERS - DEAF)]
        assert all(next(stream).name == "snapshot" for stream in streams)
        before = sum(daemon.cpu_times()[:2])
        for _ in range(4):
            found = api.post("/jobs", {"file": str(job), "inputs": [str(text)]})
            assert found.status == 201
            soon(lambda: api.get(f"/jobs/{found.json['id']}").json["phase"] == "done")  # noqa: B023
        assert all(next(stream).name == "update" for stream in streams)
        used_s = sum(daemon.cpu_times()[:2]) - before
        soon(lambda: {node["state"] for node in api.get("/nodes").json["items"]} == {"alive"})
        assert web.memory_info().rss < 150 << 20
        # whose members suspect each other depends on what else the machine does; what a daemon has to do does not
        assert used_s < 2.0, f"{used_s:.2f} s of a CPU"
        os.kill(cluster.pids[0], signal.SIGTERM)
        soon(lambda: ended(web))
        assert len(deaf) == DEAF


def test_it_ends_with_its_node_however_that_dies() -> None:
    with private(("k1",)) as cluster:
        Api(cluster.home, "k1")
        (web,) = web_of(cluster.pids[0])
        cluster.kill("k1")
        soon(lambda: ended(web))
