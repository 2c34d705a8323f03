/* The VFS itself: which file is ours, opening, names that must not be seen, sleeping for the turn, fork.
 *
 * Ours are databases in a served directory and their journals.  Everything else is opened by the previous default VFS into the
 * same sqlite3_file, with its own methods: no call of ours stands in the way of it.
 *
 * Locks: list_lock (who is open in this process), then those in control_share.c and files.c.  Never held across a call to raftd or a sleep. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/wire/msg.h"
#include "vfs/files.h"
#include "vfs/shim_parts.h"

#define BUCKET_COUNT       256u
#define MEMORY_MAX_DEFAULT (16u << 20)
#define TIMEOUT_DEFAULT_MS 10000
#define TIMEOUT_MAX_MS     3600000
#define ARMED_US           2000u /* a busy handler sleeps at once; who sleeps later sleeps for something else */
#define NEAR_PATH_MAX      1000u

static struct {
    struct rq_shim_config config;
    sqlite3_vfs vfs;
    sqlite3_vfs *parent;
    char spill_dir[512];
    _Atomic uint32_t generation; /* raised in each forked child */
    _Atomic uint64_t closed;     /* raised when a database is closed */
    atomic_bool is_default;      /* files outside served directories go straight to the parent */
} shim;

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct rq_shim_db *list[BUCKET_COUNT]; /* by hash of the path; under list_lock */
static uint64_t serial_last;                  /* under list_lock */

static void db_unref(struct rq_shim_db *db);

/* --- codes and messages ------------------------------------------------------------------------------------------------- */

int rq_shim_code(enum rq_err err, int otherwise)
{
    switch ((int)err) {
        case RQ_OK:
            return SQLITE_OK;
        case RQ_NOMEM:
            return SQLITE_NOMEM;
        case RQ_FULL:
            return SQLITE_FULL;
        case RQ_CORRUPT:
            return SQLITE_CORRUPT;
        case RQ_QUARANTINED:
            return RQVFS_CORRUPT_QUARANTINED;
        case RQ_AWAY:
        case RQ_UNREADY:
        case RQ_SHUTDOWN:
            return RQVFS_BUSY_AWAY;
        case RQ_BUSY:
            return SQLITE_BUSY;
        case RQ_PROTOCOL:
            return SQLITE_PROTOCOL;
        case RQ_READONLY:
        case RQ_PAGESIZE:
            return SQLITE_READONLY;
        case RQ_NOTFOUND:
        case RQ_PERM:
        case RQ_FOREIGN:
        case RQ_VERSION:
            return SQLITE_CANTOPEN;
        default:
            return otherwise;
    }
}

int rq_shim_content_code(enum rq_err err, int otherwise)
{
    switch ((int)err) {
        case RQ_OK:
            return SQLITE_OK;
        case RQ_NOMEM:
            return SQLITE_IOERR_NOMEM;
        case RQ_FULL:
            return SQLITE_FULL;
        case RQ_CORRUPT:
            return SQLITE_CORRUPT;
        default:
            return otherwise;
    }
}

void rq_shim_log(const struct rq_shim_db *db, int code, const char *text)
{
    sqlite3_log(code, "rqvfs: %s: %s", db->path, text);
}

void rq_shim_log_away(struct rq_shim_db *db, int code)
{
    if (!db->away_logged) {
        db->away_logged = true;
        rq_shim_log(db, code, db->sink->ops->text(db->sink));
    }
}

/* Only behind a name that came as a URI are there parameters. */
static const char *uri_text(const char *name, int flags, const char *key)
{
    return (flags & SQLITE_OPEN_URI) != 0 ? sqlite3_uri_parameter(name, key) : NULL;
}

/* --- who is open -------------------------------------------------------------------------------------------------------- */

static uint32_t bucket_of(const char *path, size_t bytes)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < bytes; i++) {
        hash = (hash ^ (uint8_t)path[i]) * 16777619u;
    }
    return hash % BUCKET_COUNT;
}

bool rq_shim_inherited(const struct rq_shim_db *db)
{
    return db->generation != atomic_load_explicit(&shim.generation, memory_order_relaxed);
}

