#!/usr/bin/env python3
"""Computes the test vectors of protocol.md from its inputs, independently of the programs.

Needs Python 3 and its package `cryptography`. Says which vectors differ, and how.
"""
import base64, hashlib, hmac, pathlib, re, struct, sys, unicodedata
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
except ImportError:
    from cryptography.hazmat.primitives.ciphers.modes import CFB
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand


def read(text):
    """The vectors in the blocks of that name, as bytes."""
    found = {}
    for block in re.findall(r"^```vectors\n(.*?)^```$", text, re.M | re.S):
        for line in re.sub(r"\n +", "", block).splitlines():
            name, value = (part.strip() for part in line.split("=", 1))
            quoted = value.startswith('"')
            found[name] = value.strip('"').encode() if quoted else bytes.fromhex(value)
    return found


def sha256(data):
    return hashlib.sha256(data).digest()


def hmac256(key, data):
    return hmac.digest(key, data, "sha256")


def x(secret, label, context=b"", n=32):
    info = b"cipherwall 1 " + label.encode() + b"\0" + context
    return HKDFExpand(algorithm=hashes.SHA256(), length=n, info=info).derive(secret)


def pack(value):
    """MessagePack, as far as it is needed here."""
    if isinstance(value, dict):
        return bytes([0x80 | len(value)]) + b"".join(pack(k) + pack(v) for k, v in value.items())
    if isinstance(value, list):
        return bytes([0x90 | len(value)]) + b"".join(map(pack, value))
    if isinstance(value, str):
        text = value.encode()
        return (bytes([0xA0 | len(text)]) if len(text) < 32 else b"\xd9" + bytes([len(text)])) + text
    if isinstance(value, bytes):
        short = len(value) < 256
        return (b"\xc4" + bytes([len(value)]) if short else b"\xc5" + struct.pack(">H", len(value))) + value
    if value < 128:
        return bytes([value])
    code, form = (b"\xcc", ">B") if value < 1 << 8 else (b"\xcd", ">H") if value < 1 << 16 else (b"\xce", ">I")
    return code + struct.pack(form, value)


def map_before_pad(fields):
    """The map of a control message as far as the key of its pad."""
    return pack({**fields, "pad": b""})[: -len(pack(b""))]


def checksum(data):
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ipv4(protocol, payload):
    def header(check):
        addresses = bytes([10, 8, 0, 2, 10, 8, 0, 1])
        return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, check) + addresses
    return header(0xFFFF - checksum(header(0))) + payload


def frame(kind, payload):
    return bytes([kind]) + struct.pack(">I", len(payload))[1:] + payload


def record(cipher, keys, epoch, counter, plaintext):
    key, iv, mask = keys
    header = b"\x17\x03\x03" + struct.pack(">H", 8 + len(plaintext) + 16)
    nonce = (epoch << 60 | counter << 24).to_bytes(8, "big")
    aead_nonce = bytes(a ^ b for a, b in zip(iv, bytes(4) + nonce))
    sealed = {1: ChaCha20Poly1305, 2: AESGCM}[cipher](key).encrypt(aead_nonce, plaintext, header)
    if cipher == 1:
        m = Cipher(algorithms.ChaCha20(mask, sealed[:16]), None).encryptor().update(bytes(8))
    else:
        m = Cipher(algorithms.AES(mask), modes.ECB()).encryptor().update(sealed[:16])
    return header + bytes(a ^ b for a, b in zip(nonce, m)) + sealed


def ecb(key, block):
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def datagram_keys(cipher, chain, d):
    if cipher == 3:
        return {"enc": x(chain, f"cw enc {d}"), "mac": x(chain, f"cw mac {d}")}
    return {"key": x(chain, f"key dgram {d}"), "iv": x(chain, f"iv dgram {d}", n=12)}


def datagram(cipher, keys, v, d, epoch, plaintext):
    """The first datagram of an epoch and direction, with time 0."""
    if cipher == 3:
        block = v["datagram_index"] + bytes([epoch, d == "s2c"]) + bytes(6) + v[f"datagram_random_{epoch}"]
        iv = ecb(x(v["mask_key"], "cw iv"), block)
        sealed = iv + Cipher(algorithms.AES(keys["enc"]), CFB(iv)).encryptor().update(plaintext)
        return hmac256(keys["mac"], sealed) + sealed
    head = v["datagram_index"] + (epoch << 60).to_bytes(8, "big")
    aead_nonce = bytes(a ^ b for a, b in zip(keys["iv"], bytes(4) + head[4:]))
    aead = {1: ChaCha20Poly1305, 2: AESGCM}[cipher](keys["key"])
    sealed = aead.encrypt(aead_nonce, plaintext, v["datagram_index"])
    return bytes(a ^ b for a, b in zip(head, ecb(v["mask_key"], sealed[:16]))) + sealed


