/* snapshot: always one commit as a whole, the newest at begin, whatever is written, back-filled and reset meanwhile; without a
 * call to the disk while nothing changes; and whatever lies in shared memory, no access outside of it. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "raftd/wire/bytes.h"
#include "tests/support/local_sink.h"
#include "tests/support/scratch.h"
#include "tests/support/tap.h"
#include "vfs/snapshot.h"

#define PAGE  512u
#define PAGES 40u
#define SUM   1000000u

static char dir[64];
static char path[128], page_path[160];

/* --- a disk that counts ------------------------------------------------------------------------------------------------- */

static atomic_uint disk_calls, disk_opens;
static struct rq_disk_ops counting_ops;
static struct rq_disk counting_disk = { &counting_ops };

static enum rq_err counting_read(struct rq_file *f, void *data, size_t bytes, uint64_t offset, size_t *ret_bytes)
{
    atomic_fetch_add(&disk_calls, 1);
    return rq_disk_real()->ops->read(f, data, bytes, offset, ret_bytes);
}

static enum rq_err counting_info(struct rq_file *f, struct rq_file_info *ret_info)
{
    atomic_fetch_add(&disk_calls, 1);
    return rq_disk_real()->ops->info(f, ret_info);
}

static enum rq_err counting_lock(struct rq_file *f, uint64_t offset, uint64_t bytes, enum rq_lock kind)
{
    atomic_fetch_add(&disk_calls, 1);
    return rq_disk_real()->ops->lock(f, offset, bytes, kind);
}

static enum rq_err counting_stat(struct rq_disk *d, const char *name, struct rq_file_info *ret_info)
{
    (void)d;
    atomic_fetch_add(&disk_calls, 1);
    return rq_disk_real()->ops->stat(rq_disk_real(), name, ret_info);
}

static enum rq_err counting_open(struct rq_disk *d, const char *name, int flags, unsigned mode,
                                 struct rq_file **ret_file)
{
    (void)d;
    atomic_fetch_add(&disk_calls, 1);
    atomic_fetch_add(&disk_opens, 1);
    return rq_disk_real()->ops->open(rq_disk_real(), name, flags, mode, ret_file);
}

/* --- commits: values move between pages, their sum stays ---------------------------------------------------------------- */

static uint8_t content[PAGES + 1][PAGE];

struct commit_pages {
    uint32_t pgnos[4];
    uint32_t count, index;
};

static void commit_rewind(void *ctx)
{
    ((struct commit_pages *)ctx)->index = 0;
}

static enum rq_err commit_next(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    struct commit_pages *c = ctx;
    if (c->index == c->count) {
        return RQ_NOTFOUND;
    }
    *ret_pgno = c->pgnos[c->index++];
    *ret_page = content[*ret_pgno];
    return RQ_OK;
}

static enum rq_err commit_pages(struct commit_pages *c)
{
    struct local_db *db = local_db("app.db");
    struct rq_sink *sink = local_sink_new(NULL, path, NULL, 0);
    rq_put_u32(content[1] + 24, (uint32_t)db->state.version + 1);
    rq_put_u32(content[1] + 92, (uint32_t)db->state.version + 1);
    const struct rq_sink_pages pages = { .ctx = c, .rewind = commit_rewind, .next = commit_next };
    const struct rq_sink_commit commit = {
        .db_id = db->id,
        .base = db->state.version,
        .page_size = PAGE,
        .db_page_count = PAGES,
        .page_count = c->count,
        .pages = &pages,
    };
    uint64_t version;
    enum rq_err err = sink->ops->commit(sink, &commit, &version);
    sink->ops->close(sink);
    return err;
}

static enum rq_err commit_one(unsigned random)
{
    uint32_t a = 2 + random % (PAGES - 2), b = a + 1;
    rq_put_u32(content[a], rq_get_u32(content[a]) + 1);
    rq_put_u32(content[b], rq_get_u32(content[b]) - 1);
    struct commit_pages c = { .pgnos = { 1, a, b }, .count = 3 };
    return commit_pages(&c);
}