/* Length of the database's path if name is that of its journal or WAL, else 0. */
static size_t without_suffix(const char *name)
{
    static const char *const suffixes[] = { "-journal", "-wal" };
    size_t bytes = strlen(name);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t suffix_bytes = strlen(suffixes[i]);
        if (bytes > suffix_bytes && strcmp(name + bytes - suffix_bytes, suffixes[i]) == 0) {
            return bytes - suffix_bytes;
        }
    }
    return 0;
}

/* From db on in its bucket.  Under list_lock. */
static struct rq_shim_db *find_open(struct rq_shim_db *db, const char *path, size_t bytes, bool writer)
{
    for (; db != NULL; db = db->next) {
        if (db->path_bytes == bytes && memcmp(db->path, path, bytes) == 0 &&
            (!writer || (!rq_shim_inherited(db) && atomic_load(&db->lock) >= SQLITE_LOCK_RESERVED))) {
            return db;
        }
    }
    return NULL;
}

/* The one that opens its journal now has the turn; in this process nobody else has, unless raftd took it away from one that
 * was stopped.  Then SQLite says whose journal it is, from 3.32 on. */
struct rq_shim_db *rq_shim_find_writer(const char *journal_name, bool *ret_several)
{
    size_t bytes = without_suffix(journal_name);
    *ret_several = false;
    if (bytes == 0) {
        return NULL;
    }
    pthread_mutex_lock(&list_lock);
    struct rq_shim_db *db = find_open(list[bucket_of(journal_name, bytes)], journal_name, bytes, true);
    *ret_several = db != NULL && find_open(db->next, journal_name, bytes, true) != NULL;
    pthread_mutex_unlock(&list_lock);
    if (!*ret_several) {
        return db;
    }
    if (sqlite3_libversion_number() < 3032000) {
        return NULL;
    }
    sqlite3_file *file = sqlite3_database_file_object(journal_name);
    return file->pMethods == &rq_shim_db_methods ? rq_shim_db_of(file) : NULL;
}

bool rq_shim_writes_another(const struct rq_shim_db *db, bool written)
{
    sqlite3 **mine = atomic_load(&db->owner);
    if (mine == NULL) {
        return false;
    }
    bool found = false;
    pthread_mutex_lock(&list_lock);
    for (uint32_t i = 0; i < BUCKET_COUNT && !found; i++) {
        for (const struct rq_shim_db *other = list[i]; other != NULL && !found; other = other->next) {
            sqlite3 **theirs = atomic_load(&other->owner);
            found = other != db && !rq_shim_inherited(other) && theirs != NULL && *theirs == *mine &&
                    atomic_load(&other->lock) >= SQLITE_LOCK_RESERVED && (!written || other->journal_written);
        }
    }
    pthread_mutex_unlock(&list_lock);
    return found;
}

/* --- names that SQLite must not see ------------------------------------------------------------------------------------- */

/* The database that this thread locked last.
 *
 * At each SHARED lock SQLite asks whether there is a journal and a WAL.  The answer is kept here, so that readers on many threads
 * do not meet at list_lock.  Good until any database is closed.  And whether xSleep is to wait for the turn (see below): in one
 * place, as each costs a call to find. */
static _Thread_local struct {
    uint64_t serial, closed;
    size_t bytes;
    uint64_t armed; /* serial of whose turn is waited for; 0: sleep is sleep */
    uint64_t armed_us;
    char path[NEAR_PATH_MAX];
} near;

void rq_shim_note_lock(const struct rq_shim_db *db)
{
    uint64_t closed = atomic_load_explicit(&shim.closed, memory_order_acquire);
    near.armed = 0;
    if ((near.serial != db->serial || near.closed != closed) && db->path_bytes < sizeof near.path) {
        memcpy(near.path, db->path, db->path_bytes);
        near.bytes = db->path_bytes;
        near.serial = db->serial;
        near.closed = closed;
    }
}