def compute(given):
    v = dict(given)
    user, door, root = v["user"].decode(), v["door_key"], v["root"]
    pins = [v["pin_in_use"], v["pin_spare"]]
    password = unicodedata.normalize("NFC", v["password"].decode()).encode()
    device = Ed25519PrivateKey.from_private_bytes(v["device_seed"])
    v["salt"] = hmac256(v["salt_key"], user.encode())[:16]
    v["prehash"] = sha256(password + v["salt"])
    v["door_key_id"] = sha256(door)[:4]
    v["device_public"] = device.public_key().public_bytes_raw()

    endpoint = {"host": "gateway.example", "port": 8443, "transport": "tls", "pins": pins}
    body = pack({"e": [endpoint], "u": user, "s": v["salt"], "g": door, "k": v["enrol_secret"],
                 "x": 1900000000, "n": []})
    link = base64.urlsafe_b64encode(body + sha256(body)[:4]).rstrip(b"=")
    v["invitation"] = b"cipherwall://1/" + link

    v["knock"] = hmac256(door, x(root, "knock"))[:16]
    v["proof"] = x(root, "proof")
    for purpose in ("login", "enrol", "resume"):
        signed = b"cipherwall 1 " + purpose.encode() + b"\0" + v["proof"]
        v[f"{purpose}_signature"] = device.sign(signed)
    token_hash = sha256(v["token"])
    tag = hmac256(door, b"cipherwall 1 hint\0" + token_hash)[:16]
    v["hint"] = b"\x02" + v["door_key_id"] + token_hash + tag
    knock_token = b"\x01" + v["door_key_id"] + v["knock"]
    v["opener_http1"] = b"IRVP /" + base64.urlsafe_b64encode(knock_token)
    h2_frame = lambda kind, payload: struct.pack(">I", len(payload))[1:] + bytes([kind, 0, 0, 0, 0, 0]) + payload
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    v["opener_http2"] = preface + h2_frame(4, b"") + h2_frame(0x49, knock_token)

    request = {"type": "login", "user": user, "prehash": v["prehash"], "device": v["device_public"],
               "sig": v["login_signature"]}
    v["login_map"] = map_before_pad({
        "versions": [1, 1], "program": "example 1.0", "ciphers": [2, 1], "transport": "tls", "request": request})
    v["resume_map"] = map_before_pad({
        "versions": [1, 1], "program": "example 1.0", "ciphers": [2], "transport": "tls",
        "request": {"type": "resume", "token": v["token"], "sig": v["resume_signature"]}})
    v["welcome_map"] = map_before_pad({"reply": {
        "type": "welcome", "session_id": v["session_id"], "token": v["token"], "version": 1, "cipher": 2,
        "v4": "10.8.0.2", "v6": "fd00::2", "routes": ["0.0.0.0/1", "128.0.0.0/1"], "dns": ["10.8.0.1"],
        "mtu": 1420, "keepalive": 15, "time": 1800000000, "pins": pins}})

    v["login_datagrams_map"] = map_before_pad({
        "versions": [1, 1], "program": "example 1.0", "ciphers": [2, 1], "transport": "tls",
        "datagrams": [3, 2], "request": request})
    v["welcome_datagram_map"] = map_before_pad({"reply": {
        "type": "welcome", "session_id": v["session_id"], "token": v["token"], "version": 1, "cipher": 2,
        "v4": "10.8.0.2", "v6": "fd00::2", "routes": ["0.0.0.0/1", "128.0.0.0/1"], "dns": ["10.8.0.1"],
        "mtu": 1420, "keepalive": 15, "time": 1800000000, "pins": pins,
        "datagram": {"cipher": 3, "port": 1194, "index": int.from_bytes(v["datagram_index"], "big"),
                     "mask_key": v["mask_key"]}}})

    v["ping"], v["pong"] = (frame(kind, struct.pack(">Q", 1)) for kind in (3, 4))
    v["padding"] = frame(0x80, b"")
    v["path_challenge"], v["path_response"] = (frame(kind, struct.pack(">Q", 1)) for kind in (9, 10))
    v["close"] = frame(5, pack({"type": "close"}))
    v["token_stored"] = frame(5, pack({"type": "token-stored"}))
    for reason in ("superseded", "revoked", "stopping"):
        v[f"kick_{reason}"] = frame(5, pack({"type": "kick", "reason": reason}))
    v["rekey_please"] = frame(5, pack({"type": "rekey-please"}))
    echo = struct.pack(">BBHHH", 8, 0, 0xFFFF - checksum(bytes([8, 0, 0, 0, 0, 1, 0, 1])), 1, 1)
    v["packet"] = frame(1, ipv4(1, echo))
    pseudo = checksum(bytes([10, 8, 0, 2, 10, 8, 0, 1, 0, 6]) + struct.pack(">H", 27))
    tcp = struct.pack(">HHIIHHHH", 40000, 80, 1, 1, 0x5018, 65535, pseudo, 0) + b"seven b"
    v["offload_packet"] = frame(2, struct.pack("<BBHHHH", 1, 1, 40, 4, 20, 16) + ipv4(6, tcp))

    secrets = [X25519PrivateKey.from_private_bytes(v[f"rekey_secret_{end}"]) for end in ("gateway", "client")]
    theirs, ours = (secret.public_key().public_bytes_raw() for secret in secrets)
    rekey = struct.pack(">I", 1) + v["rekey_random"] + theirs
    rekey_reply = struct.pack(">I", 1) + ours
    v["rekey"], v["rekey_reply"] = frame(6, rekey), frame(7, rekey_reply)
    v["rekey_done"] = frame(8, struct.pack(">I", 1))
    shared = secrets[0].exchange(secrets[1].public_key())
    rekey_input = shared + v["rekey_random"] + sha256(rekey + rekey_reply)

    for cipher in (1, 2):
        chain = x(root, "chain", v["session_id"] + bytes([1, cipher, 0]))
        v[f"chain_0.cipher_{cipher}"] = chain
        keys = {}
        for d in ("c2s", "s2c"):
            keys[d] = x(chain, f"key stream {d}"), x(chain, f"iv stream {d}", n=12), x(chain, f"mask {d}")
            for name, value in zip(("key", "iv", "mask"), keys[d]):
                v[f"{name}_{d}.cipher_{cipher}"] = value
        for d, counter, plaintext in (("c2s", 0, "ping"), ("c2s", 1, "padding"), ("s2c", 0, "pong")):
            v[f"record_{d}_{counter}.cipher_{cipher}"] = record(cipher, keys[d], 0, counter, v[plaintext])
        chain_1 = hmac256(chain, rekey_input)
        v[f"chain_1.cipher_{cipher}"] = chain_1
        for d, plaintext in (("c2s", "ping"), ("s2c", "pong")):
            key, iv = x(chain_1, f"key stream {d}"), x(chain_1, f"iv stream {d}", n=12)
            v[f"key_{d}_epoch_1.cipher_{cipher}"], v[f"iv_{d}_epoch_1.cipher_{cipher}"] = key, iv
            v[f"record_{d}_epoch_1.cipher_{cipher}"] = record(cipher, (key, iv, keys[d][2]), 1, 0, v[plaintext])

    v["iv_key"] = x(v["mask_key"], "cw iv")
    for cipher in (1, 2, 3):
        chain = x(root, "chain", v["session_id"] + bytes([1, 2, cipher]))
        for epoch in (0, 1):
            v[f"chain_{epoch}.datagram_{cipher}"] = chain
            for d, plaintext in (("c2s", "ping"), ("s2c", "pong")):
                keys = datagram_keys(cipher, chain, d)
                for name, value in keys.items():
                    v[f"{name}_{d}_epoch_{epoch}.datagram_{cipher}"] = value
                name = f"datagram_{d}_epoch_{epoch}.datagram_{cipher}"
                v[name] = datagram(cipher, keys, v, d, epoch, v[plaintext])
            chain = hmac256(chain, rekey_input)
    static_mode(v)
    kcp(v)
    return v


