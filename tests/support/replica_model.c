#include "tests/support/replica_model.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/txn.h"
#include "tests/support/page1.h"

static void must(bool condition, const char *what)
{
    if (!condition) {
        printf("# replica_model: %s failed\n", what);
        abort();
    }
}

uint32_t model_random_u32(struct model *m)
{
    m->random = m->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(m->random >> 32);
}

void model_init(struct model *m, uint32_t page_size, uint64_t seed)
{
    *m = (struct model){ .dir = "/tmp/rqreplica.XXXXXX" };
    must(mkdtemp(m->dir) != NULL, "mkdtemp");
    snprintf(m->path, sizeof m->path, "%s/app.db", m->dir);
    snprintf(m->twin_path, sizeof m->twin_path, "%s/twin.db", m->dir);
    snprintf(m->hashes_path, sizeof m->hashes_path, "%s/hashes", m->dir);
    m->disk = rq_disk_real();
    m->random = seed * 2 + 1;
    m->state = (struct rq_replica_state){ .stamp = { .db_id = 77 }, .page_size = page_size };
    char control_path[128];
    snprintf(control_path, sizeof control_path, "%s-rqctl", m->path);
    must(rq_control_publish(m->disk, control_path, 1, 0644, &m->control) == RQ_OK, "rq_control_publish");
}

void model_fini(struct model *m)
{
    model_close(m);
    rq_control_close(&m->control);
    if (m->twin != NULL) {
        sqlite3_close(m->twin);
    }
    free(m->pages);
    static const char *const names[] = { "app.db",       "app.db-wal", "app.db-shm", "app.db-rqctl",
                                         "app.db-rqnew", "twin.db",    "old",        "hashes" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", m->dir, names[i]);
        unlink(path);
    }
    rmdir(m->dir);
}

static struct rq_replica_config config(struct model *m)
{
    return (struct rq_replica_config){
        .disk = m->disk,
        .path = m->path,
        .control = &m->control,
        .wal_soft_frames = m->soft_frames,
        .wal_hard_frames = m->hard_frames,
        .hashes_path = m->keeps_hashes ? m->hashes_path : NULL,
        .boot = 1,
    };
}

static enum rq_err hashes_keep(struct model *m)
{
    return m->keeps_hashes ? rq_replica_keep_hashes(m->replica, m->hashes_path, 1, &m->forgotten, m->text) : RQ_OK;
}

enum rq_err model_open(struct model *m)
{
    const struct rq_replica_config c = config(m);
    const enum rq_err err = rq_replica_open(&c, &m->replica, &m->state);
    return err == RQ_OK ? hashes_keep(m) : err;
}

void model_close(struct model *m)
{
    rq_replica_close(m->replica);
    m->replica = NULL;
}

/* --- transactions -------------------------------------------------------------------------------------------------------- */

/* The pages of `after` that are not the same in the model, leaving out those that rule Z makes. */
struct changed {
    const struct model *m;
    const uint8_t *after;
    uint32_t page_count;
    uint32_t next;
};

static enum rq_err changed_next(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    static const uint8_t zeros[65536];
    struct changed *c = ctx;
    const size_t page_size = c->m->state.page_size;
    for (; c->next < c->page_count; c->next++) {
        const uint8_t *page = c->after + c->next * page_size;
        const uint8_t *base = c->next < c->m->state.page_count ? c->m->pages + c->next * page_size : zeros;
        if (memcmp(page, base, page_size) != 0) {
            *ret_pgno = ++c->next;
            *ret_page = page;
            return RQ_OK;
        }
    }
    return RQ_NOTFOUND;
}

/* Takes pages.  On error the model stays as it was. */
static enum rq_err transact(struct model *m, uint8_t *pages, uint32_t page_count, uint64_t version)
{
    struct changed changed = { .m = m, .after = pages, .page_count = page_count };
    const struct rq_page_source source = { .ctx = &changed, .next = changed_next };
    struct rq_replica_state after = m->state;
    after.page_count = page_count;
    after.version = version;
    after.stamp.version_high = (uint32_t)(version >> 32);
    after.stamp.term = 3;
    after.stamp.index = m->state.stamp.index + 2;
    enum rq_err err;
    if (m->pages == NULL) {
        const struct rq_replica_config c = config(m);
        err = rq_replica_create(&c, &source, &after, &m->replica);
        err = err == RQ_OK ? hashes_keep(m) : err;
    } else {
        err = rq_replica_append(m->replica, &source, &after);
    }
    if (err != RQ_OK) {
        free(pages);
        return err;
    }
    free(m->pages);
    m->pages = pages;
    m->state = after;
    return RQ_OK;
}

static uint8_t *file_load(const char *path, size_t *ret_bytes)
{
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && fstat(fd, &st) == 0, "open");
    uint8_t *data = malloc((size_t)st.st_size + 1);
    must(data != NULL && read(fd, data, (size_t)st.st_size) == st.st_size, "read");
    close(fd);
    *ret_bytes = (size_t)st.st_size;
    return data;
}

enum rq_err model_sql(struct model *m, const char *sql)
{
    if (m->twin == NULL) {
        char pragmas[80];
        snprintf(pragmas, sizeof pragmas, "pragma page_size=%u; pragma synchronous=off", m->state.page_size);
        must(sqlite3_open(m->twin_path, &m->twin) == SQLITE_OK, "sqlite3_open");
        must(sqlite3_exec(m->twin, pragmas, NULL, NULL, NULL) == SQLITE_OK, "pragma");
    }
    char *message = NULL;
    if (sqlite3_exec(m->twin, sql, NULL, NULL, &message) != SQLITE_OK) {
        printf("# %s: %s\n", sql, message);
        must(false, "SQL on the twin");
    }
    size_t bytes;
    uint8_t *pages = file_load(m->twin_path, &bytes);
    return transact(m, pages, (uint32_t)(bytes / m->state.page_size), rq_get_u32(pages + 24));
}

