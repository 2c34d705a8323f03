/* Counts visits in a replicated database.   visits DATABASE-FILE [EXTENSION]
 * cc visits.c -o visits -lsqlite3 */
#include <sqlite3.h>
#include <stdio.h>

static int fail(sqlite3 *connection, const char *what)
{
    fprintf(stderr, "%s: %s\n", what, connection != NULL ? sqlite3_errmsg(connection) : "out of memory");
    return 1;
}

static int print_count(void *unused, int columns, char **values, char **names)
{
    (void)unused, (void)columns, (void)names;
    printf("c: %s visits\n", values[0]);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: visits DATABASE-FILE [EXTENSION]\n");
        return 2;
    }
    const char *extension = argc > 2 ? argv[2] : "librqvfs";

    /* Any connection can load the extension; it registers the VFS for the whole process. */
    sqlite3 *loader = NULL;
    if (sqlite3_open(":memory:", &loader) != SQLITE_OK ||
        sqlite3_db_config(loader, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL) != SQLITE_OK ||
        sqlite3_load_extension(loader, extension, NULL, NULL) != SQLITE_OK) {
        return fail(loader, extension);
    }
    sqlite3_close(loader);

    /* From here on it is plain SQLite: only the connection string names the VFS. */
    sqlite3 *connection = NULL;
    char *uri = sqlite3_mprintf("file:%s?vfs=rqvfs", argv[1]);
    int rc = sqlite3_open_v2(uri, &connection, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
    sqlite3_free(uri);
    if (rc != SQLITE_OK) {
        return fail(connection, argv[1]);
    }
    sqlite3_busy_timeout(connection, 10000);
    rc = sqlite3_exec(connection,
                      "BEGIN;"
                      "CREATE TABLE IF NOT EXISTS visits(language TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP);"
                      "INSERT INTO visits(language) VALUES('c');"
                      "COMMIT;" /* when it returns, the commit is durable */
                      "SELECT count(*) FROM visits;",
                      print_count, NULL, NULL);
    if (rc != SQLITE_OK) {
        return fail(connection, "sqlite3_exec");
    }
    return sqlite3_close(connection) == SQLITE_OK ? 0 : 1;
}
