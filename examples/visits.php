<?php
// Counts visits in a replicated database.   php visits.php DATABASE-FILE [EXTENSION]
[$database, $extension] = [$argv[1], $argv[2] ?? 'librqvfs'];

// Any connection can load the extension; it registers the VFS for the whole process.
$loader = new Pdo\Sqlite('sqlite::memory:');
$loader->loadExtension($extension);
$loader = null;

// From here on it is plain SQLite: only the connection string names the VFS.
$connection = new PDO("sqlite:file:$database?vfs=rqvfs", options: [PDO::ATTR_TIMEOUT => 10]);
$connection->beginTransaction();
$connection->exec('CREATE TABLE IF NOT EXISTS visits(language TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP)');
$connection->prepare('INSERT INTO visits(language) VALUES(?)')->execute(['php']);
$connection->commit(); // when this returns, the commit is durable
$count = $connection->query('SELECT count(*) FROM visits')->fetchColumn();
print "php: $count visits\n";
