"""Closes a listening socket without cutting off anybody who is already connected.

Closing one resets the connections that the kernel has completed but the process has
not accepted yet; their clients have perhaps already sent a request, and lose it. So
new connections are stopped first, those that wait are accepted, and then it is closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys
from pathlib import Path

# From <asm-generic/socket.h>; the socket module does not have it.
_SO_ATTACH_FILTER = 26
_TCP_FLAGS_OFFSET = 13
# As /proc/net/tcp has it.
_ESTABLISHED = "01"
# How long handshakes that began before new connections were refused may take.
HANDSHAKE_SECONDS = 0.1
_SYN = 0x02
_ACCEPT_WHOLE_PACKET = 0xFFFFFFFF
# Classic BPF, see https://www.kernel.org/doc/html/latest/networking/filter.html
_BPF_LOAD_BYTE = 0x30  # BPF_LD | BPF_B | BPF_ABS
_BPF_JUMP_IF_SET = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_BPF_RETURN = 0x06  # BPF_RET | BPF_K


def bind(host: str, port: int, backlog: int = 2048) -> socket.socket:
    """Returns a listening TCP socket.

    Raises:
        OSError: The address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(backlog)
        listener.settimeout(0)
    except OSError:
        listener.close()
        raise
    return listener


def listening(port: int) -> socket.socket | None:
    """Returns a duplicate of this process's listening TCP socket at `port`, whoever made it; None off Linux."""
    for entry in filter(Path.is_socket, Path("/proc/self/fd").glob("*")):
        found = socket.socket(fileno=os.dup(int(entry.name)))
        is_tcp = found.family in (socket.AF_INET, socket.AF_INET6) and found.type is socket.SOCK_STREAM
        if is_tcp and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and found.getsockname()[1] == port:
            return found
        found.close()
    return None


def connected(port: int) -> int:
    """Returns how many TCP connections to a local `port` are open on both sides; 0 off Linux."""
    ours = f":{port:04X}"
    return sum(
        fields[1].endswith(ours) and fields[3] == _ESTABLISHED
        for table in Path("/proc/self/net").glob("tcp*")
        for fields in map(str.split, table.read_text().splitlines())
    )


def refuse_new_connections(listener: socket.socket) -> bool:
    """Makes the kernel drop packets that would open a connection; tells whether it will.

    Handshakes under way still finish, since only a SYN is dropped. A client that tries
    now is refused when it tries again after the socket has been closed. The filter
    needs no privilege; without it (other systems) closing is only less polite.
    """
    if sys.platform != "linux":
        return False
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (_BPF_LOAD_BYTE, 0, 0, _TCP_FLAGS_OFFSET),
            (_BPF_JUMP_IF_SET, 0, 1, _SYN),
            (_BPF_RETURN, 0, 0, 0),
            (_BPF_RETURN, 0, 0, _ACCEPT_WHOLE_PACKET),
        )
    )
    buffer = ctypes.create_string_buffer(program)
    with contextlib.suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program) // 8, ctypes.addressof(buffer))
        )
        return True
    return False
