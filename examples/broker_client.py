#!/usr/bin/env python3
"""A client of ganger's broker, written from docs/protocol.md alone, to show that it suffices.

usage: broker_client.py SOCKET get KEY | set KEY VALUE | incr KEY [BY] | publish SUBJECT TEXT
       broker_client.py SOCKET subscribe PATTERN | request SUBJECT TEXT | conformance

SOCKET is the broker's `broker.sock`. `get` exits with 1 if there is no such key; `subscribe` writes
a line per message until it is killed; `conformance` tries everything and says what held.
"""
import itertools
import socket
import struct
import sys

HEAD = struct.Struct(">IBBHIQHH")  # length, version, op, flags, id, seq, subject and headers length
HELLO, WELCOME, ERROR, OK, ENDED, CANCEL, PING, PONG, GOODBYE = range(1, 10)
PUBLISH, MESSAGE, GAP, ACK, SUBSCRIBE, SUBSCRIBED = range(0x10, 0x16)
REQUEST, REPLY = 0x20, 0x21
GET, SET, DELETE, INCR, KV = range(0x30, 0x35)
VALUE, NOTHING, KV_REPLY = 0x38, 0x39, 0x3A
LEASE, LEASE_EVENT = 0x50, 0x51
WANT_ACK, TTL, IF_ABSENT, IF_REVISION = 1, 1, 2, 8
CONTROL = {WELCOME, ERROR, ENDED, GOODBYE, GAP, SUBSCRIBED, KV_REPLY, LEASE_EVENT}


def pack(value):
    """MessagePack of None, bool, int, str, bytes, list, dict."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return struct.pack(">Bq", 0xD3, value) if value < 0 else struct.pack(">BQ", 0xCF, value)
    if isinstance(value, str):
        return struct.pack(">BI", 0xDB, len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return struct.pack(">BI", 0xC6, len(value)) + value
    if isinstance(value, list):
        return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(pack, value))
    items = [pack(part) for item in value.items() for part in item]
    return struct.pack(">BI", 0xDF, len(value)) + b"".join(items)


def unpack(data):
    """The value that MessagePack bytes begin with, and the bytes behind it."""
    def number(kind, at=1):
        size = struct.calcsize(kind)
        return struct.unpack(">" + kind, data[at : at + size])[0], data[at + size :]

    def parts(count, rest):
        values = []
        for _ in range(count):
            value, rest = unpack(rest)
            values.append(value)
        return values, rest

    def pairs(count, rest):
        values, rest = parts(2 * count, rest)
        return dict(zip(values[::2], values[1::2])), rest

    first = data[0]
    if first < 0x80 or first >= 0xE0:
        return number("b", 0)
    if first < 0x90:
        return pairs(first & 0xF, data[1:])
    if first < 0xA0:
        return parts(first & 0xF, data[1:])
    if first < 0xC0:
        return data[1 : 1 + (first & 0x1F)].decode(), data[1 + (first & 0x1F) :]
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first], data[1:]
    if first in range(0xCA, 0xD4):
        return number("fdBHIQbhiq"[first - 0xCA])
    length, rest = number({0xC4: "B", 0xD9: "B", 0xC5: "H", 0xDA: "H", 0xDC: "H", 0xDE: "H"}.get(first, "I"))
    if first in (0xDC, 0xDD):
        return parts(length, rest)
    if first in (0xDE, 0xDF):
        return pairs(length, rest)
    raw = rest[:length]
    return (raw.decode() if first >= 0xD9 else raw), rest[length:]


def frame(op, id=0, flags=0, seq=0, subject=b"", headers=b"", payload=b""):
    length = HEAD.size - 4 + len(subject) + len(headers) + len(payload)
    head = HEAD.pack(length, 1, op, flags, id, seq & 2**64 - 1, len(subject), len(headers))
    return head + subject + headers + payload


class Frame:
    def __init__(self, read):
        length, version, self.op, self.flags, self.id, self.seq, subject, headers = HEAD.unpack(read(HEAD.size))
        assert version == 1 and length >= HEAD.size - 4 + subject + headers
        tail = read(length - HEAD.size + 4)
        self.subject, self.headers = tail[:subject].decode(), tail[subject : subject + headers]
        self.payload = tail[subject + headers :]
        self.body = unpack(self.payload)[0] if self.op in CONTROL else None


class Failed(Exception):
    """The broker's error: `code` is one of the words of the document."""

    def __init__(self, body):
        super().__init__(f"{body.get('message') or 'failed'} ({body['code']})")
        self.code = body["code"]


