# SPDX-License-Identifier: GPL-2.0-or-later
"""
A connection to libvirt's daemon, in which every wait has a deadline.

It needs libvirt's Python module (the extra ``libvirt``), which is loaded here only.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from kmemdump.errors import KmemdumpError, TargetError, UnsupportedError, UsageError
from kmemdump.installing import describe_extra, describe_install, in_debian_package
from kmemdump.targets import Closing
from kmemdump.targets.qmp_channel import LostError, QmpTimeoutError
from kmemdump.text import printable

__all__ = ["LibvirtConnection", "check_uri", "load_libvirt"]

_MAX_STUCK = 4
"""
Calls, and attempts to connect, that may wait for a daemon that does not answer. At five
(max_client_requests) it does not listen any more, also to signs of life; the client is
taken for dead, and its library crashes.
"""
_MAX_TEXT = 500
"""Characters of an error of libvirt."""
_KEEPALIVE = 2
"""Seconds between signs of life of the daemon, and how many of them may be missing."""
_T = TypeVar("_T")


def load_libvirt() -> Any:
    """
    Return libvirt's Python module, with its event loop running.

    :raises UnsupportedError: If it is not installed.
    """
    return _Library.get().module


def check_uri(uri: str) -> None:
    """
    Refuse a URI whose VMs cannot be watched from here.

    :param uri: libvirt's; empty for its default.
    :raises UsageError: If it makes no sense.
    """
    if not uri:
        return
    if "://" not in uri:
        raise UsageError(
            f"{uri!r}: no URI of libvirt, expected qemu:///system or alike"
        )
    parts = urlsplit(uri)
    driver, _, transport = parts.scheme.partition("+")
    if driver != "qemu":
        raise UsageError(f"{uri}: VMs of {driver!r}, expected qemu:///system")
    if parts.netloc or transport not in ("", "unix"):
        raise UsageError(
            f"{uri}: VMs of another host, whose memory cannot be read from here\n"
            "run kmemdump there"
        )


def _install() -> str:
    ours = describe_extra("libvirt")
    if in_debian_package():
        return ours
    return (
        f"{describe_install('python3-libvirt')} (seen by a virtual environment made "
        "with --system-site-packages), or libvirt's headers, pkg-config and a "
        f"compiler, and {ours}"
    )


class _Library:
    """libvirt's module, set up once in a process."""

    _lock = threading.Lock()
    _instance: _Library | None = None

    def __init__(self) -> None:
        try:
            import libvirt
        except ImportError as error:
            raise UnsupportedError(
                f"libvirt: its Python module is missing\ninstall it: {_install()}"
            ) from error
        self.module: Any = libvirt
        self._attempts = 0
        # Whoever calls gets the error; the library would print it as well.
        libvirt.registerErrorHandler(lambda *_: None, None)
        # Must precede the first connection.
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=self._run, name="libvirt events", daemon=True).start()

    @classmethod
    def get(cls) -> _Library:
        with cls._lock:
            if cls._instance is None:
                cls._instance = cls()
            return cls._instance

    def begin_attempt(self) -> bool:
        """Return whether one more connection may be attempted now."""
        with self._lock:
            if self._attempts >= _MAX_STUCK:
                return False
            self._attempts += 1
            return True

    def end_attempt(self) -> None:
        with self._lock:
            self._attempts -= 1

    def _run(self) -> None:
        while True:
            try:
                self.module.virEventRunDefaultImpl()
            except self.module.libvirtError:  # A failed poll(); it is called again.
                threading.Event().wait(0.1)