static void start(void)
{
    struct rq_sink *sink = local_sink_new(NULL, path, NULL, 0);
    if (local_db("app.db") != NULL) {
        local_drop("app.db");
    }
    check_eq(sink->ops->open(sink, "app.db", true), RQ_OK);
    sink->ops->close(sink);
    memset(content, 0, sizeof content);
    memcpy(content[1], "SQLite format 3", 16);
    rq_put_u16(content[1] + 16, PAGE);
    content[1][18] = content[1][19] = 1;
    rq_put_u32(content[1] + 28, PAGES);
    rq_put_u32(content[PAGES], SUM);
    struct commit_pages c = { .pgnos = { 1, PAGES }, .count = 2 };
    check_eq(commit_pages(&c), RQ_OK);
}

/* --- readers ------------------------------------------------------------------------------------------------------------ */

static void reader_init(struct rq_snapshot *s, struct rq_disk *disk)
{
    rq_snapshot_init(s, disk);
    s->path = path;
}

/* Takes part without a slot, as if all were taken. */
static void forbid_slot(struct rq_snapshot *s)
{
    s->claims_refused = 1;
}

static enum rq_err sum_of(struct rq_snapshot *s, uint32_t *ret_sum)
{
    uint32_t sum = 0;
    for (uint32_t pgno = 2; pgno <= s->page_count; pgno++) {
        uint8_t word[4];
        enum rq_err err = rq_snapshot_read(s, pgno, 0, word, sizeof word);
        if (err != RQ_OK) {
            return err;
        }
        sum += rq_get_u32(word);
    }
    *ret_sum = sum;
    return RQ_OK;
}

static void count_calls(void)
{
    counting_ops = *rq_disk_real()->ops;
    counting_ops.read = counting_read;
    counting_ops.info = counting_info;
    counting_ops.lock = counting_lock;
    counting_ops.stat = counting_stat;
    counting_ops.open = counting_open;
}

static void an_unchanged_snapshot_costs_no_call(void)
{
    struct rq_snapshot s;
    uint32_t sum = 0;
    start();
    count_calls();
    reader_init(&s, &counting_disk);
    check_eq(rq_snapshot_open(&s), RQ_OK);
    check_eq(commit_one(1), RQ_OK);
    check_eq(rq_snapshot_begin(&s), RQ_OK);
    check_eq(s.state, RQ_SNAPSHOT_ACTIVE);
    rq_snapshot_end(&s, true);
    check_eq(s.state, RQ_SNAPSHOT_IDLE);
    unsigned before = atomic_load(&disk_calls);
    for (int i = 0; i < 100; i++) {
        check_eq(rq_snapshot_begin(&s), RQ_OK);
        check(rq_snapshot_current(&s));
        rq_snapshot_end(&s, true);
    }
    check_eq(atomic_load(&disk_calls), before);
    check_eq(commit_one(5), RQ_OK);
    check_eq(rq_snapshot_begin(&s), RQ_OK);
    check_eq(s.version, 3);
    check(atomic_load(&disk_calls) > before); /* so it does count */
    check_eq(commit_one(6), RQ_OK);
    check(!rq_snapshot_current(&s));
    check_eq(sum_of(&s, &sum), RQ_OK);
    check_eq(sum, SUM);
    rq_snapshot_end(&s, true);
    rq_snapshot_fini(&s);
}

static void begin_new(struct rq_snapshot *s)
{
    reader_init(s, &counting_disk);
    check_eq(rq_snapshot_open(s), RQ_OK);
    check_eq(rq_snapshot_begin(s), RQ_OK);
}

static void connections_share_what_is_open(void)
{
    struct rq_snapshot a, b;
    struct rq_control page;
    start();
    count_calls();
    begin_new(&a);
    unsigned opens = atomic_load(&disk_opens);
    begin_new(&b);
    check(opens > 0);
    check_eq(atomic_load(&disk_opens), opens);
    check(a.control == b.control && a.files == b.files);
    check(a.slot != b.slot);

    uint32_t slots[2] = { a.slot, b.slot };
    check_eq(rq_control_open(rq_disk_real(), page_path, rq_boot_id(), &page), RQ_OK);
    rq_snapshot_fini(&a);
    rq_control_sweep(&page); /* as raftd: a slot is somebody's whose lock is taken */
    check_eq(atomic_load(&page.slots[slots[0]].pid), 0);
    check(atomic_load(&page.slots[slots[1]].pid) != 0);
    check_eq(rq_snap_state(atomic_load(&page.slots[slots[1]].snapshot)), RQ_SNAP_ACTIVE);
    rq_snapshot_fini(&b);
    rq_control_close(&page);
}

