"""An application that does what a seed says to the database of one node, and writes down each transaction: once when it begins, with
what it wants to do, and once when it knows the outcome.  So whatever ends it, nothing it may have done goes unmentioned.

    history_client.py DATABASE NAME SEED FILE       until it is killed, or its standard input ends

Keys change with the clock, so that no list grows long and no register has too many operations to be judged."""

import json
import os
import random
import sqlite3
import sys
import threading
import time

from harness import IOERR_UNKNOWN, connect
from linear import FAILED, OK, UNKNOWN

CONNECTIONS = 2
SECONDS_PER_KEY = 2.0
BIG = 6_000_000  # bytes: too big for the log
WRITE = "INSERT INTO registers VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value"
APPEND = "INSERT INTO lists VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET items = items || ' ' || excluded.items"


class Surprise(Exception):
    """What no application should ever see."""


class Client(threading.Thread):
    def __init__(self, database, name, seed, out):
        super().__init__(daemon=True)
        self.database, self.name, self.dice, self.out = database, name, random.Random(seed), out
        self.number = 0

    def run(self):
        try:
            self.connection = connect(self.database, busy_ms=20000, timeout=20000)
            while True:
                self.transaction()
        except Exception as error:
            self.say("wrong", repr(error), getattr(error, "sqlite_errorname", None))

    def say(self, *words):
        os.write(self.out, (json.dumps(words) + "\n").encode())

    def key(self, kind, count):
        return f"{kind}{int(time.monotonic() / SECONDS_PER_KEY)}.{self.dice.randrange(count)}"

    def transaction(self):
        kind = self.dice.choices(
            ["read", "write", "swap", "append", "upgrade", "look", "glance", "cancel", "big"],
            [25, 20, 10, 25, 5, 5, 8, 2, 0.3],
        )[0]
        wanted = self.wanted(kind)
        self.number += 1
        linearizable = kind in ("read", "look") or kind != "glance" and self.dice.random() < 0.1
        self.consistency("linearizable" if linearizable else "local")
        strict = linearizable or any(what in ("write", "append") for what, _, _ in wanted)
        self.say("begin", self.name, self.number, time.monotonic(), strict, wanted)
        done = []
        try:
            outcome = self.attempt(kind, wanted, done)
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0)
            if code == IOERR_UNKNOWN:
                outcome = UNKNOWN
            elif code & 255 in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL):
                outcome = FAILED
            else:
                raise Surprise(kind, code, getattr(error, "sqlite_errorname", None), str(error)) from error
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        self.say("end", self.name, self.number, time.monotonic(), outcome, done)

    def consistency(self, word):
        self.connection.execute(f"PRAGMA rqvfs_consistency={word}")

    def wanted(self, kind):
        if kind == "read":
            return [("read", self.key("r", 4), None)]
        if kind in ("write", "swap"):
            key = self.key("r", 4)
            return [("read", key, None)] * (kind == "swap") + [("write", key, self.element(0))]
        ops = []
        for part in range(self.dice.randrange(1, 5)):
            key = self.key("l", 5)
            if kind in ("look", "glance") or self.dice.random() < 0.4:
                ops.append(("list", key, None))
            else:
                ops.append(("append", key, self.element(part)))
        return ops

    def element(self, part):
        return f"{self.name}:{self.number}:{part}"

    def attempt(self, kind, wanted, done):
        one = len(wanted) == 1 and kind not in ("cancel", "big")
        if not one:
            self.connection.execute("BEGIN" if kind in ("upgrade", "look", "glance") else "BEGIN IMMEDIATE")
        if kind == "big":
            self.connection.execute("UPDATE ballast SET bytes = randomblob(?) WHERE rowid = 1", (BIG,))
        for what, key, value in wanted:
            if what == "read":
                row = self.connection.execute("SELECT value FROM registers WHERE key = ?", (key,)).fetchone()
                value = row[0] if row else None
            elif what == "list":
                row = self.connection.execute("SELECT items FROM lists WHERE key = ?", (key,)).fetchone()
                value = row[0].split() if row else []
            else:
                self.connection.execute(WRITE if what == "write" else APPEND, (key, value))
            done.append((what, key, value))
        if kind == "cancel":
            self.connection.execute("ROLLBACK")
            return FAILED
        if not one:
            self.connection.execute("COMMIT")
        return OK


if __name__ == "__main__":
    database, name, seed, path = sys.argv[1:]
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(CONNECTIONS):
        Client(database, f"{name}.{number}", f"{seed}.{number}", out).start()
    sys.stdin.read()
    os._exit(0)  # in the middle of whatever it does
