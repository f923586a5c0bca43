"""`p2premap service`: the texts, and what is run in which order. No service manager is touched."""

import plistlib
import shutil
import subprocess
import sys

import pytest

from p2premap.errors import ConfigError
from p2premap.node.service import (
    LABEL,
    UNIT,
    Host,
    Kind,
    Outcome,
    install,
    node_command,
    service_text,
    status,
    uninstall,
)


class Manager:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, answers=None):
        self.answers = answers or {}
        self.asked: list[str] = []

    def __call__(self, command):
        line = " ".join(command)
        self.asked.append(line)
        return next((outcome for part, outcome in self.answers.items() if part in line), Outcome(0, ""))


def host(tmp_path, kind=Kind.SYSTEMD, answers=None, **environment):
    return Host(
        kind=kind, directory=tmp_path / "units", environment=environment, run=Manager(answers), user=("ann", 501)
    )


def test_a_unit_runs_the_command_and_escapes_it():
    text = service_text(Kind.SYSTEMD, ["/opt/my env/python", "-m", "p2premap", 'a"b\\c', "50%", "$HOME"], {"A": "b c%"})
    lines = text.splitlines()
    assert 'ExecStart="/opt/my env/python" -m p2premap "a\\"b\\\\c" "50%%" $$HOME' in lines
    assert 'Environment="A=b c%%"' in lines
    assert "WantedBy=default.target" in lines
    assert "Restart=on-failure" in lines
    assert text.endswith("\n")


def test_systemd_itself_accepts_the_unit(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    unit = tmp_path / UNIT
    unit.write_text(service_text(Kind.SYSTEMD, node_command(["--join", "a b"]), {"P2PREMAP_HOME": "/tmp/x y"}))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert UNIT not in done.stderr, done.stderr


def test_an_agent_runs_the_command():
    agent = plistlib.loads(service_text(Kind.LAUNCHD, ["/p", "-m", "<&>"], {"A": "b"}).encode())
    assert agent["ProgramArguments"] == ["/p", "-m", "<&>"]
    assert agent["Label"] == LABEL
    assert agent["RunAtLoad"] is True
    assert agent["EnvironmentVariables"] == {"A": "b"}


def test_install_writes_the_unit_starts_it_and_tells_of_linger(tmp_path):
    here = host(tmp_path, P2PREMAP_HOME="/h", PATH="/bin")
    text = install(["--port", "9"], host=here)
    unit = here.file.read_text()
    assert f"ExecStart={sys.executable} -m p2premap node --port 9" in unit
    assert "Environment=P2PREMAP_HOME=/h" in unit
    assert "/bin" not in unit.replace(sys.executable, "")
    assert "`sudo loginctl enable-linger ann` once" in text
    assert "loginctl --no-ask-password enable-linger ann" in here.run.asked, "it has been tried without root"
    assert here.run.asked[1:4] == [
        "systemctl --user daemon-reload",
        f"systemctl --user enable {UNIT}",
        f"systemctl --user restart {UNIT}",
    ]


def test_with_linger_it_starts_at_boot(tmp_path):
    here = host(tmp_path, answers={"loginctl": Outcome(0, "yes\n"), "is-active": Outcome(0, "active\n")})
    assert install(host=here).endswith("It starts at boot.")
    assert not [line for line in here.run.asked if "enable-linger" in line]
    assert status(host=here).running


def test_a_refusal_leaves_nothing_installed(tmp_path):
    here = host(tmp_path, answers={"enable": Outcome(1, "\nUnit is masked.\nmore")})
    with pytest.raises(ConfigError, match=r"`systemctl --user enable .*` failed \(Unit is masked\); nothing"):
        install(host=here)
    assert not here.file.exists()


def test_without_a_user_manager_another_way_is_told(tmp_path):
    here = host(tmp_path, answers={"show-environment": Outcome(1, "Failed to connect to bus: No medium found\n")})
    with pytest.raises(ConfigError, match=r"does not serve this user.*No medium found\).*crontab -e.*@reboot"):
        install(host=here)
    assert not status(host=here).installed
    with pytest.raises(ConfigError, match=r"neither systemd nor launchd.*@reboot"):
        install(host=host(tmp_path, kind=None))


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "units").write_text("a file")
    with pytest.raises(ConfigError, match="Cannot write"):
        install(host=host(tmp_path))


def test_uninstall_stops_and_removes(tmp_path):
    here = host(tmp_path)
    assert uninstall(host=here) == "No service is installed."
    install(host=here)
    here.run.asked.clear()
    assert "p2premap leave" in uninstall(host=here)
    assert not here.file.exists()
    assert f"systemctl --user disable --now {UNIT}" in here.run.asked
    assert not status(host=here).installed


def test_a_service_that_does_not_run_points_to_its_log(tmp_path):
    here = host(tmp_path, answers={"is-active": Outcome(3, "failed\n")})
    install(host=here)
    found = status(host=here)
    assert (found.installed, found.running) == (True, False)
    assert "journalctl --user" in found.text


def test_launchd_is_booted_out_before_it_is_booted_in(tmp_path):
    here = host(tmp_path, kind=Kind.LAUNCHD, answers={"print": Outcome(0, "state = running")})
    assert "when you log in" in install(host=here)
    assert here.run.asked[0] == f"launchctl bootout gui/501/{LABEL}"
    assert here.run.asked[1].startswith("launchctl bootstrap gui/501 ")
    assert status(host=here).running
    uninstall(host=here)
    assert not here.file.exists()


def test_here_never_raises():
    assert isinstance(status().text, str)
