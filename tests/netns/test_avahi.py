"""Avahi, the mDNS stack of most Linux machines, sees our service; and we share port 5353 with it on one machine."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest

from p2premap.wire import WIRE_VERSION

pytestmark = pytest.mark.netns

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/></policy></busconfig>
"""
AVAHI = """[server]
host-name=avahi-of-the-test
use-ipv4=yes
use-ipv6=yes
disallow-other-stacks=no
allow-interfaces=eth0
enable-dbus=yes
[rlimits]
"""
# its pid file is at a fixed place: a /run of its own keeps the machine's avahi out of it
RUN_AVAHI = "mount -t tmpfs none /run && mkdir /run/avahi-daemon && exec avahi-daemon -f {conf} {flags}"
FLAGS = "--no-drop-root --no-chroot --no-rlimits --no-proc-title"


@pytest.fixture
def avahi(make_lab, home):
    """A lab of two nodes, a private bus and avahi on node 2, and a function that runs avahi-browse there."""
    for program in ("avahi-daemon", "avahi-browse", "dbus-daemon", "unshare"):
        if not shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin"):
            pytest.skip(f"the program {program} is missing (Debian: apt-get install -y avahi-daemon avahi-utils dbus)")
    lab = make_lab(2)
    socket, bus, conf = home / "bus", home / "bus.conf", home / "avahi.conf"
    bus.write_text(BUS.format(socket=socket))
    conf.write_text(AVAHI)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={socket}"}
    lab.popen(2, ["dbus-daemon", f"--config-file={bus}", "--nofork", "--nopidfile"], env=environment)
    started = RUN_AVAHI.format(conf=conf, flags=FLAGS)
    daemon = lab.popen(2, ["unshare", "-m", "sh", "-c", started], env=environment, stderr=subprocess.PIPE, text=True)

    def browse() -> list[list[str]]:
        done = lab.run(2, "avahi-browse", "-rpt", "_p2premap._tcp", env=environment, check=False)
        if "Failed to create client object" in done.stderr:
            return []
        return [line.split(";") for line in done.stdout.splitlines() if line.startswith("=")]

    until = time.monotonic() + 20
    while "Failed" in lab.run(2, "avahi-browse", "-rpt", "_none._tcp", env=environment, check=False).stderr:
        if daemon.poll() is not None or time.monotonic() > until:
            pytest.skip(f"avahi-daemon does not run in a namespace here: {daemon.stderr.read()[-200:]}")
        time.sleep(0.1)
    return lab, browse


def browse_until(browse, wanted):
    until = time.monotonic() + 60
    while not wanted(rows := browse()):
        assert time.monotonic() < until, rows
    return rows


def test_avahi_browse_sees_the_service_and_its_end(avahi, speak):
    lab, browse = avahi
    node = speak(lab, 1)
    rows = browse_until(browse, lambda rows: any(row[7] == lab.ip(1) for row in rows))
    row = next(row for row in rows if row[7] == lab.ip(1))  # one line for each IP version that carried it
    assert row[3] == f"n1-{'01' * 16}"
    assert int(row[8]) > 0
    texts = row[9]
    for text in (f'"v={WIRE_VERSION}"', f'"id={"01" * 16}"', '"tag=ours"', '"name=n1"'):
        assert text in texts
    node.stop()
    browse_until(browse, lambda rows: rows == [])


def test_a_node_shares_the_mdns_port_with_avahi(avahi, speak):
    lab, browse = avahi
    beside, other = speak(lab, 2), speak(lab, 1)
    beside.reached(1, host=lab.ip(1))
    other.reached(2, host=lab.ip(2))
    browse_until(browse, lambda rows: {row[3][:2] for row in rows} == {"n1", "n2"})
