"""Start a node at boot: a systemd unit of the user (Linux), or a launchd agent (macOS). No trio: the CLI calls it.

The unit runs `p2premap node` as the user who installed it, with that user's secret and state. It is not a system
service: nothing here needs root.
"""

from __future__ import annotations

import contextlib
import enum
import os
import plistlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from p2premap.errors import ConfigError

UNIT = "p2premap.service"
LABEL = "org.p2premap.node"
COMMAND_S = 30.0
KEPT_VARIABLES = ("P2PREMAP_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
"""Where they are set now, the service sees them too: it must find the same cluster."""


class Kind(enum.Enum):
    """Who starts services for users on this system."""

    SYSTEMD = "systemd"
    LAUNCHD = "launchd"


class Outcome(msgspec.Struct, frozen=True):
    """How a command ended. A command that cannot be started ends with 127, as in a shell."""

    code: int
    output: str


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The system that the service is for; tests make their own.

    Args:
        kind: None where neither manager is there.
        directory: where the manager looks for the user's units.
        environment: the variables of now.
        run: runs one command of the manager.
        user: the name to be shown, and the number that launchd wants.
    """

    kind: Kind | None
    directory: Path
    environment: Mapping[str, str]
    run: Callable[[Sequence[str]], Outcome]
    user: tuple[str, int]

    @classmethod
    def here(cls) -> Host:
        """This machine and user."""
        home, environment = Path.home(), dict(os.environ)
        if sys.platform == "darwin":
            kind, directory = Kind.LAUNCHD, home / "Library" / "LaunchAgents"
        else:
            config = environment.get("XDG_CONFIG_HOME") or str(home / ".config")
            kind, directory = Kind.SYSTEMD, Path(config) / "systemd" / "user"
        manager = {Kind.SYSTEMD: "systemctl", Kind.LAUNCHD: "launchctl"}[kind]
        return cls(
            kind=kind if shutil.which(manager) else None,
            directory=directory,
            environment=environment,
            run=_run,
            user=(environment.get("USER") or environment.get("LOGNAME") or str(os.getuid()), os.getuid()),
        )

    @property
    def file(self) -> Path:
        """Where the service's description is, or would be."""
        return self.directory / (f"{LABEL}.plist" if self.kind is Kind.LAUNCHD else UNIT)


class ServiceStatus(msgspec.Struct, frozen=True):
    """What `p2premap service` shows. `text` is one sentence, or two."""

    installed: bool
    running: bool
    text: str


def node_command(options: Sequence[str] = ()) -> tuple[str, ...]:
    """The command that starts a node with this very Python, whatever the PATH is at boot."""
    return (sys.executable, "-m", "p2premap", "node", *options)


def service_text(kind: Kind, argv: Sequence[str], variables: Mapping[str, str] | None = None) -> str:
    """The unit or agent that runs `argv`.

    Args:
        argv: the command; its first element an absolute path.
        variables: what it shall see beside the manager's environment.
    """
    variables = variables or {}
    if kind is Kind.LAUNCHD:
        agent: dict[str, object] = {
            "Label": LABEL,
            "ProgramArguments": list(argv),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ProcessType": "Background",
        }
        if variables:
            agent["EnvironmentVariables"] = dict(variables)
        return plistlib.dumps(agent).decode()
    lines = [f"Environment={_quoted(f'{name}={value}')}" for name, value in sorted(variables.items())]
    return "\n".join(
        [
            "[Unit]",
            "Description=p2premap node: this machine's part in the cluster",
            "",
            "[Service]",
            f"ExecStart={' '.join(_quoted(word).replace('$', '$$') for word in argv)}",
            *lines,
            "Restart=on-failure",
            "RestartSec=2",
            # the node ends its own worker processes, and hands its work over first
            "KillMode=mixed",
            "TimeoutStopSec=30",
            "UMask=0077",
            "",
            "[Install]",
            "WantedBy=default.target",
            "",
        ]
    )


def _quoted(word: str) -> str:
    """One word of a systemd line: systemd.service(5), "Command lines"; a percent sign begins a specifier."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
    return escaped if escaped and escaped == word and not set(word) & set(" \t';") else f'"{escaped}"'


def install(options: Sequence[str] = (), *, host: Host | None = None) -> str:
    """Start a node now and at each boot; returns what a person should know.

    Args:
        options: of `p2premap node`.

    Raises:
        ConfigError: no service manager for users here, or it refused; nothing is left installed.
    """
    host = host or Host.here()
    kind = _kind(host)
    variables = {name: host.environment[name] for name in KEPT_VARIABLES if host.environment.get(name)}
    text = service_text(kind, node_command(options), variables)
    try:
        host.directory.mkdir(parents=True, exist_ok=True)
        aside = host.file.with_suffix(".new")
        aside.write_text(text)
        aside.replace(host.file)
    except OSError as error:
        raise ConfigError(f"Cannot write {host.file}: {error.strerror}. Make its directory writable for you.") from None
    commands: list[list[str]] = {
        Kind.SYSTEMD: [
            ["systemctl", "--user", "daemon-reload"],
            ["systemctl", "--user", "enable", UNIT],
            ["systemctl", "--user", "restart", UNIT],
        ],
        Kind.LAUNCHD: [["launchctl", "bootstrap", f"gui/{host.user[1]}", str(host.file)]],
    }[kind]
    if kind is Kind.LAUNCHD:
        host.run(["launchctl", "bootout", f"gui/{host.user[1]}/{LABEL}"])  # an agent of before, if any
    for command in commands:
        if (outcome := host.run(command)).code:
            _remove(host, kind)
            raise ConfigError(f"`{shlex.join(command)}` failed ({_first_line(outcome.output)}); nothing is installed.")
    if kind is Kind.SYSTEMD and not _lingers(host):  # else it would end when the user logs out
        host.run(["loginctl", "--no-ask-password", "enable-linger", host.user[0]])
    return f"Installed {host.file}; the node runs now. " + _boot_sentence(host, kind)


def uninstall(*, host: Host | None = None) -> str:
    """Stop the node and start it no more; its state and its membership stay (`p2premap leave` ends those).

    Raises:
        ConfigError: no service manager for users here, or the file cannot be removed.
    """
    host = host or Host.here()
    kind = _kind(host)
    if not host.file.exists():
        return "No service is installed."
    try:
        _remove(host, kind)
    except OSError as error:
        raise ConfigError(f"Cannot remove {host.file}: {error.strerror}.") from None
    return f"Removed {host.file}; the node is stopped. `p2premap leave` also takes this machine out of its cluster."


def status(*, host: Host | None = None) -> ServiceStatus:
    """Whether the service is installed and runs; never raises."""
    host = host or Host.here()
    try:
        kind = _kind(host)
    except ConfigError as error:
        return ServiceStatus(False, False, str(error))
    if not host.file.exists():
        return ServiceStatus(False, False, "No service is installed; `p2premap service install` does it.")
    if kind is Kind.SYSTEMD:
        running = host.run(["systemctl", "--user", "is-active", UNIT]).output.strip() == "active"
        logs = f"journalctl --user -u {UNIT}"
    else:
        outcome = host.run(["launchctl", "print", f"gui/{host.user[1]}/{LABEL}"])
        running = outcome.code == 0 and "state = running" in outcome.output
        logs = f"launchctl print gui/{host.user[1]}/{LABEL}"
    if not running:
        return ServiceStatus(True, False, f"The service is installed but does not run; see `{logs}`.")
    return ServiceStatus(True, True, f"The service runs. {_boot_sentence(host, kind)}")


def _kind(host: Host) -> Kind:
    cron = f"@reboot {shlex.join(node_command())}"
    other = f"Start the node at boot in another way, for example with this line in `crontab -e`: {cron}"
    if host.kind is None:
        raise ConfigError(f"There is neither systemd nor launchd on this machine. {other}")
    if host.kind is Kind.SYSTEMD:
        outcome = host.run(["systemctl", "--user", "show-environment"])
        if outcome.code:
            why = _first_line(outcome.output)
            raise ConfigError(f"systemd does not serve this user here (systemctl --user: {why}). {other}")
    return host.kind


def _boot_sentence(host: Host, kind: Kind) -> str:
    if kind is Kind.LAUNCHD:
        return "It starts when you log in."
    if _lingers(host):
        return "It starts at boot."
    name = host.user[0]
    return f"It runs while you are logged in; for a start at boot, run `sudo loginctl enable-linger {name}` once."


def _lingers(host: Host) -> bool:
    """Whether systemd runs this user's services from boot on, logged in or not."""
    outcome = host.run(["loginctl", "show-user", host.user[0], "--property=Linger", "--value"])
    return outcome.code == 0 and outcome.output.strip() == "yes"


def _remove(host: Host, kind: Kind) -> None:
    if kind is Kind.SYSTEMD:
        host.run(["systemctl", "--user", "disable", "--now", UNIT])
    else:
        host.run(["launchctl", "bootout", f"gui/{host.user[1]}/{LABEL}"])
    with contextlib.suppress(FileNotFoundError):
        host.file.unlink()
    if kind is Kind.SYSTEMD:
        host.run(["systemctl", "--user", "daemon-reload"])


def _first_line(output: str) -> str:
    return next((line.strip() for line in output.splitlines() if line.strip()), "it said nothing").rstrip(".")


def _run(command: Sequence[str]) -> Outcome:
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=COMMAND_S,
        )
    except OSError as error:
        return Outcome(127, error.strerror or str(error))
    except subprocess.TimeoutExpired:
        return Outcome(124, "it did not answer")
    return Outcome(done.returncode, done.stdout)
