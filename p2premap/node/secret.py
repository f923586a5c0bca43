"""The cluster's secret: 32 bytes from which everything that makes a member a member is derived. No trio here.

::

    S --HKDF-SHA256--> CA seed       the Ed25519 key that signs every member's certificate
                   --> gossip key    the root of the datagrams' keys
                   --> web seed      the key that signs what nodes show to browsers of other machines
                   --> tag           public: names the cluster in directories and in mDNS

Who knows S is a member and can run code on every other member. It lies in the user's config directory as one line of
64 hexadecimal digits, mode 0600, so that all nodes of one user on one machine share it without being told. Once it has
been rotated a second line follows, of JSON: which secret of the cluster this is, and the others that this machine
knows (`p2premap.node.keyring`). One file, so that one rename changes all of it.

`p2premap node --open NAME` uses a secret that everybody can compute from NAME: an explicit choice for a network where
everybody may run code as everybody else. It is never stored.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import msgspec

from p2premap.errors import ConfigError
from p2premap.node.paths import private_directory
from p2premap.ports import Randomness

SECRET_BYTES: Final = 32
TAG_BYTES: Final = 8
OPEN_NAME_MAX: Final = 64
_FILE: Final = "secret"
_LOCK: Final = "secret.lock"
_LINE: Final = re.compile(rb"([0-9a-f]{64})(?:\n(?:(\{[^\n]*\})\n?)?)?")
_FILE_BYTES_MAX: Final = 1 << 20


def derive(key: bytes, label: str, size: int = 32, salt: bytes = b"") -> bytes:
    """HKDF-SHA256 (RFC 5869) of at most one hash length: an independent key for each label.

    Args:
        key: the input keying material.
        label: the `info` of the RFC.
        size: 1 to 32 bytes.
        salt: not secret; b"" as in the RFC means zeros.
    """
    assert 0 < size <= hashlib.sha256().digest_size
    extracted = hmac.digest(salt or bytes(32), key, "sha256")
    return hmac.digest(extracted, label.encode() + b"\x01", "sha256")[:size]


class ClusterSecret(msgspec.Struct, frozen=True):
    """A cluster's secret and what is derived from it. Its repr shows the public tag only.

    Args:
        value: the 32 bytes.
        open_name: the NAME of ``--open NAME``; "" for a secret that is one.
        epoch: how many secrets the cluster has had, this one included.
        origin: the tag of the first of them, where this is a later one; else "".
    """

    value: bytes
    open_name: str = ""
    epoch: int = 1
    origin: str = ""

    def __post_init__(self) -> None:
        if len(self.value) != SECRET_BYTES:
            raise ConfigError(f"A cluster's secret is {SECRET_BYTES} bytes, not {len(self.value)}.")

    def __repr__(self) -> str:
        return f"<ClusterSecret of {self.tag}>"

    @property
    def tag(self) -> str:
        """16 hexadecimal digits that name the cluster in public."""
        return derive(self.value, "p2premap 1 tag", TAG_BYTES).hex()

    @property
    def place(self) -> str:
        """What the cluster's directories on this machine are called: a rotation moves none of them."""
        return self.origin or self.tag

    @property
    def gossip_key(self) -> bytes:
        """The root key of `p2premap.node.seal`."""
        return derive(self.value, "p2premap 1 gossip")

    @property
    def ca_seed(self) -> bytes:
        """The private Ed25519 key (RFC 8032) of the cluster's certificate authority."""
        return derive(self.value, "p2premap 1 ca")

    @property
    def web_seed(self) -> bytes:
        """What the key of the authority for browsers is made from (`p2premap.web.authority`)."""
        return derive(self.value, "p2premap 1 web")


def new_secret(randomness: Randomness = os.urandom) -> ClusterSecret:
    """A secret that nobody else has."""
    return ClusterSecret(randomness(SECRET_BYTES))


def open_secret(name: str) -> ClusterSecret:
    """The well-known secret of ``--open NAME``: no secret at all.

    Raises:
        ConfigError: the name is empty, too long or not printable.
    """
    if not name or len(name) > OPEN_NAME_MAX or not name.isprintable():
        raise ConfigError(f"--open needs a name of 1 to {OPEN_NAME_MAX} printable characters.")
    return ClusterSecret(derive(name.encode(), "p2premap 1 open"), name)


class _Head(msgspec.Struct):
    """What the second line says of the secret itself."""

    epoch: Annotated[int, msgspec.Meta(ge=1)] = 1
    origin: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{16})?\Z")] = ""  # it names a directory


