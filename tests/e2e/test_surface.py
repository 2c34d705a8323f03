"""Sections 2, 3 and 4 of rqlite's surface, row by row, as the bytes of answers to requests: of one node, and of each node of three.
A row is a function that begins with the mark of its section; each is given a database of its own.  In bodies and answers ` stands
for "."""

import json
import re

from cluster import Cluster, wait_reads
from harness import Raftd, check, equal, main, test, wait_for
from http_client import Client

_rows = []


def row(function):
    _rows.append(function)
    return function


class Here:
    """A database, and the node that is asked of it."""

    def __init__(self, node, name):
        self.node, self.client, self.name = node, Client(node), name
        equal(self.client.ask("POST", f"/db?db={name}").status, 200, "a database is made")

    def ask(self, target, body=None, headers=None, method=None):
        """GET, or with a body POST."""
        target += ("&" if "?" in target else "?") + f"db={self.name}"
        data = None if body is None else body.replace("`", '"').encode()
        return self.client.ask(method or ("GET" if body is None else "POST"), target, data, headers)

    def gives(self, target, body, wanted, status=200, headers=None):
        answer = self.ask(target, body, headers)
        equal((answer.status, answer.text), (status, wanted.replace("`", '"')), f"{target} {body or ''}")

    def executes(self, body, *results, flags=""):
        self.gives(f"/db/execute?{flags}", body, "{`results`:[" + ",".join(results) + "]}")

    def finds(self, body, *results, flags="", path="/db/query"):
        self.gives(f"{path}?{flags}", body, "{`results`:[" + ",".join(results) + "]}")

    def value(self, sql, flags=""):
        return json.loads(self.ask(f"/db/query?{flags}", json.dumps([sql])).text)["results"][0]["values"][0][0]

    def foo(self):
        self.executes("[`CREATE TABLE foo (id INTEGER NOT NULL PRIMARY KEY, name TEXT)`]", "{}")
        self.executes("[[`INSERT INTO foo(name) VALUES(?)`,`fiona`],[`INSERT INTO foo(name) VALUES(:n)`,{`n`:`bob`}]]",
                      wrote(1), wrote(2))


def wrote(last, rows=1):
    return f"{{`last_insert_id`:{last},`rows_affected`:{rows}}}"


def found(columns, types, *values):
    def names(list):
        return ",".join(f"`{name}`" for name in list.split()) if list else "``"

    return f"{{`columns`:[{names(columns)}],`types`:[{names(types)}]" + (f",`values`:[{','.join(values)}]" if values else "") + "}"


def failed(text):
    return f"{{`error`:`{text}`}}"


# --- 2.1 conventions ----------------------------------------------------------------------------------------------------


@row
def s2_1_paths_are_prefixes_or_exact(here):
    for path in ("/status", "/nodes", "/readyz", "/db/query", "/db/sql", "/db/backup"):
        for more in ("", "/more", "more"):
            equal(here.ask(path + more + "?q=SELECT+1").status, 200, path + more)
    for path in ("/db/execute", "/db/request", "/db/load"):
        equal(here.ask(path + "/more", "[`SELECT 1`]" if path != "/db/load" else "SELECT 1;").status, 200, path)
    for path in ("/boot/x", "/snapshot/x", "/reapx", "/leader/x", "/licenses/x", "/debug/varsx", "/x", "/notify", "/extensions",
                 "/debug/pprof/cmdline", "/db/nothing", "/STATUS"):
        answer = here.ask(path)
        equal((answer.status, answer.text), (404, ""), path)


@row
def s2_1_every_query_is_checked_whatever_the_path(here):
    for path in ("/status", "/nodes", "/leader", "/readyz", "/db/query", "/db/backup", "/licenses", "/debug/vars", "/nowhere"):
        for key in ("timeout", "freshness", "db_timeout", "linearizable_timeout"):
            here.gives(f"{path}?{key}=soon", None, f"{key} is not a valid duration\n", 400)
        for key in ("retries", "trailing_logs"):
            here.gives(f"{path}?{key}=2.5", None, f"{key} is not a valid integer\n", 400)
        here.gives(f"{path}?q=", None, "query parameter not set\n", 400)
        here.gives(f"{path}?freshness_strict", None, "freshness_strict requires freshness\n", 400)
    refused = here.ask("/status?timeout=1")
    equal((refused.headers["Content-Type"], refused.headers["X-Content-Type-Options"]), ("text/plain; charset=utf-8", "nosniff"))


