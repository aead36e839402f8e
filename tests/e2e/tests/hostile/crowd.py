"""Connects again and again and says nothing.

crowd.py COUNT RATE PEER PORT FIRST ADDRESSES

Holds COUNT connections to PEER:PORT, opened RATE a second, from ADDRESSES addresses in turn from
FIRST on; from then on each new one takes the place of the oldest. It prints how many have been opened
once a second.
"""

import collections
import ipaddress
import resource
import socket
import struct
import sys
import time

IP_BIND_ADDRESS_NO_PORT = 24
AT_ONCE = struct.pack("ii", 1, 0)


def connect(source, peer):
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setblocking(False)
    # who leaves this way keeps no port busy
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    connection.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    connection.bind((source, 0))
    connection.connect_ex(peer)
    return connection


def main():
    count, rate, peer, port, first, addresses = sys.argv[1:]
    count, rate = int(count), int(rate)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    first = ipaddress.ip_address(first)
    sources = [str(first + n) for n in range(int(addresses))]
    held = collections.deque()
    opened, start, said = 0, time.monotonic(), 0
    while True:
        elapsed = time.monotonic() - start
        while opened < rate * elapsed:
            if len(held) >= count:
                held.popleft().close()
            try:
                held.append(connect(sources[opened % len(sources)], (peer, int(port))))
            except OSError:
                pass
            opened += 1
        if elapsed > said + 1:
            said = elapsed
            print("opened", opened, "holds", len(held), flush=True)
        time.sleep(0.005)


main()
