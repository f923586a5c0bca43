"""Jobs from URLs to URLs, and the parts of a job, with real nodes."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil

from p2premap.client.private import PrivateCluster
from tests.cluster import counts, eventually, heard, job_file, p2premap, plain, private, start
from tests.webserver import serving

WORDCOUNT = str(Path(__file__).parents[2] / "examples" / "wordcount.py")
UPPER = "import p2premap\nclass Upper(p2premap.Action):\n    def process(self):\n"
TEXT = "".join(f"fox {number % 7} hound\n" for number in range(5_000))


def test_from_the_web_to_a_url(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    home, out = three_nodes.home, tmp_path / "out"
    (tmp_path / "text").write_text(TEXT)
    with serving(**{"t.txt": TEXT.encode()}) as server:
        given = ("run", WORDCOUNT, f"{server.url}/t.txt", "-o", f"file://{out}", "--partitions", "3")
        done = p2premap(home, *given)
        assert done.exit_code == 0, done.stderr
        assert done.stderr.splitlines()[-1].endswith(f"in file://{out}/.")
        assert counts(out) == plain(tmp_path / "text")
        assert sorted(p.name for p in out.iterdir()) == [f"part-0000{n}" for n in range(3)]
        assert len({wanted for _, _, wanted in server.asked}) > 3, "each task fetches its range"
        refused = p2premap(home, *given)
        assert refused.exit_code == 2
        assert "holds the output of an earlier job (part-00000); name another, or say --overwrite" in refused.stderr
        (out / "part-00009").write_text("old 1\n")
        detached = p2premap(home, *given, "--overwrite", "--detach")
        assert detached.exit_code == 0, detached.stderr
        watched = p2premap(home, "--node", "n2", "watch", detached.stdout.strip(), "--json")
    assert watched.exit_code == 0, watched.stderr
    last = json.loads(watched.stdout.splitlines()[-1])
    assert (last["url"], [stage["name"] for stage in last["stages"]]) == (f"file://{out}", ["map", "reduce", "deliver"])
    assert sorted(p.name for p in out.iterdir()) == [f"part-0000{n}" for n in range(3)]
    assert counts(out) == plain(tmp_path / "text")


def test_a_job_that_writes_to_a_url_does_not_replace_its_output_unasked(
    three_nodes: PrivateCluster, tmp_path: Path
) -> None:
    home, out = three_nodes.home, tmp_path / "out"
    (tmp_path / "text").write_text("a b\n")
    job = json.loads(p2premap(home, "run", WORDCOUNT, str(tmp_path / "text"), "-o", f"file://{out}", "--json").stdout)
    (out / "part-00000").write_text("precious\n")
    refused = p2premap(home, "restart", job["id"])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "holds the output of an earlier job (part-00000); say --overwrite" in refused.stderr
    again = p2premap(home, "restart", job["id"], "--overwrite")
    assert again.exit_code == 0, again.stderr
    assert p2premap(home, "watch", again.stdout.strip()).exit_code == 0
    assert counts(out) == plain(tmp_path / "text")


def test_a_file_that_changed_on_the_web_fails_the_job(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    with serving(**{"t.txt": TEXT.encode(), "now": b"."}) as server:
        server.change = "/now", "/t.txt", b"x\n" * len(TEXT)
        source = "from urllib.request import urlopen\ndef map(key, line): yield line, 1\n"
        given = job_file(tmp_path, f"{source}urlopen({server.url + '/now'!r})\n"), f"{server.url}/t.txt"
        done = p2premap(three_nodes.home, "run", *given)
    assert done.exit_code == 1
    assert "t.txt has changed since the job was submitted; submit it again." in done.stderr
    assert "Traceback" not in done.stderr


def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(
    three_nodes: PrivateCluster, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("a b\n")
    (tmp_path / "file").write_text("")
    for place, said in ((f"file://{tmp_path}/file/out", "Not a directory"), ("nonesuch://x/out", "nonesuch")):
        done = p2premap(three_nodes.home, "run", WORDCOUNT, str(tmp_path / "text"), "-o", place)
        assert done.exit_code == 2, done.stderr
        assert f"The output cannot go to {place}" in done.stderr
        assert said in done.stderr
    done = p2premap(three_nodes.home, "run", "--compat", "remap", "x.py", "-o", "file:///tmp/x")
    assert (done.exit_code, "name a directory" in done.stderr) == (2, True)


def test_a_node_that_dies_while_it_writes_a_part_leaves_each_part_whole_and_once(tmp_path: Path) -> None:
    (tmp_path / "text").write_text(TEXT)
    with private() as cluster, serving() as server:
        server.holds, server.deletes = "/part-", False
        to = ("-o", f"{server.url}/out", "--overwrite", "--partitions", "3")
        run = start(cluster.home, "--node", "n1", "run", WORDCOUNT, str(tmp_path / "text"), *to)
        port = eventually(lambda: server.held)
        os.kill(_node_of(port, cluster.pids), signal.SIGKILL)
        _, said = run.communicate(timeout=120)
        server.go_on.set()
        assert run.returncode == 0, said
        put = Counter(path for method, path, _ in server.asked if method == "PUT" and "/part-" in path)
        assert sum(put.values()) > len(put) == 3, "one part was sent twice"
        assert server.files.pop("/out/.p2premap") == b"", "what cannot be removed again does no harm"
        for path, data in server.files.items():
            (tmp_path / Path(path).name).write_bytes(data)
    assert counts(tmp_path) == plain(tmp_path / "text")


def _node_of(port: int, nodes: Sequence[int]) -> int:
    """The node whose worker has this end of a connection."""
    (pid,) = {c.pid for c in psutil.net_connections("tcp4") if c.laddr and c.laddr.port == port and c.pid is not None}
    (node,) = {parent.pid for parent in psutil.Process(pid).parents()} & set(nodes)
    return node


def test_saved_files_of_an_action_go_to_the_url_too(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    source = (
        UPPER
        + "        self.work_dir.joinpath('x y').write_text(self.input)\n        self.save('x y')\n        return 1\n"
    )
    done = p2premap(three_nodes.home, "run", job_file(tmp_path, source), '"a"', '"b"', "-o", f"file://{tmp_path}/out")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "out/00001/x y").read_text() == "b"
    assert (tmp_path / "out/part-00001").read_text() == "1\n"


def test_parts_are_listed_and_read_from_any_node(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    home, out = three_nodes.home, tmp_path / "out"
    (tmp_path / "text").write_text(TEXT)
    source = "writer = 'jsonl'\ndef map(key, line): yield line.split()[1], 1\ndef reduce(key, ones): return sum(ones)\n"
    given = (job_file(tmp_path, source), str(tmp_path / "text"), "--partitions", "2", "--json")
    job = json.loads(p2premap(home, "run", *given).stdout)["id"]
    listed = json.loads(p2premap(home, "--node", "n3", "results", job[:8], "--json").stdout)
    assert (listed["id"], listed["phase"], listed["url"]) == (job, "done", "")
    assert [(part["number"], part["name"]) for part in listed["parts"]] == [
        (0, "part-00000.jsonl"),
        (1, "part-00001.jsonl"),
    ]
    assert sum(part["records"] for part in listed["parts"]) == 7
    assert {node for part in listed["parts"] for node in part["nodes"]} <= {"n1", "n2", "n3"}
    table = p2premap(home, "results", job).stdout
    assert table.splitlines()[0].split() == ["PART", "SIZE", "RECORDS", "HELD", "BY"]
    assert "part-00001.jsonl" in table
    fetched = p2premap(home, "--node", "n2", "results", job, "-o", str(out))
    assert (fetched.exit_code, fetched.stdout) == (0, "")
    assert [p.stat().st_size for p in sorted(out.iterdir())] == [part["bytes"] for part in listed["parts"]]
    for part in ("1", "part-00001.jsonl"):
        assert p2premap(home, "results", job, part).stdout_bytes == (out / "part-00001.jsonl").read_bytes()
    one = p2premap(home, "results", job, "0", "-o", f"file://{tmp_path}/one")
    assert one.exit_code == 0, one.stderr
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["part-00000.jsonl"]


def test_parts_that_are_not_there_are_one_sentence(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    home = three_nodes.home
    (tmp_path / "text").write_text("a\n")
    source = job_file(tmp_path, "def map(key, line): raise ValueError('no')\n")
    failed = json.loads(p2premap(home, "run", source, str(tmp_path / "text"), "--json").stdout)["id"]
    for args, code, said in (
        ((failed,), 0, "has no output."),
        ((failed, "3"), 2, "has no part 3 (yet)"),
        ((failed, "3", "--overwrite"), 2, "leave PART out"),
        (("beefbeef",), 2, "No job beefbeef is known"),
        (("nonsense",), 2, "is no job id"),
    ):
        done = heard(home, "results", *args)
        assert (done.exit_code, said in done.stderr) == (code, True), done.stderr