@row
def s2_1_parameters_are_there_or_not(here):
    pretty = here.ask("/db/query?pretty&q=SELECT+1").text
    check(pretty.startswith('{\n    "results": ['), pretty)
    for flag in ("pretty=", "pretty=no", "pretty=yes&pretty", "q=SELECT+1&pretty"):
        equal(here.ask(f"/db/query?{flag}&q=SELECT+1").text, pretty, flag)
    one = "{`results`:[" + found("1", "integer", "[1]") + "]}"
    for flags in ("q=SELECT+1&Pretty", "q=SELECT+1&q=SELECT+2", "bypass&atomic=1&q=SELECT+1&norwrandom&norwtime", "retries=3&q=SELECT+1",
                  "timeout=5s&linearizable_timeout=5s&db_timeout=5s&level=linearizable&q=SELECT+1"):
        here.gives(f"/db/query?{flags}", None, one)


@row
def s2_1_who_served_it(here):
    for target, body in (("/db/execute", "[`SELECT 1`]"), ("/db/query", "[`SELECT 1`]"), ("/db/request", "[`SELECT 1`]"),
                         ("/db/load", "SELECT 1;")):
        equal(here.ask(target, body).headers["X-Rqlite-Served-By"], here.node.http, target)


# --- 2.2 bodies ---------------------------------------------------------------------------------------------------------


@row
def s2_2_plain_text_and_json(here):
    one = "{`results`:[" + found("1", "integer", "[1]") + "]}"
    for kind in ("text/plain", "text/plain; charset=utf-8"):
        here.gives("/db/query", "SELECT 1", one, headers={"Content-Type": kind})
        here.gives("/db/execute", "CREATE TABLE IF NOT EXISTS t (x)", "{`results`:[{}]}", headers={"Content-Type": kind})
        here.gives("/db/request", "SELECT 1", "invalid JSON body\n", 400, headers={"Content-Type": kind})
        here.gives("/db/execute?queue", "SELECT 1", "invalid JSON body\n", 400, headers={"Content-Type": kind})
    for kind in ("application/json", "application/octet-stream", "text/html"):
        here.gives("/db/query", "[`SELECT 1`]", one, headers={"Content-Type": kind})


@row
def s2_2_each_kind_of_parameter(here):
    for literal, wanted in (
        ("7", ["integer", "7"]), ("9223372036854775807", ["integer", "9223372036854775807"]),
        ("-9223372036854775808", ["integer", "-9223372036854775808"]), ("true", ["integer", "1"]), ("false", ["integer", "0"]),
        ("1.5", ["real", "1.5"]), ("1.0", ["real", "1.0"]), ("1e2", ["real", "100.0"]), ("null", ["null", "NULL"]),
        ("`x'0aFF'`", ["blob", "X'0AFF'"]), ("`X'00'`", ["blob", "X'00'"]), ("` x'01'\\n`", ["blob", "X'01'"]), ("`x''`", ["blob", "X''"]),
        ("`x'0'`", ["text", "'x''0'''"]), ("`x'zz'`", ["text", "'x''zz'''"]), ("`text`", ["text", "'text'"]), ("``", ["text", "''"]),
        ("[]", ["blob", "X''"]), ("[0,127,255]", ["blob", "X'007FFF'"]),
    ):
        values = json.dumps(wanted, separators=(",", ":"))
        for body in (f"[[`SELECT typeof(?1) AS t, quote(?1) AS q`,{literal}]]",
                     f"[[`SELECT typeof(:v) AS t, quote(:v) AS q`,{{`v`:{literal}}}]]"):
            here.gives("/db/query", body, "{`results`:[" + found("t q", "text text", values) + "]}")
    here.finds("[[`SELECT typeof(?) AS t`,9223372036854775808]]", found("t", "text", "[`real`]"))


