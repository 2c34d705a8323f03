#include "tests/support/small_replica.h"

#include <stdlib.h>
#include <string.h>

#include "tests/support/page1.h"

static void must(enum rq_err err)
{
    if (err != RQ_OK) {
        abort();
    }
}

static void fill_page(uint64_t version, uint32_t pgno, uint8_t page[SMALL_PAGE_SIZE])
{
    memset(page, 0, SMALL_PAGE_SIZE);
    if (pgno == 1) {
        page1_head(page, SMALL_PAGE_SIZE, version, version == 1 ? 2 : SMALL_PAGE_COUNT);
    } else {
        memset(page, (int)(16 * (uint64_t)pgno + version), 16);
    }
}

void small_replica_page(uint32_t pgno, uint8_t page[SMALL_PAGE_SIZE])
{
    fill_page(2, pgno, page);
}

struct source {
    uint64_t version;
    uint32_t pgno, last;
    uint8_t page[SMALL_PAGE_SIZE];
};

static enum rq_err next_page(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    struct source *s = ctx;
    if (s->pgno == s->last) {
        return RQ_NOTFOUND;
    }
    s->pgno++;
    fill_page(s->version, s->pgno, s->page);
    *ret_pgno = s->pgno;
    *ret_page = s->page;
    return RQ_OK;
}

enum rq_err small_replica_append(struct rq_replica *r, const struct rq_replica_state *after)
{
    struct source s = { .version = after->version, .last = after->version == 2 ? SMALL_PAGE_COUNT : 2 };
    const struct rq_page_source pages = { &s, next_page };
    return rq_replica_append(r, &pages, after);
}

struct rq_replica_config small_replica_config(struct small_replica *s)
{
    return (struct rq_replica_config){ .disk = &s->disk->disk, .path = SMALL_PATH, .control = &s->control };
}

void small_replica_init(struct small_replica *s)
{
    struct source first = { .version = 1, .last = 2 };
    const struct rq_page_source pages = { &first, next_page };
    struct rq_replica_state state = {
        .stamp = { .db_id = 7, .term = 3, .index = 41 },
        .version = 1,
        .page_size = SMALL_PAGE_SIZE,
        .page_count = 2,
    };
    *s = (struct small_replica){ .disk = record_disk_new() };
    record_disk_mkdir_p(s->disk, "/data");
    must(rq_control_publish(&s->disk->disk, SMALL_PATH "-rqctl", SMALL_BOOT, 0600, &s->control));
    const struct rq_replica_config config = small_replica_config(s);
    must(rq_replica_create(&config, &pages, &state, &s->replica));
    state.version = 2;
    state.stamp.index = 42;
    state.page_count = SMALL_PAGE_COUNT;
    must(small_replica_append(s->replica, &state));
    atomic_store(&s->control.head->files_epoch, 5); /* from the clock, else */
    atomic_store(&s->control.head->ready, 1);
    atomic_store(&s->control.head->commit_index, 42);
}

void small_replica_close(struct small_replica *s)
{
    rq_replica_close(s->replica);
    s->replica = NULL;
    rq_control_close(&s->control);
}

void small_replica_fini(struct small_replica *s)
{
    small_replica_close(s);
    record_disk_free(s->disk);
}

void small_file_read(struct record_disk *d, const char *path, struct rq_bytes *out)
{
    struct rq_file *f;
    struct rq_file_info info;
    uint8_t piece[4096];
    size_t n = sizeof piece;
    must(d->disk.ops->open(&d->disk, path, RQ_OPEN_READ, 0, &f));
    must(d->disk.ops->info(f, &info));
    for (uint64_t at = 0; at < info.size; at += n) {
        must(d->disk.ops->read(f, piece, sizeof piece, at, &n));
        must(rq_bytes_put(out, piece, n));
    }
    d->disk.ops->close(f);
}

void small_file_write(struct record_disk *d, const char *path, const uint8_t *data, size_t bytes)
{
    struct rq_file *f;
    must(d->disk.ops->open(&d->disk, path, RQ_OPEN_WRITE | RQ_OPEN_CREATE, 0600, &f));
    must(d->disk.ops->truncate(f, 0));
    if (bytes > 0) {
        must(d->disk.ops->write(f, data, bytes, 0));
    }
    d->disk.ops->close(f);
}
