# Counts visits in a replicated database.   perl visits.pl DATABASE-FILE [EXTENSION]
use strict;
use warnings;
use DBI;

my ($database, $extension) = (@ARGV, 'librqvfs');

# Any connection can load the extension; it registers the VFS for the whole process.
my $loader = DBI->connect('dbi:SQLite:dbname=:memory:', '', '', { RaiseError => 1 });
$loader->sqlite_enable_load_extension(1);
$loader->sqlite_load_extension($extension);
$loader->disconnect;

# From here on it is plain SQLite: only the connection string names the VFS.
my $connection = DBI->connect("dbi:SQLite:uri=file:$database?vfs=rqvfs", '', '', { RaiseError => 1, AutoCommit => 1 });
$connection->sqlite_busy_timeout(10000);
$connection->begin_work;
$connection->do('CREATE TABLE IF NOT EXISTS visits(language TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP)');
$connection->do('INSERT INTO visits(language) VALUES(?)', undef, 'perl');
$connection->commit;    # when this returns, the commit is durable
my ($count) = $connection->selectrow_array('SELECT count(*) FROM visits');
print "perl: $count visits\n";