@row
def s2_2_names_and_places(here):
    here.finds("[[`SELECT :n AS a, @n AS b, $n AS c`,{`n`:7},{`more`:1},{`other`:2}]]", found("a b c", "integer " * 3, "[7,7,7]"))
    here.finds("[[`SELECT :a AS a, ? AS b, :c AS c`,{`a`:1},2,{`c`:3}]]", found("a b c", "integer " * 3, "[1,2,3]"))
    here.finds("[[`SELECT ? AS a`,1,2,3]]", found("a", "integer", "[1]"))
    here.finds("[[`SELECT ?, ?, ?`,1,{`n`:2}]]", failed("not enough args to execute query: want 3 got 2"))
    here.finds("[[`SELECT 1`,{`1a`:2}]]", failed("name \\`1a\\` does not begin with a letter"))


@row
def s2_2_parameters_that_are_none(here):
    for parameter, text in (("{`a`:{}}", "map[string]interface {}"), ("[`a`]", "string"), ("[300]", "300"), ("[-1]", "-1")):
        for path in ("/db/execute", "/db/query", "/db/request"):
            here.gives(path, f"[[`SELECT ?`,{parameter}]]", f"unsupported type {text}\n", 400)
    for path in ("/db/execute", "/db/query", "/db/request"):
        for body, text in (("`SELECT 1`", "invalid request"), ("[[]]", "invalid request"), ("[null]", "invalid request"),
                           ("[`SELECT 1`", "invalid JSON body"), ("nonsense", "invalid JSON body")):
            here.gives(path, body, text + "\n", 400)


@row
def s2_2_what_follows_the_array_is_not_read(here):
    here.finds("[`SELECT 1 AS a`] and more", found("a", "integer", "[1]"))
    here.finds("[``,`SELECT 1 AS a`,``]", found("a", "integer", "[1]"))
    for path in ("/db/execute", "/db/query", "/db/request"):
        here.gives(path, "[``]", "{`results`:[]}")


@row
def s2_2_strings_of_several_statements(here):
    here.foo()
    here.executes("[[`INSERT INTO foo VALUES(?,?); INSERT INTO foo VALUES(?,?)`,10,`a`,11,`b`]]", wrote(11))
    here.executes("[`DELETE FROM foo WHERE id = 11; DELETE FROM nope; DELETE FROM foo`]", failed("no such table: nope"))
    here.finds("[[`SELECT ?; SELECT ? AS b`,1,2]]", found("b", "integer", "[2]"))
    here.finds("[`DELETE FROM foo; SELECT count(*) AS c FROM foo`]", found("c", "integer", "[3]"))
    here.finds("[`SELECT 1; DELETE FROM foo`]", failed("attempt to change database via query operation"))


# --- 2.3 answers --------------------------------------------------------------------------------------------------------


@row
def s2_3_numbers_of_an_earlier_statement_stay(here):
    here.foo()
    here.executes("[`DELETE FROM foo WHERE id = 77`]", "{`last_insert_id`:2}")
    here.executes("[`INSERT INTO foo VALUES(9007199254740993,'big')`,`SELECT 1`,`DROP TABLE foo`]", *[wrote(9007199254740993)] * 3)


@row
def s2_3_rows_and_their_types(here):
    here.foo()
    here.executes("[`CREATE TABLE t (a VARCHAR(255), b Numeric(10,2), c)`]", wrote(2))
    here.finds("[`SELECT * FROM foo WHERE id = 77`]", found("id name", "integer text"))
    here.gives("/db/query", "[`SELECT * FROM t`]", "{`results`:[{`columns`:[`a`,`b`,`c`],`types`:[`varchar(255)`,`numeric(10,2)`,``]}]}")
    here.gives("/db/query", "[`SELECT NULL AS n, 1 AS i, 1.5 AS r, 'x' AS t UNION ALL SELECT 'x', 'x', 'x', 1`]",
               "{`results`:[{`columns`:[`n`,`i`,`r`,`t`],`types`:[``,`integer`,`real`,`text`],`values`:[[null,1,1.5,`x`],[`x`,`x`,`x`,1]]}]}")
    here.finds("[`SELECT foo.id, f.id FROM foo, foo f WHERE f.id = foo.id AND f.id = 1`]", found("id id", "integer integer", "[1,1]"))
    here.finds("[` `]", "{}")


