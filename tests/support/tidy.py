#!/usr/bin/env python3
"""The rules of the house that a compiler does not know: who may include whom, and calls that are not made here.  TAP.

    tidy.py SOURCE-ROOT"""

import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1])

# Floors, lowest first.  A folder includes itself and the floors in its row (docs/architecture.md has the same table).
BELOW_NODE = ["raftd/wire", "vfs", "raftd/run", "raftd/log"]
UPPER = ["raftd/net", "raftd/db", "raftd/ops"]
MAY_INCLUDE = {
    "raftd/wire": [],
    "vfs": ["raftd/wire"],
    "ext": ["raftd/wire", "vfs"],
    "raftd/run": ["raftd/wire", "vfs"],
    "raftd/log": ["raftd/wire", "vfs", "raftd/run"],
    "raftd/node": BELOW_NODE,
    **{folder: BELOW_NODE + ["raftd/node"] + UPPER for folder in UPPER},
    "raftd/cluster": BELOW_NODE + ["raftd/node"] + UPPER,
    "raftd/http": BELOW_NODE + ["raftd/node"] + UPPER + ["raftd/cluster"],
    "raftd": BELOW_NODE + ["raftd/node"] + UPPER + ["raftd/cluster", "raftd/http"],
    "shell": ["raftd/wire"],
}

# A library is known to one part alone.
ONLY_IN = {
    "raft.h": ["raftd/node/"],
    "nng/": ["raftd/net/"],
    "gnutls/": ["raftd/net/tls.c", "raftd/net/node_key.c", "raftd/http/https.c", "raftd/http/credentials.c"],
    "microhttpd.h": ["raftd/http/"],
    "msgpack": ["raftd/wire/"],
    "sqlite3.h": ["vfs/shim", "ext/", "raftd/db/", "raftd/main.c", "raftd/http/", "raftd/ops/", "shell/"],
    "curl/": ["raftd/net/fetch.c"],
    "zlib.h": ["raftd/ops/"],
    "sqlite3ext.h": ["vfs/shim", "ext/"],
}

BANNED = ["strcpy", "strcat", "sprintf", "vsprintf", "strtok", "atoi", "atol", "gets", "system"]
BANNED_IN_TESTS = ["sleep"]  # a condition is waited for (shorter pauses between two looks at it are usleep)
ONE_CALLER = {"raft_step": "raftd/node/core.c"}

COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def sources(*folders):
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.[ch]")):
            yield path.relative_to(ROOT).as_posix(), path.read_text()


def bare(text):
    """Without comments and strings, line numbers kept."""
    return COMMENT_OR_STRING.sub(lambda match: "\n" * match.group().count("\n"), text)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def floors():
    for name, text in sources("raftd", "vfs", "ext", "shell"):
        folder = name.rpartition("/")[0]
        if folder not in MAY_INCLUDE:
            yield f"{name}: the folder {folder}/ has no floor"
            continue
        for include in INCLUDE.finditer(text):
            if include.group(1) != '"' or "/" not in include.group(2):
                continue
            target = include.group(2).rpartition("/")[0]
            if target != folder and target not in MAY_INCLUDE[folder]:
                yield f"{name}:{line_of(text, include.start())}: {folder}/ may not include {include.group(2)}"


def includes_from_the_root():
    for name, text in sources("raftd", "vfs", "ext", "shell"):
        for include in INCLUDE.finditer(text):
            if include.group(1) == '"' and not (ROOT / include.group(2)).is_file():
                yield f"{name}:{line_of(text, include.start())}: {include.group(2)} is no path from the root"


def libraries():
    for name, text in sources("raftd", "vfs", "ext", "shell"):
        for include in INCLUDE.finditer(text):
            for library, places in ONLY_IN.items():
                if include.group(2).startswith(library) and not name.startswith(tuple(places)):
                    yield f"{name}:{line_of(text, include.start())}: only {' '.join(places)} may know {library}"


def calls(text, names):
    for match in re.finditer(r"(?<![\w.>])(" + "|".join(names) + r")\s*\(", bare(text)):
        yield match.group(1), line_of(bare(text), match.start())


def banned_calls():
    for name, text in sources("raftd", "vfs", "ext", "shell", "tests", "examples"):
        for call, line in calls(text, BANNED + (BANNED_IN_TESTS if name.startswith("tests/") else [])):
            yield f"{name}:{line}: {call}()"
    for path in sorted((ROOT / "tests" / "e2e").rglob("*.py")):
        for match in re.finditer(r"\btime\.sleep\(", path.read_text()):
            if path.name != "harness.py":  # its wait_for() is what the others use
                yield f"{path.relative_to(ROOT)}:{line_of(path.read_text(), match.start())}: time.sleep()"


def one_caller():
    for name, text in sources("raftd", "vfs", "ext", "shell"):
        for call, line in calls(text, list(ONE_CALLER)):
            if name != ONE_CALLER[call]:
                yield f"{name}:{line}: {call}() is called from {ONE_CALLER[call]} alone"


def header_guards():
    for name, text in sources("raftd", "vfs", "ext", "shell"):
        if name.endswith(".h"):
            guard = re.sub(r"[/.]", "_", name).upper()
            if f"#ifndef {guard}\n#define {guard}\n" not in text:
                yield f"{name}: the guard is not {guard}"


RULES = {
    "floors_include_only_what_is_below_them": floors,
    "includes_are_paths_from_the_root": includes_from_the_root,
    "libraries_stay_in_their_part": libraries,
    "banned_calls_are_not_made": banned_calls,
    "functions_with_one_caller_have_one": one_caller,
    "header_guards_spell_their_path": header_guards,
}

failed = 0
print(f"1..{len(RULES)}")
for number, (title, rule) in enumerate(RULES.items(), 1):
    findings = list(rule())
    print(f"{'not ok' if findings else 'ok'} {number} - {title}")
    for finding in findings:
        print(f"# {finding}")
    failed += bool(findings)
sys.exit(1 if failed else 0)
