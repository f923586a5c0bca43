"""The secret file, what is derived from it, and the identities of this machine's nodes."""

from __future__ import annotations

import fcntl
import os
import ssl
import stat
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from p2premap.errors import ConfigError, RemoteProtocolError
from p2premap.ids import starts_of
from p2premap.node import certificates, identity, secret
from p2premap.node.identity import BOOTS_MAX
from p2premap.node.paths import Paths
from p2premap.node.secret import ClusterSecret

SECRET = ClusterSecret(b"s" * 32)
OTHER = ClusterSecret(b"o" * 32)


def paths(home: Path) -> Paths:
    return Paths(home / "config", home / "state", home / "run")


# --- the secret ---------------------------------------------------------------------------------------------------


@given(key=st.binary(min_size=1, max_size=64), label=st.text(max_size=20), salt=st.binary(max_size=40))
def test_derivation_is_hkdf_sha256(key: bytes, label: str, salt: bytes) -> None:
    expected = HKDF(SHA256(), 32, salt or None, label.encode("utf-8", "surrogatepass")).derive(key)
    assert secret.derive(key, label, salt=salt) == expected


def test_what_is_derived_never_changes() -> None:
    """Members of different releases must derive the same: a change here splits every cluster."""
    assert SECRET.tag == "7398bfd917cfb4ba"
    assert SECRET.gossip_key.hex()[:16] == "1d613203ebb286cc"
    assert SECRET.ca_seed.hex()[:16] == "a9153b1ac3f2b5d4"
    assert secret.open_secret("lab").tag == "d4ef66e0ebe70bec"


def test_nothing_shows_the_secret() -> None:
    assert SECRET.value.hex() not in repr(SECRET) + str(SECRET) + f"{SECRET}"
    assert "ssss" not in repr(SECRET)


def test_the_first_run_makes_a_secret_that_later_runs_find(tmp_path: Path) -> None:
    made = secret.load_or_make(tmp_path / "config")
    assert secret.load_or_make(tmp_path / "config") == made == secret.load(tmp_path / "config")
    file = tmp_path / "config" / "secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(p.name for p in file.parent.iterdir()) == ["secret"]


def test_several_first_runs_at_once_share_one_secret(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from p2premap.node import secret; input()\n"
        "print(secret.load_or_make(pathlib.Path(sys.argv[1])).value.hex())"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    assert len({run.communicate(timeout=100)[0] for run in runs}) == 1
    assert [run.returncode for run in runs] == [0] * 4


def test_joining_replaces_and_leaving_forgets(tmp_path: Path) -> None:
    first = secret.load_or_make(tmp_path)
    secret.replace(tmp_path, OTHER)
    assert secret.load(tmp_path) == OTHER
    secret.forget(tmp_path)
    assert secret.load(tmp_path) is None
    secret.forget(tmp_path)
    assert secret.load_or_make(tmp_path) not in (first, OTHER)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_secret_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    secret.load_or_make(tmp_path)
    (tmp_path / "secret").chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        secret.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"a" * 63, b"a" * 65, b"g" * 64, b"A" * 64, bytes(32), b"a" * 64 + b"\n\n"])
def test_a_file_that_is_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    (tmp_path / "secret").chmod(0o600)
    with pytest.raises(ConfigError, match="does not hold a cluster's secret"):
        secret.load(tmp_path)


def test_a_secret_that_is_no_file_is_refused_and_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(ConfigError, match="not a file of yours"):
        secret.load(tmp_path)
    (tmp_path / "secret").rmdir()
    os.mkfifo(tmp_path / "secret")
    with pytest.raises(ConfigError, match="not a file of yours"):
        secret.load(tmp_path)


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="Cannot"):
        secret.load_or_make(tmp_path / "file" / "config")


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "\0"])
def test_open_names_are_checked(name: str) -> None:
    with pytest.raises(ConfigError, match="--open"):
        secret.open_secret(name)


# --- certificates -------------------------------------------------------------------------------------------------


def test_every_member_derives_the_same_ca_and_proves_its_own_id() -> None:
    one, two = certificates.issue(SECRET, b"1" * 32), certificates.issue(SECRET, b"2" * 32)
    assert one.ca == two.ca
    assert one.ca != certificates.issue(OTHER, b"1" * 32).ca
    for credentials, seed in ((one, b"1" * 32), (two, b"2" * 32)):
        der = _der(credentials.leaf)
        assert certificates.proved_id(der) == certificates.node_id(certificates.public_key(seed))
        assert certificates.signed_by(der, _der(one.ca))
        assert not certificates.signed_by(der, _der(certificates.issue(OTHER, seed).ca))
        assert certificates.claimed_cluster(der) == SECRET.tag


def _der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode())


LEAF = _der(certificates.issue(SECRET, b"1" * 32).leaf)