/* Is name that path, with the end of a journal's or a WAL's name? */
static bool is_beside(const char *name, const char *path, size_t bytes)
{
    if (strncmp(name, path, bytes) != 0) {
        return false;
    }
    const char *end = name + bytes;
    return strcmp(end, "-journal") == 0 || strcmp(end, "-wal") == 0;
}

static bool hidden(const char *name)
{
    if (near.serial != 0 && near.closed == atomic_load_explicit(&shim.closed, memory_order_acquire) &&
        is_beside(name, near.path, near.bytes)) {
        return true;
    }
    size_t bytes = without_suffix(name);
    if (bytes == 0) {
        return false;
    }
    pthread_mutex_lock(&list_lock);
    bool found = find_open(list[bucket_of(name, bytes)], name, bytes, false) != NULL;
    pthread_mutex_unlock(&list_lock);
    return found;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
    (void)vfs;
    if (hidden(name)) {
        return SQLITE_OK; /* the journal was emptied when it was closed */
    }
    return shim.parent->xDelete(shim.parent, name, sync_dir);
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *ret_answer)
{
    (void)vfs;
    if (hidden(name)) {
        *ret_answer = 0;
        return SQLITE_OK;
    }
    return shim.parent->xAccess(shim.parent, name, flags, ret_answer); /* the truth about super-journals, too */
}

/* --- sleeping for the turn ---------------------------------------------------------------------------------------------- */

/* SQLite's busy handler sleeps through xSleep on the thread that got SQLITE_BUSY.  It then waits in the queue for the turn, and
 * goes on as soon as the turn is offered: near.armed. */
uint64_t rq_shim_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

void rq_shim_wait_arm(const struct rq_shim_db *db)
{
    if (db->view.slot_held) {
        near.armed = db->serial;
        near.armed_us = rq_shim_now_us();
    }
}

void rq_shim_wait_disarm(void)
{
    near.armed = 0;
}

static struct rq_shim_db *find_serial(uint64_t serial)
{
    struct rq_shim_db *found = NULL;
    pthread_mutex_lock(&list_lock);
    for (uint32_t i = 0; i < BUCKET_COUNT && found == NULL; i++) {
        found = list[i];
        while (found != NULL && found->serial != serial) {
            found = found->next;
        }
    }
    if (found != NULL) {
        found->ref_count++;
    }
    pthread_mutex_unlock(&list_lock);
    return found;
}

static int vfs_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    struct rq_shim_db *db = NULL;
    if (near.armed != 0 && us > 0 && rq_shim_now_us() - near.armed_us < ARMED_US) {
        db = find_serial(near.armed);
    }
    near.armed = 0;
    if (db == NULL) {
        return shim.parent->xSleep(shim.parent, us);
    }
    (void)rq_turn_wait(db->view.control, db->view.slot, (uint64_t)us); /* whether offered or not, the next try tells */
    db_unref(db);
    return us;
}

/* --- opening ------------------------------------------------------------------------------------------------------------ */

static bool exists_in(const char *path, size_t dir_bytes, const char *name)
{
    char full[4096];
    size_t name_bytes = strlen(name);
    if (dir_bytes + 1 + name_bytes >= sizeof full) {
        return false;
    }
    memcpy(full, path, dir_bytes);
    full[dir_bytes] = '/';
    memcpy(full + dir_bytes + 1, name, name_bytes + 1);
    struct rq_file_info info;
    enum rq_err err = shim.config.disk->ops->stat(shim.config.disk, full, &info);
    return err != RQ_NOTFOUND; /* raft/ may be closed to us; and who takes a served database for a file does harm */
}

static bool served_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t dir_bytes = slash == NULL ? 0 : (size_t)(slash - path);
    /* raft/node: while raftd is down.  Any folder may be called raft. */
    return slash != NULL && (exists_in(path, dir_bytes, "raftd.sock") || exists_in(path, dir_bytes, "raft/node"));
}