enum rq_err model_random(struct model *m, uint32_t size_new)
{
    const size_t page_size = m->state.page_size;
    const uint32_t size_old = m->state.page_count;
    const uint64_t version = m->state.version + 1;
    if (size_new == 0) {
        const uint32_t kind = model_random_u32(m) % 8;
        size_new = kind == 0  ? 1 + model_random_u32(m) % 60
                   : kind < 3 ? size_old + 1 + model_random_u32(m) % 5
                              : size_old;
        size_new = size_new == 0 ? 3 : size_new;
    }
    uint8_t *pages = calloc(size_new, page_size);
    must(pages != NULL, "calloc");
    if (size_old > 0) {
        memcpy(pages, m->pages, (size_old < size_new ? size_old : size_new) * page_size);
    }
    for (uint32_t n = 1 + model_random_u32(m) % 6; n > 0; n--) {
        const uint32_t i = model_random_u32(m) % size_new;
        const uint32_t from = i == 0 ? 100 : 0;
        for (uint32_t at = from; at + 4 <= page_size; at += 4) {
            rq_put_u32(pages + i * page_size + at, model_random_u32(m));
        }
    }
    page1_head(pages, page_size, version, size_new);
    return transact(m, pages, size_new, version);
}

/* --- comparison ---------------------------------------------------------------------------------------------------------- */

bool model_matches(struct model *m)
{
    struct rq_replica_state state;
    rq_replica_get_state(m->replica, &state);
    if (!rq_stamp_equal(&state.stamp, &m->state.stamp) || state.version != m->state.version ||
        state.page_count != m->state.page_count) {
        printf("# state: version %llu of %u pages, not %llu of %u\n", (unsigned long long)state.version,
               state.page_count, (unsigned long long)m->state.version, m->state.page_count);
        return false;
    }
    static uint8_t page[65536];
    for (uint32_t pgno = 1; pgno <= m->state.page_count; pgno++) {
        const enum rq_err err = rq_replica_read(m->replica, pgno, page);
        if (err != RQ_OK || memcmp(page, m->pages + (size_t)(pgno - 1) * m->state.page_size, m->state.page_size) != 0) {
            printf("# page %u of version %llu: %s\n", pgno, (unsigned long long)m->state.version,
                   err != RQ_OK ? rq_err_name(err) : "differs");
            return false;
        }
    }
    return true;
}

bool model_file_matches(struct model *m)
{
    size_t bytes;
    uint8_t *file = file_load(m->path, &bytes);
    bool same = bytes == (size_t)m->state.page_count * m->state.page_size;
    if (same) {
        rq_page1_normalise(file);
        same = memcmp(file, m->pages, bytes) == 0;
    }
    free(file);
    return same;
}

sqlite3 *model_stock_open(struct model *m)
{
    sqlite3 *db = NULL;
    must(sqlite3_open(m->path, &db) == SQLITE_OK, "sqlite3_open of the replica");
    return db;
}

int64_t stock_int(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
    int64_t value = 0;
    if (code == SQLITE_OK) {
        code = sqlite3_step(stmt);
        value = code == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : 0;
    }
    sqlite3_finalize(stmt);
    return code == SQLITE_ROW || code == SQLITE_DONE ? value : -1000 - code;
}

bool stock_agrees(struct model *m, sqlite3 *db)
{
    static const char *const digests[] = {
        "select integrity_check = 'ok' from pragma_integrity_check",
        "select count(*) from t",
        "select coalesce(sum(a), 0) from t",
        "select coalesce(sum(length(b)), 0) from t",
    };
    for (size_t i = 0; i < sizeof digests / sizeof *digests; i++) {
        const int64_t stock = stock_int(db, digests[i]), twin = stock_int(m->twin, digests[i]);
        if (stock != twin || (i == 0 && stock != 1)) {
            printf("# %s: %lld, the twin says %lld\n", digests[i], (long long)stock, (long long)twin);
            return false;
        }
    }
    return true;
}

/* --- a process of its own -------------------------------------------------------------------------------------------- */

enum { SQL_BYTES = 256 };

static void stock_process_run(struct model *m, int fd)
{
    sqlite3 *db = NULL;
    char sql[SQL_BYTES];
    while (read(fd, sql, sizeof sql) == (ssize_t)sizeof sql) {
        if (db == NULL) {
            db = model_stock_open(m);
        }
        const int64_t value = stock_int(db, sql);
        if (write(fd, &value, sizeof value) != (ssize_t)sizeof value) {
            break;
        }
    }
    sqlite3_close(db);
    _exit(0);
}

struct stock_process stock_process_start(struct model *m)
{
    int fds[2];
    must(m->replica == NULL, "starting the process in time");
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
    const int pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
        close(fds[0]);
        stock_process_run(m, fds[1]);
    }
    close(fds[1]);
    return (struct stock_process){ .pid = pid, .fd = fds[0] };
}

int64_t stock_process_int(const struct stock_process *p, const char *sql)
{
    char text[SQL_BYTES] = { 0 };
    int64_t value;
    must(snprintf(text, sizeof text, "%s", sql) < (int)sizeof text, "a short statement");
    must(write(p->fd, text, sizeof text) == (ssize_t)sizeof text, "write to the process");
    must(read(p->fd, &value, sizeof value) == (ssize_t)sizeof value, "read from the process");
    return value;
}

void stock_process_end(struct stock_process *p)
{
    shutdown(p->fd, SHUT_RDWR); /* close() would not do: a later process has inherited it */
    close(p->fd);
    must(waitpid(p->pid, NULL, 0) == p->pid, "waitpid");
}
