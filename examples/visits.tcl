# Counts visits in a replicated database.   tclsh visits.tcl DATABASE-FILE [EXTENSION]
package require sqlite3

set database [lindex $argv 0]
set extension [expr {$argc > 1 ? [lindex $argv 1] : "librqvfs"}]

# Any connection can load the extension; it registers the VFS for the whole process.
sqlite3 loader :memory:
loader enable_load_extension 1
loader eval {SELECT load_extension($extension)}
loader close

# From here on it is plain SQLite: only the connection string names the VFS.
sqlite3 connection file:$database?vfs=rqvfs -uri 1
connection timeout 10000
connection transaction {
    connection eval {CREATE TABLE IF NOT EXISTS visits(language TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP)}
    connection eval {INSERT INTO visits(language) VALUES('tcl')}
} ;# when it is left, the commit is durable
puts "tcl: [connection onecolumn {SELECT count(*) FROM visits}] visits"
