# SPDX-License-Identifier: GPL-2.0-or-later
"""The serial port over which a guest takes commands, by lines and with timeouts."""

import socket
import time

from kmemdump.errors import TargetError

__all__ = ["SerialPort", "SerialTimeoutError"]

_MAX_LINE = 16 << 20  # Bytes.


class SerialTimeoutError(TargetError):
    """No line came in time."""


class SerialPort:
    """
    A serial port of a machine, as a connected socket.

    :param connection: Closed with this object.
    :param name: For messages.
    """

    def __init__(self, connection: socket.socket, name: str) -> None:
        self._socket = connection
        self._name = name
        self._buffer = b""

    def write(self, line: str) -> None:
        """Send a line; a newline is added."""
        try:
            self._socket.settimeout(10)
            self._socket.sendall(line.encode() + b"\n")
        except OSError as e:
            raise TargetError(f"{self._name}: cannot be written to: {e}") from e

    def read(self, deadline: float) -> str:
        """
        Return the next line without its end.

        :param deadline: When to stop waiting, in terms of `time.monotonic`.
        :raises SerialTimeoutError: If nothing comes in time.
        :raises TargetError: If the other end is gone.
        """
        while b"\n" not in self._buffer:
            if len(self._buffer) > _MAX_LINE:
                raise TargetError(f"{self._name}: a line is over {_MAX_LINE} bytes")
            try:
                # Zero would mean "do not block", which raises another error.
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
                data = self._socket.recv(1 << 16)
            except TimeoutError as e:
                raise SerialTimeoutError(f"{self._name}: no answer in time") from e
            except OSError as e:
                raise TargetError(f"{self._name}: cannot be read: {e}") from e
            if not data:
                raise TargetError(f"{self._name}: is gone")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace").removesuffix("\r")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
