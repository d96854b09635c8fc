"""Ports that a server of this machine can take."""

import random
import socket

from paperflows.components.errors import ServiceError

# the kernel gives ports from 32768 on to outgoing connections (on Linux)
PORTS = range(20_000, 32_700, 8)


def free_port(host: str = "127.0.0.1", *, row: int = 1) -> int:
    """The first of `row` ports of `host`, one after the other, on which nobody listens.

    None is one that the kernel may give to an outgoing connection: whoever asks such a port before its server listens
    can be connected to themselves, and then holds the port.

    Raises:
        ServiceError: none found in a hundred tries.
    """
    for first in random.SystemRandom().sample(PORTS, 100):
        try:
            for port in range(first, first + row):
                with socket.socket() as probe:
                    probe.bind((host, port))
        except OSError:
            continue
        return first
    raise ServiceError(f"no {row} free ports in a row between {PORTS.start} and {PORTS.stop}")


def require_free(port: int, advice: str = "choose another with --port", *, host: str = "127.0.0.1") -> None:
    """Return when a server can take the port.

    Args:
        advice: what the error says to do.

    Raises:
        ServiceError: it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceError(f"port {port} is taken; {advice}") from error
