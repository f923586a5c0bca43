"""The local control service: frames over the Unix socket that `p2premap.node.sockets` has made.

The socket has mode 0600 in a directory of mode 0700; who connects is asked for its user id all the same, as some
systems do not look at a socket's mode.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
from typing import Final

import trio

from p2premap.errors import P2PRemapError
from p2premap.node.quick import QuickStream
from p2premap.node.streams import StreamFrames
from p2premap.ports import StreamHandler
from p2premap.protocol import FROM_CLIENT, FROM_DAEMON
from p2premap.wire import FrameDecoder

_log = logging.getLogger(__name__)

# Where no descriptor is free it would log a traceback ten times a second; `p2premap.node.house` says so, too.
logging.getLogger("trio.serve_listeners").setLevel(logging.CRITICAL)

_LINUX_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))
_BSD_CREDENTIALS: Final = struct.Struct("2Ih16I")  # struct xucred: version, uid, count, groups (unix(4))
_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = 1


async def serve_unix(
    listener: socket.socket, handler: StreamHandler, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve each client of this user until cancelled; a client's trouble ends its own connection only.

    Args:
        listener: bound and listening; closed at the end.
        handler: the control service.
    """
    listener.setblocking(False)

    async def serve(stream: trio.SocketStream) -> None:
        await _serve(stream, handler)

    task_status.started()  # it listens already
    await trio.serve_listeners(serve, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))])


async def _serve(stream: trio.SocketStream, handler: StreamHandler) -> None:
    user = peer_user(stream)
    quick = QuickStream(socket.socket(fileno=stream.socket.detach()))
    frames = StreamFrames(quick, peer=None, sends=FROM_DAEMON, decoder=FrameDecoder(FROM_CLIENT), local=True)
    try:
        if user in (os.getuid(), 0):
            await handler(frames)
    except P2PRemapError:
        pass  # the client is gone, or says what does not belong here: nothing to do for it
    except Exception:
        _log.exception("the control service failed for one client")
    finally:
        await frames.aclose()


def peer_user(stream: trio.SocketStream) -> int | None:
    """The user id of the process at the other end; None where the system does not tell."""
    try:
        if sys.platform == "linux":
            size = _LINUX_CREDENTIALS.size
            raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        else:
            raw = stream.socket.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _BSD_CREDENTIALS.size)
    except OSError:
        return None
    layout = _LINUX_CREDENTIALS if sys.platform == "linux" else _BSD_CREDENTIALS
    return int(layout.unpack(raw[: layout.size])[1])
