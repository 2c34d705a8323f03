/* File controls of a served database, and pragmas, which arrive as one.
 *
 * A pragma is answered here only where SQLite's answer would be about the rollback-journal database that it believes to see.
 * The others are edited in place and left to SQLite (SQLITE_NOTFOUND), so that names and numbers of columns stay right. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/shim_parts.h"

#define MMAP_SIZE_MAX 0x7fff0000 /* SQLITE_MAX_MMAP_SIZE */

/* Within SQLite's bounds of it, and below zero its default: what it answers is what it would be natively. */
static void remember_mmap_size(struct rq_shim_db *db, sqlite3_int64 bytes)
{
    db->mmap_size = bytes < 0 ? 0 : bytes > MMAP_SIZE_MAX ? MMAP_SIZE_MAX : bytes;
}

static int pragma(struct rq_shim_db *db, char **words)
{
    const char *name = words[1];
    char *value = words[2];
    if (strcasecmp(name, "journal_mode") == 0) {
        words[0] = sqlite3_mprintf("wal"); /* what the file is in; the column is then named so, too, by SQLite */
        return words[0] != NULL ? SQLITE_OK : SQLITE_NOMEM;
    }
    int code = rq_shim_read_pragma(db, words);
    if (code != SQLITE_NOTFOUND || value == NULL) {
        return code;
    }
    if (strcasecmp(name, "locking_mode") == 0 && strcasecmp(value, "exclusive") == 0) {
        memcpy(value, "normal", sizeof "normal"); /* raftd writes the file whenever it has to */
    } else if (strcasecmp(name, "page_size") == 0) {
        bool exists = db->page_count > 0 ||
                      (db->view.control != NULL && atomic_load(&db->view.control->head->state) != RQ_DB_EMPTY);
        if (exists) {
            value[0] = '\0'; /* as in WAL mode: neither now nor at the next VACUUM */
        }
    } else if (strcasecmp(name, "mmap_size") == 0) {
        remember_mmap_size(db, strtoll(value, NULL, 0)); /* SQLite asks back below; nothing is mapped */
    }
    return SQLITE_NOTFOUND;
}

static void remember(bool *flag, int *value)
{
    if (*value >= 0) {
        *flag = *value != 0;
    }
    *value = *flag;
}

int rq_shim_file_control(sqlite3_file *file, int op, void *arg)
{
    struct rq_shim_db *db = rq_shim_db_of(file);
    if (rq_shim_inherited(db)) {
        return SQLITE_MISUSE;
    }
    switch (op) {
        case SQLITE_FCNTL_SYNC:
            return rq_shim_sync(db, arg);
        case SQLITE_FCNTL_PRAGMA:
            return pragma(db, arg);
        case RQ_FCNTL_HOLD:
            *(struct rq_hold **)arg = db->hold;
            return db->hold != NULL ? SQLITE_OK : SQLITE_NOTFOUND;
        case RQ_FCNTL_SINK:
            return rq_shim_sink_replace(db, arg);
        case RQ_FCNTL_IN_THE_WAY:
            *(int *)arg = rq_shim_in_the_way(db);
            return SQLITE_OK;
        case RQ_FCNTL_READ_REFUSED:
            *(char **)arg = sqlite3_mprintf("%s", db->read_refused);
            return *(char **)arg != NULL ? SQLITE_OK : SQLITE_NOMEM;
        case SQLITE_FCNTL_PDB:
            atomic_store(&db->owner, (sqlite3 **)arg);
            return SQLITE_OK;
        case SQLITE_FCNTL_LOCKSTATE:
            *(int *)arg = db->lock;
            return SQLITE_OK;
        case SQLITE_FCNTL_LAST_ERRNO:
            *(int *)arg = 0;
            return SQLITE_OK;
        case SQLITE_FCNTL_HAS_MOVED:
            *(int *)arg = db->view.control != NULL && atomic_load(&db->view.control->head->gone) != 0;
            return SQLITE_OK;
        case SQLITE_FCNTL_VFSNAME:
            *(char **)arg = sqlite3_mprintf("rqvfs");
            return *(char **)arg != NULL ? SQLITE_OK : SQLITE_NOMEM;
        case SQLITE_FCNTL_TEMPFILENAME: {
            sqlite3_uint64 random;
            sqlite3_randomness(sizeof random, &random);
            *(char **)arg = sqlite3_mprintf("%s/rqvfs-%016llx", db->journal.dir, random);
            return *(char **)arg != NULL ? SQLITE_OK : SQLITE_NOMEM;
        }
        case SQLITE_FCNTL_EXTERNAL_READER:
            *(int *)arg = 0;
            return SQLITE_OK;
        case SQLITE_FCNTL_MMAP_SIZE: {
            sqlite3_int64 wanted = *(sqlite3_int64 *)arg;
            *(sqlite3_int64 *)arg = db->mmap_size;
            if (wanted >= 0) {
                remember_mmap_size(db, wanted);
            }
            return SQLITE_OK;
        }
        case SQLITE_FCNTL_PERSIST_WAL:
            remember(&db->persist_wal, arg);
            return SQLITE_OK;
        case SQLITE_FCNTL_POWERSAFE_OVERWRITE:
            remember(&db->powersafe, arg);
            return SQLITE_OK;
        case SQLITE_FCNTL_SIZE_HINT:
        case SQLITE_FCNTL_CHUNK_SIZE: /* about how a file grows that only raftd writes */
        case SQLITE_FCNTL_COMMIT_PHASETWO:
            return SQLITE_OK;
        default:
            return SQLITE_NOTFOUND;
    }
}