@row
def s2_3_the_associative_form(here):
    here.executes("[`CREATE TABLE foo (id INTEGER PRIMARY KEY, name TEXT)`]", "{`rows`:null}", flags="associative")
    here.executes("[`INSERT INTO foo(name) VALUES('fiona')`]", wrote(1)[:-1] + ",`rows`:null}", flags="associative")
    here.finds("[`SELECT * FROM foo WHERE id = 2`]", "{`types`:{`id`:`integer`,`name`:`text`},`rows`:[]}", flags="associative")
    here.finds("[`SELECT 3 AS c, 1 AS a, 2 AS B, 4 AS a`]", "{`types`:{`B`:`integer`,`a`:`integer`,`c`:`integer`},`rows`:[{`B`:2,`a`:4,`c`:3}]}",
               flags="associative")
    here.finds("[`SELECT * FROM nope`]", "{`rows`:[],`error`:`no such table: nope`}", flags="associative")
    here.executes("[`DELETE FROM nope`]", failed("no such table: nope"), flags="associative")
    here.finds("[`SELECT * FROM nope`]", failed("no such table: nope"), flags="associative", path="/db/request")


@row
def s2_3_values_by_declared_type(here):
    here.executes("[`CREATE TABLE v (b BOOLEAN, d DATE, dt DATETIME, ts TIMESTAMP)`]", "{}")
    here.executes("[`INSERT INTO v VALUES(2, 0, 1700000000, 1700000000123)`]", wrote(1))
    here.executes("[`INSERT INTO v VALUES(0, '2024-02-29', '2024-02-29 12:34:56.50Z', '2024-02-29T12:34:56+02:00')`]", wrote(2))
    here.executes("[`INSERT INTO v VALUES(NULL, '2024-02-29 12:34', 'never', NULL)`]", wrote(3))
    here.finds("[`SELECT * FROM v`]", found(
        "b d dt ts", "boolean date datetime timestamp",
        "[true,`1970-01-01T00:00:00Z`,`2023-11-14T22:13:20Z`,`2023-11-14T22:13:20.123Z`]",
        "[false,`2024-02-29T00:00:00Z`,`2024-02-29T12:34:56.5Z`,`2024-02-29T12:34:56+02:00`]",
        "[null,`2024-02-29T12:34:00Z`,`never`,null]"))


@row
def s2_3_numbers_texts_and_blobs(here):
    here.finds("[`SELECT 1.0 AS a, 1e21 AS b, 1e-7 AS c, 0.000001 AS d, 9e999 AS e, 9223372036854775807 AS f`]",
               found("a b c d e f", "real " * 5 + "integer", "[1,1e+21,1e-7,0.000001,`+Inf`,9223372036854775807]"))
    here.finds("[[`SELECT ? AS t`,`<ü & 你>\u2028`]]", found("t", "text", "[`\\u003cü \\u0026 你\\u003e\\u2028`]"))
    here.finds("[`SELECT CAST(x'61ff62' AS TEXT) AS t`]", found("t", "text", "[`a\\ufffdb`]"))
    here.executes("[`CREATE TABLE b (data BLOB, t TEXT, j JSON, v VARCHAR(9))`]", "{}")
    here.executes("[`INSERT INTO b VALUES(x'deadbeef', x'61', x'62', x'63')`,`INSERT INTO b VALUES(x'', 'x', NULL, 'y')`]", wrote(1), wrote(2))
    kinds = "data t j v", "blob text json varchar(9)"
    here.finds("[`SELECT * FROM b`]", found(*kinds, "[`3q2+7w==`,`a`,`b`,`c`]", "[``,`x`,null,`y`]"))
    here.finds("[`SELECT * FROM b`]", found(*kinds, "[[222,173,190,239],`a`,`b`,`c`]", "[[],`x`,null,`y`]"), flags="blob_array")
    here.finds("[`SELECT x'6162' AS e`]", found("e", "text", "[`ab`]"), flags="blob_array")
    here.finds("[`SELECT x'6162' AS e`]", found("e", "blob", "[`YWI=`]"), flags="exact_blobs")