static bool servable_name(const char *name)
{
    static const char *const taken[] = { "-wal", "-shm", "-journal", "-rqctl" };
    size_t bytes = strlen(name);
    bool good = bytes > 0 && bytes <= RQ_DB_NAME_MAX && name[0] != '.' && strcmp(name, "raftd.sock") != 0;
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        size_t suffix_bytes = strlen(taken[i]);
        good = good && !(bytes >= suffix_bytes && strcmp(name + bytes - suffix_bytes, taken[i]) == 0);
    }
    return good;
}

static bool any_open(void)
{
    bool any = false;
    pthread_mutex_lock(&list_lock);
    for (uint32_t i = 0; i < BUCKET_COUNT && !any; i++) {
        any = list[i] != NULL;
    }
    pthread_mutex_unlock(&list_lock);
    return any;
}

/* Is an unserved database asked for with the wish that it be served?  vfs=rqvfs says so.  sqlite3_open_v2(..., "rqvfs") does too,
 * but cannot be told from ATTACH and VACUUM INTO on a connection whose main database is ours; those mean a file as it is. */
static bool wants_serving(const char *name, int flags)
{
    const char *vfs_name = uri_text(name, flags, "vfs");
    if (vfs_name != NULL) {
        return strcmp(vfs_name, shim.vfs.zName) == 0;
    }
    return !atomic_load(&shim.is_default) && !any_open();
}

enum rq_err rq_shim_reach(struct rq_shim_db *db, bool create)
{
    enum rq_err err = rq_snapshot_open(&db->view);
    if (err == RQ_NOTFOUND || err == RQ_UNREADY || err == RQ_PERM) {
        err = db->sink->ops->open(db->sink, db->name, create);
        if (err == RQ_OK) {
            err = rq_snapshot_open(&db->view);
        } else {
            rq_shim_log_away(db, rq_shim_code(err, SQLITE_CANTOPEN));
        }
    }
    return err;
}

/* Everything that a connection owns; also of one that is half made. */
static void db_free(struct rq_shim_db *db)
{
    rq_spill_fini(&db->journal);
    rq_overlay_fini(&db->dirty);
    rq_overlay_fini(&db->committed);
    rq_hold_free(db->hold);
    rq_snapshot_fini(&db->view);
    if (db->sink != NULL) {
        db->sink->ops->close(db->sink);
    }
    free(db->path);
    free(db);
}

static void db_unref(struct rq_shim_db *db)
{
    pthread_mutex_lock(&list_lock);
    bool last = --db->ref_count == 0;
    pthread_mutex_unlock(&list_lock);
    if (last) {
        db_free(db);
    }
}

void rq_shim_close(struct rq_shim_db *db)
{
    pthread_mutex_lock(&list_lock);
    struct rq_shim_db **at = &list[bucket_of(db->path, db->path_bytes)];
    while (*at != db) {
        at = &(*at)->next;
    }
    *at = db->next;
    atomic_fetch_add(&shim.closed, 1);
    pthread_mutex_unlock(&list_lock);
    db_unref(db);
}

int rq_shim_sink_replace(struct rq_shim_db *db, struct rq_sink *sink)
{
    if (db->lock != SQLITE_LOCK_NONE || rq_hold_taken(db->hold)) {
        return SQLITE_MISUSE;
    }
    pthread_mutex_lock(&list_lock);
    struct rq_sink *former = db->sink;
    db->sink = sink;
    pthread_mutex_unlock(&list_lock);
    former->ops->close(former);
    rq_hold_free(db->hold);
    db->hold = NULL;
    return SQLITE_OK;
}

static unsigned uri_timeout_ms(const char *name, int flags)
{
    const char *text = uri_text(name, flags, "timeout");
    if (text == NULL) {
        return TIMEOUT_DEFAULT_MS;
    }
    char *end;
    errno = 0;
    long ms = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || ms < 0 || ms > TIMEOUT_MAX_MS) {
        return TIMEOUT_DEFAULT_MS;
    }
    return (unsigned)ms;
}

static bool uri_true(const char *name, int flags, const char *key)
{
    return (flags & SQLITE_OPEN_URI) != 0 && sqlite3_uri_boolean(name, key, 0) != 0;
}

