#include "tests/support/local_sink.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raftd/wire/bytes.h"

static struct {
    pthread_mutex_t lock;
    char dir[200];
    bool running;
    struct local_db dbs[LOCAL_DB_MAX];
    int db_count;
    uint32_t id_next;
    uint64_t index, commits, pages, refusals;
    enum rq_err ordered, ready;
    bool has_order, order_applied;
    void (*before_commit)(void);
} local = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct local_sink {
    struct rq_sink sink;
    const char *name; /* borrows from path */
    char path[256];
};

static struct local_db *find(const char *name)
{
    for (int i = 0; i < local.db_count; i++) {
        if (strcmp(local.dbs[i].name, name) == 0) {
            return &local.dbs[i];
        }
    }
    return NULL;
}

struct local_db *local_db(const char *name)
{
    return find(name);
}

static enum rq_err db_publish(struct local_db *db)
{
    char control_path[400];
    snprintf(control_path, sizeof control_path, "%s/%s-rqctl", local.dir, db->name);
    enum rq_err err = rq_control_publish(rq_disk_real(), control_path, rq_boot_id(), 0600, &db->control);
    if (err != RQ_OK) {
        return err;
    }
    const struct rq_replica_config config = { .disk = rq_disk_real(), .path = db->path, .control = &db->control };
    atomic_store(&db->control.head->db_id, db->id);
    err = rq_replica_open(&config, &db->replica, &db->state);
    if (err == RQ_NOTFOUND) {
        atomic_store(&db->control.head->state, (uint32_t)RQ_DB_EMPTY);
        err = RQ_OK;
    }
    atomic_store(&db->control.head->ready, 1);
    return err;
}

void local_start(const char *dir)
{
    char raft[256];
    pthread_mutex_lock(&local.lock);
    if (strcmp(local.dir, dir) != 0) {
        snprintf(local.dir, sizeof local.dir, "%s", dir);
        mkdir(dir, 0700);
        snprintf(raft, sizeof raft, "%s/raft", dir);
        mkdir(raft, 0700);
        snprintf(raft, sizeof raft, "%s/raft/node", dir);
        close(open(raft, O_WRONLY | O_CREAT, 0600));
        local.db_count = 0;
    }
    for (int i = 0; i < local.db_count; i++) {
        if (db_publish(&local.dbs[i]) != RQ_OK) {
            abort();
        }
    }
    local.commits = 0;
    local.ready = RQ_OK;
    local.has_order = false;
    local.before_commit = NULL;
    local.running = true;
    pthread_mutex_unlock(&local.lock);
}

void local_stop(void)
{
    pthread_mutex_lock(&local.lock);
    for (int i = 0; i < local.db_count; i++) {
        rq_replica_close(local.dbs[i].replica);
        local.dbs[i].replica = NULL;
        rq_control_close(&local.dbs[i].control);
    }
    local.running = false;
    pthread_mutex_unlock(&local.lock);
}

/* Under the lock. */
static enum rq_err db_make(const char *name)
{
    if (local.db_count == LOCAL_DB_MAX) {
        return RQ_FULL;
    }
    struct local_db *db = &local.dbs[local.db_count++];
    *db = (struct local_db){ .id = ++local.id_next };
    snprintf(db->name, sizeof db->name, "%s", name);
    snprintf(db->path, sizeof db->path, "%s/%s", local.dir, name);
    return db_publish(db);
}

static enum rq_err sink_open(struct rq_sink *sink, const char *name, bool create)
{
    (void)sink;
    pthread_mutex_lock(&local.lock);
    enum rq_err err = local.running ? local.ready : RQ_AWAY;
    if (err == RQ_OK && find(name) == NULL) {
        err = create ? db_make(name) : RQ_NOTFOUND;
    }
    pthread_mutex_unlock(&local.lock);
    return err;
}

static enum rq_err sink_ready(struct rq_sink *sink, uint64_t *ret_session)
{
    (void)sink;
    pthread_mutex_lock(&local.lock);
    enum rq_err err = local.running ? local.ready : RQ_AWAY;
    pthread_mutex_unlock(&local.lock);
    *ret_session = 1;
    return err;
}

