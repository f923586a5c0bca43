"""Jobs that read from S3 and write to it: a local server, real nodes."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2premap.client.private import PrivateCluster
from tests.cluster import job_file, p2premap, private

pytest.importorskip("s3fs", reason="s3:// needs s3fs")
pytest.importorskip("moto", reason="the local S3 server is moto")

WORDCOUNT = str(Path(__file__).parents[2] / "examples" / "wordcount.py")
TEXT = "".join(f"fox {number % 7} hound\n" for number in range(5_000))
SERVER = """
import signal
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    """A node that knows where the server is, as a user's would: by the variables of the AWS tools."""
    import s3fs

    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert server.stdout is not None
    told = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(server.stdout.readline())}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in told.items():
                patch.setenv(name, value)
            s3fs.S3FileSystem.clear_instance_cache()  # one that is kept knows the server of another time
            with private(("n1",)) as cluster:
                yield cluster
    finally:
        server.kill()
        server.communicate()


def objects(bucket: str) -> dict[str, bytes]:
    """What is in a bucket, seen by other eyes than ours."""
    found = client().list_objects_v2(Bucket=bucket).get("Contents", ())
    return {one["Key"]: client().get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in found}


def put(bucket: str, **files: bytes) -> None:
    client().create_bucket(Bucket=bucket)
    for name, data in files.items():
        client().put_object(Bucket=bucket, Key=name, Body=data)


def client() -> Any:
    return _client(os.environ["AWS_ENDPOINT_URL"])


@functools.cache
def _client(endpoint: str) -> Any:
    import botocore.session

    return botocore.session.get_session().create_client("s3", endpoint_url=endpoint)


def test_from_s3_to_s3(cluster: PrivateCluster) -> None:
    half = TEXT.index("\n", len(TEXT) // 2) + 1
    put("words", **{"in/a.txt": TEXT[:half].encode(), "in/b.txt": TEXT[half:].encode(), "in/c.md": b"no"})
    given = ("run", WORDCOUNT, "s3://words/in/*.txt", "-o", "s3://words/out", "--partitions", "2")
    done = p2premap(cluster.home, *given)
    assert done.exit_code == 0, done.stderr
    found = {name: data for name, data in objects("words").items() if name.startswith("out/")}
    assert sorted(found) == ["out/part-00000", "out/part-00001"], "and no temporary ones"
    lines = [line.split("\t") for data in found.values() for line in data.decode().splitlines()]
    assert {word: int(number) for word, number in lines} == Counter(TEXT.split())
    assert "s3://words/out holds the output of an earlier job (part-00000)" in p2premap(cluster.home, *given).stderr
    again = p2premap(cluster.home, *given[:-1], "1", "--overwrite")
    assert again.exit_code == 0, again.stderr
    assert [name for name in objects("words") if name.startswith("out/")] == ["out/part-00000"]


def test_an_object_that_changed_fails_the_job(cluster: PrivateCluster, tmp_path: Path) -> None:
    put("changing", **{"a.txt": TEXT.encode()})
    source = (
        "import os\nfrom urllib.request import Request, urlopen\n"
        "where = os.environ['AWS_ENDPOINT_URL'] + '/changing/a.txt'\n"
        f"urlopen(Request(where, data={len(TEXT)} * b'x', headers={{'Authorization': 'AWS key:x'}}, method='PUT'))\n"
        "def map(key, line): yield line, 1\n"
    )
    done = p2premap(cluster.home, "run", job_file(tmp_path, source), "s3://changing/a.txt")
    assert done.exit_code == 1
    assert "s3://changing/a.txt has changed since the job was submitted" in done.stderr


def test_what_is_not_there_is_refused_at_once(cluster: PrivateCluster, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("a\n")
    done = p2premap(cluster.home, "run", WORDCOUNT, "s3://words/none")
    assert (done.exit_code, "There is nothing at s3://words/none" in done.stderr) == (2, True), done.stderr
    done = p2premap(cluster.home, "run", WORDCOUNT, str(tmp_path / "t"), "-o", "s3://no-such-bucket/out")
    assert (done.exit_code, "The output cannot go to s3://no-such-bucket/out" in done.stderr) == (2, True), done.stderr


def test_an_action_reads_and_saves_objects(cluster: PrivateCluster, tmp_path: Path) -> None:
    put("acts", a=b"some text")
    source = (
        "import p2premap\n"
        "class Upper(p2premap.Action):\n"
        "    def process(self):\n"
        "        (self.work_dir / 'u').write_text(self.input_path.read_text().upper())\n"
        "        return self.save('u', to='s3://acts/upper')\n"
    )
    done = p2premap(cluster.home, "run", job_file(tmp_path, source), "s3://acts/a")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == "s3://acts/upper"
    assert objects("acts")["upper"] == b"SOME TEXT"
