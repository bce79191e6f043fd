# SPDX-License-Identifier: GPL-2.0-or-later
"""
A real libvirtd with folders of its own, and domains as ``virt-install`` makes them.

Its mount namespace hides the system's libvirt: nothing outside a test's folder is
touched, and tests may run beside each other and beside a libvirt in use.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Any, Self

from kmemdump.lab import X86_64, CrashType, Machine, Setup
from kmemdump.lab.module import MODULE_NAME
from kmemdump.lab.other_programs import loader, unpack_libraries
from kmemdump.lab.packages import PackageCache
from kmemdump.lab.serial_port import SerialPort, SerialTimeoutError

__all__ = ["Domain", "Libvirtd", "unpacked_libvirtd"]

PATIENCE = 400
"""Seconds; the host may be busy."""
_LAST_WORDS = 1000
"""Characters of a console, for messages."""
_HIDDEN = ("/etc/libvirt", "/run/libvirt", "/var/lib/libvirt", "/var/log/libvirt",
           "/var/cache/libvirt")  # fmt: skip
# The user that Debian's package libvirt-daemon-system makes.
_USERS = {
    "passwd": "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin\n",
    "group": "libvirt-qemu:x:64055:\n",
}
_DRIVERS = "usr/lib/x86_64-linux-gnu/libvirt/connection-driver"
_DAEMON_CONF = """
unix_sock_dir = "{folder}"
auth_unix_rw = "none"
log_outputs = "2:file:{folder}/libvirtd.log"
"""
_QEMU_CONF = """
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
"""
# What virt-install 4.1 prints for --virt-type qemu --memory 512 --vcpus 2 --disk none
# --network none --graphics none --osinfo debian11 --metadata title=… --serial file,…
# --serial unix,… --boot kernel=…,initrd=…,kernel_args=…
_DOMAIN = Template("""
<domain type="qemu">
  <name>$name</name>
  <title>$title</title>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/11"/>
    </libosinfo:libosinfo>
  </metadata>
  <memory>524288</memory>
  <currentMemory>524288</currentMemory>
  <vcpu>2</vcpu>
  <os>
    <type arch="x86_64" machine="q35">hvm</type>
    <kernel>$kernel</kernel>
    <initrd>$folder/$name.initramfs</initrd>
    <cmdline>$cmdline</cmdline>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <clock offset="utc">
    <timer name="rtc" tickpolicy="catchup"/>
    <timer name="pit" tickpolicy="delay"/>
    <timer name="hpet" present="no"/>
  </clock>
  <pm>
    <suspend-to-mem enabled="no"/>
    <suspend-to-disk enabled="no"/>
  </pm>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type="usb" model="qemu-xhci" ports="15"/>
    <controller type="pci" model="pcie-root"/>
    <controller type="pci" model="pcie-root-port"/>
    <serial type="file">
      <source path="$folder/$name.console"/>
    </serial>
    <serial type="unix">
      <source mode="bind" path="$folder/$name.port"/>
    </serial>
    <channel type="unix">
      <source mode="bind"/>
      <target type="virtio" name="org.qemu.guest_agent.0"/>
    </channel>
    $devices
    <memballoon model="virtio"/>
    <rng model="virtio">
      <backend model="random">/dev/urandom</backend>
    </rng>
  </devices>