@given(place=st.integers(0, len(LEAF) - 1), value=st.integers(0, 255), cut=st.integers(0, len(LEAF)))
def test_no_certificate_makes_the_reader_fail(place: int, value: int, cut: int) -> None:
    for data in (LEAF[:place] + bytes([value]) + LEAF[place + 1 :], LEAF[:cut], bytes([value]) * place):
        with suppress(RemoteProtocolError):
            assert len(certificates.proved_id(data)) == 16
        assert isinstance(certificates.claimed_cluster(data), str)
        assert isinstance(certificates.signed_by(data, LEAF), bool)


def test_a_serial_number_below_zero_is_no_members() -> None:
    at = LEAF.index(b"\x02\x11\x01") + 2
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert certificates.signed_by(LEAF[:at] + b"\x80" + LEAF[at + 1 :], LEAF) is False
    assert not heard  # a stranger must not fill the terminal


# --- identities ---------------------------------------------------------------------------------------------------


def test_a_restart_keeps_the_id_and_raises_the_boot(tmp_path: Path) -> None:
    first = identity.claim(paths(tmp_path), SECRET)
    first.release()
    second = identity.claim(paths(tmp_path), SECRET)
    assert (second.node, starts_of(first.boot), starts_of(second.boot)) == (first.node, 1, 2)
    assert (first.former, second.former) == ((), (first.boot,))
    assert second.credentials == first.credentials
    assert stat.S_IMODE((second.directory / "key").stat().st_mode) == 0o600
    assert int((second.directory / "boot").read_bytes().split()[-1]) == second.boot  # before it can speak
    second.release()
    third = identity.claim(paths(tmp_path), SECRET)
    assert starts_of(third.boot) == 3
    third.release()


def test_a_directory_that_is_set_back_begins_another_start_of_the_same_number(tmp_path: Path) -> None:
    first = identity.claim(paths(tmp_path), SECRET)
    first.release()
    copy = (first.directory / "boot").read_bytes()
    lost = identity.claim(paths(tmp_path), SECRET)
    lost.release()
    (first.directory / "boot").write_bytes(copy)
    again = identity.claim(paths(tmp_path), SECRET)
    again.release()
    assert (starts_of(again.boot), again.former) == (starts_of(lost.boot), (first.boot,))
    assert again.boot != lost.boot


def test_a_node_remembers_so_many_starts(tmp_path: Path) -> None:
    boots = []
    for _ in range(BOOTS_MAX + 3):
        one = identity.claim(paths(tmp_path), SECRET)
        one.release()
        boots.append(one.boot)
    assert one.former == tuple(boots[-BOOTS_MAX - 1 : -1])
    assert boots == sorted(boots)


def test_several_nodes_on_one_machine_have_ids_of_their_own(tmp_path: Path) -> None:
    running = [identity.claim(paths(tmp_path), SECRET) for _ in range(3)]
    assert len({one.node for one in running}) == 3
    running[1].release()
    again = identity.claim(paths(tmp_path), SECRET)
    assert again.node == running[1].node
    for one in (running[0], running[2], again):
        one.release()
    assert identity.claim(paths(tmp_path), SECRET).node == running[0].node  # the oldest first


def test_a_name_finds_its_own_directory_again(tmp_path: Path) -> None:
    """Whichever node of the machine starts first: results and promises are in the directory."""
    claim = partial(identity.claim, paths(tmp_path), SECRET, host="box")
    first = {name: claim(name=name) for name in ("ada", "bob", "")}
    for one in first.values():
        one.release()
    for name in ("bob", "", "ada"):
        again = claim(name=name)
        assert (again.node, again.name) == (first[name].node, name or "box")
    assert claim(name="bob").node not in {one.node for one in first.values()}, "bob runs: this is another node"


def test_a_node_keeps_the_name_that_it_was_given(tmp_path: Path) -> None:
    claim = partial(identity.claim, paths(tmp_path), SECRET, host="box")
    starts = [("", "box"), ("ada", "ada"), ("", "ada"), ("eve", "eve"), ("", "eve")]
    for boot, (asked, name) in enumerate(starts, 1):
        one = claim(name=asked)
        assert (starts_of(one.boot), one.name) == (boot, name)
        one.release()
    old = claim()
    assert identity.take_new(paths(tmp_path), SECRET, old).name == "eve"


def test_nodes_without_a_name_are_told_apart(tmp_path: Path) -> None:
    claim = partial(identity.claim, paths(tmp_path), SECRET, host="box")
    running = [claim() for _ in range(3)]
    assert [one.name for one in running] == ["box", "box-2", "box-3"]
    running[1].release()
    assert claim().name == "box-2"


