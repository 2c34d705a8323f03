#include "raftd/db/change_records.h"

#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/staged.h"
#include "raftd/run/room.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/txn.h"

#define PIECE_ENTRIES 64u         /* that the loop looks up at once: it must not stand still for long */
#define PIECE_BYTES   (1u << 20)  /* likewise */
#define PAGES_BYTES   (16u << 20) /* numbers of pages in one list */
#define TRACES_MAX    16u         /* beginnings that are tried */

enum { FREE_LIST_AT = 32, SCHEMA_NUMBER_AT = 40, SCHEMA_NUMBER_END = 44, HEAD_BYTES = 100 };

void rq_change_records_init(struct rq_change_records *r)
{
    *r = (struct rq_change_records){ 0 };
    rq_bytes_init(&r->pages, PAGES_BYTES);
}

void rq_change_records_fini(struct rq_change_records *r)
{
    free(r->list);
    rq_bytes_fini(&r->pages);
    rq_change_records_init(r);
}

static void clear(struct rq_change_records *r)
{
    r->count = 0;
    r->pages.size = 0;
}

/* --- from an entry --------------------------------------------------------------------------------------------------------- */

/* False: no room for it. */
static bool add_page(struct rq_change_records *r, struct rq_change_record *record, uint32_t pgno)
{
    const bool added = rq_bytes_put(&r->pages, &pgno, sizeof pgno) == RQ_OK;
    record->page_count += added;
    return added;
}

static void take_deltas(struct rq_change_records *r, struct rq_change_record *record, struct rq_txn_reader *reader)
{
    struct rq_delta delta;
    const uint32_t page_size = reader->head.page_size;
    while (!record->lost && rq_txn_next(reader, &delta) == RQ_OK) {
        record->lost = !add_page(r, record, delta.pgno);
        if (delta.pgno == 1) {
            record->frees = rq_delta_covers(&delta, page_size, FREE_LIST_AT, SCHEMA_NUMBER_AT);
            record->schema_number = rq_delta_covers(&delta, page_size, SCHEMA_NUMBER_AT, SCHEMA_NUMBER_END);
            record->schema_page = rq_delta_covers(&delta, page_size, HEAD_BYTES, page_size);
        }
    }
}

/* A body has pages, and does not say what is new in them. */
static void take_body(struct rq_change_records *r, struct rq_change_record *record,
                      const struct rq_change_source *source, const struct rq_entry_staged *staged)
{
    struct rq_staged_reader *reader;
    uint32_t pgno;
    const uint8_t *page;
    enum rq_err err = rq_staged_open(source->disk, source->staged_dir, staged, &reader);
    record->whole = true;
    record->lost = err != RQ_OK;
    if (err != RQ_OK) {
        return;
    }
    while (!record->lost && (err = rq_staged_next(reader, &pgno, &page)) == RQ_OK) {
        record->lost = !add_page(r, record, pgno);
    }
    record->lost = record->lost || err != RQ_NOTFOUND;
    rq_staged_close(reader);
}

static enum rq_err take_entry(struct rq_change_records *r, const struct rq_change_source *source,
                              const struct rq_log_entry *e)
{
    struct rq_change_record record = { .index = e->index, .first_page = r->pages.size / sizeof(uint32_t) };
    struct rq_txn_reader reader;
    struct rq_entry_staged staged;
    const bool is_staged = e->type == RQ_ENTRY_STAGED;
    const enum rq_err read = is_staged ? rq_entry_get_staged(e->blob->data, e->blob->bytes, &staged)
                                       : rq_txn_read(&reader, e->blob->data, e->blob->bytes);
    if (read != RQ_OK) {
        return RQ_OK; /* whoever applies it has said so */
    }
    const struct rq_txn_head *head = is_staged ? &staged.head : &reader.head;
    if (head->db_id != source->db_id) {
        return RQ_OK;
    }
    struct rq_change_record *list = rq_room_for_one(r->list, r->count, &r->capacity, sizeof *list);
    if (list == NULL) {
        return RQ_NOMEM;
    }
    r->list = list;
    record.base = head->base;
    record.version = head->version;
    if (is_staged) {
        take_body(r, &record, source, &staged);
    } else {
        take_deltas(r, &record, &reader);
    }
    r->list[r->count++] = record;
    return RQ_OK;
}