</domain>
""")


def unpacked_libvirtd(cache: PackageCache, release: str) -> Path:
    """
    Return the folder of a libvirtd of another release of Debian.

    :raises UnsupportedError: If it cannot be downloaded.
    """

    def unpack(folder: Path) -> None:
        apt = cache.apt(X86_64, release)
        for package in ("libvirt-daemon", "libvirt-daemon-driver-qemu"):
            unpack_libraries(apt.unpack(package, folder), apt, folder)

    return cache.entry(f"libvirtd_{X86_64.debian}_{release}", unpack)


class Libvirtd:
    """
    A libvirtd that runs.

    :param folder: For its sockets, its log and the domains' files; with a short path.
    :param cache: Where the domains' programs come from.
    :param namespaces: More options of unshare(1), such as ``--pid``; all that runs must
        end with it (``--kill-child``).
    :param unpacked: Folder of another libvirtd, see :func:`unpacked_libvirtd`.
    """

    def __init__(
        self,
        folder: Path,
        cache: PackageCache,
        *,
        namespaces: Sequence[str] = (),
        unpacked: Path | None = None,
    ) -> None:
        self.folder = folder
        self.cache = cache
        self.socket = folder / "libvirt-sock"
        self.uri = f"qemu+unix:///system?socket={self.socket}"
        self._namespaces = namespaces
        self._unpacked = unpacked
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._connection: Any = None
        self.ports: list[SerialPort] = []
        """Of its domains; closed with it."""
        for name in _HIDDEN:
            (folder / f"root{name}").mkdir(parents=True)
        (folder / "libvirtd.conf").write_text(_DAEMON_CONF.format(folder=folder))
        (folder / "root/etc/libvirt/qemu.conf").write_text(_QEMU_CONF)
        for name, line in _USERS.items():
            known = Path(f"/etc/{name}").read_text()
            (folder / f"root/etc/{name}").write_text(f"{known}{line}")

    def __enter__(self) -> Self:
        self.start()
        # Ends what is left if this process is killed.
        files = f"{self.folder}/*.pid {self.folder}/root/run/libvirt/qemu/*.pid"
        ours = "grep -qE '^(qemu|libvirtd)' /proc/$p/comm"
        command = f"for f in {files}; do p=$(cat $f); {ours} && kill -9 $p; done"
        if self._namespaces:  # Process ids in these files would be others here.
            command = f"kill -9 {self.pid}"
        self._guard = subprocess.Popen(
            ["sh", "-c", f"read _; {command}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.kill()
        for port in self.ports:
            port.close()
        if self._guard is not None:
            self._guard.communicate()

    @property
    def pid(self) -> int:
        """Process id of the daemon, or of unshare if that is its parent."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        root = f"{self.folder}/root"
        binds = [
            *(f"mkdir -p {it} && mount --bind {root}{it} {it}" for it in _HIDDEN),
            *(f"mount --bind {root}/etc/{it} /etc/{it}" for it in _USERS),
        ]
        program = "exec libvirtd"
        if self._unpacked is not None:
            shared = f"{self._unpacked}/usr/share/libvirt"
            binds.append(f"mount --bind {shared} /usr/share/libvirt")
            drivers = f"{self._unpacked}/{_DRIVERS}"
            start = " ".join(loader(self._unpacked, X86_64))
            program = (
                f"LIBVIRT_DRIVER_DIR={drivers} exec {start} "
                f"{self._unpacked}/usr/sbin/libvirtd"
            )
        daemon = (
            f"{program} -f {self.folder}/libvirtd.conf -p {self.folder}/libvirtd.pid"
        )
        self.socket.unlink(missing_ok=True)
        with open(self.folder / "libvirtd.out", "ab") as out:
            self._process = subprocess.Popen(
                ["unshare", "--mount", *self._namespaces, "sh", "-c",
                 " && ".join([*binds, daemon])],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )  # fmt: skip
        wait_for(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def log(self) -> str:
        """What the daemon said."""
        parts = [self.folder / name for name in ("libvirtd.out", "libvirtd.log")]
        return "".join(it.read_text(errors="replace") for it in parts if it.exists())

    def kill(self) -> None:
        """Kill the daemon; its domains go on."""
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def connect(self) -> Any:
        """Return a connection of libvirt's Python module."""
        import libvirt

        if self._connection is None or not self._connection.isAlive():
            self._connection = libvirt.open(self.uri)
        return self._connection


class Domain:
    """
    A domain that is defined, and perhaps runs.

    :param devices: More of them, as XML.
    :param elements: More elements of the domain, as XML.
    """

    def __init__(
        self,
        daemon: Libvirtd,
        name: str,
        setup: Setup,
        *,
        title: str = "a test",
        devices: str = "",
        elements: str = "",
    ) -> None:
        self.daemon = daemon
        self.name = name
        self._folder = daemon.folder
        self._port: SerialPort | None = None
        initramfs = Machine(daemon.cache, setup).initramfs
        (self._folder / f"{name}.initramfs").write_bytes(initramfs)
        xml = _DOMAIN.substitute(
            name=name,
            title=title,
            folder=self._folder,
            kernel=setup.kernel.vmlinuz,
            cmdline=" ".join(["console=ttyS0", "panic=0", *setup.arguments]),
            devices=devices,
        ).replace("</domain>", f"{elements}</domain>")
        daemon.connect().defineXML(xml)

    @property
    def raw(self) -> Any:
        """libvirt's object."""
        return self.daemon.connect().lookupByName(self.name)

    @property
    def state(self) -> str:
        """As ``virsh domstate`` prints it."""
        names = ("no state", "running", "idle", "paused", "in shutdown", "shut off",
                 "crashed", "pmsuspended")  # fmt: skip
        return names[self.raw.state()[0]]

    @property
    def pid(self) -> int:
        """Process id of QEMU, in libvirtd's PID namespace."""
        path = self._folder / f"root/run/libvirt/qemu/{self.name}.pid"
        return int(path.read_text())

    def start(self) -> None:
        """Start the domain, and wait until its guest has booted."""
        self.raw.create()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the guest has booted."""
        if self._port is None:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(self._folder / f"{self.name}.port"))
            self._port = SerialPort(connection, f"the port of {self.name}")
            self.daemon.ports.append(self._port)
        deadline = time.monotonic() + PATIENCE
        try:
            while self._port.read(deadline) != "GUEST-READY":
                pass
        except SerialTimeoutError as error:
            console = self._folder / f"{self.name}.console"
            said = console.read_text(errors="replace")[-_LAST_WORDS:]
            raise AssertionError(f"{error}; it is {self.state}; {said}") from error

    def die(self, crash: CrashType = CrashType.PANIC) -> None:
        """Have the guest's kernel die, without waiting for it."""
        assert self._port is not None
        if crash is CrashType.PANIC:
            self._port.write("echo c >/proc/sysrq-trigger")
        else:
            parameter = f"/sys/module/{MODULE_NAME}/parameters/die"
            self._port.write(f"sh -c 'echo {crash} >{parameter}' &")

    def destroy(self) -> None:
        """End QEMU."""
        self.forget_port()
        import libvirt

        try:
            self.raw.destroy()
        except libvirt.libvirtError:
            # A daemon that has just started meets its own end of the process.
            if self.state != "shut off":
                raise

    def forget_port(self) -> None:
        """Connect to the next QEMU, if there is one."""
        self._port = None

    def kill(self) -> None:
        """Kill QEMU, and wait until libvirt knows."""
        self.forget_port()
        os.kill(self.pid, signal.SIGKILL)
        wait_for(lambda: self.state == "shut off")


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