@row
def s2_3_errors_are_those_of_sqlite(here):
    here.foo()
    for sql, text in (("blah blah", "near \\`blah\\`: syntax error"), ("INSERT INTO bar VALUES(1)", "no such table: bar"),
                      ("INSERT INTO foo(id) VALUES(1)", "UNIQUE constraint failed: foo.id"), ("SELECT * FROM", "incomplete input"),
                      ("SELECT rot13('x')", "no such function: rot13")):
        for path in ("/db/execute", "/db/request"):
            here.gives(path, f"[`{sql}`]", "{`results`:[" + failed(text) + "]}")
    one = found("a", "integer", "[1]")
    for flags in ("", "transaction"):  # reads go on
        here.finds("[`SELECT 1 AS a`,`SELECT * FROM nope`,`SELECT 1 AS a`]", one, failed("no such table: nope"), one, flags=flags)


@row
def s2_3_the_order_of_keys(here):
    here.foo()
    answer = here.ask("/db/execute?timings&raft_index", "[`INSERT INTO foo VALUES(7,'x')`]").text
    number = r"[0-9.e-]+"
    check(re.fullmatch(rf'{{"results":\[{{"last_insert_id":7,"rows_affected":1,"time":{number}}}\],"time":{number},"raft_index":\d+}}', answer), answer)
    answer = here.ask("/db/query?timings&q=SELECT+1").text
    check(re.fullmatch(rf'{{"results":\[{{"columns":\["1"\],"types":\["integer"\],"values":\[\[1\]\],"time":{number}}}\],"time":{number}}}', answer),
          answer)
    for path, body in (("/db/request", "[`SELECT 1`]"), ("/db/sql", "[`SELECT 1`]"), ("/db/load", "CREATE TABLE loaded (x);")):
        check(json.loads(here.ask(path + "?timings", body).text)["time"] >= 0, path)
    check(json.loads(here.ask("/db/request?raft_index", "[`INSERT INTO foo VALUES(8,'y')`]").text)["raft_index"] > 0, "raft_index")


# --- 2.4 the endpoints of SQL -------------------------------------------------------------------------------------------


@row
def s2_4_what_each_endpoint_does_with_reads_and_writes(here):
    here.foo()
    here.executes("[`SELECT * FROM foo`]", wrote(2))
    here.finds("[`DELETE FROM foo`]", failed("attempt to change database via query operation"))
    here.finds("[`INSERT INTO foo VALUES(3,'x')`,`SELECT count(*) AS c FROM foo`]", wrote(3), found("c", "integer", "[3]"), path="/db/request")
    plan = json.loads(here.ask("/db/request", "[`EXPLAIN QUERY PLAN DELETE FROM foo WHERE id = 1`]").text)["results"][0]
    equal((plan["columns"], plan["types"]), (["id", "parent", "notused", "detail"], ["integer"] * 3 + ["text"]), "EXPLAIN of a write")
    here.executes("[`INSERT INTO foo VALUES(4,'y') RETURNING id`]", wrote(4), flags="noparse")
    here.finds("[`UPDATE foo SET name = 'z' WHERE id = 4 RETURNING id, name`]", found("id name", "integer text", "[4,`z`]"), path="/db/request")
    here.executes("[`DELETE FROM foo WHERE id = 77 RETURNING id`]", found("id", "integer"))
    here.finds("[`SELECT foo.id, f.name, 1 AS one FROM foo, foo f WHERE f.id = foo.id AND f.id = 1`]",
               found("foo.id foo.name one", "integer text integer", "[1,`fiona`,1]"), flags="qualify_columns")


@row
def s2_4_pretty_to_the_byte(here):
    here.foo()
    here.gives("/db/query?pretty", "[`SELECT * FROM foo WHERE id = 1`]", """{
    `results`: [
        {
            `columns`: [
                `id`,
                `name`
            ],
            `types`: [
                `integer`,
                `text`
            ],
            `values`: [
                [
                    1,
                    `fiona`
                ]
            ]
        }
    ]
}""")
    here.gives("/db/execute?pretty", "[``]", "{\n    `results`: []\n}")
    for path in ("/status", "/nodes"):
        check(here.ask(path + "?pretty").text.startswith('{\n    "'), path)