static bool lock_taken(const char *suffix, uint64_t offset, uint64_t bytes)
{
    char name[160];
    struct rq_file *f;
    bool taken = false;
    (void)snprintf(name, sizeof name, "%s%s", path, suffix);
    check_eq(rq_disk_real()->ops->open(rq_disk_real(), name, RQ_OPEN_WRITE, 0, &f), RQ_OK);
    check_eq(rq_disk_real()->ops->lock_test(f, offset, bytes, &taken), RQ_OK);
    rq_disk_real()->ops->close(f);
    return taken;
}

static bool locks_taken(void)
{
    bool db = lock_taken("", RQ_DB_SHARED, RQ_DB_SHARED_BYTES);
    check_eq(lock_taken("-shm", RQ_SHM_CKPT, 1), db);
    check_eq(lock_taken("-shm", RQ_SHM_DMS, 1), db);
    return db;
}

static void what_stays_open_after_the_last_close_is_not_locked_and_is_taken_up_again(void)
{
    struct rq_snapshot s;
    uint32_t sum = 0;
    start();
    count_calls();
    check_eq(commit_one(1), RQ_OK);
    begin_new(&s);
    local_stop(); /* its locks go */
    check(locks_taken());
    const struct rq_files *files = s.files;
    rq_snapshot_fini(&s);
    check(!locks_taken());

    unsigned opens = atomic_load(&disk_opens);
    begin_new(&s);
    check_eq(atomic_load(&disk_opens), opens);
    check(s.files == files);
    check(locks_taken());
    check_eq(sum_of(&s, &sum), RQ_OK);
    check_eq(sum, SUM);
    rq_snapshot_fini(&s);
    local_start(dir);
}

/* As a stock last closer and a new first opener do while raftd is down. */
static void files_that_were_replaced_after_the_last_close_are_opened_anew(void)
{
    static const char *const suffixes[] = { "", "-wal", "-shm" };
    struct rq_snapshot s;
    uint32_t sum = 0;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        char name[1024];
        start();
        count_calls();
        check_eq(commit_one(1), RQ_OK);
        begin_new(&s);
        struct rq_files_id was[] = { s.files->db_is, s.files->wal_is, s.files->shm_is };
        rq_snapshot_fini(&s);
        local_stop();
        (void)snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
        check(scratch_replace(name));
        begin_new(&s);
        struct rq_files_id is[] = { s.files->db_is, s.files->wal_is, s.files->shm_is };
        for (size_t j = 0; j < 3; j++) {
            check_eq(is[j].inode != was[j].inode, i == j);
        }
        check_eq(sum_of(&s, &sum), RQ_OK);
        check_eq(sum, SUM);
        rq_snapshot_fini(&s);
        local_start(dir);
    }
}

static void a_replaced_control_page_is_opened_anew(void)
{
    struct rq_snapshot s;
    start();
    count_calls();
    begin_new(&s);
    const struct rq_control *was = s.control;
    check(scratch_replace(page_path));
    check(rq_snapshot_known_page(&counting_disk, path) == NULL);
    rq_snapshot_fini(&s);
    begin_new(&s);
    check(s.control != was);
    rq_snapshot_fini(&s);
}