def load(config: Path) -> ClusterSecret | None:
    """The secret in the config directory; None where there is none yet.

    Raises:
        ConfigError: it cannot be read, others could read it too, or it is not a secret.
    """
    found = load_whole(config)
    return found[0] if found is not None else None


def load_whole(config: Path) -> tuple[ClusterSecret, bytes] | None:
    """The secret, and the JSON behind it (b"" for none).

    Raises:
        ConfigError: as `load`.
    """
    path = config / _FILE
    content = _read(path)
    if content is None:
        return None
    found = _LINE.fullmatch(content)
    try:
        head = msgspec.json.decode(found[2] or b"{}", type=_Head) if found else None
    except msgspec.DecodeError:
        head = None
    if found is None or head is None:
        raise ConfigError(f"{path} does not hold a cluster's secret; restore it, or remove it to start a new cluster.")
    return ClusterSecret(bytes.fromhex(found[1].decode()), "", head.epoch, head.origin), found[2] or b""


def _read(path: Path) -> bytes | None:
    """The file's bytes; None where there is none.

    Raises:
        ConfigError: as `load`.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a named pipe must not hold us up
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"Cannot read the cluster's secret {path}: {error.strerror}.") from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
            raise ConfigError(f"{path} is not a file of yours; move it away to start a new cluster, or restore it.")
        if status.st_mode & 0o077:
            raise ConfigError(f"Others can read the cluster's secret: run `chmod 600 {path}`.")
        return os.read(file, _FILE_BYTES_MAX)
    except OSError as error:
        raise ConfigError(f"Cannot read the cluster's secret {path}: {error.strerror}.") from None
    finally:
        os.close(file)


def load_or_make(config: Path, randomness: Randomness = os.urandom) -> ClusterSecret:
    """The user's secret, made at the first run. Of several first runs at once, one wins and all use its secret.

    Raises:
        ConfigError: as `load`, or the directory cannot be written.
    """
    if (found := load(config)) is not None:
        return found
    made = new_secret(randomness)
    temporary = _write_aside(config, made, randomness)
    try:
        os.link(
            temporary, config / _FILE
        )  # fails where another first run was quicker; a rename would replace its secret
    except FileExistsError:
        return load_or_make(config, randomness)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):  # a file system without hard links
            raise ConfigError(f"Cannot store the cluster's secret in {config}: {error.strerror}.") from None
        temporary.replace(config / _FILE)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(config)
    return made


def replace(
    config: Path,
    secret: ClusterSecret,
    randomness: Randomness = os.urandom,
    more: Mapping[str, object] = MappingProxyType({}),
) -> None:
    """From now on this is the user's secret: the machine has joined another cluster, or the secret was rotated.

    Args:
        more: what else the second line shall say.

    Raises:
        ConfigError: the directory cannot be written; the old secret is still there.
    """
    temporary = _write_aside(config, secret, randomness, more)
    try:
        temporary.replace(config / _FILE)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"Cannot store the cluster's secret in {config}: {error.strerror}.") from None
    _sync(config)


def forget(config: Path) -> None:
    """Leave for good: the next run makes a secret of its own.

    Raises:
        ConfigError: the file cannot be removed.
    """
    try:
        (config / _FILE).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"Cannot remove the cluster's secret {config / _FILE}: {error.strerror}.") from None
    _sync(config)


@contextlib.contextmanager
def locked(config: Path) -> Iterator[None]:
    """Nobody else on this machine changes the secret meanwhile, if he asks for this lock too.

    Raises:
        ConfigError: the directory cannot be written.
    """
    private_directory(config)
    try:
        file = os.open(config / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"Cannot change the cluster's secret in {config}: {error.strerror}.") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX)  # held for one small write
        yield
    finally:
        os.close(file)


def _write_aside(
    config: Path, secret: ClusterSecret, randomness: Randomness, more: Mapping[str, object] = MappingProxyType({})
) -> Path:
    """The secret in a temporary file of mode 0600, on disk."""
    private_directory(config)
    path = config / f".{_FILE}.{randomness(8).hex()}"
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(file, "wb") as stream:
            stream.write(secret.value.hex().encode() + b"\n")
            if secret.origin or more:
                head = {"epoch": secret.epoch, "origin": secret.origin}
                stream.write(msgspec.json.encode({**head, **more}) + b"\n")
            stream.flush()
            os.fsync(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise ConfigError(f"Cannot store the cluster's secret in {config}: {error.strerror}.") from None
    return path


def _sync(directory: Path) -> None:
    """Make a rename in the directory survive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        file = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)
