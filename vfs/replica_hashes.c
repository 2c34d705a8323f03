/* Replica, hashes: is the database file still what we wrote?  See vfs/page_hashes.h for why the answer is never a false alarm.
 *
 * Only the background writes the database file and the hashes' entries, so the scrub meets neither half-written pages nor
 * entries that lag behind: what lies in a frame that is not back-filled yet it leaves alone.  The strand only asks for pages that
 * no frame holds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/wire/txn.h"
#include "vfs/replica_impl.h"

#define PAGES_PER_CHUNK (RQ_CHUNK_BYTES / 512)

static enum rq_err changed(struct rq_replica *r, uint32_t pgno, char text[160])
{
    rq_page_hashes_set_suspect(r->hashes, pgno);
    (void)snprintf(text, 160, "%s: page %u was changed", r->path, pgno);
    return RQ_CORRUPT;
}

enum rq_err rq_replica_page_verify(struct rq_replica *r, uint32_t pgno, const uint8_t *page)
{
    uint64_t hash;
    if (r->hashes == NULL) {
        return RQ_OK;
    }
    enum rq_err err = rq_page_hashes_get(r->hashes, pgno, 1, &hash);
    if (err == RQ_OK && hash != 0 && hash != rq_page_hash(page, r->page_size)) {
        rq_page_hashes_set_suspect(r->hashes, pgno);
        err = RQ_CORRUPT;
    }
    return err;
}

enum rq_err rq_replica_verify(struct rq_replica *r, uint32_t pgno, const uint8_t *page)
{
    enum rq_err err = RQ_OK;
    pthread_mutex_lock(&r->mutex);
    /* The snapshot keeps the WAL from being copied any further, so the entry is that of what it has read. */
    if (pgno <= r->state.page_count && pgno != rq_lock_page(r->page_size)) {
        err = rq_replica_page_verify(r, pgno, page);
    }
    pthread_mutex_unlock(&r->mutex);
    return err;
}

/* --- at start ------------------------------------------------------------------------------------------------------------ */

/* The page that was found changed before the last end: is it right again? */
static enum rq_err suspect_check(struct rq_replica *r, char text[160])
{
    const uint32_t pgno = rq_page_hashes_suspect(r->hashes);
    if (pgno == 0) {
        return RQ_OK;
    }
    uint8_t *page = malloc(r->page_size);
    enum rq_err err = page == NULL ? RQ_NOMEM : rq_replica_read(r, pgno, page);
    free(page);
    if (err == RQ_CORRUPT) {
        return changed(r, pgno, text);
    }
    if (err == RQ_OK) {
        rq_page_hashes_set_suspect(r->hashes, 0);
    }
    return err;
}

/* A new file of hashes, all unknown, for a database file that is durable as it is now.  Without space for it there is none yet. */
static enum rq_err begin_anew(struct rq_replica *r)
{
    enum rq_err err = rq_sync_final(r->disk, r->db);
    if (err != RQ_OK) {
        /* What was not written is clean now, and the next sync would do nothing: doubted by the next start. */
        (void)rq_page_hashes_set_boot(r->hashes, 0);
        return err;
    }
    const uint64_t version = r->frames.committed == 0 ? r->state.version : 0;
    err = rq_page_hashes_forget(r->hashes);
    if (err == RQ_OK) {
        err = rq_page_hashes_set_boot(r->hashes, r->boot);
    }
    if (err == RQ_OK) {
        err = rq_page_hashes_make(r->hashes, version);
        if (err == RQ_FULL || err == RQ_PERM) {
            return RQ_OK;
        }
    }
    return err == RQ_OK ? rq_page_hashes_seal(r->hashes, version, r->state.page_count) : err;
}

enum rq_err rq_replica_keep_hashes(struct rq_replica *r, const char *path, uint64_t boot, const char **ret_forgotten,
                                   char text[160])
{
    uint64_t version, last_boot;
    text[0] = 0;
    r->boot = boot;
    enum rq_err err = rq_page_hashes_open(r->disk, path, r->state.stamp.db_id, r->page_size, &r->hashes, ret_forgotten);
    if (err != RQ_OK) {
        return err;
    }
    if (!rq_page_hashes_version(r->hashes, &version, &last_boot)) {
        return begin_anew(r);
    }
    if (r->frames.committed == 0 && version != r->state.version) {
        if (last_boot != boot) {
            r->in_doubt = true;
            r->doubt_from = version;
            return RQ_OK;
        }
        *ret_forgotten = "of another state of the database";
        return begin_anew(r);
    }
    if (r->frames.committed == 0) { /* else page 1 is in the WAL */
        err = rq_replica_page_verify(r, 1, r->page1);
        if (err == RQ_CORRUPT) {
            return changed(r, 1, text);
        }
    }
    if (err == RQ_OK) {
        err = suspect_check(r, text);
    }
    return err == RQ_OK ? rq_page_hashes_set_boot(r->hashes, boot) : err;
}

bool rq_replica_in_doubt(const struct rq_replica *r, uint64_t *ret_from)
{
    *ret_from = r->doubt_from;
    return r->in_doubt;
}