@row
def s2_4_errors_in_a_transaction_undo_it(here):
    here.foo()
    for path in ("/db/execute", "/db/request"):
        here.gives(path + "?transaction", "[`INSERT INTO foo VALUES(3,'x')`,`INSERT INTO foo VALUES(1,'y')`,`INSERT INTO foo VALUES(4,'z')`]",
                   "{`results`:[" + wrote(3) + "," + failed("UNIQUE constraint failed: foo.id") + "]}")
        here.gives(path + "?transaction", "[`INSERT INTO foo VALUES(3,'x')`,`INSERT INTO nope VALUES(1)`]",
                   "{`results`:[" + wrote(3) + "," + failed("no such table: nope") + "]}")
    here.finds("[`SELECT count(*) AS c FROM foo`]", found("c", "integer", "[2]"))


# --- 2.7 others ---------------------------------------------------------------------------------------------------------


@row
def s2_7_statements_are_shown_as_they_are_run(here):
    here.gives("/db/sql", None, "query not specified\n", 400)
    here.gives("/db/sql?q=SELECT+random()", None, "{`results`:[{`original`:`SELECT random()`,`rewritten`:`SELECT random()`}]}")
    here.gives("/db/sql?norwrandom&norwtime", "[`SELEKT 1`,[`SELECT ?`,1]]",
               "{`results`:[{`original`:`SELEKT 1`,`error`:`near \\`SELEKT\\`: syntax error`},{`original`:`SELECT ?`,`rewritten`:`SELECT ?`}]}")


# --- 3 consistency ------------------------------------------------------------------------------------------------------


@row
def s3_each_level_shows_what_this_client_has_written(here):
    here.foo()
    for number, level in enumerate(("none", "weak", "linearizable", "strong", "auto", "STRONG", "Linearizable", "nonsense", "")):
        here.executes(f"[`INSERT INTO foo VALUES({10 + number},'x')`]", wrote(10 + number))
        count = found("c", "integer", f"[{3 + number}]")
        for path in ("/db/query", "/db/request"):
            here.finds("[`SELECT count(*) AS c FROM foo`]", count, flags=f"level={level}", path=path)
        here.finds("[`SELECT count(*) AS c FROM foo`]", count, flags=f"level={level}&freshness=1m&freshness_strict")
    check("raft_index" in here.ask("/db/query?raft_index&level=strong&q=SELECT+1").text, "a strong read has an index")
    check("raft_index" not in here.ask("/db/query?raft_index&level=none&q=SELECT+1").text, "one of what is here has none")


# --- 4 writes -----------------------------------------------------------------------------------------------------------


@row
def s4_queued_writes(here):
    here.foo()
    answer = here.ask("/db/execute?queue", "[`INSERT INTO foo VALUES(3,'x')`]").text
    check(re.fullmatch(r'{"results":\[\],"sequence_number":\d+}', answer), answer)
    # The parameter `transaction` is ignored: an error is its statement's.
    here.ask("/db/execute?queue&wait&transaction", "[`INSERT INTO foo VALUES(4,'y')`,`INSERT INTO foo VALUES(1,'z')`]")
    equal(here.value("SELECT group_concat(id) FROM foo", "level=none"), "1,2,3,4", "what was queued")
    # Only /db/execute has a queue.
    here.finds("[`SELECT 1 AS a`]", found("a", "integer", "[1]"), flags="queue")
    here.finds("[`INSERT INTO foo VALUES(5,'x')`]", wrote(5), flags="queue&wait", path="/db/request")


@row
def s4_what_is_not_the_same_twice_is_run_once(here):
    here.executes("[`CREATE TABLE t (r, b, now, at DEFAULT CURRENT_TIMESTAMP, tz)`]", "{}")
    insert = "INSERT INTO t(r, b, now, tz) VALUES(random(), randomblob(8), julianday('now'), datetime())"
    here.executes(f"[`{insert}; {insert}`]", wrote(2))
    equal(json.loads(here.ask("/db/request", f"[`{insert}`]").text)["results"][0]["last_insert_id"], 3, "of a request")
    here.ask("/db/execute?queue&wait", f"[`{insert}`,`{insert} RETURNING r`]")
    equal(here.value("SELECT count(DISTINCT r) + count(DISTINCT b) FROM t"), 10, "none is another one")
    equal(here.value("SELECT count(*) FROM t WHERE tz = at AND abs(julianday(at) - now) < 1"), 5, "times are UTC")
    return "SELECT group_concat(r || quote(b) || now || at || tz) FROM t"


