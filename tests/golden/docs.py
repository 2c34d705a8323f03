#!/usr/bin/env python3
"""The normative documents quote golden files and the list of errors: word for word; raftd(1) has the flags of raftd -h.  TAP.

    docs.py SOURCE-ROOT"""

import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1])
QUOTES = [("docs/protocol.md", "msg-hello.hex"), ("docs/file-format.md", "txn.hex"),
          ("docs/file-format.md", "log-record.hex"), ("docs/file-format.md", "descriptor.hex")]


def quotes(doc, golden):
    lines = (ROOT / "tests/golden" / golden).read_text().splitlines()
    block = "".join(f"    {line}\n" for line in lines if not line.startswith("#"))
    return block in (ROOT / doc).read_text()


def error_rows():
    text = (ROOT / "raftd/wire/err.h").read_text()
    return [f"| {number} | {name} | {words} |" for name, number, words in re.findall(r'X\((\w+), (\d+), "([^"]+)"\)', text)]


def flags_of_the_program():
    return set(re.findall(r'FLAG\("([a-z-]+)"', (ROOT / "raftd/flags.c").read_text())) | {"h"}


def flags_of_the_manual():
    options = (ROOT / "docs/man/raftd.1").read_text().split(".SH OPTIONS")[1].split(".SH HTTP")[0]
    return {name.replace("\\-", "-") for name in re.findall(r"(?<![\w-])\\-([a-z]+(?:\\-[a-z]+)*)", options)}


protocol = (ROOT / "docs/protocol.md").read_text()
claims = [(f"{doc} quotes {golden}", quotes(doc, golden)) for doc, golden in QUOTES]
rows = error_rows()
claims.append(("docs/protocol.md lists every error", len(rows) > 20 and all(row in protocol for row in rows)))
claims.append(("raftd(1) has every flag that there is, and no other", flags_of_the_manual() == flags_of_the_program()))
for number, (claim, holds) in enumerate(claims, 1):
    print(f"{'ok' if holds else 'not ok'} {number} - {claim}")
print(f"1..{len(claims)}")
sys.exit(not all(holds for _, holds in claims))
