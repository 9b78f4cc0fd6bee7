"""The socket by which stages reach the warm server."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tasks.warm import _address


@pytest.mark.skipif(sys.platform != "linux", reason="the server is for Linux only")
def test_a_socket_may_lie_in_a_folder_with_a_long_path(tmp_path: Path) -> None:
    place = tmp_path / ("long" * 40) / "warm"
    place.parent.mkdir()
    kind = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.socket(*kind) as listener, socket.socket(*kind) as connection:
        with _address(place) as address:
            listener.bind(address)
        assert place.is_socket()
        listener.listen()
        with _address(place) as address:
            connection.connect(address)
        connection.send(b"words")
        with listener.accept()[0] as accepted:
            assert accepted.recv(16) == b"words"
