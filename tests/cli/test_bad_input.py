"""What a machine can do wrong to a node: taken ports, full and read-only disks, random bytes. Each is one sentence."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from p2premap.client.private import PrivateCluster
from p2premap.control import FROM_CLIENT
from p2premap.control.nodes import ListNodes
from p2premap.ids import RequestId
from p2premap.wire import encode_frame
from tests.cluster import eventually, p2premap, private, start, stop

WORDCOUNT = str(Path(__file__).parents[2] / "examples" / "wordcount.py")


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """P2PREMAP_HOME on a file system of 2 MB."""
    if os.geteuid() != 0 or not Path("/proc/mounts").exists():
        pytest.skip("only root can mount a small file system")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(home)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs here: {done.stderr.strip()}")
    yield home
    subprocess.run(["umount", "-l", str(home)], check=True)


def fill(directory: Path) -> Path:
    """Use up every byte of a file system; returns the file that does."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            while True:
                try:
                    file.write(bytes(size))
                except OSError:
                    break
    return ballast


def ended(home: Path, *args: str) -> tuple[int, str]:
    """Exit code and stderr of a command that should end by itself, in a process of its own."""
    process = start(home, *args)
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"it runs: {process.communicate()}") from None
    assert out == ""
    return process.returncode, err


def test_a_port_in_use_is_a_sentence(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, err = ended(home, "node", "--port", port)
    assert (code, err.count("\n")) == (2, 1), err
    assert port in err


def test_a_full_data_directory_is_a_sentence(small_disk: Path) -> None:
    fill(small_disk)
    code, err = ended(small_disk, "node")
    assert (code, err.count("\n")) == (2, 1), err
    assert "No space left" in err


def test_a_read_only_data_directory_is_a_sentence(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, err = ended(small_disk, "node")
    assert (code, err.count("\n")) == (2, 1), err
    assert "Read-only" in err


def test_a_disk_that_fills_up_refuses_jobs_and_recovers(small_disk: Path, tmp_path: Path) -> None:
    text = tmp_path / "in.txt"
    text.write_text("a b a\n")
    process = start(small_disk, "node", "--slots", "1", "--json")
    try:
        assert process.stdout is not None
        json.loads(process.stdout.readline())
        ballast = fill(small_disk)
        refused = p2premap(small_disk, "run", WORDCOUNT, str(text))
        assert refused.exit_code == 1, refused.stderr
        assert refused.stderr.splitlines()[-1].count(". ") <= 2
        assert "disk" in refused.stderr.lower() or "space" in refused.stderr.lower()
        ballast.unlink()
        done = p2premap(small_disk, "run", WORDCOUNT, str(text))
        assert done.exit_code == 0, done.stderr
        assert sorted(done.stdout.splitlines()) == ["a\t2", "b\t1"]
    finally:
        stop(process)


def test_a_secret_that_others_can_read_is_refused(home: Path) -> None:
    (home / "config").mkdir(mode=0o700)
    (home / "config" / "secret").write_text("0" * 64 + "\n")
    (home / "config" / "secret").chmod(0o644)
    code, err = ended(home, "node")
    assert (code, err.count("\n")) == (2, 1)
    assert "chmod 600" in err


@pytest.fixture(scope="module")
def besieged() -> Iterator[PrivateCluster]:
    with private(["a", "b"]) as cluster:
        yield cluster


def noises() -> list[bytes]:
    """Bytes of many kinds: none, noise, other protocols, and our own frames cut or bent."""
    rng = random.Random(7)
    frame = encode_frame(FROM_CLIENT, ListNodes(request=RequestId(1)))
    bent = [bytes((*frame[:i], frame[i] ^ 0x41, *frame[i + 1 :])) for i in range(len(frame))]
    return [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500),
        b"p2premap guest 1\n" + rng.randbytes(100),
        b"\x01" + b"\xff" * 8,
        frame[:-1],
        *bent,
        *(rng.randbytes(rng.choice((1, 10, 100, 1_400))) for _ in range(40)),
    ]


def ports(cluster: PrivateCluster) -> list[tuple[str, int]]:
    views = json.loads(p2premap(cluster.home, "nodes", "--json").stdout)
    found = [address.rpartition(":") for view in views for address in view["addresses"]]
    return [(host.strip("[]"), int(port)) for host, _, port in found]


def states(cluster: PrivateCluster) -> dict[str, str]:
    return {view["name"]: view["state"] for view in json.loads(p2premap(cluster.home, "nodes", "--json").stdout)}


def test_random_bytes_at_every_port_change_nothing(besieged: PrivateCluster, tmp_path: Path) -> None:
    before = [psutil.Process(pid).create_time() for pid in besieged.pids]
    targets = ports(besieged)
    assert targets
    for host, port in targets:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for noise in noises():
            with socket.socket(family, socket.SOCK_DGRAM) as udp:
                udp.sendto(noise, (host, port))
            shout(socket.socket(family, socket.SOCK_STREAM), (host, port), noise)
    for path in besieged.paths.runtime.glob("*/*.sock"):
        for noise in noises():
            shout(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), str(path), noise)
    assert [psutil.Process(pid).create_time() for pid in besieged.pids] == before
    eventually(lambda: states(besieged) == {"a": "alive", "b": "alive"})
    (tmp_path / "in.txt").write_text("a b a\n")
    done = p2premap(besieged.home, "run", WORDCOUNT, str(tmp_path / "in.txt"))
    assert sorted(done.stdout.splitlines()) == ["a\t2", "b\t1"]


def shout(stream: socket.socket, where: object, noise: bytes) -> None:
    with stream:  # without a limit: a Unix socket that has one refuses where many wait to be taken in
        stream.connect(where)  # type: ignore[arg-type]  # a path or an address, as the family wants it
        try:
            stream.sendall(noise)
            stream.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # hung up already


def test_connections_that_say_nothing_do_not_keep_others_out(besieged: PrivateCluster) -> None:
    mute = [socket.create_connection(("127.0.0.1", port)) for host, port in ports(besieged) if host == "127.0.0.1"]
    mute += [socket.create_connection(mute[0].getpeername()[:2]) for _ in range(200)]
    try:
        eventually(lambda: states(besieged) == {"a": "alive", "b": "alive"})
        assert p2premap(besieged.home, "--node", "b", "status").exit_code == 0
    finally:
        for stream in mute:
            stream.close()