def test_nodes_are_told_apart_although_the_clock_was_set_back(tmp_path: Path) -> None:
    claim = partial(identity.claim, paths(tmp_path), SECRET, host="box")
    first = claim()
    later = time.time() + 3_600.0
    os.utime(first.directory / "key", (later, later))
    running = [first, claim(), claim()]
    assert [one.name for one in running] == ["box", "box-2", "box-3"]
    for one in running:
        one.release()
    assert [claim().node for _ in running] == [one.node for one in running]


def test_clusters_do_not_share_identities(tmp_path: Path) -> None:
    assert identity.claim(paths(tmp_path), SECRET).node != identity.claim(paths(tmp_path), OTHER).node


def test_a_clash_takes_a_new_identity_and_keeps_the_old_as_evidence(tmp_path: Path) -> None:
    old = identity.claim(paths(tmp_path), SECRET)
    new = identity.take_new(paths(tmp_path), SECRET, old)
    assert new.node != old.node
    assert (starts_of(new.boot), new.former) == (1, ())
    names = sorted(p.name for p in new.directory.parent.iterdir())
    assert names == sorted([new.node.hex(), f"{old.node.hex()}.aside-0"])
    new.release()
    again = identity.claim(paths(tmp_path), SECRET)
    assert again.node == new.node
    again.release()


@pytest.mark.parametrize(
    ("name", "content"), [("boot", b""), ("boot", b"x"), ("boot", None), ("key", b"short"), ("key", b"k" * 32)]
)
def test_a_damaged_identity_is_set_aside(tmp_path: Path, name: str, content: bytes | None) -> None:
    old = identity.claim(paths(tmp_path), SECRET)
    old.release()
    if content is None:
        (old.directory / name).unlink()
    else:
        (old.directory / name).write_bytes(content)
    assert identity.claim(paths(tmp_path), SECRET).node != old.node
    assert (old.directory.parent / f"{old.node.hex()}.aside-0").is_dir()


@pytest.mark.parametrize("content", [b"", b"x\ny", None, b"0" * 64 + b"\nfoo"])
def test_cached_certificates_that_do_not_fit_are_made_again(tmp_path: Path, content: bytes | None) -> None:
    old = identity.claim(paths(tmp_path), SECRET)
    old.release()
    (old.directory / "tls").unlink() if content is None else (old.directory / "tls").write_bytes(content)
    again = identity.claim(paths(tmp_path), SECRET)
    assert again.credentials == old.credentials
    again.release()


def test_a_running_nodes_directory_is_locked(tmp_path: Path) -> None:
    one = identity.claim(paths(tmp_path), SECRET)
    assert not os.get_inheritable(one.lock)
    with open(one.directory / "lock") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    one.release()


def test_a_state_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(ConfigError):
        identity.claim(paths(tmp_path), SECRET)


def test_state_on_a_network_file_system_moves_to_local_disk(tmp_path: Path) -> None:
    moved, sentence = identity.state_paths(paths(tmp_path), lambda _: "nfs4")
    assert moved.state != paths(tmp_path).state
    assert not moved.state.is_relative_to(tmp_path)
    assert "network file system (nfs4)" in sentence
    assert moved.config == paths(tmp_path).config
    assert identity.state_paths(paths(tmp_path), lambda _: "ext4") == (paths(tmp_path), "")
    assert identity.state_paths(paths(tmp_path))[1] == ""


def test_the_longest_and_latest_mount_holds_a_path() -> None:
    mounts = [(Path("/"), "ext4"), (Path("/home"), "nfs"), (Path("/home/me/local"), "xfs"), (Path("/home"), "nfs4")]
    assert identity.filesystem_in(Path("/home/me/x"), mounts) == "nfs4"
    assert identity.filesystem_in(Path("/home/me/local/x"), mounts) == "xfs"
    assert identity.filesystem_in(Path("/homestead"), mounts) == "ext4"
    assert identity.filesystem_in(Path("/x"), []) == ""


def test_a_start_from_the_cache_does_not_load_x509(tmp_path: Path) -> None:
    identity.claim(paths(tmp_path), SECRET).release()
    code = (
        "import sys; from pathlib import Path; from p2premap.node import identity, tls\n"
        "from p2premap.node.paths import Paths; from p2premap.node.secret import ClusterSecret\n"
        "home = Path(sys.argv[1]); paths = Paths(home / 'config', home / 'state', home / 'run')\n"
        "one = identity.claim(paths, ClusterSecret(b's' * 32)); tls.server_context(one.credentials)\n"
        "print(len(one.former), 'cryptography.x509' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]


def test_a_new_identity_knows_the_peers_of_the_old_one(tmp_path: Path) -> None:
    old = identity.claim(paths(tmp_path), SECRET)
    (old.directory / identity.PEERS).write_bytes(b"peers")
    new = identity.take_new(paths(tmp_path), SECRET, old)
    assert (new.directory / identity.PEERS).read_bytes() == b"peers"
    new.release()