class LibvirtConnection(Closing):
    """
    A connection to libvirt's daemon on this host.

    :param uri: Such as ``qemu:///system``; empty for libvirt's default.
    :param timeout: Seconds that the daemon has for each answer.
    :raises UsageError: If VMs at *uri* cannot be watched from here.
    :raises UnsupportedError: If libvirt's Python module is missing.
    :raises TargetError: If the daemon cannot be reached.
    """

    def __init__(self, uri: str, timeout: float) -> None:
        check_uri(uri)
        self.libvirt: Any = load_libvirt()
        self._timeout = timeout
        self._stuck = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.name = f"libvirt at {uri}" if uri else "libvirt"
        self.raw: Any = None
        """libvirt's connection: to be used in :meth:`call`."""
        try:
            self.raw = self._connect(uri)
            check_uri(self.call(lambda: self.raw.getURI(), "its URI"))
            self.call(self._watch_over, "keep-alive")
        except BaseException:
            self.close()
            raise

    def _connect(self, uri: str) -> Any:
        """Connect; attempts that a silent daemon holds up are limited."""
        library = _Library.get()
        if not library.begin_attempt():
            raise LostError(f"{self.name}: connecting: libvirt does not answer")

        def connect() -> Any:
            try:
                raw = self.libvirt.open(uri or None)
            finally:
                library.end_attempt()
            if self._closed.is_set():  # Nobody waits for it any more.
                raw.close()
            return raw

        return self.call(connect, "connecting")

    def _watch_over(self) -> None:
        self.raw.registerCloseCallback(lambda *_: self._closed.set(), None)
        self.raw.setKeepAlive(_KEEPALIVE, _KEEPALIVE)

    @property
    def alive(self) -> bool:
        """Whether the daemon is connected, as far as is known."""
        return not self._closed.is_set()

    def wait_for_end(self, timeout: float) -> bool:
        """Wait until the connection has ended; return whether it has."""
        return self._closed.wait(timeout)

    def call(
        self,
        function: Callable[[], _T],
        what: str,
        timeout: float | None = None,
        name: str = "",
    ) -> _T:
        """
        Call libvirt, and return what it returns.

        :param what: For messages.
        :param timeout: Seconds.
        :param name: What it is about, for messages; by default, this connection.
        :raises QmpTimeoutError: If the daemon does not answer in time.
        :raises TargetError: If libvirt refuses, or the connection has ended.
        """
        seconds = self._timeout if timeout is None else timeout
        label = f"{name or self.name}: {what}"
        with self._lock:
            if self._stuck >= _MAX_STUCK:
                raise QmpTimeoutError(f"{label}: libvirt does not answer")
            self._stuck += 1
        answers: queue.SimpleQueue[_T | Exception] = queue.SimpleQueue()
        # libvirt waits without limit for a QEMU that does not answer.
        threading.Thread(
            target=self._call, args=(function, answers), name="libvirt", daemon=True
        ).start()
        try:
            answer = answers.get(timeout=seconds)
        except queue.Empty:
            problem = f"{label}: no answer from libvirt in {seconds:.1f} s"
            raise QmpTimeoutError(problem) from None
        if isinstance(answer, Exception):
            raise self._error(answer, label) from answer
        return answer

    def _call(
        self,
        function: Callable[[], _T],
        answers: queue.SimpleQueue[_T | Exception],
    ) -> None:
        answer: _T | Exception
        try:
            answer = function()
        except Exception as error:
            answer = error
        with self._lock:  # Before the answer, after which another call may come.
            self._stuck -= 1
        answers.put(answer)

    def _error(self, error: Exception, label: str) -> Exception:
        libvirt = self.libvirt
        if not isinstance(error, libvirt.libvirtError):
            return error
        text = f"{label}: {printable(str(error))[:_MAX_TEXT]}"
        code = error.get_error_code()
        if code in (libvirt.VIR_ERR_AUTH_CANCELLED, libvirt.VIR_ERR_AUTH_FAILED,
                    libvirt.VIR_ERR_AUTH_UNAVAILABLE):  # fmt: skip
            text += "\nrun as root, or as a user of group libvirt"
        if error.get_error_domain() == libvirt.VIR_FROM_RPC or code in (
            libvirt.VIR_ERR_RPC,
            libvirt.VIR_ERR_INVALID_CONN,
            libvirt.VIR_ERR_NO_CONNECT,
        ):
            return LostError(text)
        if code == libvirt.VIR_ERR_OPERATION_TIMEOUT:  # Another job has the domain.
            return QmpTimeoutError(text)
        return TargetError(text)

    def close(self) -> None:
        self._closed.set()
        if self.raw is None:
            return
        raw, self.raw = self.raw, None
        # Waits for the daemon, which may not answer: not for long.
        with contextlib.suppress(KmemdumpError):
            self.call(raw.close, "disconnecting", 1.0)
