#include "raftd/http/desk.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/run/clock.h"
#include "vfs/shim.h"

#define IDLE_MS          60000u
#define READERS_KEPT     64u /* of a database, while nobody uses them */
#define READER_CACHE_KIB 2048

struct reader {
    struct rq_sql_connection connection; /* first */
    struct reader *next;
    unsigned generation; /* the desk's, when it was made */
};

struct rq_desk {
    struct rq_desk *next;
    struct rq_desks *all;   /* borrows */
    struct rq_database *db; /* counted */
    uint32_t id;
    unsigned users;   /* guarded by the desks' lock, as used_ms */
    uint64_t used_ms; /* when the last one left */
    atomic_bool open;
    pthread_mutex_t lock; /* what follows */
    struct rq_executor *executor;
    pthread_cond_t given; /* a reader, or the right to make one */
    struct reader *idle;
    unsigned readers, idle_readers;
    unsigned generation; /* so often they were found to be outdated */
};

struct rq_desks {
    struct rq_desks_config config;
    pthread_mutex_t lock;
    struct rq_desk *first; /* guarded by lock */
};

/* --- desks ---------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_desks_new(const struct rq_desks_config *config, struct rq_desks **ret_desks)
{
    struct rq_desks *d = calloc(1, sizeof *d);
    if (d == NULL) {
        return RQ_NOMEM;
    }
    d->config = *config;
    pthread_mutex_init(&d->lock, NULL);
    *ret_desks = d;
    return RQ_OK;
}

static void reader_free(struct reader *r)
{
    sqlite3 *db = r->connection.db;
    rq_sql_connection_fini(&r->connection);
    sqlite3_close(db);
    free(r);
}

static void free_readers(struct reader *list)
{
    while (list != NULL) {
        struct reader *r = list;
        list = r->next;
        reader_free(r);
    }
}

static void desk_free(struct rq_desk *k)
{
    pthread_mutex_lock(&k->lock); /* a request may be done before rq_desk_queue() has returned */
    pthread_mutex_unlock(&k->lock);
    rq_executor_free(k->executor);
    free_readers(k->idle);
    rq_database_unref(k->db);
    pthread_cond_destroy(&k->given);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

/* Takes those out that are to be cleared away. */
static struct rq_desk *take_out(struct rq_desks *d, bool all)
{
    const uint64_t now = rq_clock_ms();
    struct rq_desk *out = NULL;
    pthread_mutex_lock(&d->lock);
    for (struct rq_desk **at = &d->first; *at != NULL;) {
        struct rq_desk *k = *at;
        bool goes = k->users == 0 && (all || now - k->used_ms >= IDLE_MS);
        if (!goes && k->users == 0) {
            struct rq_database *db = rq_catalog_find_id(d->config.catalog, k->id);
            goes = db != k->db;
            if (db != NULL) {
                rq_database_unref(db);
            }
        }
        if (goes) {
            *at = k->next;
            k->next = out;
            out = k;
        } else {
            at = &k->next;
        }
    }
    pthread_mutex_unlock(&d->lock);
    return out;
}

static void clear_away(struct rq_desk *list)
{
    while (list != NULL) {
        struct rq_desk *k = list;
        list = k->next;
        desk_free(k);
    }
}

void rq_desks_sweep(struct rq_desks *d)
{
    clear_away(take_out(d, false));
}

void rq_desks_free(struct rq_desks *d)
{
    if (d != NULL) {
        clear_away(take_out(d, true));
        pthread_mutex_destroy(&d->lock);
        free(d);
    }
}

enum rq_err rq_desk_find(struct rq_desks *d, const char *name, size_t bytes, struct rq_desk **ret_desk)
{
    struct rq_database *db = rq_catalog_find(d->config.catalog, name, bytes);
    if (db == NULL) {
        return RQ_NOTFOUND;
    }
    pthread_mutex_lock(&d->lock);
    struct rq_desk *k = d->first;
    while (k != NULL && k->db != db) {
        k = k->next;
    }
    if (k == NULL) {
        k = calloc(1, sizeof *k);
        if (k != NULL) {
            pthread_mutex_init(&k->lock, NULL);
            pthread_cond_init(&k->given, NULL);
            k->all = d;
            k->db = rq_database_ref(db);
            k->id = rq_database_id(db);
            k->next = d->first;
            d->first = k;
        }
    }
    if (k != NULL) {
        k->users++;
    }
    pthread_mutex_unlock(&d->lock);
    rq_database_unref(db);
    *ret_desk = k;
    return k != NULL ? RQ_OK : RQ_NOMEM;
}

