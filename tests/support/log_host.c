#include "tests/support/log_host.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "raftd/log/log.h"
#include "raftd/wire/entry.h"
#include "tests/support/local_sink.h"

#define SOFT_FRAMES  1000u
#define HARD_FRAMES  4000u
#define LOG_KEPT_MAX (64u << 20)

struct log_host {
    char name[64];
    struct rq_log *log;
    uint64_t index;
    pthread_t carrier, background;
    pthread_mutex_t lock;
    pthread_cond_t wake, tend;
    struct rq_group *group; /* guarded by lock, as the rest */
    bool shut, stops, stirred;
    enum rq_err ordered;
    uint64_t arrived;
    struct log_host_stats stats;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void must(enum rq_err err, const char *what)
{
    if (err != RQ_OK) {
        fprintf(stderr, "log host: %s: %s\n", what, rq_err_text(err));
        abort();
    }
}

/* --- one group ---------------------------------------------------------------------------------------------------------- */

static enum rq_err base_page(void *ctx, uint32_t pgno, uint8_t *page, uint32_t page_size)
{
    const struct log_host *h = ctx;
    return local_read(h->name, pgno, page, page_size);
}

struct delta_source {
    struct rq_txn_reader reader;
    const char *name;
    uint32_t page_count;
    uint8_t *pages; /* of the deltas, one after another: nothing is read while it is written */
    uint32_t *pgnos, next;
};

static enum rq_err delta_next(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    struct delta_source *s = ctx;
    if (s->next == s->page_count) {
        return RQ_NOTFOUND;
    }
    *ret_pgno = s->pgnos[s->next];
    *ret_page = s->pages + (size_t)s->next++ * s->reader.head.page_size;
    return RQ_OK;
}

/* As every host does it: from the record, against its own pages, each proved by its hashes. */
static enum rq_err apply(struct log_host *h, const struct rq_blob *blob, uint32_t *ret_pages)
{
    struct delta_source s = { .name = h->name };
    must(rq_txn_read(&s.reader, blob->data, blob->bytes), "record");
    const uint32_t page_size = s.reader.head.page_size, count = s.reader.delta_count;
    s.pages = malloc((size_t)count * page_size + 1);
    s.pgnos = malloc((size_t)count * sizeof *s.pgnos + 1);
    struct rq_delta delta;
    while (rq_txn_next(&s.reader, &delta) == RQ_OK) {
        uint8_t *page = s.pages + (size_t)s.page_count * page_size;
        must(local_read(h->name, delta.pgno, page, page_size), "base page");
        enum rq_err err = rq_delta_apply(&delta, page, page_size);
        if (err != RQ_OK) {
            free(s.pages);
            free(s.pgnos);
            return RQ_REFUSED; /* made on another base */
        }
        s.pgnos[s.page_count++] = delta.pgno;
    }
    const struct rq_page_source source = { .ctx = &s, .next = delta_next };
    enum rq_err err = local_apply(h->name, &s.reader.head, &source);
    *ret_pages = s.page_count;
    free(s.pages);
    free(s.pgnos);
    return err;
}

static enum rq_err carry(struct log_host *h, struct rq_group *g)
{
    const double start = now();
    struct rq_bytes record;
    rq_bytes_init(&record, rq_log_payload_bytes_max(h->log));
    enum rq_err err = rq_group_record(g, base_page, h, &record);
    if (err != RQ_OK) {
        rq_bytes_fini(&record);
        return err;
    }
    struct rq_blob *blob = rq_blob_new(record.size);
    memcpy(blob->data, record.data, record.size);
    rq_bytes_fini(&record);
    const double recorded = now();
    const struct rq_log_entry entry = { .index = ++h->index, .term = 1, .type = RQ_ENTRY_TXN, .blob = blob };
    uint64_t durable;
    must(rq_log_reserve(h->log, blob->bytes, 1), "reserve");
    must(rq_log_append(h->log, &entry, 1, h->index - 1), "append");
    must(rq_log_write(h->log, &durable), "write");
    const double written = now();
    uint32_t pages = 0;
    err = apply(h, blob, &pages);
    struct rq_log_stats log_stats;
    rq_log_stats(h->log, &log_stats);
    if (log_stats.bytes > LOG_KEPT_MAX) {
        must(rq_log_release(h->log, h->index), "release");
    }
    pthread_mutex_lock(&h->lock);
    h->stats.groups++;
    h->stats.pages += pages;
    h->stats.transactions += g->head.origin_count;
    h->stats.record_bytes += blob->bytes;
    if (g->head.origin_count > h->stats.transactions_max) {
        h->stats.transactions_max = g->head.origin_count;
    }
    h->stats.record_s += recorded - start;
    h->stats.write_s += written - recorded;
    h->stats.apply_s += now() - written;
    pthread_mutex_unlock(&h->lock);
    rq_blob_unref(blob);
    return err;
}

static void stir(struct log_host *h)
{
    struct rq_replica *r = local_db(h->name)->replica;
    struct rq_replica_wal wal = { 0 };
    if (r != NULL) {
        rq_replica_get_wal(r, &wal);
    }
    if (wal.frames - wal.backfilled >= SOFT_FRAMES || wal.frames >= HARD_FRAMES || rq_log_prepare_wanted(h->log)) {
        pthread_mutex_lock(&h->lock);
        h->stirred = true;
        pthread_cond_signal(&h->tend);
        pthread_mutex_unlock(&h->lock);
    }
}

static void *carrier_thread(void *arg)
{
    struct log_host *h = arg;
    pthread_mutex_lock(&h->lock);
    for (;;) {
        while ((h->group == NULL || h->shut) && !h->stops) {
            pthread_cond_wait(&h->wake, &h->lock);
        }
        if (h->group == NULL) {
            break;
        }
        struct rq_group *g = h->group;
        enum rq_err err = h->ordered;
        h->group = NULL;
        h->ordered = RQ_OK;
        pthread_mutex_unlock(&h->lock);
        if (err == RQ_OK) {
            err = carry(h, g);
        }
        rq_group_settle(g, err);
        stir(h);
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

/* --- what nobody waits for ---------------------------------------------------------------------------------------------- */

static bool tend_wal(struct log_host *h)
{
    struct rq_replica *r = local_db(h->name)->replica;
    struct rq_replica_wal wal;
    if (r == NULL) {
        return true;
    }
    rq_replica_get_wal(r, &wal);
    enum rq_err err = wal.backfilled < wal.frames ? rq_replica_backfill(r) : RQ_OK;
    rq_replica_get_wal(r, &wal);
    if (err == RQ_OK && wal.backfilled == wal.frames && wal.frames >= SOFT_FRAMES) {
        err = rq_replica_reset(r);
        rq_replica_get_wal(r, &wal);
    }
    must(err == RQ_BUSY ? RQ_OK : err, "back-fill");
    return wal.frames < HARD_FRAMES;
}

static void *background_thread(void *arg)
{
    struct log_host *h = arg;
    bool quiet = true;
    pthread_mutex_lock(&h->lock);
    while (!h->stops) {
        if (!h->stirred && quiet) {
            pthread_cond_wait(&h->tend, &h->lock);
        } else if (!h->stirred) {
            struct timespec t;
            clock_gettime(CLOCK_REALTIME, &t);
            t.tv_nsec += 500000;
            t.tv_sec += t.tv_nsec / 1000000000;
            t.tv_nsec %= 1000000000;
            pthread_cond_timedwait(&h->tend, &h->lock, &t);
        }
        h->stirred = false;
        pthread_mutex_unlock(&h->lock);
        quiet = tend_wal(h);
        while (rq_log_prepare_wanted(h->log)) {
            must(rq_log_prepare(h->log), "prepare");
        }
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

/* --- life --------------------------------------------------------------------------------------------------------------- */

static void submit(void *ctx, struct rq_group *g)
{
    struct log_host *h = ctx;
    pthread_mutex_lock(&h->lock);
    h->group = g;
    h->arrived++;
    pthread_cond_signal(&h->wake);
    pthread_mutex_unlock(&h->lock);
}

struct log_host *log_host_new(const char *dir, const char *name)
{
    struct log_host *h = calloc(1, sizeof *h);
    struct rq_log_found found;
    const struct rq_log_config config = {
        .disk = rq_disk_real(), .dir = dir, .instance = 1, .create = true, .first_index = 1
    };
    snprintf(h->name, sizeof h->name, "%s", name);
    mkdir(dir, 0700);
    must(rq_log_open(&config, &h->log, &found), "log");
    while (rq_log_prepare_wanted(h->log)) {
        must(rq_log_prepare(h->log), "prepare");
    }
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->wake, NULL);
    pthread_cond_init(&h->tend, NULL);
    pthread_create(&h->carrier, NULL, carrier_thread, h);
    pthread_create(&h->background, NULL, background_thread, h);
    return h;
}

void log_host_free(struct log_host *h)
{
    pthread_mutex_lock(&h->lock);
    h->stops = true;
    pthread_cond_signal(&h->wake);
    pthread_cond_signal(&h->tend);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->carrier, NULL);
    pthread_join(h->background, NULL);
    rq_log_close(h->log);
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->wake);
    pthread_cond_destroy(&h->tend);
    free(h);
}

struct rq_executor_host log_host_ops(struct log_host *h)
{
    return (struct rq_executor_host){ .ctx = h, .submit = submit };
}

void log_host_gate(struct log_host *h, bool shut)
{
    pthread_mutex_lock(&h->lock);
    h->shut = shut;
    pthread_cond_signal(&h->wake);
    pthread_mutex_unlock(&h->lock);
}

uint64_t log_host_arrived(struct log_host *h)
{
    pthread_mutex_lock(&h->lock);
    uint64_t arrived = h->arrived;
    pthread_mutex_unlock(&h->lock);
    return arrived;
}

void log_host_order(struct log_host *h, enum rq_err outcome)
{
    pthread_mutex_lock(&h->lock);
    h->ordered = outcome;
    pthread_mutex_unlock(&h->lock);
}

struct log_host_stats log_host_stats(struct log_host *h)
{
    pthread_mutex_lock(&h->lock);
    struct log_host_stats stats = h->stats;
    pthread_mutex_unlock(&h->lock);
    return stats;
}
