"""Which firewall is there, and the line that opens a port in it."""

import json
import sys

import pytest

from p2premap.node import firewall
from p2premap.node.firewall import (
    Chain,
    Firewall,
    Kind,
    detect,
    filtering_chains,
    iptables_filters,
    opening_lines,
    ufw_enabled,
)


def ruleset(*items):
    return json.dumps({"nftables": [{"metainfo": {}}, *items]})


def chain(name="in", *, policy="accept", hook="input", family="inet", table="fw"):
    return {"chain": {"family": family, "table": table, "name": name, "hook": hook, "policy": policy}}


def rule(statement, *, name="in", family="inet", table="fw"):
    return {"rule": {"family": family, "table": table, "chain": name, "expr": [{"match": {}}, statement]}}


def test_chains_that_can_stop_a_packet():
    expected = (Chain("inet", "fw", "in"),)
    assert filtering_chains(ruleset(chain(policy="drop"))) == expected
    assert filtering_chains(ruleset(chain(), rule({"reject": None}))) == expected
    assert filtering_chains(ruleset(chain(), rule({"jump": {"target": "x"}}))) == expected


@pytest.mark.parametrize(
    "text",
    [
        ruleset(),
        ruleset(chain()),
        ruleset(chain(), rule({"accept": None})),
        ruleset(chain(hook="forward", policy="drop")),
        ruleset(chain(family="bridge", policy="drop")),
        ruleset(chain(), rule({"drop": None}, name="other")),
        "not json",
        "[]",
        '{"nftables": [{"chain": null}]}',
        '{"nftables": [{"chain": {"hook": "input"}}]}',
    ],
)
def test_rules_that_stop_nothing_or_cannot_be_read(text):
    assert filtering_chains(text) == ()


def test_ufw_and_iptables():
    assert ufw_enabled("# comment\nENABLED=yes\nLOGLEVEL=low\n")
    assert not ufw_enabled("ENABLED=no\n")
    assert not ufw_enabled("")
    assert iptables_filters("-P INPUT DROP\n")
    assert iptables_filters("-P INPUT ACCEPT\n-A INPUT -p tcp -j REJECT --reject-with icmp-port-unreachable\n")
    assert not iptables_filters("-P INPUT ACCEPT\n-A INPUT -j ACCEPT\n")


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_names_the_port_and_both_protocols(kind):
    lines = "\n".join(opening_lines(Firewall(kind, (Chain("inet", "fw", "in"),)), 7325))
    if kind is Kind.NONE:
        assert lines == ""
    elif kind is Kind.MACOS:
        assert sys.executable in lines
    else:
        assert "7325" in lines
        assert "tcp" in lines
        assert "udp" in lines


def test_the_chain_that_filters_is_named():
    assert opening_lines(Firewall(Kind.NFTABLES, (Chain("ip", "t", "c"),)), 7, ("udp",)) == (
        "sudo nft 'insert rule ip t c meta l4proto { udp } th dport 7 accept'",
    )


@pytest.mark.skipif(sys.platform == "darwin", reason="other commands there")
@pytest.mark.parametrize(
    ("answers", "ufw", "kind"),
    [
        ({}, "ENABLED=yes", Kind.UFW),
        ({"firewall-cmd": "running\n"}, "", Kind.FIREWALLD),
        ({"nft": ruleset(chain(policy="drop"))}, "", Kind.NFTABLES),
        ({"nft": ruleset(chain())}, "", Kind.NONE),
        ({"nft": ruleset(chain()), "iptables": "-P INPUT DROP"}, "", Kind.IPTABLES),
        ({"iptables": "-P INPUT ACCEPT"}, "", Kind.NONE),
        ({"ip6tables": "-P INPUT DROP"}, "", Kind.IPTABLES),
        ({}, "", Kind.UNSEEN),
    ],
)
def test_detection(monkeypatch, answers, ufw, kind):
    monkeypatch.setattr(firewall, "_text", lambda _: ufw)
    assert detect(lambda command: answers.get(command[0])).kind is kind


def test_commands_that_fail_or_hang_print_nothing(monkeypatch):
    monkeypatch.setattr(firewall, "COMMAND_S", 60.0)
    assert firewall.run_command(["echo", "hi"]) == "hi\n"
    assert firewall.run_command(["false"]) is None
    assert firewall.run_command(["no-such-program-here"]) is None
    monkeypatch.setattr(firewall, "COMMAND_S", 0.05)
    assert firewall.run_command(["sleep", "600"]) is None
