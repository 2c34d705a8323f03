/* The cache is a hash table of compiled statements with a list from the one used last to the one used longest ago.  A text enters
 * it when it comes for the second time, so that bulk loads with their values in the text do not drive out what is used again. */
#include "raftd/http/sql_connection.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "raftd/http/sql_text.h"
#include "raftd/run/clock.h"

#define CACHE_STATEMENTS_MAX 128u
#define CACHE_SQL_BYTES_MAX  8192u
#define CACHE_BUCKETS        256u
#define SEEN_HASHES          1024u
#define TURN_SLEEP_US        20000
#define STEPS_PER_CALL       1000 /* of SQLite's machine, between two looks at clock and budget */
#define CALLS_PER_LOOK       64u  /* at who it is for: about a millisecond */

struct rq_sql_cache {
    struct rq_sql_prepared *buckets[CACHE_BUCKETS];
    struct rq_sql_prepared *newest, *oldest;
    unsigned count;
    uint64_t seen[SEEN_HASHES]; /* of texts that came, the last one in its place */
};

/* --- what SQLite asks ----------------------------------------------------------------------------------------------------- */

static int refuse(struct rq_sql_connection *c, const char *why)
{
    c->refused = why;
    return SQLITE_DENY;
}

static int authorize(void *ctx, int action, const char *first, const char *second, const char *schema,
                     const char *trigger)
{
    struct rq_sql_connection *c = ctx;
    (void)schema;
    (void)trigger;
    switch (action) {
        case SQLITE_TRANSACTION:
            c->ends_transaction = c->ends_transaction || (c->preparing && strcmp(first, "BEGIN") != 0);
            return SQLITE_OK;
        case SQLITE_ATTACH:
            if (c->preparing) {
                return refuse(c, "ATTACH is not allowed");
            }
            /* VACUUM attaches its temporary database, which has no name, while it runs. */
            return first != NULL && *first == '\0' ? SQLITE_OK : refuse(c, "VACUUM INTO is not allowed");
        case SQLITE_DETACH:
            return refuse(c, "DETACH is not allowed");
        case SQLITE_PRAGMA:
            c->pragma = true;
            if (strcasecmp(first, "journal_mode") == 0) {
                c->column_name = "journal_mode"; /* "rqvfs" answers it, and a VFS gives name and value in one string */
            }
            return rq_pragma_disallowed(first, second != NULL) ? refuse(c, "disallowed pragma") : SQLITE_OK;
        default:
            return SQLITE_OK;
    }
}

static int on_progress(void *ctx)
{
    struct rq_sql_connection *c = ctx;
    c->spent++;
    c->too_long = c->too_long || (c->running && c->budget > 0 && c->spent > c->budget);
    return c->too_long || rq_sql_connection_late(c) ||
           (c->running && c->spent % CALLS_PER_LOOK == 0 && rq_sql_connection_left(c));
}

void rq_sql_connection_begin(struct rq_sql_connection *c, uint64_t timeout_ns)
{
    const uint64_t now = timeout_ns > 0 ? rq_clock_ns() : 0;
    c->deadline_ns = timeout_ns == 0 ? 0 : timeout_ns < UINT64_MAX - now ? now + timeout_ns : UINT64_MAX;
    c->spent = 0;
    c->too_long = c->timed_out = c->left = false;
    c->running = true;
}

void rq_sql_connection_end(struct rq_sql_connection *c)
{
    c->deadline_ns = 0;
    c->too_long = c->timed_out = c->left = c->running = false;
}

bool rq_sql_connection_outdated(struct rq_sql_connection *c)
{
    const bool failed = c->failed;
    c->failed = false;
    /* A schema that is damaged would be SQLITE_CORRUPT. */
    return failed &&
           (sqlite3_exec(c->db, "SELECT 1 FROM main.sqlite_schema LIMIT 0", NULL, NULL, NULL) & 0xff) == SQLITE_ERROR;
}