static int check_served(const char *name, int flags)
{
    if (uri_true(name, flags, "immutable") || uri_true(name, flags, "nolock")) {
        /* SQLite would read without ever taking a lock, so without a snapshot. */
        sqlite3_log(SQLITE_CANTOPEN, "rqvfs: %s: immutable=1 and nolock=1 cannot be had for a replicated database",
                    name);
        return SQLITE_CANTOPEN;
    }
    if (!servable_name(strrchr(name, '/') + 1)) {
        sqlite3_log(SQLITE_CANTOPEN, "rqvfs: %s: a replicated database cannot have this name", name);
        return SQLITE_CANTOPEN;
    }
    return SQLITE_OK;
}

/* Takes the control page, if this process has it already. */
static int open_served(const char *name, sqlite3_file *file, int flags, int *ret_flags, struct rq_control *page)
{
    struct rq_shim_db *db = calloc(1, sizeof *db);
    if (db == NULL) {
        rq_control_share_put(page);
        return SQLITE_NOMEM;
    }
    rq_snapshot_init(&db->view, shim.config.disk);
    db->view.control = page;
    db->ref_count = 1;
    db->generation = atomic_load(&shim.generation);
    db->read_only = (flags & SQLITE_OPEN_READONLY) != 0;
    db->powersafe = true;
    rq_overlay_init(&db->dirty, shim.config.disk, shim.spill_dir, shim.config.memory_max);
    rq_overlay_init(&db->committed, shim.config.disk, shim.spill_dir, shim.config.memory_max);
    rq_spill_init(&db->journal, shim.config.disk, shim.spill_dir, shim.config.memory_max);
    db->path_bytes = strlen(name);
    db->path = malloc(db->path_bytes + 1);
    int code = check_served(name, flags);
    if (code != SQLITE_OK) {
        goto undo;
    }
    code = SQLITE_NOMEM;
    if (db->path == NULL) {
        goto undo;
    }
    memcpy(db->path, name, db->path_bytes + 1);
    db->name = strrchr(db->path, '/') + 1;
    db->view.path = db->path;
    const char *socket = uri_text(name, flags, "raftd");
    db->sink = shim.config.sink_new(shim.config.ctx, db->path, socket != NULL ? socket : getenv("RQVFS_RAFTD"),
                                    uri_timeout_ms(name, flags));
    if (db->sink == NULL) {
        goto undo;
    }
    const char *wrong = rq_shim_read_set(db, uri_text(name, flags, "consistency"), uri_text(name, flags, "freshness"));
    if (wrong != NULL) {
        sqlite3_log(SQLITE_CANTOPEN, "rqvfs: %s: %s", name, wrong);
        code = SQLITE_CANTOPEN;
        goto undo;
    }
    if (db->sink->ops->commit == NULL) {
        db->hold = rq_hold_new(db, shim.config.disk, shim.spill_dir, shim.config.memory_max);
        if (db->hold == NULL) {
            goto undo;
        }
    }
    enum rq_err err = rq_shim_reach(db, (flags & SQLITE_OPEN_CREATE) != 0);
    if (err != RQ_OK) {
        code = rq_shim_code(err, SQLITE_CANTOPEN);
        goto undo;
    }
    pthread_mutex_lock(&list_lock);
    db->serial = ++serial_last;
    uint32_t bucket = bucket_of(db->path, db->path_bytes);
    db->next = list[bucket];
    list[bucket] = db;
    pthread_mutex_unlock(&list_lock);
    ((struct rq_shim_file *)file)->db = db;
    file->pMethods = &rq_shim_db_methods;
    if (ret_flags != NULL) {
        *ret_flags = flags;
    }
    return SQLITE_OK;

undo:
    db_free(db);
    return code;
}

