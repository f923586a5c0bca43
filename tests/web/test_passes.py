"""Who gets in: tickets once, cookies until they are over, nothing that somebody has made up."""

from __future__ import annotations

import base64

from p2premap.node.webdoor import label_of
from p2premap.node.webtold import TICKET_S, ticket_of
from p2premap.web.passes import COOKIE_S, Passes

KEY = bytes(range(32))
NOW = 1_800_000_000.0


def passes() -> Passes:
    return Passes(key=KEY, token="ab" * 32)


def ticket(nonce: bytes = bytes(16), key: bytes = KEY) -> str:
    return ticket_of(key, now_s=NOW, nonce=nonce)


def test_a_ticket_lets_in_once() -> None:
    ours = passes()
    assert ours.take_ticket(ticket(), NOW)
    assert not ours.take_ticket(ticket(), NOW)
    assert ours.take_ticket(ticket(bytes(15) + b"\1"), NOW)


def test_a_ticket_that_was_written_otherwise_is_the_same_ticket() -> None:
    ours, text = passes(), ticket()
    assert ours.take_ticket(text, NOW)
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    same = [text[:-1] + c for c in last if base64.urlsafe_b64decode(text + "==") == _decoded(text[:-1] + c)]
    assert len(same) > 1
    assert not any(ours.take_ticket(one, NOW) for one in same)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_a_ticket_is_good_for_ten_minutes() -> None:
    assert not passes().take_ticket(ticket(), NOW + TICKET_S + 1)
    assert passes().take_ticket(ticket(), NOW + TICKET_S - 1)


def test_what_another_key_signed_lets_nobody_in() -> None:
    assert not passes().take_ticket(ticket(key=bytes(32)), NOW)
    for text in ("", "x", "é", "A" * 60, ticket()[:-2], ticket() + "AAAA", "\x00", "%" * 10):
        assert not passes().take_ticket(text, NOW)
        assert not passes().cookie_fits(text, NOW)


def test_a_ticket_is_no_cookie_and_a_cookie_no_ticket() -> None:
    ours = passes()
    assert not ours.cookie_fits(ticket(), NOW)
    assert not ours.take_ticket(ours.cookie(NOW), NOW)


def test_a_cookie_is_good_until_it_is_over_or_logged_out() -> None:
    ours = passes()
    cookie, other = ours.cookie(NOW), ours.cookie(NOW)
    assert cookie != other
    assert ours.cookie_fits(cookie, NOW + COOKIE_S - 1)
    assert not ours.cookie_fits(cookie, NOW + COOKIE_S + 1)
    ours.log_out(cookie, NOW)
    assert not ours.cookie_fits(cookie, NOW)
    assert ours.cookie_fits(other, NOW)


def test_the_token() -> None:
    assert passes().token_fits("ab" * 32)
    for wrong in ("", "ab" * 31, "AB" * 32, "é"):
        assert not passes().token_fits(wrong)


def test_each_node_has_a_host_name_of_its_own() -> None:
    node = bytes(range(16))
    assert label_of("Ada Lovelace's Mac", node) == "ada-lovelace-s-mac-00010203"
    assert label_of("ü", node) == "node-00010203"
    assert len(label_of("x" * 63, node)) < 63