bool rq_sql_connection_late(struct rq_sql_connection *c)
{
    c->timed_out = c->timed_out || (c->deadline_ns > 0 && rq_clock_ns() >= c->deadline_ns);
    return c->timed_out;
}

bool rq_sql_connection_left(struct rq_sql_connection *c)
{
    c->left = c->left || (c->has_left != NULL && c->has_left(c->ctx));
    return c->left;
}

/* The VFS knows what was asked for, and sleeps in the queue for it. */
bool rq_sql_connection_await_turn(struct rq_sql_connection *c, uint64_t *since_ms)
{
    const uint64_t now_ms = rq_clock_ms();
    sqlite3_vfs *vfs = NULL;
    *since_ms = *since_ms == 0 ? now_ms : *since_ms;
    if (now_ms - *since_ms >= c->turn_wait_ms || rq_sql_connection_late(c) ||
        sqlite3_file_control(c->db, "main", SQLITE_FCNTL_VFS_POINTER, &vfs) != SQLITE_OK) {
        return false;
    }
    (void)vfs->xSleep(vfs, TURN_SLEEP_US);
    return true;
}

const char *rq_sql_error(struct rq_sql_connection *c)
{
    c->failed = true;
    return c->refused != NULL ? c->refused : sqlite3_errmsg(c->db);
}

/* --- cache ---------------------------------------------------------------------------------------------------------------- */

static void unlink_used(struct rq_sql_cache *cache, struct rq_sql_prepared *p)
{
    *(p->newer != NULL ? &p->newer->older : &cache->newest) = p->older;
    *(p->older != NULL ? &p->older->newer : &cache->oldest) = p->newer;
    p->older = p->newer = NULL;
}

static void link_newest(struct rq_sql_cache *cache, struct rq_sql_prepared *p)
{
    p->older = cache->newest;
    *(cache->newest != NULL ? &cache->newest->newer : &cache->oldest) = p;
    cache->newest = p;
}

static void prepared_free(struct rq_sql_prepared *p)
{
    rq_sql_shape_fini(&p->shape);
    free(p->sql);
    free(p);
}

static void cache_drop(struct rq_sql_cache *cache, struct rq_sql_prepared *p)
{
    struct rq_sql_prepared **at = &cache->buckets[p->hash % CACHE_BUCKETS];
    while (*at != p) {
        at = &(*at)->chain;
    }
    *at = p->chain;
    unlink_used(cache, p);
    cache->count--;
}

static struct rq_sql_prepared *cache_find(struct rq_sql_cache *cache, uint64_t hash, const char *sql, size_t bytes)
{
    struct rq_sql_prepared *p = cache->buckets[hash % CACHE_BUCKETS];
    while (p != NULL && (p->hash != hash || p->bytes != bytes || memcmp(p->sql, sql, bytes) != 0)) {
        p = p->chain;
    }
    if (p == NULL || p->in_use) {
        return NULL;
    }
    if (cache->newest != p) {
        unlink_used(cache, p);
        link_newest(cache, p);
    }
    return p;
}

/* It stays without, if there is no memory. */
static void cache_put(struct rq_sql_cache *cache, struct rq_sql_prepared *p, const char *sql, size_t bytes)
{
    struct rq_sql_prepared *oldest = cache->oldest;
    if (cache->count == CACHE_STATEMENTS_MAX) {
        if (oldest->in_use) {
            return;
        }
        cache_drop(cache, oldest);
        (void)sqlite3_finalize(oldest->stmt); /* says again what its last step said */
        prepared_free(oldest);
    }
    p->sql = malloc(bytes + 1);
    if (p->sql == NULL) {
        return;
    }
    memcpy(p->sql, sql, bytes);
    p->sql[bytes] = '\0';
    p->bytes = bytes;
    p->chain = cache->buckets[p->hash % CACHE_BUCKETS];
    cache->buckets[p->hash % CACHE_BUCKETS] = p;
    link_newest(cache, p);
    cache->count++;
}

/* --- statements ----------------------------------------------------------------------------------------------------------- */

