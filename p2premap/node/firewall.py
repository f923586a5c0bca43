"""Which firewall filters here, and the exact line that opens a port in it. No trio.

Only evidence decides whether a firewall is in the way (a member that cannot dial us); what is found here only chooses
the words of the remedy, because rules can be read by root alone and seldom tell the whole story.
"""

from __future__ import annotations

import enum
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

COMMAND_S = 5.0
MDNS_PORT = 5353


class Kind(enum.Enum):
    """Firewalls that people meet."""

    UFW = "ufw"
    FIREWALLD = "firewalld"
    NFTABLES = "nftables"
    IPTABLES = "iptables"
    MACOS = "the macOS application firewall"
    UNSEEN = "unseen"
    """Rules may exist; this user may not read them."""
    NONE = "none"


class Chain(msgspec.Struct, frozen=True):
    """An nftables chain that sees incoming packets before this node does, and may drop them."""

    family: str
    table: str
    name: str


class Firewall(msgspec.Struct, frozen=True):
    """What filters incoming packets on this machine.

    Args:
        chains: of nftables.
    """

    kind: Kind
    chains: tuple[Chain, ...] = ()


Run = Callable[[Sequence[str]], "str | None"]
"""Runs a command and returns what it printed; None where it fails or is not there."""


def opening_lines(firewall: Firewall, port: int, protocols: Sequence[str] = ("tcp", "udp")) -> tuple[str, ...]:
    """The commands that let packets to a port in; for `Kind.UNSEEN`, one for each likely firewall."""
    match firewall.kind:
        case Kind.UFW:
            return tuple(f"sudo ufw allow {port}/{protocol}" for protocol in protocols)
        case Kind.FIREWALLD:
            ports = " ".join(f"--add-port={port}/{protocol}" for protocol in protocols)
            return (f"sudo firewall-cmd --permanent {ports}", "sudo firewall-cmd --reload")
        case Kind.NFTABLES:
            # `insert` puts it before the rule that drops; the quotes are for the shell
            which = f"meta l4proto {{ {', '.join(protocols)} }} th dport {port}"
            return tuple(
                f"sudo nft 'insert rule {c.family} {c.table} {c.name} {which} accept'" for c in firewall.chains
            )
        case Kind.IPTABLES:
            tables = ("iptables", "ip6tables")
            return tuple(f"sudo {t} -I INPUT -p {p} --dport {port} -j ACCEPT" for t in tables for p in protocols)
        case Kind.MACOS:
            tool = "/usr/libexec/ApplicationFirewall/socketfilterfw"
            return (f"sudo {tool} --add {sys.executable}", f"sudo {tool} --unblockapp {sys.executable}")
        case Kind.UNSEEN:
            candidates = (Firewall(Kind.UFW), Firewall(Kind.FIREWALLD), Firewall(Kind.IPTABLES))
            return tuple(" && ".join(opening_lines(f, port, protocols)) for f in candidates)
        case Kind.NONE:
            return ()


def detect(run: Run | None = None) -> Firewall:
    """The firewall of this machine; a manager (ufw, firewalld) before the tables that it fills."""
    run = run or run_command
    if sys.platform == "darwin":
        state = run(["/usr/libexec/ApplicationFirewall/socketfilterfw", "--getglobalstate"])
        return Firewall(Kind.MACOS if state and "enabled" in state.lower() else Kind.NONE)
    if ufw_enabled(_text(Path("/etc/ufw/ufw.conf"))):
        return Firewall(Kind.UFW)
    if (run(["firewall-cmd", "--state"]) or "").strip() == "running":
        return Firewall(Kind.FIREWALLD)
    ruleset = run(["nft", "-j", "list", "ruleset"])
    if ruleset is not None:
        chains = filtering_chains(ruleset)
        tables = {chain.table for chain in chains}
        if chains and not tables <= {"filter"}:
            return Firewall(Kind.NFTABLES, chains)
        if chains:
            # the tables named `filter` belong to iptables-nft where that program is there, and it refuses foreign rules
            return Firewall(Kind.IPTABLES) if shutil.which("iptables") else Firewall(Kind.NFTABLES, chains)
    legacy = [run([tool, "-S", "INPUT"]) for tool in ("iptables", "ip6tables")]
    if any(rules is not None and iptables_filters(rules) for rules in legacy):
        return Firewall(Kind.IPTABLES)
    if ruleset is None and all(rules is None for rules in legacy):
        return Firewall(Kind.UNSEEN)
    return Firewall(Kind.NONE)


def ufw_enabled(config: str) -> bool:
    """Whether ufw's config file says that it is on."""
    settings = dict(line.replace(" ", "").split("=", 1) for line in config.splitlines() if "=" in line)
    return settings.get("ENABLED", "").strip("\"'").lower() == "yes"


def iptables_filters(rules: str) -> bool:
    """Whether `iptables -S INPUT` shows something that may keep packets away."""
    return any(line == "-P INPUT DROP" or " -j DROP" in line or " -j REJECT" in line for line in rules.splitlines())


def filtering_chains(ruleset: str) -> tuple[Chain, ...]:
    """The chains of `nft -j list ruleset` at the input hook that drop or reject something, by policy or by rule."""
    try:
        items = json.loads(ruleset).get("nftables", [])
        chains = [item["chain"] for item in items if "chain" in item and item["chain"].get("hook") == "input"]
        rules = [item["rule"] for item in items if "rule" in item]
        return tuple(
            Chain(chain["family"], chain["table"], chain["name"])
            for chain in chains
            if chain["family"] in ("inet", "ip", "ip6")
            if chain.get("policy") == "drop" or any(_belongs(rule, chain) and _stops(rule) for rule in rules)
        )
    except (ValueError, KeyError, TypeError, AttributeError):  # another version's output: not worth a crash
        return ()


def _belongs(rule: dict[str, object], chain: dict[str, object]) -> bool:
    return (rule["family"], rule["table"], rule["chain"]) == (chain["family"], chain["table"], chain["name"])


def _stops(rule: dict[str, object]) -> bool:
    statements = rule.get("expr")
    # a jump may lead to a drop; following it is not worth it, the remedy is right in either case
    stops = {"drop", "reject", "jump", "goto"}
    return isinstance(statements, list) and any(isinstance(s, dict) and stops & set(s) for s in statements)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def run_command(command: Sequence[str]) -> str | None:
    """What a command prints; None where it fails, is not there or takes longer than COMMAND_S."""
    if not (program := shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/bin")):
        return None
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=COMMAND_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
