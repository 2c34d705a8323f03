#include "raftd/db/proof.h"

#include <stdlib.h>
#include <string.h>

#define ROOM_FIRST 1024u

struct item {
    uint32_t pgno;
    uint64_t serial; /* the highest of a page counts */
    uint64_t hash;
};

struct rq_proof {
    uint64_t version;    /* after what was added so far */
    uint32_t page_count; /* of the database then; 0: not known */
    uint64_t serial;
    struct item *items; /* owns, as claims */
    size_t count, capacity;
    struct rq_page_claim *claims;
};

enum rq_err rq_proof_new(uint64_t from, struct rq_proof **ret_proof)
{
    struct rq_proof *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return RQ_NOMEM;
    }
    p->version = from;
    *ret_proof = p;
    return RQ_OK;
}

void rq_proof_free(struct rq_proof *p)
{
    if (p != NULL) {
        free(p->items);
        free(p->claims);
        free(p);
    }
}

static int by_page_newest_first(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return x->pgno != y->pgno ? (x->pgno > y->pgno) - (x->pgno < y->pgno)
                              : (x->serial < y->serial) - (x->serial > y->serial);
}

/* Keeps the newest item of each page that the database still has. */
static void keep_newest(struct rq_proof *p)
{
    size_t kept = 0;
    if (p->count == 0) {
        return;
    }
    qsort(p->items, p->count, sizeof *p->items, by_page_newest_first);
    for (size_t i = 0; i < p->count && p->items[i].pgno <= p->page_count; i++) {
        if (kept == 0 || p->items[kept - 1].pgno != p->items[i].pgno) {
            p->items[kept++] = p->items[i];
        }
    }
    p->count = kept;
}

static enum rq_err add(struct rq_proof *p, uint32_t pgno, uint64_t hash)
{
    if (p->count == p->capacity) {
        keep_newest(p);
        if (p->count >= p->capacity / 2) {
            const size_t capacity = p->capacity == 0 ? ROOM_FIRST : 2 * p->capacity;
            struct item *items = realloc(p->items, capacity * sizeof *items);
            if (items == NULL) {
                return RQ_NOMEM;
            }
            p->items = items;
            p->capacity = capacity;
        }
    }
    p->items[p->count++] = (struct item){ pgno, p->serial++, hash };
    return RQ_OK;
}

/* Only one that was taken whole counts; without it, none that follows does. */
static enum rq_err end(struct rq_proof *p, const struct rq_txn_head *head, enum rq_err err)
{
    if (err != RQ_NOTFOUND) {
        return err;
    }
    p->version = head->version;
    return RQ_OK;
}

/* Rule Z: pages that the transaction adds to the database are zeros, unless it carries them. */
static enum rq_err begin(struct rq_proof *p, const struct rq_txn_head *head)
{
    static const uint8_t zeros[65536];
    const uint32_t before = p->page_count;
    const uint64_t hash = rq_page_hash(zeros, head->page_size);
    enum rq_err err = RQ_OK;
    p->page_count = head->page_count;
    /* At the version that it starts from, the database file was no longer than the database: what came behind its end without
     * having been written is zeros anyway. */
    for (uint32_t pgno = before + 1; before != 0 && err == RQ_OK && pgno <= head->page_count; pgno++) {
        err = add(p, pgno, hash);
    }
    return err;
}

enum rq_err rq_proof_add(struct rq_proof *p, struct rq_txn_reader *record)
{
    struct rq_delta delta;
    if (record->head.base != p->version) {
        return RQ_OK;
    }
    enum rq_err err = begin(p, &record->head);
    while (err == RQ_OK && (err = rq_txn_next(record, &delta)) == RQ_OK) {
        err = add(p, delta.pgno, delta.after);
    }
    return end(p, &record->head, err);
}

enum rq_err rq_proof_add_staged(struct rq_proof *p, const struct rq_txn_head *head, struct rq_staged_reader *body)
{
    uint32_t pgno;
    const uint8_t *page;
    if (head->base != p->version) {
        return RQ_OK;
    }
    enum rq_err err = begin(p, head);
    while (err == RQ_OK && (err = rq_staged_next(body, &pgno, &page)) == RQ_OK) {
        err = add(p, pgno, rq_page_hash(page, head->page_size));
    }
    return end(p, head, err);
}

enum rq_err rq_proof_claims(struct rq_proof *p, uint64_t version, const struct rq_page_claim **ret_claims,
                            size_t *ret_count)
{
    if (p->version != version) {
        return RQ_NOTFOUND;
    }
    keep_newest(p);
    free(p->claims);
    p->claims = malloc((p->count + 1) * sizeof *p->claims);
    if (p->claims == NULL) {
        return RQ_NOMEM;
    }
    for (size_t i = 0; i < p->count; i++) {
        p->claims[i] = (struct rq_page_claim){ p->items[i].pgno, p->items[i].hash };
    }
    *ret_claims = p->claims;
    *ret_count = p->count;
    return RQ_OK;
}
