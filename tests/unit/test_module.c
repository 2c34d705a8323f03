/* module, functions, preload: the doors into a host's SQLite, in a host of our own.  RQ_EXTENSION_FILE names librqvfs.so. */
#define SQLITE_CORE 1 /* of sqlite3ext.h only the type of the table */
#include <dlfcn.h>
#include <sqlite3ext.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/tap.h"
#include "vfs/control.h"

static char extension[1024];

static sqlite3 *open_db(const char *name)
{
    sqlite3 *db = NULL;
    check_eq(sqlite3_open(name, &db), SQLITE_OK);
    return db;
}

static int load(void)
{
    sqlite3 *db = open_db(":memory:");
    check_eq(sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL), SQLITE_OK);
    int code = sqlite3_load_extension(db, extension, NULL, NULL);
    check_eq(sqlite3_close(db), SQLITE_OK);
    return code;
}

static bool has_functions(void)
{
    sqlite3 *db = open_db(":memory:");
    int code = sqlite3_exec(db, "SELECT rqvfs_version(); SELECT * FROM rqvfs_status", NULL, NULL, NULL);
    check_eq(sqlite3_close(db), SQLITE_OK);
    return code == SQLITE_OK;
}

static bool is_default(void)
{
    return strcmp(sqlite3_vfs_find(NULL)->zName, "rqvfs") == 0;
}

static void loaded_it_stays_and_serves_later_connections(void)
{
    check(sqlite3_vfs_find("rqvfs") == NULL);
    check_eq(load(), SQLITE_OK);
    check(sqlite3_vfs_find("rqvfs") != NULL);
    check(!is_default());
    check(has_functions());
    check_eq(load(), SQLITE_OK);
    check(has_functions());
}

static void loaded_again_after_shutdown_it_registers_again(void)
{
    check_eq(load(), SQLITE_OK);
    for (int i = 0; i < 2; i++) {
        check_eq(sqlite3_shutdown(), SQLITE_OK);
        check(!has_functions());
        check_eq(setenv("RQVFS_DEFAULT", i == 0 ? "1" : "0", 1), 0);
        check_eq(load(), SQLITE_OK);
        check(sqlite3_vfs_find("rqvfs") != NULL);
        check_eq(is_default(), i == 0);
        check(has_functions());
        check_eq(unsetenv("RQVFS_DEFAULT"), 0);
    }
}

static void unloaded_by_its_loader_it_stays_mapped(void)
{
    void *first = dlopen(extension, RTLD_NOW);
    check(first != NULL);
    check_eq(load(), SQLITE_OK);
    const sqlite3_vfs *vfs = sqlite3_vfs_find("rqvfs");
    check_eq(dlclose(first), 0);
    Dl_info info;
    union {
        int (*code)(sqlite3_vfs *, const char *, sqlite3_file *, int, int *);
        void *object;
    } method = { vfs->xOpen };
    check(dladdr(method.object, &info) != 0);
    check(strstr(info.dli_fname, "librqvfs") != NULL);
    check(has_functions());
}

static sqlite3_api_routines table; /* a copy of this SQLite's, to be another's */
static int copy_table(sqlite3 *db, char **ret_message, const sqlite3_api_routines *api)
{
    (void)db, (void)ret_message;
    table = *api;
    return SQLITE_OK;
}
static int old_version(void)
{
    return 3023001;
}

static void old_or_second_sqlite_is_refused_with_a_message(void)
{
    check_eq(load(), SQLITE_OK);
    check_eq(sqlite3_auto_extension((void (*)(void))copy_table), SQLITE_OK);
    sqlite3 *db = open_db(":memory:");
    (void)sqlite3_cancel_auto_extension((void (*)(void))copy_table);
    union {
        void *object;
        int (*code)(sqlite3 *, char **, const sqlite3_api_routines *);
    } init = { dlsym(dlopen(extension, RTLD_NOW), "sqlite3_rqvfs_init") };
    check(init.object != NULL);
    char *message = NULL;
    check_eq(init.code(db, &message, &table), SQLITE_ERROR);
    check(message != NULL && strstr(message, "another copy of SQLite") != NULL);
    sqlite3_free(message);
    table.libversion_number = old_version;
    check_eq(init.code(db, &message, &table), SQLITE_ERROR);
    check(message != NULL && strstr(message, "3.24.0") != NULL);
    sqlite3_free(message);
    check_eq(sqlite3_close(db), SQLITE_OK);
}