/* default=1: for a program that can name rqvfs once, in the first thing it opens or attaches, and nowhere else. */
static int become_default(void)
{
    atomic_store(&shim.is_default, true);
    return sqlite3_vfs_register(&shim.vfs, 1);
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
    (void)vfs;
    file->pMethods = NULL;
    /* With CREATE: a transaction begins.  Without: SQLite looks into what a super-journal names, which is never one of ours. */
    if (name != NULL && (flags & SQLITE_OPEN_MAIN_JOURNAL) != 0 && (flags & SQLITE_OPEN_CREATE) != 0) {
        bool several;
        struct rq_shim_db *db = rq_shim_find_writer(name, &several);
        if (db == NULL && several) {
            return SQLITE_CANTOPEN;
        }
        if (db != NULL) {
            ((struct rq_shim_file *)file)->db = db;
            file->pMethods = &rq_shim_journal_methods;
            if (ret_flags != NULL) {
                *ret_flags = flags;
            }
            return SQLITE_OK;
        }
    }
    if (name != NULL && (flags & SQLITE_OPEN_MAIN_DB) != 0) {
        struct rq_control *page = rq_snapshot_known_page(shim.config.disk, name);
        if (page != NULL || uri_text(name, flags, "raftd") != NULL || served_directory(name)) {
            int code = open_served(name, file, flags, ret_flags, page);
            return code == SQLITE_OK && uri_true(name, flags, "default") ? become_default() : code;
        }
        if (wants_serving(name, flags)) {
            sqlite3_log(SQLITE_CANTOPEN, "rqvfs: %s: its directory is not served: start \"raftd DIRECTORY\" for it",
                        name);
            return SQLITE_CANTOPEN;
        }
    }
    return shim.parent->xOpen(shim.parent, name, file, flags, ret_flags);
}

/* --- fork --------------------------------------------------------------------------------------------------------------- */

static void fork_prepare(void)
{
    pthread_mutex_lock(&list_lock);
    rq_control_share_fork_lock();
    rq_files_fork_lock();
}

static void fork_parent(void)
{
    rq_files_fork_unlock();
    rq_control_share_fork_unlock();
    pthread_mutex_unlock(&list_lock);
}

/* What was inherited is closed at once, not when the child closes its connections: a slot belongs to whoever has its file open,
 * and raftd takes the end of a stream for the end of its connection. */
static void fork_child(void)
{
    atomic_fetch_add(&shim.generation, 1);
    for (uint32_t i = 0; i < BUCKET_COUNT; i++) {
        for (struct rq_shim_db *db = list[i]; db != NULL; db = db->next) {
            db->sink->ops->orphan(db->sink);
            rq_snapshot_orphan(&db->view);
        }
    }
    rq_control_share_fork_orphan();
    rq_files_fork_orphan();
    near.serial = 0;
    near.armed = 0;
    rq_files_fork_unlock();
    rq_control_share_fork_unlock();
    pthread_mutex_unlock(&list_lock);
}

/* --- registration ------------------------------------------------------------------------------------------------------- */

static int vfs_full_pathname(sqlite3_vfs *vfs, const char *name, int bytes, char *ret_path)
{
    (void)vfs;
    return shim.parent->xFullPathname(shim.parent, name, bytes, ret_path);
}

static void *vfs_dl_open(sqlite3_vfs *vfs, const char *name)
{
    (void)vfs;
    return shim.parent->xDlOpen(shim.parent, name);
}

static void vfs_dl_error(sqlite3_vfs *vfs, int bytes, char *ret_text)
{
    (void)vfs;
    shim.parent->xDlError(shim.parent, bytes, ret_text);
}

static void (*vfs_dl_sym(sqlite3_vfs *vfs, void *library, const char *symbol))(void)
{
    (void)vfs;
    return shim.parent->xDlSym(shim.parent, library, symbol);
}

static void vfs_dl_close(sqlite3_vfs *vfs, void *library)
{
    (void)vfs;
    shim.parent->xDlClose(shim.parent, library);
}

static int vfs_randomness(sqlite3_vfs *vfs, int bytes, char *ret_bytes)
{
    (void)vfs;
    return shim.parent->xRandomness(shim.parent, bytes, ret_bytes);
}

static int vfs_current_time(sqlite3_vfs *vfs, double *ret_time)
{
    (void)vfs;
    return shim.parent->xCurrentTime(shim.parent, ret_time);
}

