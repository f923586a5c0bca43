"""Letting machines in by token: who gets the secret, who does not, and what each is told."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from p2premap.errors import ConfigError, JoinRefused, PeerUnreachable
from p2premap.gossip.events import DialOutcome
from p2premap.ids import Address
from p2premap.node import guest, invite, tls
from p2premap.node.guest import Joined
from p2premap.node.invite import Answer, Inviter
from p2premap.node.secret import ClusterSecret, new_secret
from p2premap.node.token import Token, print_token, read_token
from tests.node.nodes import PATIENCE_S, Node, node

SECRET = new_secret(lambda size: b"s" * size)
OTHER = new_secret(lambda size: b"o" * size)


async def join(token: str, randomness: Callable[[int], bytes] = os.urandom) -> Joined:
    """The guest, as a process of its own would do it."""
    with trio.fail_after(PATIENCE_S):
        return await trio.to_thread.run_sync(guest.join, token, randomness)


@pytest.fixture(autouse=True)
def _waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invite, "WRONG_WAIT_S", 0.0)
    monkeypatch.setattr(guest, "CONNECT_S", PATIENCE_S)
    monkeypatch.setattr(guest, "EXCHANGE_S", PATIENCE_S)


def altered(token: str, **changes: object) -> str:
    return print_token(replace(read_token(token), **changes))


@pytest.mark.trio
async def test_a_token_lets_one_machine_in_and_it_is_a_member(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as host:
        token = host.inviter.invite(uses=1, valid_s=600)
        joined = await join(token)
        assert joined == Joined(SECRET, host.transport.local_addresses)
        async with node(tmp_path / "b", joined.secret) as member:
            assert (await member.dial(joined.addresses[0])).outcome is DialOutcome.CONNECTED
        with pytest.raises(JoinRefused, match="used as often as it allows"):
            await join(token)
        assert host.events == [e for e in host.events if type(e).__name__ in ("LinkUp", "LinkDown")]


@pytest.mark.trio
async def test_uses_are_counted_and_a_guest_that_asks_again_is_not(tmp_path: Path) -> None:
    async with node(tmp_path, SECRET) as host:
        token = host.inviter.invite(uses=3, valid_s=600)
        same = lambda size: b"g" * size  # noqa: E731
        for _ in range(3):
            assert (await join(token, same)).secret == SECRET
        for _ in range(2):
            assert (await join(token)).secret == SECRET
        with pytest.raises(JoinRefused, match="--uses N"):
            await join(token)
        assert (await join(token, same)).secret == SECRET


@pytest.mark.trio
async def test_an_expired_token_says_so(tmp_path: Path) -> None:
    async with node(tmp_path, SECRET) as host:
        now = [0.0]
        host.inviter._clock = lambda: now[0]
        token = host.inviter.invite(uses=5, valid_s=60)
        now[0] = 59.9
        assert (await join(token)).secret == SECRET
        now[0] = 60.0
        with pytest.raises(JoinRefused, match="expired"):
            await join(token)
        assert host.inviter.is_open
        now[0] = 60.0 + invite.REMEMBERED_S + 1
        assert not host.inviter.is_open
        with pytest.raises(JoinRefused, match="does not invite"):
            await join(token)


@pytest.mark.trio
async def test_a_wrong_secret_learns_nothing(tmp_path: Path) -> None:
    async with node(tmp_path, SECRET) as host:
        token = host.inviter.invite(uses=1, valid_s=600)
        for number in range(5):
            with pytest.raises(JoinRefused, match="does not know this token"):
                await join(altered(token, secret=bytes([number]) * 16))
        assert host.inviter.statistics() == {"guests_wrong": 5}
        assert (await join(token)).secret == SECRET  # wrong guesses use nothing up


@pytest.mark.trio
async def test_the_guest_says_its_secret_to_the_tokens_cluster_only(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as right, node(tmp_path / "b", OTHER) as wrong:
        token = right.inviter.invite(uses=1, valid_s=600)
        wrong.inviter.invite(uses=1, valid_s=600)
        with pytest.raises(JoinRefused, match="does not invite into the token's cluster"):
            await join(altered(token, addresses=(wrong.address,)))
        assert wrong.inviter.statistics() == {}  # it has not been told anything that it could count
        both = altered(token, addresses=(wrong.address, right.address))
        assert (await join(both)).secret == SECRET


@pytest.mark.trio
async def test_an_impostor_that_shows_the_right_ca_but_another_leaf_is_told_nothing(tmp_path: Path) -> None:
    async with node(tmp_path, SECRET) as host:
        token = host.inviter.invite(uses=1, valid_s=600)
        impostor = Inviter(secret=OTHER, credentials=tls.ephemeral(OTHER), addresses=lambda: (), randomness=os.urandom)
        impostor.invite(uses=1, valid_s=600)
        impostor._ca = host.inviter._ca  # everybody who has seen an invitation knows it

        async def serve(tcp: trio.SocketStream) -> None:
            await tcp.receive_some(len(invite.PREFACE))
            with suppress(trio.BrokenResourceError):  # the guest hangs up
                await impostor.serve(tcp)

        async with trio.open_nursery() as nursery:
            listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            where = Address(*listener.socket.getsockname()[:2])
            with pytest.raises(JoinRefused, match="does not invite"):
                await join(altered(token, addresses=(where,)))
            nursery.cancel_scope.cancel()
        assert impostor.statistics() == {}


@pytest.mark.trio
async def test_without_an_invitation_nobody_is_listened_to(tmp_path: Path) -> None:
    async with node(tmp_path, SECRET) as host:
        token = print_token(Token(b"h" * 16, b"s" * 16, (host.address,)))
        with pytest.raises(JoinRefused, match="does not invite"):
            await join(token)
        assert host.transport.statistics().counts["strangers_noise"] == 1


def test_an_address_where_nobody_listens_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        token = print_token(Token(b"h" * 16, b"s" * 16, (Address(*unused.getsockname()),)))
        with pytest.raises(PeerUnreachable, match="does not answer"):
            guest.join(token)
    with pytest.raises(PeerUnreachable, match="no address"):
        guest.join(print_token(Token(b"h" * 16, b"s" * 16, ())))


@contextmanager
def talker(data: bytes) -> Iterator[Address]:
    """A server in a thread that says `data` to each of a few guests and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Address(*server.getsockname())
        thread.join()


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(range(256))])
def test_another_program_at_the_address_is_one_sentence(data: bytes) -> None:
    with talker(data) as where, pytest.raises(JoinRefused, match="does not invite"):
        guest.join(print_token(Token(b"h" * 16, b"s" * 16, (where,))))