static int compile(struct rq_sql_connection *c, struct rq_sql_prepared *p, const char *sql, size_t bytes, bool lasting,
                   const char **ret_tail)
{
    const char *tail;
    c->preparing = true;
    c->ends_transaction = c->pragma = false;
    c->column_name = NULL;
    int code = sqlite3_prepare_v3(c->db, sql, (int)bytes + 1, lasting ? SQLITE_PREPARE_PERSISTENT : 0, &p->stmt, &tail);
    c->preparing = false;
    p->ends_transaction = c->ends_transaction;
    p->pragma = c->pragma;
    p->column_name = c->column_name;
    if (code == SQLITE_OK) {
        *ret_tail = rq_sql_skip_blanks(tail);
    }
    return code;
}

int rq_sql_prepare(struct rq_sql_connection *c, const char *sql, size_t bytes, struct rq_sql_prepared **ret_prepared,
                   const char **ret_tail)
{
    struct rq_sql_cache *cache = c->cache;
    const bool may_keep = bytes > 0 && bytes <= CACHE_SQL_BYTES_MAX;
    const uint64_t hash = may_keep ? XXH3_64bits(sql, bytes) : 0;
    bool seen = may_keep && cache->seen[hash % SEEN_HASHES] == hash;
    struct rq_sql_prepared *p = seen ? cache_find(cache, hash, sql, bytes) : NULL;
    c->refused = NULL;
    if (p != NULL) {
        *ret_tail = sql + bytes;
    } else {
        p = calloc(1, sizeof *p);
        if (p == NULL) {
            (void)refuse(c, "out of memory");
            return SQLITE_NOMEM;
        }
        rq_sql_shape_init(&p->shape);
        p->hash = hash;
        int code = compile(c, p, sql, bytes, seen, ret_tail);
        if (code != SQLITE_OK) {
            c->failed = true;
            prepared_free(p);
            return code;
        }
        if (p->stmt != NULL && **ret_tail == '\0' && seen) {
            cache_put(cache, p, sql, bytes);
        }
        if (may_keep) {
            cache->seen[hash % SEEN_HASHES] = hash;
        }
    }
    p->in_use = true;
    *ret_prepared = p;
    return SQLITE_OK;
}

void rq_sql_release(struct rq_sql_prepared *p)
{
    if (p == NULL) {
        return;
    }
    p->in_use = false;
    if (p->sql == NULL) {
        (void)sqlite3_finalize(p->stmt); /* says again what its last step said */
        prepared_free(p);
    } else {
        (void)sqlite3_reset(p->stmt);
        (void)sqlite3_clear_bindings(p->stmt);
    }
}

/* --- life ----------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_sql_connection_init(struct rq_sql_connection *c, sqlite3 *db)
{
    *c = (struct rq_sql_connection){ .db = db, .cache = calloc(1, sizeof(struct rq_sql_cache)) };
    if (c->cache == NULL) {
        return RQ_NOMEM;
    }
    (void)sqlite3_set_authorizer(db, authorize, c); /* cannot fail */
    sqlite3_progress_handler(db, STEPS_PER_CALL, on_progress, c);
    return RQ_OK;
}

void rq_sql_connection_forget(struct rq_sql_connection *c)
{
    struct rq_sql_prepared *p = c->cache != NULL ? c->cache->newest : NULL;
    while (p != NULL) {
        struct rq_sql_prepared *older = p->older;
        prepared_free(p);
        p = older;
    }
    free(c->cache);
    *c = (struct rq_sql_connection){ .db = NULL };
}

void rq_sql_connection_fini(struct rq_sql_connection *c)
{
    if (c->db == NULL) {
        return;
    }
    for (struct rq_sql_prepared *p = c->cache != NULL ? c->cache->newest : NULL; p != NULL; p = p->older) {
        (void)sqlite3_finalize(p->stmt);
    }
    (void)sqlite3_set_authorizer(c->db, NULL, NULL);
    sqlite3_progress_handler(c->db, 0, NULL, NULL);
    rq_sql_connection_forget(c);
}