static void status_without_raftd_tells_what_the_control_page_knows(void)
{
    char dir[] = "/tmp/rq-module-XXXXXX", path[64], page[64];
    check(mkdtemp(dir) != NULL);
    (void)snprintf(path, sizeof path, "%s/app.db", dir);
    (void)snprintf(page, sizeof page, "%s/app.db-rqctl", dir);
    check_eq(load(), SQLITE_OK);
    sqlite3 *db = open_db(path); /* by SQLite's own VFS: a reader like any other */
    check_eq(sqlite3_exec(db, "CREATE TABLE t(x); ATTACH ':memory:' AS other", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_stmt *status = NULL;
    const char *sql =
        "SELECT database, version, applied, committed, lag, state, message, node, checksum FROM rqvfs_status";
    check_eq(sqlite3_prepare_v2(db, sql, -1, &status, NULL), SQLITE_OK);
    check_eq(sqlite3_step(status), SQLITE_DONE); /* no control page: not replicated */
    check_eq(sqlite3_reset(status), SQLITE_OK);

    struct rq_control control;
    check_eq(rq_control_publish(rq_disk_real(), page, rq_boot_id(), 0600, &control), RQ_OK);
    atomic_store(&control.head->state, RQ_DB_LIVE);
    atomic_store(&control.head->version, 41);
    atomic_store(&control.head->applied_index, 50);
    atomic_store(&control.head->commit_index, 53);
    check_eq(sqlite3_step(status), SQLITE_ROW);
    check(strcmp((const char *)sqlite3_column_text(status, 0), "app.db") == 0);
    check_eq(sqlite3_column_int(status, 1), 41);
    check_eq(sqlite3_column_int(status, 2), 50);
    check_eq(sqlite3_column_int(status, 3), 53);
    check_eq(sqlite3_column_int(status, 4), 3);
    check(strcmp((const char *)sqlite3_column_text(status, 5), "live") == 0);
    check(strstr((const char *)sqlite3_column_text(status, 6), "raftd is not running; start it with: raftd /tmp/") !=
          NULL);
    check_eq(sqlite3_column_type(status, 7), SQLITE_NULL);
    check_eq(sqlite3_column_type(status, 8), SQLITE_NULL);
    check_eq(sqlite3_step(status), SQLITE_DONE);
    check_eq(sqlite3_reset(status), SQLITE_OK);

    atomic_store(&control.head->state, RQ_DB_QUARANTINED);
    (void)snprintf(control.head->message, sizeof control.head->message, "page 7 was changed");
    check_eq(sqlite3_step(status), SQLITE_ROW);
    check(strcmp((const char *)sqlite3_column_text(status, 5), "quarantined") == 0);
    check(strcmp((const char *)sqlite3_column_text(status, 6), "page 7 was changed") == 0);
    check_eq(sqlite3_finalize(status), SQLITE_OK);
    check_eq(sqlite3_close(db), SQLITE_OK);
    rq_control_close(&control);
    (void)unlink(path);
    (void)unlink(page);
    (void)rmdir(dir);
}

static int open_another(sqlite3 *db, char **ret_message, const sqlite3_api_routines *api)
{
    (void)db, (void)ret_message, (void)api;
    static bool inside;
    sqlite3 *other = NULL;
    if (!inside) {
        inside = true;
        (void)sqlite3_open(":memory:", &other);
        (void)sqlite3_close(other);
        inside = false;
    }
    return SQLITE_OK;
}

/* Run by preload_waits_for_the_first_open in a process of its own. */
static int be_preloaded(void)
{
    for (int i = 0; i < 2; i++) {
        /* Fails when anybody has initialised SQLite before. */
        if (sqlite3_config(SQLITE_CONFIG_MULTITHREAD) != SQLITE_OK) {
            return 2;
        }
        sqlite3 *db = NULL;
        if (sqlite3_auto_extension((void (*)(void))open_another) != SQLITE_OK ||
            sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK) {
            return 3;
        }
        if (!is_default() || sqlite3_exec(db, "SELECT rqvfs_version()", NULL, NULL, NULL) != SQLITE_OK) {
            return 4;
        }
        /* The program's own choice is left alone. */
        if (i == 0 && (sqlite3_close(db) != SQLITE_OK ||
                       sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE, "unix") != SQLITE_OK)) {
            return 5;
        }
        if (sqlite3_close(db) != SQLITE_OK || sqlite3_shutdown() != SQLITE_OK) {
            return 6;
        }
    }
    return 0;
}

static void preload_waits_for_the_first_open(void)
{
    char self[4096]; /* by its name: under valgrind only reading the link leads here */
    const ssize_t bytes = readlink("/proc/self/exe", self, sizeof self - 1);
    check(bytes > 0);
    self[bytes] = '\0';
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        (void)alarm(30);
        (void)setenv("LD_PRELOAD", extension, 1);
        (void)setenv("RQ_BE_PRELOADED", "1", 1);
        (void)setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1);
        (void)execl(self, "test_module", (char *)NULL);
        _exit(9);
    }
    int status = -1;
    (void)waitpid(pid, &status, 0);
    check(WIFEXITED(status));
    check_eq(WEXITSTATUS(status), 0);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(loaded_it_stays_and_serves_later_connections),
        TAP(loaded_again_after_shutdown_it_registers_again),
        TAP(unloaded_by_its_loader_it_stays_mapped),
        TAP(old_or_second_sqlite_is_refused_with_a_message),
        TAP(status_without_raftd_tells_what_the_control_page_knows),
        TAP(preload_waits_for_the_first_open),
    };
    if (getenv("RQ_BE_PRELOADED") != NULL) {
        return be_preloaded();
    }
    const char *file = getenv("RQ_EXTENSION_FILE");
    if (file == NULL || strlen(file) >= sizeof extension) {
        (void)fprintf(stderr, "RQ_EXTENSION_FILE is not set\n");
        return 2;
    }
    (void)snprintf(extension, sizeof extension, "%s", file);
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