def static_mode(v):
    key = v["static_key"]
    v["static_iv_key"] = x(hmac256(b"cipherwall static", key), "iv")
    for name, role, counter in (("client_0", 0, 0), ("client_1", 0, 1), ("gateway_0", 1, 0)):
        block = b"CW1" + bytes([role]) + v["static_run"] + counter.to_bytes(6, "big")
        iv = Cipher(algorithms.AES(v["static_iv_key"]), modes.ECB()).encryptor().update(block)
        inside = v["packet"][4:]
        signed = iv + Cipher(algorithms.AES(key[:32]), CFB(iv)).encryptor().update(inside)
        v[f"static_datagram_{name}"] = hmac256(key[32:], signed) + signed


def kcp(v):
    conversation = v["kcp_conversation"]
    v["kcp_head_key"] = x(v["door_key"], "kcp head")
    v["kcp_key"] = x(v["door_key"], "kcp key", conversation)
    for d, direction, command in (("c2s", 0, 83), ("s2c", 1 << 63, 84)):
        block = conversation + struct.pack(">Q", direction)
        head = Cipher(algorithms.AES(v["kcp_head_key"]), modes.ECB()).encryptor().update(block)
        number = int.from_bytes(conversation[:4], "big")
        segment = struct.pack("<IBBHIIII", number, command, 0, 8192, 0, 0, 0, 0)
        nonce = bytes(4) + block[8:]
        sealed = ChaCha20Poly1305(v["kcp_key"]).encrypt(nonce, v["kcp_time"] + segment, block)
        v[f"kcp_datagram_{d}_0"] = head + sealed


def main():
    given = read(pathlib.Path(__file__).with_name("protocol.md").read_text())
    computed = compute(given)
    wrong = [name for name in computed if given.get(name) != computed[name]]
    for name in wrong:
        print(f"{name} should be {computed[name].hex()}")
    print(f"{len(computed) - len(wrong)} of {len(computed)} vectors are right")
    sys.exit(bool(wrong))


main()