struct counting_source {
    const struct rq_sink_pages *pages;
    uint32_t count;
};

static enum rq_err counting_next(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    struct counting_source *c = ctx;
    enum rq_err err = c->pages->next(c->pages->ctx, ret_pgno, ret_page);
    c->count += err == RQ_OK;
    return err;
}

/* Under the lock. */
static enum rq_err apply(struct local_db *db, const struct rq_page_source *pages, uint32_t page_size,
                         uint32_t page_count, uint64_t transactions)
{
    struct rq_replica_state after = { .version = db->state.version + transactions,
                                      .page_size = page_size,
                                      .page_count = page_count };
    after.stamp = (struct rq_stamp){ .db_id = db->id, .term = 1, .index = ++local.index };
    after.stamp.version_high = (uint32_t)(after.version >> 32);
    const struct rq_replica_config config = { .disk = rq_disk_real(), .path = db->path, .control = &db->control };
    enum rq_err err = db->replica == NULL ? rq_replica_create(&config, pages, &after, &db->replica)
                                          : rq_replica_append(db->replica, pages, &after);
    if (err == RQ_OK) {
        db->state = after;
        local.commits++;
    }
    return err;
}

static enum rq_err sink_commit(struct rq_sink *sink, const struct rq_sink_commit *commit, uint64_t *ret_version)
{
    struct local_sink *s = (struct local_sink *)sink;
    void (*call)(void) = local.before_commit;
    local.before_commit = NULL;
    if (call != NULL) {
        call();
    }
    pthread_mutex_lock(&local.lock);
    struct local_db *db = find(s->name);
    enum rq_err ordered = local.has_order ? local.ordered : RQ_OK;
    bool applied = !local.has_order || local.order_applied;
    local.has_order = false;
    enum rq_err err = RQ_OK;
    if (!local.running) {
        err = RQ_AWAY;
    } else if (applied && (commit->db_id != db->id || commit->base != db->state.version)) {
        err = RQ_REFUSED;
        local.refusals++;
    } else if (applied) {
        /* Twice from the start: a sink may send again. */
        struct counting_source counting = { .pages = commit->pages };
        uint32_t pgno;
        const uint8_t *page;
        err = counting_next(&counting, &pgno, &page);
        if (err == RQ_NOTFOUND || (err == RQ_OK && pgno != 1)) {
            abort(); /* every commit carries page 1 */
        }
        commit->pages->rewind(commit->pages->ctx);
        counting.count = 0;
        const struct rq_page_source source = { .ctx = &counting, .next = counting_next };
        err = err == RQ_OK ? apply(db, &source, commit->page_size, commit->db_page_count, 1) : err;
        local.pages = counting.count;
        if (err == RQ_OK && counting.count != commit->page_count) {
            abort();
        }
    }
    *ret_version = db->state.version;
    pthread_mutex_unlock(&local.lock);
    return ordered != RQ_OK ? ordered : err;
}

struct local_reads local_reads;

static enum rq_err sink_read(struct rq_sink *sink, uint32_t db_id, uint64_t max_age_ms, bool again,
                             uint64_t *ret_left_ms)
{
    (void)sink;
    local_reads.count++;
    local_reads.db_id = db_id;
    local_reads.max_age_ms = max_age_ms;
    local_reads.again = again;
    *ret_left_ms = local_reads.left_ms;
    return local_reads.err;
}

static const char *sink_text(struct rq_sink *sink)
{
    (void)sink;
    return "the local sink says no";
}

static void sink_close(struct rq_sink *sink)
{
    free(sink);
}

static void sink_orphan(struct rq_sink *sink)
{
    (void)sink; /* there is no connection */
}