struct rq_desk *rq_desk_ref(struct rq_desk *k)
{
    pthread_mutex_lock(&k->all->lock);
    k->users++;
    pthread_mutex_unlock(&k->all->lock);
    return k;
}

void rq_desk_unref(struct rq_desk *k)
{
    struct rq_desks *d = k->all;
    pthread_mutex_lock(&d->lock);
    k->users--;
    k->used_ms = rq_clock_ms();
    pthread_mutex_unlock(&d->lock);
}

struct rq_database *rq_desk_database(struct rq_desk *k)
{
    return k->db;
}

bool rq_desk_is_open(const struct rq_desk *k)
{
    return atomic_load(&k->open);
}

void rq_desk_opened(struct rq_desk *k)
{
    atomic_store(&k->open, true);
}

/* What SQLite is to be told of the file. */
static char *path_of(const struct rq_desk *k)
{
    char *path;
    return asprintf(&path, "%s/%s", k->all->config.dir, rq_database_name(k->db)) >= 0 ? path : NULL;
}

/* --- writing -------------------------------------------------------------------------------------------------------------- */

/* Lock held. */
static enum rq_err start_executor(struct rq_desk *k)
{
    enum rq_err err = RQ_OK;
    if (k->executor == NULL) {
        char *path = path_of(k);
        const struct rq_executor_config config = {
            .path = path,
            .host = rq_database_executor_host(k->db),
            .foreign_keys = k->all->config.foreign_keys,
        };
        err = path != NULL ? rq_executor_new(&config, &k->executor) : RQ_NOMEM;
        free(path);
    }
    return err;
}

enum rq_err rq_desk_queue(struct rq_desk *k, struct rq_sql_request *request)
{
    pthread_mutex_lock(&k->lock);
    enum rq_err err = start_executor(k);
    if (err == RQ_OK) {
        rq_executor_queue(k->executor, request); /* with the lock, for which desk_free() waits */
    }
    pthread_mutex_unlock(&k->lock);
    return err;
}

enum rq_err rq_desk_carry(struct rq_desk *k, struct rq_sql_request *request)
{
    pthread_mutex_lock(&k->lock);
    enum rq_err err = start_executor(k);
    struct rq_executor *x = k->executor;
    pthread_mutex_unlock(&k->lock);
    if (err == RQ_OK) {
        rq_executor_carry(x, request);
    }
    return err;
}

/* The executor has finalized its statements before SQLite calls this. */
static void writer_free(void *arg)
{
    rq_sql_connection_forget(arg);
    free(arg);
}

struct rq_sql_connection *rq_desk_writer(sqlite3 *db)
{
    static const char name[] = "rq_sql_connection";
    struct rq_sql_connection *c = sqlite3_get_clientdata(db, name);
    if (c != NULL) {
        return c;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL || rq_sql_connection_init(c, db) != RQ_OK) {
        free(c);
        return NULL;
    }
    return sqlite3_set_clientdata(db, name, c, writer_free) == SQLITE_OK ? c : NULL;
}

/* --- transactions --------------------------------------------------------------------------------------------------------- */

static enum rq_err prepare_connection(const struct rq_desk *k, sqlite3 *db, struct rq_direct_sink *sink)
{
    char pragma[80];
    (void)snprintf(pragma, sizeof pragma, "PRAGMA cache_size=-%d; PRAGMA foreign_keys=%d", READER_CACHE_KIB,
                   k->all->config.foreign_keys);
    if (sqlite3_file_control(db, "main", RQ_FCNTL_SINK, rq_direct_sink_sink(sink)) != SQLITE_OK) {
        rq_direct_sink_unref(sink); /* the reference that the connection would have */
        return RQ_IO;
    }
    return sqlite3_exec(db, pragma, NULL, NULL, NULL) == SQLITE_OK ? RQ_OK : RQ_IO;
}