@row
def s4_pragmas_that_are_disallowed(here):
    for pragma in ("journal_mode=DELETE", "JOURNAL_MODE = wal", "main.journal_mode=off", "wal_autocheckpoint = 5", "wal_checkpoint",
                   "wal_checkpoint(TRUNCATE)", "synchronous=OFF", "synchronous(1)", "query_only=1"):
        for path in ("/db/execute", "/db/query", "/db/request", "/db/execute?queue"):
            here.gives(path, f"[`SELECT 1`,`  pragma {pragma}`]", "{`results`:[],`error`:`disallowed pragma`}")
    for pragma, type, wanted in (("journal_mode", "text", "`wal`"), ("query_only", "integer", None), ("wal_autocheckpoint", "integer", None)):
        text = here.ask("/db/query", f"[`PRAGMA {pragma}`]").text
        check("error" not in text and (wanted is None or wanted.replace("`", '"') in text), text)
    for sql in ("ATTACH '/tmp/other.db' AS other", "DETACH main"):
        here.executes(f"[`{sql}`]", failed(sql.split()[0] + " is not allowed"))


# --- the nodes ----------------------------------------------------------------------------------------------------------


def run_rows(node, number, others=()):
    """Each by itself: the names of all that fail are shown."""
    wrong = []
    for function in _rows:
        name = f"{function.__name__}-{number}"
        try:
            here = Here(node, name)
            same = function(here)
            for other in others if same else ():  # what was written here is there
                wanted = here.value(same)
                wait_for(lambda: read(other, name, same) == wanted, f"{other.name} has the same")
        except AssertionError as error:
            wrong.append(f"{name}: {error}")
    equal(wrong, [], "rows that fail")
    print(f"NOTE {len(_rows)} rows")


def read(node, name, sql):
    answer = Client(node).ask("POST", f"/db/query?level=none&db={name}", [sql])
    return json.loads(answer.text)["results"][0].get("values", [[None]])[0][0] if answer.status == 200 else None


@test
def s2_s3_s4_every_row_on_one_node():
    run_rows(Raftd(), 1)


@test
def s2_s3_s4_every_row_on_each_of_three_nodes():
    cluster = Cluster()
    leader = cluster.leader()
    for number, node in enumerate([leader, *cluster.others(leader)]):
        run_rows(node, number, cluster.others(node))


@test
def s2_4_s3_followers_lead_to_the_leader_when_asked_to():
    cluster = Cluster()
    leader = cluster.leader()
    Client(leader).execute("CREATE TABLE t (x)")
    for node in cluster.others(leader):
        client = Client(node)
        wait_reads(node, "SELECT count(*) FROM t", 0, "db.sqlite")
        for method, path, body in (("POST", "/db/execute?redirect&a=%20b", ["SELECT 1"]), ("POST", "/db/request?redirect", ["SELECT 1"]),
                                   ("POST", "/db/query?redirect&level=strong", ["SELECT 1"]), ("GET", "/db/query?redirect&q=SELECT+1", None),
                                   ("POST", "/db/load?redirect", "SELECT 1;"), ("GET", "/db/backup?redirect&fmt=sql", None),
                                   ("DELETE", "/remove?redirect", '{"id":"7"}'), ("POST", "/leader?redirect", None)):
            answer = client.ask(method, path, body)
            equal((answer.status, answer.headers["Location"], answer.text), (301, f"http://{leader.http}{path}", ""), f"{method} {path}")
        for path in ("/db/query?redirect&level=none&q=SELECT+1", "/db/query?q=SELECT+1", "/db/backup?redirect&noleader&fmt=sql"):
            equal(client.ask("GET", path).status, 200, f"{path} stays here")
    for node in cluster.others(leader):
        node.kill()
    client = Client(leader)
    wait_for(lambda: client.ask("GET", "/leader").status == 503, "nobody leads")
    equal(client.ask("POST", "/db/execute?queue", ["INSERT INTO t VALUES(1)"]).status, 503, "queued without a leader")
    check(client.json("POST", "/db/execute?queue&noleader", ["INSERT INTO t VALUES(2)"])["sequence_number"] > 0, "queued whoever leads")
    for node in cluster.others(leader):
        node.start()
    wait_for(lambda: client.ask("GET", "/db/query?level=none&q=SELECT+x+FROM+t").text.count("[2]") == 1, "it is done")


if __name__ == "__main__":
    main()
