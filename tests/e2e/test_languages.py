"""Every program of examples/, on the binding that Debian ships for its language, all on one database."""

import os
import subprocess
import sys

from harness import BUILD, EXTENSION, RAFTD, SOURCE, Raftd, check, equal, main, needs, shell_stock, test, why_not

PROGRAMS = {
    "c": [BUILD / "examples" / "visits"],
    "python": [sys.executable, SOURCE / "examples" / "visits.py"],
    "php": ["php", SOURCE / "examples" / "visits.php"],
    "ruby": ["ruby", SOURCE / "examples" / "visits.rb"],
    "javascript": ["node", SOURCE / "examples" / "visits.js"],
    "perl": ["perl", SOURCE / "examples" / "visits.pl"],
    "tcl": ["tclsh", SOURCE / "examples" / "visits.tcl"],
}


def run(language, raftd):
    command = PROGRAMS[language]
    needs(str(command[0]))
    result = subprocess.run([*map(str, command), raftd.path("visits.db"), EXTENSION], capture_output=True, text=True, timeout=60)
    equal((result.returncode, result.stderr), (0, ""), f"the {language} example")
    return result.stdout


def language_test(language):
    def function():
        raftd = Raftd()
        for count in (1, 2):
            equal(run(language, raftd), f"{language}: {count} visits\n", "output")
        equal(shell_stock(raftd.path("visits.db"), "SELECT count(*) FROM visits WHERE language='%s';" % language), "2")

    function.__name__ = f"{language}_counts_its_visits"
    return function


for name in PROGRAMS:
    test(language_test(name))


@test
def all_languages_share_one_database():
    raftd = Raftd()
    present = [name for name, command in PROGRAMS.items() if not why_not(str(command[0]))]
    for count, language in enumerate(present, 1):
        equal(run(language, raftd), f"{language}: {count} visits\n", "output")
    equal(shell_stock(raftd.path("visits.db"), "SELECT count(DISTINCT language) FROM visits;"), str(len(present)))


@test
def the_oldest_sqlite_will_do():
    raftd = Raftd()
    result = subprocess.run([BUILD / "tests" / "e2e" / "old_host", EXTENSION, raftd.path()], capture_output=True, text=True, timeout=60)
    equal((result.returncode, result.stdout), (0, "old host: ok\n"), "a host with SQLite 3.24's table of functions")


@test
def the_demo_runs():
    needs("sh")
    check(RAFTD.exists(), f"{RAFTD} is not built")
    result = subprocess.run(["sh", SOURCE / "examples" / "demo.sh", BUILD], capture_output=True, text=True, timeout=200,
                            env={**os.environ, "NO_COLOR": "1"})
    equal(result.returncode, 0, f"exit code of the demo, which printed\n{result.stdout}{result.stderr}")


main()