static uint32_t open_descriptors(void)
{
    uint32_t count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static void a_process_keeps_few_databases_open(void)
{
    struct rq_snapshot s;
    char name[160];
    uint32_t most = 0;
    start();
    for (int i = 0; i < 3 * (int)RQ_PARKED_MAX; i++) {
        /* A database of its own for the process, by its name. */
        (void)snprintf(name, sizeof name, "%s%d", path, i);
        rq_snapshot_init(&s, rq_disk_real());
        s.path = name;
        static const char *const suffixes[] = { "", "-wal", "-shm", "-rqctl" };
        char from[1024], to[1024];
        for (size_t j = 0; j < sizeof suffixes / sizeof *suffixes; j++) {
            (void)snprintf(from, sizeof from, "%s%s", path, suffixes[j]);
            (void)snprintf(to, sizeof to, "%s%s", name, suffixes[j]);
            check(scratch_copy(from, to));
        }
        check_eq(rq_snapshot_open(&s), RQ_OK);
        check_eq(rq_snapshot_begin(&s), RQ_OK);
        rq_snapshot_fini(&s);
        uint32_t now = open_descriptors();
        if (i < (int)RQ_PARKED_MAX + 1) {
            most = now > most ? now : most;
        }
        check(now <= most);
    }
}

struct reader {
    pthread_t thread;
    bool by_marks;
    bool keep;
    uint64_t begun, bad_sum, bad_version, failed;
};

static atomic_bool stop;

static void *reader_main(void *arg)
{
    struct reader *r = arg;
    struct rq_snapshot s;
    uint64_t last = 0;
    reader_init(&s, rq_disk_real());
    if (r->by_marks) {
        forbid_slot(&s);
    }
    if (rq_snapshot_open(&s) != RQ_OK) {
        r->failed++;
        return NULL;
    }
    while (!atomic_load(&stop)) {
        if (r->by_marks) {
            forbid_slot(&s);
        }
        enum rq_err err = rq_snapshot_begin(&s);
        if (err != RQ_OK) {
            r->failed += err != RQ_BUSY && err != RQ_PROTOCOL; /* lock contention, as natively */
            continue;
        }
        uint32_t first = 0, second = 0;
        r->failed += sum_of(&s, &first) != RQ_OK;
        r->failed += sum_of(&s, &second) != RQ_OK;
        r->bad_sum += first != SUM || second != SUM;
        r->bad_version += s.version < last;
        last = s.version;
        r->begun++;
        rq_snapshot_end(&s, r->keep);
        sched_yield(); /* outside of a snapshot, where a reset can happen: valgrind runs one thread at a time */
    }
    rq_snapshot_fini(&s);
    return NULL;
}

static void *background_main(void *arg)
{
    atomic_uint *resets = arg;
    while (!atomic_load(&stop)) {
        if (local_backfill("app.db") != RQ_OK) {
            abort();
        }
        struct rq_replica_wal wal;
        rq_replica_get_wal(local_db("app.db")->replica, &wal);
        atomic_fetch_add(resets, wal.frames > 0 && local_reset("app.db") == RQ_OK);
    }
    return NULL;
}

static void every_snapshot_is_one_commit_under_writes_backfills_and_resets(void)
{
    start();
    struct reader readers[3] = { { .keep = true }, { .keep = false }, { .by_marks = true } };
    pthread_t background;
    atomic_uint resets = 0;
    atomic_store(&stop, false);
    for (int i = 0; i < 3; i++) {
        check_eq(pthread_create(&readers[i].thread, NULL, reader_main, &readers[i]), 0);
    }
    check_eq(pthread_create(&background, NULL, background_main, &resets), 0);
    time_t deadline = time(NULL) + 60;
    for (unsigned i = 0; i < 500; i++) {
        check_eq(commit_one(i * 7919u), RQ_OK);
        /* A steady writer never lets the WAL end; raftd drains then.  Here it stops now and then. */
        for (unsigned seen = atomic_load(&resets);
             i % 50 == 49 && atomic_load(&resets) == seen && time(NULL) < deadline;) {
            sched_yield();
        }
    }
    atomic_store(&stop, true);
    pthread_join(background, NULL);
    for (int i = 0; i < 3; i++) {
        pthread_join(readers[i].thread, NULL);
        check_eq(readers[i].failed, 0);
        check_eq(readers[i].bad_sum, 0);
        check_eq(readers[i].bad_version, 0);
        check(readers[i].begun > 0);
    }
    check(atomic_load(&resets) >= 8);
}

/* --- shared memory ------------------------------------------------------------------------------------------------------ */

static uint8_t *map_shm(size_t *ret_bytes)
{
    char name[160];
    snprintf(name, sizeof name, "%s-shm", path);
    int fd = open(name, O_RDWR);
    check(fd >= 0);
    *ret_bytes = (size_t)lseek(fd, 0, SEEK_END);
    uint8_t *memory = mmap(NULL, *ret_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return memory;
}

static void a_writer_killed_between_the_header_copies_stops_nobody(void)
{
    struct rq_snapshot s;
    size_t bytes;
    start();
    check_eq(commit_one(1), RQ_OK);
    uint8_t *shm = map_shm(&bytes);
    uint8_t old[48], new[48];
    memcpy(old, shm, sizeof old);
    check_eq(commit_one(2), RQ_OK);
    memcpy(new, shm, sizeof new);
    reader_init(&s, rq_disk_real());
    check_eq(rq_snapshot_open(&s), RQ_OK);

    memcpy(shm, old, sizeof old); /* copy 1 is written, copy 0 not yet */
    check_eq(rq_snapshot_begin(&s), RQ_OK);
    check_eq(s.version, 2);
    rq_snapshot_end(&s, true);
    memcpy(shm, new, 20); /* half of it */
    check_eq(rq_snapshot_begin(&s), RQ_OK);
    check_eq(s.version, 3);
    rq_snapshot_end(&s, true);
    memcpy(shm, new, sizeof new);
    check_eq(rq_snapshot_begin(&s), RQ_OK);
    check_eq(s.version, 3);
    rq_snapshot_end(&s, true);
    memset(shm, 0x55, 96);
    check_eq(rq_snapshot_begin(&s), RQ_PROTOCOL);
    memcpy(shm, new, sizeof new);
    memcpy(shm + 48, new, sizeof new);
    check_eq(rq_snapshot_begin(&s), RQ_OK);
    rq_snapshot_fini(&s);
    munmap(shm, bytes);
}

static void a_reset_in_progress_holds_up_only_who_needs_the_wal(void)
{
    struct rq_snapshot s;
    start();
    check_eq(commit_one(1), RQ_OK);
    reader_init(&s, rq_disk_real());
    check_eq(rq_snapshot_open(&s), RQ_OK);
    atomic_store(&s.control->head->reset_gate, 1);
    check_eq(rq_snapshot_begin(&s), RQ_BUSY);
    check_eq(local_backfill("app.db"), RQ_OK);
    check_eq(rq_snapshot_begin(&s), RQ_OK);
    check_eq(s.kind, RQ_SNAP_FILE);
    rq_snapshot_end(&s, true);
    atomic_store(&s.control->head->reset_gate, 2);
    rq_snapshot_fini(&s);
}

/* --- what happens between a look at what is there, and the word of what is read -------------------------------------------- */

static void (*meanwhile)(struct rq_snapshot *s); /* once, when a read mark is locked for reading */
static struct rq_snapshot *beginner;
static unsigned mark_locks, locked_mark;

static enum rq_err lock_and_meanwhile(struct rq_file *f, uint64_t offset, uint64_t bytes, enum rq_lock kind)
{
    const enum rq_err err = counting_lock(f, offset, bytes, kind);
    if (kind == RQ_SHARED && offset >= RQ_SHM_READ0 && offset < RQ_SHM_DMS) {
        void (*now)(struct rq_snapshot *) = meanwhile;
        meanwhile = NULL;
        mark_locks++;
        locked_mark = (unsigned)(offset - RQ_SHM_READ0);
        if (now != NULL) {
            now(beginner);
        }
    }
    return err;
}

static void another_commits(struct rq_snapshot *s)
{
    (void)s;
    check_eq(commit_one(7), RQ_OK);
}

/* As by a reset that is begun and ended; the index is as it was. */
static void the_wal_is_reset(struct rq_snapshot *s)
{
    atomic_fetch_add(&s->control->head->reset_gate, 2);
}

static void the_page_is_given_up(struct rq_snapshot *s)
{
    atomic_store(&s->control->head->gone, 1);
}

static void the_mark_is_moved(struct rq_snapshot *s)
{
    size_t bytes;
    uint8_t *shm = map_shm(&bytes);
    struct rq_wal_ckpt_info *info = (struct rq_wal_ckpt_info *)(void *)(shm + 2 * sizeof(struct rq_wal_index_head));
    (void)s;
    info->aReadMark[locked_mark]++;
    (void)munmap(shm, bytes);
}

static void what_comes_between_look_and_word_is_noticed(void)
{
    static const struct {
        void (*meanwhile)(struct rq_snapshot *s);
        enum rq_err err;
        uint64_t version;
    } rows[] = {
        { another_commits, RQ_OK, 3 },
        { the_wal_is_reset, RQ_OK, 2 },
        { the_mark_is_moved, RQ_OK, 2 },
        { the_page_is_given_up, RQ_UNREADY, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct rq_snapshot s;
        uint32_t sum = 0;
        start();
        count_calls();
        counting_ops.lock = lock_and_meanwhile;
        check_eq(commit_one(1), RQ_OK);
        reader_init(&s, &counting_disk);
        check_eq(rq_snapshot_open(&s), RQ_OK);
        forbid_slot(&s);
        beginner = &s;
        meanwhile = rows[i].meanwhile;
        mark_locks = 0;
        check_eq(rq_snapshot_begin(&s), rows[i].err);
        check(meanwhile == NULL);
        if (rows[i].err == RQ_OK) {
            check_eq(s.kind, RQ_SNAP_WAL);
            check_eq(s.version, rows[i].version);
            check_eq(sum_of(&s, &sum), RQ_OK);
            check_eq(sum, SUM);
            check_eq(mark_locks, 2);
            rq_snapshot_end(&s, false);
        }
        rq_snapshot_fini(&s);
    }
}

static void scribbled_shared_memory_is_an_error_at_worst(void)
{
    struct rq_snapshot s;
    size_t bytes;
    uint32_t sum;
    start();
    for (unsigned i = 0; i < 100; i++) {
        check_eq(commit_one(i), RQ_OK);
    }
    reader_init(&s, rq_disk_real());
    check_eq(rq_snapshot_open(&s), RQ_OK);
    uint8_t *shm = map_shm(&bytes);
    uint8_t *good = malloc(bytes);
    memcpy(good, shm, bytes);
    unsigned random = 1;
    for (int round = 0; round < 300; round++) {
        for (int i = 0; i < 200; i++) {
            random = random * 1103515245u + 12345u;
            /* Mostly the tables: a changed header is not even looked at, unless its checksum is right. */
            shm[96 + (random >> 8) % (bytes - 96)] = (uint8_t)(random >> 3);
        }
        if (round % 3 == 0) {
            struct rq_wal_index_head h;
            memcpy(&h, shm, sizeof h);
            h.mxFrame = random >> (round % 20);
            h.nPage = random;
            h.szPage = (uint16_t)(round % 2 == 0 ? h.szPage : random);
            rq_wal_index_seal(&h);
            memcpy(shm, &h, sizeof h);
            memcpy(shm + sizeof h, &h, sizeof h);
        }
        if (rq_snapshot_begin(&s) == RQ_OK) {
            s.page_count = s.page_count < 2 * PAGES ? s.page_count : 2 * PAGES; /* of a billion, some are enough */
            (void)sum_of(&s, &sum);
            rq_snapshot_end(&s, true);
        }
        memcpy(shm, good, bytes);
    }
    check_eq(rq_snapshot_begin(&s), RQ_OK);
    check_eq(sum_of(&s, &sum), RQ_OK);
    check_eq(sum, SUM);
    rq_snapshot_fini(&s);
    free(good);
    munmap(shm, bytes);
}

static void an_old_database_beside_wal_frames_without_an_index_is_not_read(void)
{
    struct rq_snapshot s;
    char name[160];
    start();
    check_eq(commit_one(1), RQ_OK);
    local_stop();
    snprintf(name, sizeof name, "%s-shm", path);
    check_eq(unlink(name), 0);
    reader_init(&s, rq_disk_real());
    check_eq(rq_snapshot_open(&s), RQ_OK);
    check_eq(rq_snapshot_begin(&s), RQ_BUSY);
    local_start(dir);
    check_eq(rq_snapshot_begin(&s), RQ_OK);
    check_eq(s.version, 2);
    rq_snapshot_fini(&s);
}

/* Ours, on which -shm cannot be looked at. */
static enum rq_err blind_stat(struct rq_disk *d, const char *name, struct rq_file_info *ret_info)
{
    size_t bytes = strlen(name);
    return bytes > 4 && strcmp(name + bytes - 4, "-shm") == 0 ? RQ_IO : counting_stat(d, name, ret_info);
}

/* The file alone would be an old state. */
static void nobody_reads_the_past_while_wal_and_shm_have_lost_their_names(void)
{
    struct rq_snapshot s, t;
    char wal[160], shm[160];
    start();
    check_eq(commit_one(1), RQ_OK);
    count_calls();
    begin_new(&s);
    check_eq(s.version, 2);
    snprintf(wal, sizeof wal, "%s-wal", path);
    snprintf(shm, sizeof shm, "%s-shm", path);
    check_eq(unlink(wal), 0);
    check_eq(unlink(shm), 0);
    rq_snapshot_end(&s, false);
    rq_snapshot_fini(&s);
    reader_init(&t, &counting_disk);
    check_eq(rq_snapshot_open(&t), RQ_OK);
    check_eq(rq_snapshot_begin(&t), RQ_BUSY);
    rq_snapshot_fini(&t);
}

/* A raftd that finds -wal and -shm, left by a stock tool, makes no new files: nothing but -shm itself says to who has read the
 * database file alone that commits are in a WAL now. */
static void a_database_that_stood_alone_is_not_read_so_when_shm_cannot_be_looked_at(void)
{
    struct rq_snapshot s;
    char wal[160], shm[160];
    start();
    local_stop();
    snprintf(wal, sizeof wal, "%s-wal", path);
    snprintf(shm, sizeof shm, "%s-shm", path);
    check_eq(unlink(wal), 0); /* the first commit is the file: there is nothing in it */
    check_eq(unlink(shm), 0);
    count_calls();
    begin_new(&s);
    check_eq(s.version, 1);
    rq_snapshot_end(&s, false);
    int fd = open(wal, O_RDWR | O_CREAT, 0600);
    close(fd);
    fd = open(shm, O_RDWR | O_CREAT, 0600);
    check_eq(ftruncate(fd, 32768), 0);
    close(fd);
    local_start(dir);
    check_eq(commit_one(1), RQ_OK);
    counting_ops.stat = blind_stat;
    enum rq_err err = rq_snapshot_begin(&s);
    check(err != RQ_OK || s.version == 2);
    if (err == RQ_OK) {
        rq_snapshot_end(&s, false);
    }
    count_calls();
    check_eq(rq_snapshot_begin(&s), RQ_OK);
    check_eq(s.version, 2);
    rq_snapshot_fini(&s);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(an_unchanged_snapshot_costs_no_call),
        TAP(connections_share_what_is_open),
        TAP(what_stays_open_after_the_last_close_is_not_locked_and_is_taken_up_again),
        TAP(files_that_were_replaced_after_the_last_close_are_opened_anew),
        TAP(a_replaced_control_page_is_opened_anew),
        TAP(a_process_keeps_few_databases_open),
        TAP(every_snapshot_is_one_commit_under_writes_backfills_and_resets),
        TAP(a_writer_killed_between_the_header_copies_stops_nobody),
        TAP(a_reset_in_progress_holds_up_only_who_needs_the_wal),
        TAP(what_comes_between_look_and_word_is_noticed),
        TAP(scribbled_shared_memory_is_an_error_at_worst),
        TAP(an_old_database_beside_wal_frames_without_an_index_is_not_read),
        TAP(nobody_reads_the_past_while_wal_and_shm_have_lost_their_names),
        TAP(a_database_that_stood_alone_is_not_read_so_when_shm_cannot_be_looked_at),
    };
    (void)snprintf(dir, sizeof dir, "/tmp/rqsnap-XXXXXX");
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    snprintf(path, sizeof path, "%s/app.db", dir);
    snprintf(page_path, sizeof page_path, "%s-rqctl", path);
    local_start(dir);
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    return !scratch_remove(dir) || failed;
}
