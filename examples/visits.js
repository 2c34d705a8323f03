// Counts visits in a replicated database.   node visits.js DATABASE-FILE [EXTENSION]
const sqlite3 = require('sqlite3');
const { promisify } = require('util');

const [database, extension = 'librqvfs'] = process.argv.slice(2);

function open(name) {
    const flags = sqlite3.OPEN_READWRITE | sqlite3.OPEN_CREATE | sqlite3.OPEN_URI;
    return new Promise((resolve, reject) => {
        const connection = new sqlite3.Database(name, flags, (error) => (error ? reject(error) : resolve(connection)));
    });
}

async function main() {
    // Any connection can load the extension; it registers the VFS for the whole process.
    const loader = await open(':memory:');
    await promisify(loader.loadExtension.bind(loader))(extension);

    // From here on it is plain SQLite: only the connection string names the VFS.
    const connection = await open(`file:${database}?vfs=rqvfs`);
    connection.configure('busyTimeout', 10000);
    const run = promisify(connection.run.bind(connection));
    await run('CREATE TABLE IF NOT EXISTS visits(language TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP)');
    await run('INSERT INTO visits(language) VALUES(?)', 'javascript'); // when this returns, the commit is durable
    const row = await promisify(connection.get.bind(connection))('SELECT count(*) AS count FROM visits');
    console.log(`javascript: ${row.count} visits`);
}

main().catch((error) => {
    console.error(error);
    process.exitCode = 1;
});
