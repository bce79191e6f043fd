# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's own QMP connection, apart from the one that kmemdump is tried on."""

import json
import socket
import time
from typing import Any

from kmemdump.errors import TargetError
from kmemdump.lab.lines import LineSocket

__all__ = ["Control"]


class Control:
    """
    A QMP connection that waits for each answer.

    :param connection: Connected to a QMP monitor; closed with this object.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._lines = LineSocket(connection, "qemu's monitor")
        self._sent = 0
        self.events: list[dict[str, Any]] = []
        """Events seen while waiting for answers, oldest first."""

    def negotiate(self, timeout: float = 30) -> None:
        """Read the greeting and leave negotiation; once, and first."""
        greeting = self._message(time.monotonic() + timeout)
        if "QMP" not in greeting:
            raise TargetError(f"qemu's monitor: expected a greeting, found {greeting}")
        self.execute("qmp_capabilities")

    def execute(self, command: str, *, timeout: float = 30, **arguments: object) -> Any:
        """
        Run a QMP command and return its answer.

        :param command: Name of the command.
        :param timeout: Seconds to wait for the answer.
        :param arguments: The command's, with ``_`` for ``-`` in their names.
        :raises TargetError: If QEMU refuses, or does not answer in time.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._sent += 1
        request = {"execute": command, "arguments": named, "id": self._sent}
        self._lines.write(json.dumps(request))
        deadline = time.monotonic() + timeout
        while True:
            message = self._message(deadline)
            if "event" in message:
                self.events.append(message)
            elif message.get("id") != self._sent:
                continue  # The late answer to a command that was given up.
            elif "error" in message:
                raise TargetError(f"qemu refuses {command}: {message['error']['desc']}")
            elif "return" in message:
                return message["return"]

    def monitor(self, command: str) -> str:
        """Run a command of QEMU's human monitor and return what it prints."""
        text: str = self.execute("human-monitor-command", command_line=command)
        return text

    def status(self) -> str:
        """Return the machine's state, as in ``running`` or ``guest-panicked``."""
        status: str = self.execute("query-status")["status"]
        return status

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()

    def _message(self, deadline: float) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._lines.read(deadline))
        return message