struct rq_sink *local_sink_new(void *ctx, const char *path, const char *raftd_socket, unsigned timeout_ms)
{
    static const struct rq_sink_ops ops = {
        .open = sink_open,
        .ready = sink_ready,
        .commit = sink_commit,
        .read = sink_read,
        .text = sink_text,
        .close = sink_close,
        .orphan = sink_orphan,
    };
    (void)ctx;
    (void)raftd_socket;
    (void)timeout_ms;
    struct local_sink *s = calloc(1, sizeof *s);
    if (s != NULL) {
        s->sink.ops = &ops;
        snprintf(s->path, sizeof s->path, "%s", path);
        s->name = strrchr(s->path, '/') + 1;
    }
    return s != NULL ? &s->sink : NULL;
}

void local_order(enum rq_err outcome, bool applied)
{
    local.has_order = true;
    local.ordered = outcome;
    local.order_applied = applied;
}

void local_set_ready(enum rq_err err)
{
    local.ready = err;
}

void local_before_commit(void (*call)(void))
{
    local.before_commit = call;
}

uint64_t local_commit_count(void)
{
    return local.commits;
}

uint64_t local_refusal_count(void)
{
    return local.refusals;
}

uint64_t local_page_count(void)
{
    return local.pages;
}

struct one_page {
    const uint8_t *page;
    bool given;
};

static enum rq_err one_page_next(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    struct one_page *one = ctx;
    if (one->given) {
        return RQ_NOTFOUND;
    }
    one->given = true;
    *ret_pgno = 1;
    *ret_page = one->page;
    return RQ_OK;
}

void local_drop(const char *name)
{
    pthread_mutex_lock(&local.lock);
    struct local_db *db = find(name);
    const char *const suffixes[] = { "", "-wal", "-shm", "-rqctl" };
    atomic_store(&db->control.head->gone, 1);
    rq_replica_close(db->replica);
    rq_control_close(&db->control);
    for (int i = 0; i < 4; i++) {
        char path[300];
        snprintf(path, sizeof path, "%s%s", db->path, suffixes[i]);
        unlink(path);
    }
    *db = local.dbs[--local.db_count];
    pthread_mutex_unlock(&local.lock);
}

void local_rename_id(const char *name, uint32_t id)
{
    pthread_mutex_lock(&local.lock);
    struct local_db *db = find(name);
    db->id = id;
    atomic_store(&db->control.head->db_id, id);
    pthread_mutex_unlock(&local.lock);
}

void local_foreign_commit(const char *name)
{
    static _Thread_local uint8_t page[65536];
    pthread_mutex_lock(&local.lock);
    struct local_db *db = find(name);
    if (rq_replica_read(db->replica, 1, page) != RQ_OK) {
        abort();
    }
    rq_put_u32(page + 24, rq_get_u32(page + 24) + 1);
    rq_put_u32(page + 92, rq_get_u32(page + 24));
    struct one_page one = { .page = page };
    const struct rq_page_source source = { .ctx = &one, .next = one_page_next };
    if (apply(db, &source, db->state.page_size, db->state.page_count, 1) != RQ_OK) {
        abort();
    }
    pthread_mutex_unlock(&local.lock);
}

enum rq_err local_backfill(const char *name)
{
    return rq_replica_backfill(find(name)->replica);
}

enum rq_err local_reset(const char *name)
{
    return rq_replica_reset(find(name)->replica);
}

enum rq_err local_read(const char *name, uint32_t pgno, uint8_t *page, uint32_t page_size)
{
    pthread_mutex_lock(&local.lock);
    struct local_db *db = find(name);
    enum rq_err err = RQ_OK;
    if (db->replica != NULL) {
        err = rq_replica_read(db->replica, pgno, page);
    } else {
        memset(page, 0, page_size);
    }
    pthread_mutex_unlock(&local.lock);
    return err;
}

enum rq_err local_apply(const char *name, const struct rq_txn_head *head, const struct rq_page_source *pages)
{
    pthread_mutex_lock(&local.lock);
    struct local_db *db = find(name);
    enum rq_err err = head->db_id != db->id || head->base != db->state.version ? RQ_REFUSED : RQ_OK;
    if (err == RQ_OK) {
        err = apply(db, pages, head->page_size, head->page_count, head->version - head->base);
    }
    pthread_mutex_unlock(&local.lock);
    return err;
}