@pytest.mark.trio
async def test_an_open_clusters_name_travels_with_its_secret(tmp_path: Path) -> None:
    lab = ClusterSecret(SECRET.value, "lab")
    async with node(tmp_path, lab) as host:
        assert (await join(host.inviter.invite(uses=1, valid_s=60))).secret == lab


@pytest.mark.trio
async def test_invitations_are_bounded(tmp_path: Path) -> None:
    async with node(tmp_path, SECRET) as host:
        for uses, valid_s in ((0, 60.0), (invite.USES_MAX + 1, 60.0), (1, 0.0), (1, float("nan")), (1, 1e9)):
            with pytest.raises(ConfigError, match="An invitation is"):
                host.inviter.invite(uses=uses, valid_s=valid_s)
        for _ in range(invite.INVITES_MAX):
            host.inviter.invite(uses=1, valid_s=60)
        with pytest.raises(ConfigError, match="already"):
            host.inviter.invite(uses=1, valid_s=60)


@pytest.mark.trio
async def test_noise_in_place_of_a_guest_changes_nothing(tmp_path: Path) -> None:
    async with node(tmp_path, SECRET) as host:
        token = host.inviter.invite(uses=1, valid_s=600)
        for data in (
            b"",
            b"x" * 300,
            b"\x01\x00\x00\xff\xff\x00\x00\x00\x00",
            b"\x01\x00\x00\x00\x01\x00\x00\x00\x00\xf6",
        ):
            tcp = await trio.open_tcp_stream(*host.address)
            await tcp.send_all(invite.PREFACE)
            assert await tcp.receive_some(len(invite.PREFACE_ANSWER)) == invite.PREFACE_ANSWER
            stream = trio.SSLStream(tcp, tls.unverified_context(), server_hostname="x")
            await stream.do_handshake()
            if data:
                await stream.send_all(data)
            await stream.aclose()
        await until_alone(host)
        assert (await join(token)).secret == SECRET


