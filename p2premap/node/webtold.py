"""What the daemon tells the process that serves HTTP, what that one answers, and how both sign what lets people in.

Apart from `p2premap.node.webdoor`, because that process has no use for trio, whose import is a fifth of its start.
"""

from __future__ import annotations

import base64
import hmac
from typing import Final

import msgspec

TICKET_S: Final = 600.0


class WebSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told on its standard input, as one line of JSON.

    Args:
        node: in hexadecimal.
        socket: of the daemon.
        label: the first part of the host name that is this node's alone.
        key: signs tickets and cookies, in hexadecimal.
        token: what programs show.
        port: to listen at; it and the next ones are tried. 0: any.
        authority: where it is served to other machines, too: the seed of the authority for browsers, in hexadecimal.
        authority_file: where that one's certificate is written to.
        names: of this machine, in its network.
        stays: it does not end when nobody uses it.
        uploads: a directory for what is handed in.
        jobs: the directory of installed job files.
    """

    node: str
    name: str
    socket: str
    label: str
    key: str
    token: str
    port: int
    uploads: str
    jobs: str
    stays: bool = False
    cluster: str = ""
    authority: str = ""
    authority_file: str = ""
    names: list[str] = []


class WebReady(msgspec.Struct, frozen=True, kw_only=True):
    """What the process says on its standard output, as one line of JSON: that it listens, or why not.

    Args:
        origins: of which the first is for a browser on this machine.
    """

    origins: list[str] = []
    port: int = 0
    error: str = ""


def ticket_of(key: bytes, *, now_s: float, nonce: bytes) -> str:
    """A login that is good once, for `TICKET_S`.

    Args:
        now_s: by this machine's clock, in seconds since 1970.
    """
    until = int(now_s + TICKET_S).to_bytes(8) + nonce
    return base64.urlsafe_b64encode(until + signature(key, "ticket", until)).decode().rstrip("=")


def signature(key: bytes, what: str, data: bytes) -> bytes:
    """16 bytes that only who has the key can make; `what` keeps one use of the key from another."""
    return hmac.digest(key, what.encode() + b"\0" + data, "sha256")[:16]
