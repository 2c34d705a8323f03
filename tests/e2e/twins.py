"""Twins: the same steps on a native database in WAL mode and on one through rqvfs, every answer compared.

A step's answer is its error (extended code and message) or its rows with column names, and then changes and whether a transaction
is open.  What docs/compatibility.md lists as different is said at the step: ours=... is then what rqvfs must answer, and a
difference that has gone is a failure as well."""

import sqlite3

from harness import Raftd, connect, connect_stock, load_extension, temporary, uri

SAME = object()


class Answer:
    """What one side said to one step."""

    def __init__(self, rows=None, columns=None, error=None):
        self.rows, self.columns, self.error = rows, columns, error

    def __eq__(self, other):
        return (self.rows, self.columns, self.error) == (other.rows, other.columns, other.error)

    def __repr__(self):
        return f"error {self.error}" if self.error else f"{self.columns} {self.rows}"


def ask(action):
    """The Answer of action(), which may return a cursor, any value, or raise."""
    try:
        result = action()
        if isinstance(result, sqlite3.Cursor):
            columns = [column[0] for column in result.description] if result.description else None
            return Answer(result.fetchall(), columns)
        return Answer(result)
    except sqlite3.Error as error:
        return Answer(error=(getattr(error, "sqlite_errorcode", type(error).__name__), str(error)))


class Side:
    def __init__(self, name, directory):
        self.name, self.directory = name, directory
        self.connections = {}

    def path(self, name):
        return self.directory / name

    def uri(self, name, **parameters):
        return uri(self.directory / name, **{"vfs": self.vfs, **parameters})

    def connection(self, who=0):
        return self.connections[who]


class Native(Side):
    vfs = "unix"

    def open(self, name, **parameters):
        connection = sqlite3.connect(self.uri(name, **parameters), uri=True, isolation_level=None, check_same_thread=False)
        return connection


class Ours(Side):
    vfs = "rqvfs"

    def open(self, name, **parameters):
        return connect(self.directory / name, busy_ms=0, **parameters)


class Twins:
    """native and ours.  Steps name the connection by who; text may use {uri:NAME} and {plain:NAME} (a file outside)."""

    def __init__(self, raftd=None, name="twin.db", creation="", empty=False):
        load_extension()
        self.raftd = raftd or Raftd()
        self.name = name
        native = temporary("native")
        native.mkdir()
        self.native, self.ours = Native("native", native), Ours("rqvfs", self.raftd.directory)
        self.sides = (self.native, self.ours)
        self.plain = {}
        for side in self.sides:
            self.plain[side] = temporary("plain")
            self.plain[side].mkdir()
        self.open()
        for side in self.sides:
            side.connection().executescript(creation)
        if not empty:
            self.native.connection().execute("PRAGMA journal_mode=wal")

    def open(self, who=0, name=None, **parameters):
        """Both must open, or neither, with the same code."""
        answers = []
        for side in self.sides:
            self.close(who, side)

            def action(side=side):
                side.connections[who] = side.open(name or self.name, **parameters)
                return side.connections[who].execute("PRAGMA busy_timeout=0").fetchall()

            answers.append(ask(action))
        self.compare(f"open {name or self.name} {parameters}", answers)
        return answers[0].error

    def close(self, who=0, *sides):
        for side in sides or self.sides:
            connection = side.connections.pop(who, None)
            if connection:
                connection.close()

    def __call__(self, sql, *arguments, who=0, ours=SAME, native=None):
        """Runs one statement on both.  ours: what rqvfs answers instead; native: what only the native side is told."""
        answers = []
        for side in self.sides:
            text = native if native and side is self.native else sql
            text = self.fill(text, side)
            connection = side.connection(who)
            answer = ask(lambda: connection.execute(text, arguments))
            answer.state = (connection.total_changes, connection.in_transaction)
            answers.append(answer)
        self.compare(sql, answers, ours)
        return answers[1]

    def each(self, what, action, ours=SAME):
        """action(side) on both."""
        answers = [ask(lambda side=side: action(side)) for side in self.sides]
        self.compare(what, answers, ours)
        return answers[1]

    def fill(self, text, side):
        while "{uri:" in text or "{plain:" in text:
            kind = "uri" if "{uri:" in text else "plain"
            begin = text.index("{" + kind + ":")
            end = text.index("}", begin)
            name = text[begin + len(kind) + 2 : end]
            path = side.uri(name) if kind == "uri" else str(self.plain[side] / name)
            text = text[:begin] + path + text[end + 1 :]
        return text

    def compare(self, what, answers, ours=SAME):
        native, got = answers
        if ours is not SAME:
            wanted = ours if isinstance(ours, Answer) else Answer(ours)
            if native == got:
                raise AssertionError(f"{what}: no difference any more: {got}")
            if got != wanted:
                raise AssertionError(f"{what}: rqvfs {got}, wanted {wanted}; natively {native}")
        elif native != got:
            raise AssertionError(f"{what}:\n native {native}\n rqvfs  {got}")
        states = [getattr(answer, "state", None) for answer in answers]
        if ours is SAME and states[0] != states[1]:
            raise AssertionError(f"{what}: total_changes and in_transaction: native {states[0]}, rqvfs {states[1]}")

    def same_content(self):
        """Schema, every table, integrity: on a new connection of each, and by a stock one on our file."""
        dumps = []
        for connection in (self.native.open(self.name), self.ours.open(self.name), connect_stock(self.ours.path(self.name))):
            dump = list(connection.iterdump()) + connection.execute("PRAGMA integrity_check").fetchall()
            connection.close()
            dumps.append(dump)
        if dumps[0] != dumps[1]:
            raise AssertionError("content differs:\n" + difference(dumps[0], dumps[1]))
        if dumps[1] != dumps[2]:
            raise AssertionError("a stock tool reads something else:\n" + difference(dumps[1], dumps[2]))


def difference(one, other):
    for first, second in zip(one, other):
        if first != second:
            return f"{str(first)[:200]}\n{str(second)[:200]}"
    return f"{len(one)} lines, {len(other)} lines"
