"""Callbacks on real nodes: signed, told again until they are answered, also when the leader dies meanwhile."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

from p2premap.client.private import PrivateCluster
from p2premap.node.callbacks import send_callback
from p2premap.tasks.events import CallBack
from tests.cluster import job_file, p2premap, private
from tests.web.api import Api, soon
from tests.web.receiver import Receiver
from tests.web.test_api import submit
from tests.web.test_hub import JOB, view


def test_a_callback_that_is_answered_by_created_cleans_the_job_up(api: Api, text: Path) -> None:
    with Receiver(lambda n: 500 if n == 0 else 201) as receiver:
        job = submit(
            api, file="count", inputs=[str(text)], partitions=1, callback=receiver.url, callback_secret="geheim"
        )
        soon(lambda: receiver.accepted)
        assert [one.status for one in receiver.heard] == [500, 201]
        assert len({one.key for one in receiver.heard}) == 1
        assert all(one.signed_by("geheim") and not one.signed_by("other") for one in receiver.heard)
        told = receiver.heard[-1].json
        assert (told["id"], told["phase"], [part["number"] for part in told["results"]]) == (job, "done", [0])
        soon(lambda: api.get(f"/jobs/{job}").status == 404)
        assert len(receiver.heard) == 2


def test_a_job_that_failed_says_so_and_stays_until_it_is_answered(api: Api, tmp_path: Path, text: Path) -> None:
    source = tmp_path / "failing.py"
    source.write_text("def map(key, value):\n    raise ValueError('no')\n")
    asked = threading.Event()
    with Receiver(lambda n: 200 if asked.is_set() else 500) as receiver:
        job = submit(api, file=str(source), inputs=[str(text)], callback=receiver.url)
        soon(lambda: receiver.heard)
        refused = api.ask("DELETE", f"/api/v1/jobs/{job}")
        assert (refused.status, "callback" in refused.json["detail"]) == (409, True)
        asked.set()
        soon(lambda: receiver.accepted)
        assert receiver.heard[-1].json["phase"] == "failed"
        assert receiver.heard[-1].signature == ""
        assert soon(lambda: api.ask("DELETE", f"/api/v1/jobs/{job}").status == 204)
        assert api.get(f"/jobs/{job}").status == 404


def test_the_command_line_has_its_jobs_tell_too(three_nodes: PrivateCluster, tmp_path: Path, text: Path) -> None:
    job = job_file(tmp_path, "def map(key, value):\n    yield value, 1\n")
    secret = tmp_path / "secret"
    secret.write_text("geheim\nand a note\n")
    with Receiver(lambda n: 200) as receiver:
        told = ("--callback", receiver.url, "--callback-secret-file", str(secret))
        ran = p2premap(three_nodes.home, "run", job, str(text), "-o", str(tmp_path / "out"), "--json", *told)
        assert ran.exit_code == 0, ran.stderr
        soon(lambda: receiver.accepted)
        (heard,) = receiver.heard
        assert heard.signed_by("geheim")
        assert heard.json["id"] == json.loads(ran.stdout)["id"]


def test_the_leader_dies_while_the_receiver_does_not_answer(tmp_path: Path, text: Path) -> None:
    died = threading.Event()

    def answer(_: int) -> int:
        return 200 if died.is_set() else 500

    with Receiver(answer) as receiver, private(("c1", "c2", "c3", "c4")) as cluster:
        source = tmp_path / "count.py"
        source.write_text("def map(key, value):\n    yield value, 1\n")
        job = submit(Api(cluster.home, "c1"), file=str(source), inputs=[str(text)], callback=receiver.url)
        soon(lambda: len(receiver.heard) >= 2)
        leader = Api(cluster.home, "c4").get(f"/jobs/{job}").json["leader"]["name"]
        one_that_stays = Api(cluster.home, "c3" if leader == "c4" else "c4")
        cluster.kill(leader)
        refused = len(receiver.heard)
        soon(lambda: len(receiver.heard) > refused)
        died.set()
        soon(lambda: receiver.accepted)
        soon(lambda: one_that_stays.ask("DELETE", f"/api/v1/jobs/{job}").status == 204)
        assert len(receiver.accepted) == 1
        assert len({heard.key for heard in receiver.heard}) == 1
        assert receiver.heard[-1].json["takeovers"] >= 1


def test_what_does_not_answer_and_what_is_no_host() -> None:
    def send(url: str) -> tuple[int, str]:
        return send_callback(CallBack(job=JOB, url=url, secret="", key="k", view=view()), 1.0)

    with Receiver(lambda n: 302) as receiver:
        assert send(receiver.url) == (302, "")
    with socket.socket() as taken:  # and does not listen
        taken.bind(("127.0.0.1", 0))
        status, error = send(f"http://127.0.0.1:{taken.getsockname()[1]}/hook")
    assert (status, "does not answer" in error) == (0, True)
    assert send("http://no.such.host.invalid/")[0] == 0