/* --- from the log ----------------------------------------------------------------------------------------------------------- */

/* What the loop is asked for. */
struct piece {
    struct rq_task task;
    struct rq_driver *driver;
    uint64_t index, until; /* looked at up to here; wanted up to there */
    struct rq_log_entry list[PIECE_ENTRIES];
    unsigned count;
    bool over; /* there is nothing behind */
    enum rq_err err;
    sem_t done;
};

static void run_piece(struct rq_task *task)
{
    struct piece *p = (struct piece *)task;
    struct rq_log_entry e;
    size_t bytes = 0;
    p->over = false;
    for (unsigned i = 0; i < PIECE_ENTRIES && bytes < PIECE_BYTES && !p->over; i++) {
        p->over = p->index >= p->until || !rq_driver_next_entry(p->driver, &p->index, &e, &p->err);
        if (p->over) {
            continue;
        }
        const bool ours =
            p->index <= p->until && (e.type == RQ_ENTRY_TXN || e.type == RQ_ENTRY_STAGED) && e.blob != NULL;
        if (ours) {
            p->list[p->count++] = e;
            bytes += e.blob->bytes;
        } else if (e.blob != NULL) {
            rq_blob_unref(e.blob);
        }
    }
    (void)sem_post(&p->done);
}

static void wait_for(sem_t *s)
{
    while (sem_wait(s) != 0) {
    } /* a signal */
}

enum rq_err rq_change_records_read(struct rq_change_records *r, const struct rq_change_source *source, uint64_t after,
                                   uint64_t until)
{
    enum rq_err err = RQ_OK;
    struct piece *p = malloc(sizeof *p);
    if (p == NULL) {
        return RQ_NOMEM;
    }
    *p = (struct piece){ .task.run = run_piece, .driver = source->driver, .index = after, .until = until };
    (void)sem_init(&p->done, 0, 0);
    clear(r);
    while (err == RQ_OK && !p->over) {
        p->count = 0;
        rq_strand_post(rq_driver_loop(source->driver), &p->task, RQ_CARRY);
        wait_for(&p->done);
        for (unsigned i = 0; i < p->count; i++) {
            err = err == RQ_OK ? take_entry(r, source, &p->list[i]) : err;
            rq_blob_unref(p->list[i].blob);
        }
        err = err == RQ_OK ? p->err : err;
    }
    (void)sem_destroy(&p->done);
    free(p);
    return err;
}

/* --- which ones count -------------------------------------------------------------------------------------------------------- */

/* Moves those that count, and begin at base, to the front; says how many they are, and leaves the others. */
static size_t chain(struct rq_change_record *list, size_t count, uint64_t base)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (list[i].base == base) {
            base = list[i].version;
            list[kept++] = list[i];
        }
    }
    return kept;
}

enum rq_err rq_change_records_follow(struct rq_change_records *r, uint64_t base, uint64_t version)
{
    r->count = chain(r->list, r->count, base);
    if ((r->count > 0 ? r->list[r->count - 1].version : base) != version) {
        clear(r);
        return RQ_NOTFOUND;
    }
    return RQ_OK;
}

static bool leads_to(const struct rq_change_record *list, size_t count, uint64_t version, uint64_t index)
{
    uint64_t at = list[0].base, last = 0;
    for (size_t i = 0; i < count; i++) {
        if (list[i].base == at) {
            at = list[i].version;
            last = list[i].index;
        }
    }
    return at == version && last == index;
}

/* The first one that the log still has may have had no effect, and yet fit; all behind it are sure. */
void rq_change_records_trace(struct rq_change_records *r, uint64_t version, uint64_t index)
{
    for (size_t i = 0; i < r->count && i < TRACES_MAX; i++) {
        if (leads_to(r->list + i, r->count - i, version, index)) {
            const uint64_t base = r->list[i].base;
            memmove(r->list, r->list + i, (r->count - i) * sizeof *r->list);
            r->count = chain(r->list, r->count - i, base);
            if (base != 0) {
                memmove(r->list, r->list + 1, --r->count * sizeof *r->list);
            }
            return;
        }
    }
    clear(r);
}
