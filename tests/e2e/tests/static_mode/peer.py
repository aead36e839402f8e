#!/usr/bin/python3
"""The other end of a tunnel of CipherWall datagrams, by somebody who knows nothing but the format:

    HMAC-SHA256 (32) | IV (16) | AES-256-CFB128 ciphertext of one IP packet

    peer.py KEY-FILE DEVICE ADDRESS/PREFIX listen PORT
    peer.py KEY-FILE DEVICE ADDRESS/PREFIX HOST PORT
"""

import fcntl
import hmac
import os
import select
import socket
import struct
import subprocess
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

key_file, device, address, host, port = sys.argv[1:]
with open(key_file, encoding="ascii") as file:
    key = bytes.fromhex(file.read())
assert len(key) == 64
AES_KEY, HMAC_KEY = key[:32], key[32:]


def seal(packet):
    iv = os.urandom(16)
    encryptor = Cipher(algorithms.AES(AES_KEY), modes.CFB(iv)).encryptor()
    signed = iv + encryptor.update(packet) + encryptor.finalize()
    return hmac.digest(HMAC_KEY, signed, "sha256") + signed


def unseal(datagram):
    tag, signed = datagram[:32], datagram[32:]
    if len(signed) <= 16 or not hmac.compare_digest(tag, hmac.digest(HMAC_KEY, signed, "sha256")):
        return None
    decryptor = Cipher(algorithms.AES(AES_KEY), modes.CFB(signed[:16])).decryptor()
    return decryptor.update(signed[16:]) + decryptor.finalize()


tun = os.open("/dev/net/tun", os.O_RDWR)
IFF_TUN, IFF_NO_PI, TUNSETIFF = 0x0001, 0x1000, 0x400454CA
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
for words in (["address", "add", address, "dev", device], ["link", "set", device, "up", "mtu", "1420"]):
    subprocess.run(["ip", *words], check=True)

udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer = None
if host == "listen":
    udp.bind(("0.0.0.0", int(port)))
else:
    peer = (host, int(port))
print("ready", flush=True)

while True:
    for source in select.select([tun, udp], [], [])[0]:
        if source is tun:
            packet = os.read(tun, 65535)
            if peer and packet[0] >> 4 == 4:
                udp.sendto(seal(packet), peer)
        else:
            datagram, sender = udp.recvfrom(65535)
            packet = unseal(datagram)
            if packet:
                peer = sender
                os.write(tun, packet)