async def until_alone(host: Node) -> None:
    with trio.fail_after(PATIENCE_S):
        while host.transport.statistics().strangers:
            await trio.testing.wait_all_tasks_blocked(0.01)


# --- the text -----------------------------------------------------------------------------------------------------

HOSTS = st.one_of(
    st.binary(min_size=4, max_size=4).map(ipaddress.IPv4Address),
    st.binary(min_size=16, max_size=16).map(ipaddress.IPv6Address),
)
ADDRESSES = st.lists(st.builds(Address, HOSTS.map(str), st.integers(1, 65535)), max_size=8).map(tuple)
TOKENS = st.builds(Token, st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), ADDRESSES)


@given(token=TOKENS, cut=st.integers(0, 100))
def test_a_token_survives_copying(token: Token, cut: int) -> None:
    text = print_token(token)
    assert text.isascii()
    assert text.isalnum()
    assert read_token(text) == token
    assert read_token(f"  {text[:cut]}\n {text[cut:].upper()}\r\n") == token
    assert repr(token) == f"<Token for {token.ca_hash.hex()}>"


@given(token=TOKENS, place=st.integers(4, 1_000), letter=st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789-_=é\0"))
def test_a_mistyped_token_is_told_from_a_refused_one(token: Token, place: int, letter: str) -> None:
    text = print_token(token)
    place = 4 + place % (len(text) - 4)
    mistyped = text[:place] + letter + text[place + 1 :]
    if mistyped[place] != text[place] and place < len(text) - 1:  # the last letter has bits to spare
        with pytest.raises(ConfigError, match="not a whole invitation token"):
            read_token(mistyped)
    with pytest.raises(ConfigError, match="not a whole invitation token"):
        read_token(text[:place])


@given(text=st.one_of(st.text(), st.text().map(lambda t: "p2pm" + t), st.binary().map(lambda b: "p2pm" + b.hex())))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    with pytest.raises(ConfigError):
        read_token(text)


def test_each_refusal_has_a_sentence_of_its_own() -> None:
    assert len(set(invite.SENTENCES.values())) == len(Answer)
    assert all(sentence.endswith(".") and "invite" in sentence for sentence in invite.SENTENCES.values())


def test_addresses_with_a_scope_are_not_in_a_token() -> None:
    token = Token(b"h" * 16, b"s" * 16, (Address("fe80::1%eth0", 1), Address("10.0.0.1", 2)))
    assert read_token(print_token(token)).addresses == (Address("10.0.0.1", 2),)


@pytest.mark.trio
async def test_a_guest_learns_which_of_the_cluster_s_secrets_it_gets(tmp_path: Path) -> None:
    later = ClusterSecret(b"l" * 32, "", 3, SECRET.tag)
    async with node(tmp_path / "a", later) as host:
        assert (await join(host.inviter.invite(uses=1, valid_s=600))).secret == later


@pytest.mark.trio
async def test_a_host_cannot_name_directories_of_its_guest(tmp_path: Path) -> None:
    async with node(tmp_path / "a", SECRET) as host:
        token = host.inviter.invite(uses=1, valid_s=600)
        host.inviter._secret = ClusterSecret(SECRET.value, "", 2, "../../elsewhere")
        with pytest.raises(JoinRefused):
            await join(token)
