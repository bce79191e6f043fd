# SPDX-License-Identifier: GPL-2.0-or-later
"""A QMP server whose answers a test chooses."""

import ctypes
import json
import mmap
import os
import socket
import threading
from pathlib import Path

from rigs.synthetic import elf_core, note, prstatus

GREETING = {
    "QMP": {
        "version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""},
        "capabilities": [],
    }
}
HANG = object()
"""Answer of a QEMU that has stopped answering."""
GONE = object()
"""Answer of a QEMU that dies."""


class Refusal(Exception):
    """Answer of a QEMU that refuses."""


class FakeQemu:
    """
    A VM with one range of RAM at 0, in the process of the test.

    ``answers`` maps QMP commands to answers, or to functions of the arguments;
    ``hmp`` the same for commands of the human monitor, by their first word.
    """

    def __init__(self, path: Path, size: int = 1 << 20, notes: bytes | None = None):
        self.path = path
        self.size = size
        self.ram = mmap.mmap(-1, size)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.ram))
        self.notes = note(b"CORE", 1, prstatus(0)) if notes is None else notes
        self.greeting = json.dumps(GREETING).encode() + b"\n"
        self.file: Path | None = None
        """RAM, if it is shared."""
        self.closes = False
        """Whether it closes connections after the greeting."""
        self.fd = -1
        self.asked: list[str] = []
        self.answers: dict[str, object] = {
            "qmp_capabilities": {},
            "query-target": {"arch": "x86_64"},
            "query-status": {"status": "running", "running": True},
            "query-cpus-fast": [],
            "qom-list": self._list,
            "qom-get": self._get,
            "getfd": {},
            "stop": {},
            "cont": {},
            "dump-guest-memory": self._dump,
            "human-monitor-command": self._monitor,
        }
        self.hmp: dict[str, object] = {
            "info": (
                'FlatView #0\n AS "memory", root: system\n Root memory region: system\n'
                f"  {0:016x}-{size - 1:016x} (prio 0, ram): pc.ram KVM\n"
            ),
            "gpa2hva": self._translate,
            "xp": self._examine,
        }
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(1)
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, message: object) -> None:
        """Send a message that is not an answer."""
        assert self._client is not None
        self._client.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        if self._client is not None:
            self._client.close()
        self._thread.join(5)
        if self.fd >= 0:
            os.close(self.fd)

    def _serve(self) -> None:
        while True:
            try:
                self._client, _ = self._server.accept()
                self._talk(self._client)
            except OSError:
                if self._server.fileno() < 0:
                    return
            finally:
                if self._client is not None:
                    self._client.close()
            if not self._thread.is_alive() or self._server.fileno() < 0:
                return

    def _talk(self, client: socket.socket) -> None:
        client.sendall(self.greeting)
        if self.closes:
            return
        pending = b""
        while True:
            data, fds, _, _ = socket.recv_fds(client, 65536, 1)
            if fds:
                self.fd = fds[0]
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            # qemu.qmp sends no newline after a message; JSON shows where it ends.
            for text in (*lines, pending):
                if not text.strip():
                    continue
                try:
                    message = json.loads(text)
                except ValueError:
                    continue
                pending = b""
                if not self._answer(client, message):
                    return

    def _answer(self, client: socket.socket, message: dict[str, object]) -> bool:
        command = str(message["execute"])
        self.asked.append(command)
        answer = self.answers.get(command, Refusal(f"no {command}"))
        try:
            if callable(answer):
                answer = answer(message.get("arguments", {}))
            if isinstance(answer, Exception):
                raise answer
        except Refusal as refusal:
            error = {"class": "GenericError", "desc": str(refusal)}
            reply: dict[str, object] = {"error": error}
        else:
            if answer is HANG:
                return True
            if answer is GONE:
                return False
            reply = {"return": answer}
        if "id" in message:  # The negotiation has none.
            reply["id"] = message["id"]
        client.sendall(json.dumps(reply).encode() + b"\n")
        return True

    def _list(self, _arguments: object) -> object:
        kind = "file" if self.file else "ram"
        return [
            {"name": "type", "type": "string"},
            {"name": "pc.ram", "type": f"child<memory-backend-{kind}>"},
        ]

    def _get(self, arguments: dict[str, str]) -> object:
        values: dict[str, object] = {"share": True, "mem-path": str(self.file)}
        if arguments["property"] not in values:
            raise Refusal("Property not found")
        return values[arguments["property"]]

    def _monitor(self, arguments: dict[str, str]) -> object:
        line = arguments["command-line"]
        answer = self.hmp.get(line.split()[0], f"unknown command: '{line}'\r\n")
        return answer(line) if callable(answer) else answer

    def _translate(self, line: str) -> str:
        address = int(line.split()[1], 0)
        host = self.address + address
        return f"Host virtual address for 0x{address:x} (pc.ram) is 0x{host:x}\r\n"

    def _examine(self, line: str) -> str:
        _, form, address = line.split()
        start, count = int(address, 0), int(form[1:-2])
        data = self.ram[start : start + count]
        lines = []
        for i in range(0, len(data), 8):
            row = " ".join(f"0x{byte:02x}" for byte in data[i : i + 8])
            lines.append(f"{start + i:016x}: {row}\r\n")
        return "".join(lines)

    def _dump(self, arguments: dict[str, object]) -> object:
        begin, length = int(str(arguments["begin"])), int(str(arguments["length"]))
        page = self.ram[begin : begin + length]
        os.write(self.fd, elf_core([(begin, page)], self.notes))
        return {}
