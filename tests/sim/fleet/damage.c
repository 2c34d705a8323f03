/* Damage to single pages of a replica, at hosts that the seed has chosen: of each database at less than half of the voters.
 *
 *   rot     a bit of a page of the database file turns over, on the disk
 *   spoil   a page goes into the replica with a bit turned over: raftd believes that it has written that, and its hashes say so
 *
 * The next blow falls when the last one is mended, or a transaction has written over it. */
#include <stdio.h>

#include "tests/sim/fleet/fleet.h"

/* Pages of the second of two frail hosts are others than those of the first: of one page most have what was committed. */
static uint32_t some_page(const struct fleet_host *h)
{
    return 2 + 2 * fleet_below((FLEET_PAGES - 1) / 2) + (h->number & 1);
}

void damage_draw(void)
{
    for (unsigned i = 0; i < FLEET_DATABASES; i++) {
        const unsigned first = fleet_below(fleet->voter_count);
        fleet->hosts[first].frail[i] = true;
        if (fleet->voter_count > 3) {
            fleet->hosts[first < 4 ? first ^ 1 : 3].frail[i] = true;
        }
    }
}

struct blow {
    struct fleet_host *host;
    unsigned database;
};

static void rot(void *ctx)
{
    const struct blow *b = ctx;
    struct rq_disk *disk = b->host->rig.disk;
    struct rq_file *file;
    uint8_t page[FLEET_PAGE];
    char path[64];
    size_t bytes;
    const uint64_t at = (uint64_t)(some_page(b->host) - 1) * FLEET_PAGE;
    (void)snprintf(path, sizeof path, RIG_DIR "/%s", fleet_database_names[b->database]);
    if (disk->ops->open(disk, path, RQ_OPEN_WRITE, 0, &file) != RQ_OK) {
        return;
    }
    if (disk->ops->read(file, page, sizeof page, at, &bytes) == RQ_OK && bytes == sizeof page) {
        page[fleet_below(FLEET_PAGE)] ^= 1u << fleet_below(8);
        if (disk->ops->write(file, page, sizeof page, at) == RQ_OK) {
            fleet_trace("host %u: page %u of %s rots", b->host->number, (unsigned)(at / FLEET_PAGE) + 1,
                        fleet_database_names[b->database]);
            fleet_count(FLEET_pages_rotten);
        }
    }
    disk->ops->close(file);
}

void damage_strike(void)
{
    const unsigned database = fleet_below(FLEET_DATABASES);
    struct fleet_host *h = &fleet->hosts[fleet_below(fleet->voter_count)];
    struct blow b = { h, database };
    if (!h->frail[database] || h->state != FLEET_READY || h->spoils[database] || !truth_is_sound(h, database)) {
        return;
    }
    if (fleet_chance(600)) {
        h->spoils[database] = true;
    } else {
        (void)host_run(h, rot, &b);
    }
}

/* --- a page that is written with a bit turned over ----------------------------------------------------------------------------- */

struct spoiler {
    const struct rq_page_source *pages;
    struct fleet_host *host;
    unsigned database;
    uint32_t pgno;
    uint8_t page[FLEET_PAGE];
};

static enum rq_err next_page(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    struct spoiler *s = ctx;
    enum rq_err err = s->pages->next(s->pages->ctx, ret_pgno, ret_page);
    if (err == RQ_OK && *ret_pgno > 1 && *ret_pgno % 2 == s->host->number % 2 && s->host->spoils[s->database]) {
        for (unsigned i = 0; i < FLEET_PAGE; i++) {
            s->page[i] = (*ret_page)[i];
        }
        s->page[fleet_below(FLEET_PAGE)] ^= 1u << fleet_below(8);
        *ret_page = s->page;
        s->host->spoils[s->database] = false;
        fleet_trace("host %u: page %u of %s is spoilt", s->host->number, *ret_pgno, fleet_database_names[s->database]);
        fleet_count(FLEET_pages_spoilt);
    }
    return err;
}

enum rq_err __real_rq_replica_append(struct rq_replica *r, const struct rq_page_source *pages,
                                     const struct rq_replica_state *after);
enum rq_err __wrap_rq_replica_append(struct rq_replica *r, const struct rq_page_source *pages,
                                     const struct rq_replica_state *after);
enum rq_err __wrap_rq_replica_append(struct rq_replica *r, const struct rq_page_source *pages,
                                     const struct rq_replica_state *after)
{
    struct fleet_host *h = fleet->current;
    const unsigned database = truth_database_of(after->stamp.db_id);
    struct spoiler s = { .pages = pages, .host = h, .database = database };
    const struct rq_page_source spoilt = { &s, next_page };
    const bool spoils = database < FLEET_DATABASES && h->spoils[database] && !h->told[database];
    return __real_rq_replica_append(r, spoils ? &spoilt : pages, after);
}