class Client:
    def __init__(self, path, name="broker_client.py"):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)
        self.ids, self.waiting = itertools.count(1), []
        hello = {"versions": {"min": 1, "max": 1}, "name": name, "software": "broker_client.py"}
        self.welcome = self.ask(HELLO, payload=pack(hello)).body

    def read(self, size):
        data = bytearray()
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise ConnectionError("the broker closed the connection")
            data += more
        return bytes(data)

    def send(self, op, id, **parts):
        self.socket.sendall(frame(op, id, **parts))

    def next(self, wanted):
        """The next frame that is wanted; the others wait for their turn."""
        for index, waiting in enumerate(self.waiting):
            if wanted(waiting):
                return self.waiting.pop(index)
        while True:
            came = Frame(self.read)
            if came.op == PING:
                self.send(PONG, came.id, seq=came.seq)
            elif wanted(came):
                return came
            elif came.op == ERROR and came.id == 0:
                raise Failed(came.body)
            else:
                self.waiting.append(came)

    def answer(self, id, ops=None):
        came = self.next(lambda came: came.id == id and (ops is None or came.op in ops | {ERROR}))
        if came.op == ERROR:
            raise Failed(came.body)
        return came

    def ask(self, op, **parts):
        id = next(self.ids)
        self.send(op, id, **parts)
        return self.answer(id)

    # Keys

    def get(self, key):
        came = self.ask(GET, subject=key)
        return came.payload if came.op == VALUE else None

    def set(self, key, value, ttl_ms=None, if_absent=False, if_revision=None):
        """The revision of what was written; None if the condition was not met."""
        assert ttl_ms is None or if_revision is None
        flags = (ttl_ms is not None) * TTL | if_absent * IF_ABSENT | (if_revision is not None) * IF_REVISION
        came = self.ask(SET, subject=key, payload=value, flags=flags, seq=ttl_ms or if_revision or 0)
        return came.seq if came.op == OK else None

    def delete(self, key):
        return self.ask(DELETE, subject=key).op == OK

    def incr(self, key, by=1):
        total = self.ask(INCR, subject=key, seq=by).seq
        return total - (total >> 63 << 64)

    def kv(self, name, **fields):
        """Any operation of the document's table; the fields of its reply."""
        ((_, reply),) = self.ask(KV, payload=pack({name: fields})).body.items()
        return reply

    # Messages

    def publish(self, subject, payload):
        """How many subscriptions it reached."""
        return self.ask(PUBLISH, subject=subject.encode(), payload=payload, flags=WANT_ACK).seq

    def subscribe(self, pattern, **options):
        return self.ask(SUBSCRIBE, payload=pack({"pattern": pattern, **options})).id

    def message(self, id):
        """The next message, request, gap or end of a subscription."""
        return self.next(lambda came: came.id == id and came.op in (MESSAGE, REQUEST, GAP, ENDED))

    def request(self, subject, payload, timeout_ms=5000):
        return self.ask(REQUEST, subject=subject.encode(), payload=payload, seq=timeout_ms).payload

    def respond(self, request, payload):
        self.send(REPLY, request.id, seq=request.seq, payload=payload)

    # Leases

    def lock(self, name, **options):
        """The fencing token."""
        id = next(self.ids)
        self.send(LEASE, id, payload=pack({"acquire": {"name": name, **options}}))
        while True:
            event = self.answer(id, {LEASE_EVENT}).body
            if "granted" in event:
                return event["granted"]["token"]

    def release(self, name, token):
        self.ask(LEASE, payload=pack({"release": {"name": name, "token": token}}))


