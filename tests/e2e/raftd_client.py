"""A client of raftd's local socket, by hand: frames and msgpack as docs/protocol.md has them, nothing of our own code."""
import os
import socket
import struct

HELLO, WELCOME, OPEN, OPENED, PAGES, COMMIT, OUTCOME, ASK, STATUS, STATE, FAILED = range(1, 12)
OK, FULL, PROTOCOL, REFUSED, UNKNOWN, QUARANTINED, NOTFOUND, EXISTS, PAGESIZE, MISUSE = 0, 3, 5, 9, 10, 11, 12, 13, 15, 17


def pack(value):
    """The few msgpack types that the protocol uses."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if value < 128:
            return struct.pack(">B", value)
        for tag, form, bits in ((0xCC, ">BB", 8), (0xCD, ">BH", 16), (0xCE, ">BI", 32), (0xCF, ">BQ", 64)):
            if value < 1 << bits:
                return struct.pack(form, tag, value)
    if isinstance(value, str):
        data = value.encode()
        return (struct.pack(">B", 0xA0 | len(data)) if len(data) < 32 else struct.pack(">BB", 0xD9, len(data))) + data
    if isinstance(value, list):
        assert len(value) < 16
        return struct.pack(">B", 0x90 | len(value)) + b"".join(map(pack, value))
    raise TypeError(value)


def unpack(data, at=0):
    tag = data[at]
    at += 1
    if tag < 0x80:
        return tag, at
    if tag in (0xC2, 0xC3):
        return tag == 0xC3, at
    for known, form, size in ((0xCC, ">B", 1), (0xCD, ">H", 2), (0xCE, ">I", 4), (0xCF, ">Q", 8)):
        if tag == known:
            return struct.unpack_from(form, data, at)[0], at + size
    if tag & 0xE0 == 0xA0 or tag in (0xD9, 0xDA):
        if tag == 0xD9:
            size, at = data[at], at + 1
        elif tag == 0xDA:
            size, at = struct.unpack_from(">H", data, at)[0], at + 2
        else:
            size = tag & 0x1F
        return data[at:at + size].decode(), at + size
    if tag & 0xF0 == 0x90:
        out = []
        for _ in range(tag & 0xF):
            value, at = unpack(data, at)
            out.append(value)
        return out, at
    raise ValueError(hex(tag))


class Client:
    def __init__(self, directory, session=None, timeout=60):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock.connect("/proc/self/fd/%d/raftd.sock" % fd)
        finally:
            os.close(fd)
        self.session = session or int.from_bytes(os.urandom(8), "big") | 1
        self.id = 0
        self.seq = 0
        kind, self.welcome = self.call(HELLO, [1, self.session, os.getpid(), "test", "3.46.1"])
        assert kind == WELCOME, (kind, self.welcome)

    def close(self):
        self.sock.close()

    def send(self, kind, fields, tail=b""):
        self.id += 1
        body = pack(fields) + tail
        self.sock.sendall(struct.pack(">IHHQ", len(body), kind, 0, self.id) + body)
        return self.id

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def receive(self):
        size, kind, _flags, number = struct.unpack(">IHHQ", self.exactly(16))
        return kind, number, unpack(self.exactly(size))[0]

    def call(self, kind, fields, tail=b""):
        number = self.send(kind, fields, tail)
        answer, got, body = self.receive()
        assert got == number
        return answer, body

    def open(self, name, create=True):
        return self.call(OPEN, [name, create])

    def commit(self, db_id, base, pages, page_size=4096, page_count=None, seq=None, wait=True):
        """pages: {number: bytes}."""
        if seq is None:
            self.seq += 1
            seq = self.seq
        page_count = page_count or max(pages)
        numbers = sorted(pages)
        per_frame = (1 << 20) // (page_size + 4) - 1
        pieces = [numbers[i:i + per_frame] for i in range(0, len(numbers), per_frame)] or [[]]
        for i, piece in enumerate(pieces):
            kind = COMMIT if i == len(pieces) - 1 else PAGES
            tail = b"".join(struct.pack(">I", n) + pages[n] for n in piece)
            number = self.send(kind, [db_id, seq, base, page_size, page_count, len(piece)], tail)
        if not wait:
            return number
        kind, got, body = self.receive()
        assert got == number and kind == OUTCOME, (kind, body)
        return body

    def ask(self, db_id, base, seq):
        kind, body = self.call(ASK, [db_id, seq, base])
        assert kind == OUTCOME, (kind, body)
        return body
