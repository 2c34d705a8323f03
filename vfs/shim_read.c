/* How fresh what a connection reads has to be: ?consistency= and ?freshness=, or the pragmas of these names.
 *
 *   local         what this host has: everything that this connection, or another one here, has committed or read
 *   bounded       everything that was committed, on any host, `freshness` before the transaction began, or earlier
 *   linearizable  everything that was committed, on any host, before the transaction began
 *
 * Asked of raftd when a read transaction begins; then the file of this host is read as ever.  What raftd says about a bounded read
 * is good for some time, in which it is not asked again.
 *
 * In all of them a connection never goes back behind what it has read: a host that lost its disk has to catch up first. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "vfs/shim_parts.h"

#define FRESHNESS_MAX_MS 86400000u
#define AGAIN_MS         1000u /* who tries again within it waits in a busy handler */

static const char *const levels[] = {
    [RQ_READ_LOCAL] = "local",
    [RQ_READ_BOUNDED] = "bounded",
    [RQ_READ_LINEARIZABLE] = "linearizable",
};

/* Runs on while the machine sleeps, as data grow old then, too. */
static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/* --- what is asked for ------------------------------------------------------------------------------------------------------ */

static bool parse_level(const char *text, enum rq_read_level *ret_level)
{
    for (unsigned i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (strcasecmp(text, levels[i]) == 0) {
            *ret_level = (enum rq_read_level)i;
            return true;
        }
    }
    return false;
}

/* "500ms", "2s", "1m", "24h" */
static bool parse_duration(const char *text, uint64_t *ret_ms)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 } };
    uint64_t count = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9' && count <= FRESHNESS_MAX_MS; at++) {
        count = count * 10 + (uint64_t)(*at - '0');
    }
    for (unsigned i = 0; i < sizeof units / sizeof *units; i++) {
        if (at > text && strcmp(at, units[i].unit) == 0 && count > 0 && count <= FRESHNESS_MAX_MS / units[i].ms) {
            *ret_ms = count * units[i].ms;
            return true;
        }
    }
    return false;
}

static const char bad_level[] = "consistency is one of local, bounded, linearizable";
static const char bad_freshness[] = "freshness is a time from 1ms to 24h, as 500ms or 2s";
static const char no_freshness[] = "consistency=bounded needs a freshness, as freshness=500ms";

const char *rq_shim_read_set(struct rq_shim_db *db, const char *consistency, const char *freshness)
{
    enum rq_read_level level = db->read_level;
    uint64_t freshness_ms = db->freshness_ms;
    if (consistency != NULL && !parse_level(consistency, &level)) {
        return bad_level;
    }
    if (freshness != NULL && !parse_duration(freshness, &freshness_ms)) {
        return bad_freshness;
    }
    if (level == RQ_READ_BOUNDED && freshness_ms == 0) {
        return no_freshness;
    }
    db->read_level = level;
    db->freshness_ms = freshness_ms;
    db->fresh_until_ms = 0;
    return NULL;
}

int rq_shim_read_pragma(struct rq_shim_db *db, char **words)
{
    const bool level = strcasecmp(words[1], "rqvfs_consistency") == 0;
    if ((!level && strcasecmp(words[1], "rqvfs_freshness") != 0) || db->sink->ops->read == NULL) {
        return SQLITE_NOTFOUND;
    }
    const char *value = words[2];
    const char *wrong = value == NULL ? NULL : rq_shim_read_set(db, level ? value : NULL, level ? NULL : value);
    if (wrong != NULL) {
        words[0] = sqlite3_mprintf("%s", wrong);
        return SQLITE_ERROR;
    }
    words[0] = level ? sqlite3_mprintf("%s", levels[db->read_level])
                     : sqlite3_mprintf("%llums", (sqlite3_uint64)db->freshness_ms);
    return words[0] != NULL ? SQLITE_OK : SQLITE_NOMEM;
}

/* --- when a read transaction begins ------------------------------------------------------------------------------------------- */

static int refuse(struct rq_shim_db *db, enum rq_err err, const char *text)
{
    if (err == RQ_NOMEM) {
        return SQLITE_NOMEM;
    }
    (void)sqlite3_snprintf((int)sizeof db->read_refused, db->read_refused, "%s reads: %s", levels[db->read_level],
                           text);
    if (!db->away_logged) {
        db->away_logged = true;
        rq_shim_log(db, RQVFS_BUSY_CONSISTENCY, db->read_refused);
    }
    return RQVFS_BUSY_CONSISTENCY;
}

/* raftd answers for the files that have the names now.  What another life of this host left open is let go. */
static bool page_named(struct rq_shim_db *db)
{
    return db->view.control != NULL && rq_control_share_named(db->view.control) == RQ_OK;
}

static enum rq_err ask(struct rq_shim_db *db, uint64_t begin_ms, uint64_t *ret_left_ms)
{
    const bool again = db->refused_ms != 0 && begin_ms - db->refused_ms < AGAIN_MS;
    const uint32_t db_id = atomic_load(&db->view.control->head->db_id);
    const uint64_t max_age_ms = db->read_level == RQ_READ_BOUNDED ? db->freshness_ms : 0;
    return db->sink->ops->read(db->sink, db_id, max_age_ms, again, ret_left_ms);
}

int rq_shim_read_begin(struct rq_shim_db *db)
{
    if (db->read_level == RQ_READ_LOCAL) {
        return SQLITE_OK;
    }
    const uint64_t begin_ms = now_ms();
    if (begin_ms < db->fresh_until_ms) {
        return SQLITE_OK;
    }
    uint64_t left_ms = 0;
    do {
        if (!page_named(db)) {
            rq_snapshot_fini(&db->view);
            enum rq_err err = rq_shim_reach(db, false);
            if (err != RQ_OK) {
                return rq_shim_code(err, SQLITE_IOERR_LOCK);
            }
        }
        enum rq_err err = ask(db, begin_ms, &left_ms);
        if (err != RQ_OK) {
            db->refused_ms = now_ms();
            return refuse(db, err, db->sink->ops->text(db->sink));
        }
    } while (!page_named(db)); /* or it may have been the raftd of a new life that answered */
    db->refused_ms = 0;
    db->fresh_until_ms = db->read_level == RQ_READ_BOUNDED ? begin_ms + left_ms : 0;
    db->read_refused[0] = '\0';
    db->away_logged = false;
    return SQLITE_OK;
}

int rq_shim_read_check(struct rq_shim_db *db)
{
    if (db->view.db_id == db->seen_db_id && db->view.version < db->seen_version) {
        return refuse(db, RQ_UNREADY,
                      "this host has lost what this connection has read, and has not caught up with it");
    }
    db->seen_version = db->view.version;
    return SQLITE_OK;
}