def conformance(path):
    """Tries everything on a broker; its keys, subjects and locks begin with `conformance`."""
    client, passed = Client(path), []

    def check(what, holds):
        print(f"{'ok' if holds else 'FAILED'}: {what}")
        passed.append(bool(holds))

    def fails(code, call, *arguments, **options):
        try:
            call(*arguments, **options)
        except Failed as failed:
            return failed.code == code
        return False

    key = b"conformance:\xff"
    for name in (key, key + b"n"):
        client.delete(name)
    check("welcome", client.welcome["version"] == 1 and client.welcome["limits"]["frame_bytes"] > 0)
    check("ping", client.ask(PING, seq=5).seq == 5)
    check("absent", client.get(key) is None and not client.delete(key))
    first = client.set(key, b"one")
    check("get", client.get(key) == b"one")
    check("if absent", client.set(key, b"two", if_absent=True) is None)
    check("if revision", client.set(key, b"two", if_revision=first) and not client.set(key, b"3", if_revision=first))
    check("incr", client.incr(key + b"n", -5) == -5 and client.incr(key + b"n", 2) == -3)
    check("not a counter", fails("not_a_counter", client.incr, key))
    check("key length", fails("key_len", client.get, b"") and fails("reserved_key", client.get, b"\0x"))
    check("entry", client.kv("entry", key=key)["entry"]["value"] == b"two")
    check("time to live", client.set(key, b"three", ttl_ms=60000) and 0 < client.kv("ttl", key=key)["ttl_ms"] <= 60000)
    batch = [{"append": {"key": key, "value": b"!"}}, {"get_many": {"keys": [key, key + b"?"]}}, {"incr": {"key": key, "by": 1}}]
    replies = client.kv("batch", requests=batch)["replies"]
    check("batch", replies[:2] == [{"count": {"count": 6}}, {"values": {"values": [b"three!", None]}}])
    check("a part that fails", replies[2]["failed"]["error"]["code"] == "not_a_counter")
    check("unknown operation", fails("unknown_operation", client.kv, "fly") and fails("unknown_operation", client.ask, 0xEE))
    check("delete", client.delete(key) and client.get(key) is None)

    here = client.subscribe("conformance.*")
    check("publish", client.publish("conformance.a", b"1") >= 1 and client.publish("conformance.a", b"2") >= 1)
    one, two = client.message(here), client.message(here)
    check("in order", (one.payload, two.payload, two.seq) == (b"1", b"2", one.seq + 1) and one.subject == "conformance.a")
    client.send(CANCEL, here)
    check("cancel", client.message(here).op == ENDED)
    elsewhere = {"epoch": client.welcome["epoch"] ^ 1, "seq": 5}
    gap = client.message(client.subscribe("conformance.gap", start={"from": elsewhere}))
    check("gap", gap.op == GAP and gap.body["cause"] == "restart")
    check("bad subject", fails("bad_subject", client.publish, "conformance..a", b""))

    check("no responders", fails("no_responders", client.request, "conformance.sum", b""))
    there = client.subscribe("conformance.sum", responds=True)
    asked = next(client.ids)
    client.send(REQUEST, asked, subject=b"conformance.sum", payload=b"2 3", seq=5000)
    request = client.message(there)
    client.respond(request, b"5")
    check("request", (request.op, request.payload, client.answer(asked).payload) == (REQUEST, b"2 3", b"5"))

    token = client.lock("conformance", ttl_ms=60000)
    check("lock", fails("taken", client.lock, "conformance", wait_ms=0))
    client.release("conformance", token)
    check("fencing", client.lock("conformance", wait_ms=0) > token)
    check("not held", fails("not_held", client.release, "conformance", token))
    print(f"{sum(passed)} passed, {len(passed) - sum(passed)} failed")
    return all(passed)


def main(path, command, *arguments):
    if command == "conformance":
        sys.exit(not conformance(path))
    client, arguments = Client(path), [argument.encode() for argument in arguments]
    if command == "get":
        value = client.get(*arguments)
        if value is None:
            sys.exit(1)
        sys.stdout.buffer.write(value)
    elif command == "set":
        client.set(*arguments)
    elif command == "incr":
        print(client.incr(arguments[0], int(arguments[1]) if arguments[1:] else 1))
    elif command == "publish":
        print(client.publish(arguments[0].decode(), arguments[1]))
    elif command == "request":
        sys.stdout.buffer.write(client.request(arguments[0].decode(), arguments[1]))
    elif command == "subscribe":
        client.socket.settimeout(None)
        id = client.subscribe(arguments[0].decode())
        while True:
            came = client.message(id)
            print(came.seq, came.subject, came.payload if came.op == MESSAGE else came.body, flush=True)
            if came.op == ENDED:
                break
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (Failed, OSError) as error:
        sys.exit(f"broker_client.py: {error}")
