"""Which machines answer: a lost one is believed in by the head for a while."""

from __future__ import annotations

import socket
import time

from cluster.room import answering
from tests.cluster.conftest import free_port


def test_a_machine_whose_ray_takes_no_connection_is_left_out_at_once() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        there = {"NodeID": "a", "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": listener.getsockname()[1]}
        killed = {"NodeID": "b", "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": free_port()}
        # Of a network for documentation (RFC 5737): nobody answers, or the system says that there is no way.
        gone = {"NodeID": "c", "NodeManagerAddress": "192.0.2.77", "NodeManagerPort": 9}
        began_s = time.monotonic()
        assert answering([killed, there, gone, there]) == [there, there]
        assert time.monotonic() - began_s < 10
    assert answering([]) == []