enum rq_err rq_desk_connect(struct rq_desk *k, struct rq_sql_connection *ret_connection,
                            struct rq_direct_sink **ret_sink)
{
    char *path = path_of(k);
    sqlite3 *db = NULL;
    struct rq_direct_sink *sink = NULL;
    enum rq_err err = path != NULL ? RQ_OK : RQ_NOMEM;
    if (err == RQ_OK && sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, "rqvfs") != SQLITE_OK) {
        err = RQ_IO;
    }
    free(path);
    if (err == RQ_OK) {
        sqlite3_extended_result_codes(db, 1);
        err = rq_direct_sink_new(k->db, k->all->config.disk, k->all->config.staged_dir, &sink);
    }
    if (err == RQ_OK) {
        err = prepare_connection(k, db, sink);
    }
    if (err == RQ_OK) {
        err = rq_sql_connection_init(ret_connection, db);
    }
    if (err != RQ_OK) {
        sqlite3_close(db);
        rq_direct_sink_unref(sink);
        *ret_connection = (struct rq_sql_connection){ .db = NULL };
        return err;
    }
    *ret_sink = sink;
    return RQ_OK;
}

void rq_desk_disconnect(struct rq_sql_connection *connection)
{
    sqlite3 *db = connection->db;
    rq_sql_connection_fini(connection);
    sqlite3_close(db);
}

/* --- reading -------------------------------------------------------------------------------------------------------------- */

static enum rq_err reader_new(const struct rq_desk *k, struct reader **ret_reader)
{
    char *path = path_of(k);
    struct reader *r = calloc(1, sizeof *r);
    sqlite3 *db = NULL;
    enum rq_err err = path != NULL && r != NULL ? RQ_OK : RQ_NOMEM;
    if (err == RQ_OK) {
        char pragma[48];
        (void)snprintf(pragma, sizeof pragma, "PRAGMA cache_size=-%d", READER_CACHE_KIB);
        if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, "rqvfs") != SQLITE_OK ||
            sqlite3_exec(db, pragma, NULL, NULL, NULL) != SQLITE_OK) {
            err = RQ_IO;
        } else {
            sqlite3_extended_result_codes(db, 1);
            err = rq_sql_connection_init(&r->connection, db);
        }
    }
    free(path);
    if (err != RQ_OK) {
        sqlite3_close(db);
        free(r);
        return err;
    }
    *ret_reader = r;
    return RQ_OK;
}

enum rq_err rq_desk_take_reader(struct rq_desk *k, bool wait, struct rq_sql_connection **ret_reader)
{
    const unsigned max = k->all->config.readers_max;
    enum rq_err err = RQ_OK;
    pthread_mutex_lock(&k->lock);
    while (wait && k->idle == NULL && max != 0 && k->readers >= max) {
        pthread_cond_wait(&k->given, &k->lock);
    }
    struct reader *r = k->idle;
    if (r != NULL) {
        k->idle = r->next;
        k->idle_readers--;
    } else if (max != 0 && k->readers >= max) {
        err = RQ_BUSY;
    } else {
        k->readers++;
    }
    const unsigned generation = k->generation;
    pthread_mutex_unlock(&k->lock);
    if (err == RQ_OK && r == NULL) {
        err = reader_new(k, &r);
        if (err == RQ_OK) {
            r->generation = generation;
        } else {
            pthread_mutex_lock(&k->lock);
            k->readers--;
            pthread_cond_signal(&k->given);
            pthread_mutex_unlock(&k->lock);
        }
    }
    *ret_reader = err == RQ_OK ? &r->connection : NULL;
    return err;
}

/* With the lock: all that nobody uses are the caller's, to be freed. */
static struct reader *take_idle(struct rq_desk *k)
{
    struct reader *list = k->idle;
    k->readers -= k->idle_readers;
    k->idle = NULL;
    k->idle_readers = 0;
    return list;
}

bool rq_desk_give_reader(struct rq_desk *k, struct rq_sql_connection *reader)
{
    struct reader *r = (struct reader *)reader, *gone = NULL;
    const bool outdated = rq_sql_connection_outdated(reader);
    pthread_mutex_lock(&k->lock);
    if (outdated) {
        k->generation += r->generation == k->generation;
        gone = take_idle(k);
    }
    if (r->generation == k->generation && k->idle_readers < READERS_KEPT) {
        r->next = k->idle;
        k->idle = r;
        k->idle_readers++;
    } else {
        r->next = gone;
        gone = r;
        k->readers--;
    }
    if (outdated) {
        pthread_cond_broadcast(&k->given);
    } else {
        pthread_cond_signal(&k->given);
    }
    pthread_mutex_unlock(&k->lock);
    free_readers(gone);
    return !outdated;
}
