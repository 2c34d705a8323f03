"""Counts visits in a replicated database.   python3 visits.py DATABASE-FILE [EXTENSION]"""
import sqlite3
import sys

database = sys.argv[1]
extension = sys.argv[2] if len(sys.argv) > 2 else "librqvfs"

# Any connection can load the extension; it registers the VFS for the whole process.
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(extension)
loader.close()

# From here on it is plain SQLite: only the connection string names the VFS.
connection = sqlite3.connect(f"file:{database}?vfs=rqvfs", uri=True, timeout=10)
with connection:  # one transaction; when it is left, the commit is durable
    connection.execute("CREATE TABLE IF NOT EXISTS visits(language TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP)")
    connection.execute("INSERT INTO visits(language) VALUES(?)", ("python",))
count = connection.execute("SELECT count(*) FROM visits").fetchone()[0]
print(f"python: {count} visits")