static int vfs_current_time_int64(sqlite3_vfs *vfs, sqlite3_int64 *ret_time)
{
    (void)vfs;
    return shim.parent->xCurrentTimeInt64(shim.parent, ret_time);
}

static int vfs_last_error(sqlite3_vfs *vfs, int bytes, char *ret_text)
{
    (void)vfs;
    return shim.parent->xGetLastError != NULL ? shim.parent->xGetLastError(shim.parent, bytes, ret_text) : 0;
}

static int vfs_set_system_call(sqlite3_vfs *vfs, const char *name, sqlite3_syscall_ptr call)
{
    (void)vfs;
    return shim.parent->xSetSystemCall(shim.parent, name, call);
}

static sqlite3_syscall_ptr vfs_get_system_call(sqlite3_vfs *vfs, const char *name)
{
    (void)vfs;
    return shim.parent->xGetSystemCall(shim.parent, name);
}

static const char *vfs_next_system_call(sqlite3_vfs *vfs, const char *name)
{
    (void)vfs;
    return shim.parent->xNextSystemCall(shim.parent, name);
}

static void choose_spill_dir(void)
{
    const char *const candidates[] = { getenv("SQLITE_TMPDIR"), getenv("TMPDIR"), "/var/tmp", "/usr/tmp" };
    memcpy(shim.spill_dir, "/tmp", sizeof "/tmp");
    for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
        struct rq_file_info info;
        size_t bytes = candidates[i] == NULL ? 0 : strlen(candidates[i]);
        if (bytes > 0 && bytes < sizeof shim.spill_dir &&
            shim.config.disk->ops->stat(shim.config.disk, candidates[i], &info) == RQ_OK) {
            memcpy(shim.spill_dir, candidates[i], bytes + 1);
            return;
        }
    }
}

static void fill_vfs(void)
{
    const sqlite3_vfs *parent = shim.parent;
    int own_bytes = (int)sizeof(struct rq_shim_file);
    shim.vfs = (sqlite3_vfs){
        .iVersion = parent->iVersion < 3 ? parent->iVersion : 3,
        .szOsFile = parent->szOsFile > own_bytes ? parent->szOsFile : own_bytes,
        .mxPathname = parent->mxPathname,
        .zName = "rqvfs",
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_pathname,
        .xDlOpen = vfs_dl_open,
        .xDlError = vfs_dl_error,
        .xDlSym = vfs_dl_sym,
        .xDlClose = vfs_dl_close,
        .xRandomness = vfs_randomness,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_current_time,
        .xGetLastError = vfs_last_error,
        .xCurrentTimeInt64 = vfs_current_time_int64,
        .xSetSystemCall = vfs_set_system_call,
        .xGetSystemCall = vfs_get_system_call,
        .xNextSystemCall = vfs_next_system_call,
    };
}

int rq_shim_register(const struct rq_shim_config *config)
{
    static bool fork_watched;
    static pthread_mutex_t register_lock = PTHREAD_MUTEX_INITIALIZER;
    int code = SQLITE_OK;
    pthread_mutex_lock(&register_lock);
    if (!fork_watched) {
        if (pthread_atfork(fork_prepare, fork_parent, fork_child) != 0) {
            code = SQLITE_NOMEM;
            goto done;
        }
        fork_watched = true;
    }
    if (sqlite3_vfs_find("rqvfs") != &shim.vfs) {
        shim.parent = sqlite3_vfs_find(NULL);
        if (shim.parent == NULL) {
            code = SQLITE_ERROR;
            goto done;
        }
        shim.config = *config;
        if (shim.config.memory_max == 0) {
            shim.config.memory_max = MEMORY_MAX_DEFAULT;
        }
        choose_spill_dir();
        fill_vfs();
    }
    /* Who asks again without the wish does not take away what is; SQLite started anew has. */
    atomic_store(&shim.is_default, config->make_default || sqlite3_vfs_find(NULL) == &shim.vfs);
    code = sqlite3_vfs_register(&shim.vfs, atomic_load(&shim.is_default));
done:
    pthread_mutex_unlock(&register_lock);
    return code;
}