/* The page is read from memory if a sync failed while nobody looked: so it is written again. */
static enum rq_err claim_check(struct rq_replica *r, const struct rq_page_claim *claim, uint8_t *page)
{
    const uint64_t offset = (uint64_t)(claim->pgno - 1) * r->page_size;
    size_t got;
    enum rq_err err = r->disk->ops->read(r->db, page, r->page_size, offset, &got);
    if (err != RQ_OK) {
        return err;
    }
    uint8_t *normal = page + r->page_size;
    memcpy(normal, page, r->page_size);
    if (claim->pgno == 1) {
        rq_page1_normalise(normal);
    }
    if (got != r->page_size || rq_page_hash(normal, r->page_size) != claim->hash) {
        return RQ_CORRUPT;
    }
    return r->disk->ops->write(r->db, page, r->page_size, offset);
}

enum rq_err rq_replica_prove(struct rq_replica *r, const struct rq_page_claim *claims, size_t count, char text[160])
{
    uint8_t *page = malloc(2 * (size_t)r->page_size);
    enum rq_err err = page == NULL ? RQ_NOMEM : RQ_OK;
    text[0] = 0;
    for (size_t i = 0; err == RQ_OK && i < count; i++) {
        if (claims[i].pgno == rq_lock_page(r->page_size)) {
            continue;
        }
        err = claim_check(r, &claims[i], page);
        if (err == RQ_CORRUPT) {
            (void)snprintf(text, 160, "%s: page %u is not what the log says", r->path, claims[i].pgno);
        }
    }
    free(page);
    if (err == RQ_OK) {
        rq_replica_note_modified(r);
        err = begin_anew(r);
    }
    r->in_doubt = err != RQ_OK;
    return err;
}

/* --- back-fill ----------------------------------------------------------------------------------------------------------- */

enum rq_err rq_replica_put_hashes(struct rq_replica *r, const uint32_t *pages, const uint64_t *hashes, uint32_t count)
{
    enum rq_err err = rq_page_hashes_make(r->hashes, 0);
    for (uint32_t from = 0, i = 1; err == RQ_OK && i <= count; i++) {
        if (i == count || pages[i] != pages[i - 1] + 1) {
            err = rq_page_hashes_put(r->hashes, pages[from], i - from, hashes + from);
            from = i;
        }
    }
    return err;
}

/* --- scrub --------------------------------------------------------------------------------------------------------------- */

/* Pages [first, first + count) of the database file, as it was at one moment. */
struct stretch {
    uint32_t first, count;
    uint64_t whole_version;     /* of the database file; 0: it is not whole */
    bool skip[PAGES_PER_CHUNK]; /* their newest version is not in the file */
};

static void stretch_take(struct stretch *s, struct rq_replica *r, uint64_t bytes)
{
    pthread_mutex_lock(&r->mutex);
    const uint32_t page_count = r->state.page_count;
    const uint64_t most = (bytes < RQ_CHUNK_BYTES ? bytes : RQ_CHUNK_BYTES) / r->page_size;
    s->first = r->scrub_next;
    s->count = s->first > page_count ? 0 : page_count - s->first + 1;
    s->count = s->count > most ? (uint32_t)most : s->count;
    s->whole_version = r->backfilled == r->frames.committed ? r->state.version : 0;
    for (uint32_t i = 0; i < s->count; i++) {
        const uint32_t pgno = s->first + i;
        s->skip[i] = rq_frames_find(&r->frames, pgno) > r->backfilled || pgno == rq_lock_page(r->page_size);
    }
    pthread_mutex_unlock(&r->mutex);
}

static enum rq_err stretch_scrub(const struct stretch *s, struct rq_replica *r, uint8_t *chunk, char text[160])
{
    uint64_t hashes[PAGES_PER_CHUNK];
    size_t got;
    bool learned = false;
    enum rq_err err = r->disk->ops->read(r->db, chunk, (size_t)s->count * r->page_size,
                                         (uint64_t)(s->first - 1) * r->page_size, &got);
    if (err == RQ_OK) {
        err = rq_page_hashes_get(r->hashes, s->first, s->count, hashes);
    }
    for (uint32_t i = 0; err == RQ_OK && i < s->count; i++) {
        if (s->skip[i]) {
            continue;
        }
        if (((size_t)i + 1) * r->page_size > got) {
            return changed(r, s->first + i, text); /* cut off */
        }
        const uint64_t hash = rq_page_hash(chunk + (size_t)i * r->page_size, r->page_size);
        if (hashes[i] == 0) {
            hashes[i] = hash;
            learned = true;
        } else if (hashes[i] != hash) {
            return changed(r, s->first + i, text);
        }
    }
    if (err == RQ_OK && learned) {
        err = rq_page_hashes_make(r->hashes, s->whole_version);
    }
    return err == RQ_OK && learned ? rq_page_hashes_put(r->hashes, s->first, s->count, hashes) : err;
}

enum rq_err rq_replica_scrub(struct rq_replica *r, uint32_t pass, uint64_t *bytes, char text[160])
{
    text[0] = 0;
    if (r->hashes == NULL) {
        return RQ_OK;
    }
    if (r->scrub_pass != pass) {
        r->scrub_pass = pass;
        r->scrub_next = 1;
    }
    uint8_t *chunk = malloc(RQ_CHUNK_BYTES);
    enum rq_err err = chunk == NULL ? RQ_NOMEM : RQ_OK;
    while (err == RQ_OK && *bytes > 0) {
        struct stretch s;
        stretch_take(&s, r, *bytes < r->page_size ? r->page_size : *bytes);
        if (s.count == 0) {
            break;
        }
        err = stretch_scrub(&s, r, chunk, text);
        r->scrub_next += err == RQ_OK ? s.count : 0;
        const uint64_t read = (uint64_t)s.count * r->page_size;
        *bytes -= read < *bytes ? read : *bytes;
    }
    free(chunk);
    return err;
}
