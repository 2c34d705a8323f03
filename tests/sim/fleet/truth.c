/* Truth: the state machine once more, in its simplest form, fed with what raftd's deliver; and what follows from it for what they
 * tell and show. */
#include <inttypes.h>
#include <string.h>

#include "raftd/wire/entry.h"
#include "raftd/wire/txn.h"
#include "tests/sim/fleet/fleet.h"
#include "tests/support/page1.h"
#include "tests/support/seeded.h"

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash ^= value + 0x9e3779b97f4a7c15ull + (hash << 6) + (hash >> 2);
    return hash * 0xbf58476d1ce4e5b9ull;
}

/* --- pages --------------------------------------------------------------------------------------------------------------- */

enum { CHAIN_AT = 100, NUMBER_AT = 108 };

static uint64_t chain_after(const struct fleet_commit *c)
{
    return mix(c->chain, c->number);
}

void truth_pages(const struct fleet_commit *c, uint8_t page1[FLEET_PAGE], uint32_t *ret_pgno, uint8_t page[FLEET_PAGE])
{
    memset(page1, 0, FLEET_PAGE);
    page1_head(page1, FLEET_PAGE, c->base + 1, FLEET_PAGES);
    rq_put_u64(page1 + CHAIN_AT, chain_after(c));
    rq_put_u64(page1 + NUMBER_AT, c->number);
    uint64_t random = c->number;
    for (unsigned at = 0; at < FLEET_PAGE; at += 8) {
        rq_put_u64(page + at, seeded_next(&random));
    }
    *ret_pgno = 2 + (uint32_t)(c->number % (FLEET_PAGES - 1));
}

static uint64_t content_of(uint8_t pages[FLEET_PAGES][FLEET_PAGE])
{
    uint64_t hash = 1;
    for (unsigned i = 0; i < FLEET_PAGES; i++) {
        hash = mix(hash, rq_page_hash(pages[i], FLEET_PAGE));
    }
    return hash;
}

/* --- the log ------------------------------------------------------------------------------------------------------------- */

unsigned truth_database_of(uint32_t db_id)
{
    unsigned i = 0;
    while (i < FLEET_DATABASES && fleet->truth[i].id != db_id) {
        i++;
    }
    return i;
}

static struct fleet_truth *of_id(uint32_t id)
{
    const unsigned i = truth_database_of(id);
    return i < FLEET_DATABASES ? &fleet->truth[i] : NULL;
}

static struct fleet_commit *of_origin(struct rq_origin origin)
{
    for (unsigned i = fleet->commit_count; i > 0; i--) {
        struct fleet_commit *c = &fleet->commits[i - 1];
        if (c->origin.session == origin.session && c->origin.seq == origin.seq) {
            return c;
        }
    }
    return NULL;
}

static void created(const struct rq_log_entry *e)
{
    struct rq_entry_create create;
    if (rq_entry_get_create(e->blob->data, e->blob->bytes, &create) != RQ_OK) {
        fleet_fail("entry %" PRIu64 " creates nothing", e->index);
    }
    for (unsigned i = 0; i < FLEET_DATABASES; i++) {
        const char *name = fleet_database_names[i];
        if (strlen(name) == create.name.bytes && memcmp(name, create.name.data, create.name.bytes) == 0 &&
            fleet->truth[i].id == 0) {
            fleet->truth[i].id = (uint32_t)e->index;
        }
    }
}

/* What a transaction changes goes into the page that most have, whatever page its maker had: database_apply.c. */
static void put_pages(struct fleet_truth *t, const struct fleet_commit *c, struct rq_txn_reader *reader)
{
    struct rq_delta delta;
    uint8_t page1[FLEET_PAGE], page[FLEET_PAGE];
    uint32_t pgno;
    bool differs = false;
    truth_pages(c, page1, &pgno, page);
    while (reader != NULL && rq_txn_next(reader, &delta) == RQ_OK) {
        uint8_t *to = t->pages[delta.pgno - 1];
        differs = differs || delta.before != rq_page_hash(to, FLEET_PAGE);
        (void)rq_delta_put(&delta, to, FLEET_PAGE);
    }
    if (!differs) {
        memcpy(t->pages[0], page1, FLEET_PAGE);
        memcpy(t->pages[pgno - 1], page, FLEET_PAGE);
    } else if (!fleet->apps[c->app].host->frail[t - fleet->truth]) {
        fleet_fail("transaction %" PRIu64 " was made on another page than was committed", c->number);
    } else {
        fleet_trace("transaction %" PRIu64 " was made on a page that is wrong there", c->number);
        fleet_count(FLEET_built_on_wrong);
    }
}

/* The base version chain: it has an effect if it was made on the head, and else none, on any host. */
static void committed(const struct rq_log_entry *e, const struct rq_txn_head *head, struct rq_origin origin,
                      struct rq_txn_reader *reader)
{
    struct fleet_truth *t = of_id(head->db_id);
    struct fleet_commit *c = of_origin(origin);
    if (t == NULL || c == NULL) {
        fleet_fail("entry %" PRIu64 " is of nobody", e->index);
    }
    if (c->base != head->base || head->version != head->base + 1) {
        fleet_fail("entry %" PRIu64 " was made on %" PRIu64 ", says the application, and names %" PRIu64, e->index,
                   c->base, head->base);
    }
    if (head->base != t->version) {
        fleet_count(FLEET_without_effect);
        return;
    }
    for (uint64_t v = 1; v <= t->version; v++) {
        if (t->commits[v]->number == c->number) {
            fleet_fail("transaction %" PRIu64 " has an effect twice: versions %" PRIu64 " and %" PRIu64, c->number, v,
                       t->version + 1);
        }
    }
    if (c->failed) {
        fleet_fail("transaction %" PRIu64 " has an effect, and its application was told that it failed", c->number);
    }
    if (c->chain != t->chain[t->version]) {
        fleet_fail("transaction %" PRIu64 " was made on another version %" PRIu64 " than was committed", c->number,
                   t->version);
    }
    if (t->version + 1 >= FLEET_VERSIONS_MAX) {
        fleet_fail("too many versions for one seed");
    }
    c->version = ++t->version;
    t->commits[t->version] = c;
    t->index[t->version] = e->index;
    t->chain[t->version] = chain_after(c);
    put_pages(t, c, reader);
    t->content[t->version] = content_of(t->pages);
    fleet_count(FLEET_commits);
    fleet_trace("entry %" PRIu64 ": version %" PRIu64 " of %s is transaction %" PRIu64 " of application %u", e->index,
                t->version, fleet_database_names[t - fleet->truth], c->number, c->app);
}

static void cut_database(struct fleet_truth *t, uint64_t index)
{
    uint32_t pgno;
    uint8_t page[FLEET_PAGE];
    t->id = t->id > index ? 0 : t->id;
    for (; t->version > 0 && t->index[t->version] > index; t->version--) {
        t->commits[t->version]->version = 0;
    }
    memset(t->pages, 0, sizeof t->pages);
    for (uint64_t v = 1; v <= t->version; v++) {
        truth_pages(t->commits[v], t->pages[0], &pgno, page);
        memcpy(t->pages[pgno - 1], page, FLEET_PAGE);
    }
    t->shown = t->shown < t->version ? t->shown : t->version;
    for (uint64_t ms = 0; ms <= t->shown_ms; ms++) {
        t->shown_at[ms] = t->shown_at[ms] < t->version ? t->shown_at[ms] : (uint16_t)t->version;
    }
}

/* Who was told that something had failed may have been told so by one whose history is gone. */
void truth_cut(const struct fleet_host *h, uint64_t sure, uint64_t index)
{
    uint64_t same = sure;
    while (same < index && same < fleet->log_last &&
           rq_log_term_at(h->rig.log, same + 1) == fleet->log[same + 1].term) {
        same++;
    }
    fleet_trace("host %u goes on alone behind %" PRIu64 ", committed was %" PRIu64, h->number, same, fleet->log_last);
    fleet->log_last = same;
    for (unsigned i = 0; i < FLEET_DATABASES; i++) {
        cut_database(&fleet->truth[i], fleet->log_last);
    }
    for (unsigned i = 0; i < fleet->commit_count; i++) {
        fleet->commits[i].failed = false;
    }
}

static void first_delivered(const struct rq_log_entry *e)
{
    struct rq_txn_reader reader;
    struct rq_entry_staged staged;
    if (e->blob == NULL) {
        return;
    }
    if (e->type == RQ_ENTRY_CREATE) {
        created(e);
    } else if (e->type == RQ_ENTRY_TXN && rq_txn_read(&reader, e->blob->data, e->blob->bytes) == RQ_OK) {
        committed(e, &reader.head, rq_txn_origin(&reader, 0), &reader);
    } else if (e->type == RQ_ENTRY_STAGED && rq_entry_get_staged(e->blob->data, e->blob->bytes, &staged) == RQ_OK) {
        fleet_count(FLEET_staged);
        committed(e, &staged.head, staged.origin, NULL);
    } else if (e->type == RQ_ENTRY_MARK) {
        fleet_count(FLEET_marks);
    }
}

/* State machine safety: the first host that delivers an index decides what it is, for ever. */
void truth_delivered(struct fleet_host *h, const struct rq_log_entry *e)
{
    uint64_t hash = mix(e->type, e->term);
    for (size_t i = 0; e->blob != NULL && i < e->blob->bytes; i++) {
        hash = (hash ^ e->blob->data[i]) * 1099511628211ull;
    }
    if (e->index >= FLEET_INDEX_MAX) {
        fleet_fail("too many entries for one seed");
    }
    if (h->committed != 0 && e->index != h->committed + 1) {
        fleet_fail("host %u delivers %" PRIu64 " after %" PRIu64, h->number, e->index, h->committed);
    }
    h->committed = e->index;
    if (e->index > fleet->log_last) {
        if (e->index != fleet->log_last + 1) {
            fleet_fail("host %u delivers %" PRIu64 ", committed is %" PRIu64, h->number, e->index, fleet->log_last);
        }
        fleet->log_last = e->index;
        fleet->log[e->index].term = e->term;
        fleet->log[e->index].hash = hash;
        fleet->current = NULL; /* none of a raftd's code, and none of its faults */
        first_delivered(e);
        fleet->current = h;
    } else if (fleet->log[e->index].hash != hash) {
        fleet_fail("host %u delivers another entry %" PRIu64, h->number, e->index);
    }
}

/* --- what hosts show ------------------------------------------------------------------------------------------------------- */

struct looking {
    struct fleet_host *host;
    unsigned database;
    bool there;
    struct rq_database_info info;
    struct rq_replica_state state;
    uint8_t pages[FLEET_PAGES][FLEET_PAGE];
    enum rq_err err;
};

/* One that cannot be read tells nothing: its raftd will find out. */
static void look_at(struct looking *l, bool pages)
{
    const uint32_t id = fleet->truth[l->database].id;
    struct rq_database *db = id != 0 ? host_database(l->host, id) : NULL;
    if (db == NULL) {
        return;
    }
    rq_database_info(db, &l->info);
    l->there = true;
    struct rq_replica *r = rq_database_hold(db);
    if (r != NULL) {
        rq_replica_get_state(r, &l->state);
    }
    fleet->looks = true;
    for (uint32_t i = 0; pages && r != NULL && l->err == RQ_OK && i < l->state.page_count && i < FLEET_PAGES; i++) {
        l->err = rq_replica_read_as_shown(r, i + 1, l->pages[i]);
    }
    fleet->looks = false;
    rq_database_release(db);
    rq_database_unref(db);
}

static void show(struct fleet_truth *t, uint64_t version)
{
    const uint64_t now = fleet->now_ms - fleet->begin_ms;
    if (now >= FLEET_MS_MAX) {
        fleet_fail("too long a time for one seed");
    }
    for (; t->shown_ms < now; t->shown_ms++) {
        t->shown_at[t->shown_ms + 1] = t->shown_at[t->shown_ms];
    }
    if (version > t->shown) {
        t->shown = version;
        t->shown_at[now] = (uint16_t)version;
    }
}

uint64_t truth_shown_at(unsigned database, uint64_t ms)
{
    struct fleet_truth *t = &fleet->truth[database];
    show(t, 0);
    return ms < fleet->begin_ms ? 0 : t->shown_at[ms - fleet->begin_ms];
}

static void count_quarantine(const struct looking *l)
{
    if (strncmp(l->info.message, "not what a majority", 19) == 0) {
        fleet_count(FLEET_outvoted);
    } else if (strncmp(l->info.message, "changed behind", 14) == 0) {
        fleet_count(FLEET_found_changed);
    }
}

static void look_at_one(void *ctx)
{
    struct looking *l = ctx;
    struct fleet_host *h = l->host;
    struct fleet_truth *t = &fleet->truth[l->database];
    look_at(l, false);
    if (!l->there) {
        return;
    }
    if (l->info.state == RQ_DB_QUARANTINED && host_disk_failed(h)) {
        return; /* by a call that failed while it was being opened: it is mended, or the process is about to end */
    }
    if (l->info.state != RQ_DB_QUARANTINED) {
        h->fenced[l->database] = l->info.state == RQ_DB_EMPTY && h->fenced[l->database];
    } else if (!h->recovered && strncmp(l->info.message, "the staged body", 15) == 0) {
        h->fenced[l->database] = true;
    }
    if (l->info.state == RQ_DB_QUARANTINED && !h->told[l->database]) {
        fleet_trace("host %u: %s is quarantined: %s", h->number, fleet_database_names[l->database], l->info.message);
        count_quarantine(l);
    }
    h->told[l->database] = l->info.state == RQ_DB_QUARANTINED;
    if (l->info.state == RQ_DB_QUARANTINED && (h->fenced[l->database] || h->frail[l->database])) {
        return; /* it gets what it lacks from who has it, also after another start */
    }
    if (l->info.state == RQ_DB_QUARANTINED) {
        fleet_fail("host %u: %s is quarantined: %s", h->number, fleet_database_names[l->database], l->info.message);
    }
    const uint64_t version = l->state.version;
    if (version == h->applied[l->database] || (version == 0 && h->state != FLEET_READY)) {
        return; /* nothing new, or not open yet */
    }
    if (version < h->applied[l->database]) {
        fleet_fail("host %u: %s goes back from version %" PRIu64 " to %" PRIu64, h->number,
                   fleet_database_names[l->database], h->applied[l->database], version);
    }
    if (version > t->version) {
        fleet_fail("host %u shows version %" PRIu64 ", committed is %" PRIu64, h->number, version, t->version);
    }
    look_at(l, true);
    if (l->err == RQ_OK && content_of(l->pages) != t->content[version] && !h->frail[l->database]) {
        fleet_fail("host %u: version %" PRIu64 " of %s is not what was committed", h->number, version,
                   fleet_database_names[l->database]);
    }
    h->applied[l->database] = version;
    show(t, version);
}

void truth_look(struct fleet_host *h)
{
    for (unsigned i = 0; i < FLEET_DATABASES; i++) {
        struct looking l = { .host = h, .database = i };
        (void)host_run(h, look_at_one, &l);
    }
}

bool truth_is_sound(struct fleet_host *h, unsigned database)
{
    struct looking l = { .host = h, .database = database };
    look_at(&l, true);
    return !l.there ||
           (l.info.state != RQ_DB_QUARANTINED && l.err == RQ_OK &&
            (l.state.version == 0 || content_of(l.pages) == fleet->truth[database].content[l.state.version]));
}

void truth_mended(struct fleet_host *h, uint32_t db_id)
{
    const unsigned database = truth_database_of(db_id);
    struct looking l = { .host = h, .database = database };
    look_at(&l, true);
    if (l.err != RQ_OK || content_of(l.pages) != fleet->truth[database].content[l.state.version]) {
        fleet_fail("host %u: %s is served again, and version %" PRIu64 " is not what was committed", h->number,
                   fleet_database_names[database], l.state.version);
    }
}

uint64_t truth_chain_of(struct fleet_host *h, unsigned database, uint64_t *ret_version)
{
    struct looking l = { .host = h, .database = database };
    look_at(&l, true);
    *ret_version = l.state.version;
    return l.state.version > 0 ? rq_get_u64(l.pages[0] + CHAIN_AT) : 0;
}

void truth_equal(const struct fleet_host *h)
{
    for (unsigned i = 0; i < FLEET_DATABASES; i++) {
        struct fleet_truth *t = &fleet->truth[i];
        struct looking l = { .host = (struct fleet_host *)(uintptr_t)h, .database = i };
        look_at(&l, true);
        if (l.state.version != t->version || (t->version > 0 && memcmp(l.pages, t->pages, sizeof t->pages) != 0)) {
            fleet_fail("host %u ends with another %s than was committed", h->number, fleet_database_names[i]);
        }
    }
}

/* --- what applications are told -------------------------------------------------------------------------------------------- */

void truth_told(struct fleet_app *a, struct fleet_commit *c, enum rq_err err)
{
    fleet_trace("application %u is told of transaction %" PRIu64 " on %" PRIu64 ": %s", a->number, c->number, c->base,
                rq_err_name(err));
    if (err == RQ_OK) {
        fleet_count(FLEET_acknowledged);
        if (c->version == 0) {
            fleet_fail("transaction %" PRIu64 " is acknowledged, and is not committed", c->number);
        }
        if (a->host->applied[c->database] < c->version) { /* it may have gone on since, for who copies from it */
            truth_look(a->host);
        }
        if (a->host->applied[c->database] < c->version && !a->host->told[c->database]) {
            fleet_fail("host %u has acknowledged version %" PRIu64 " and shows %" PRIu64, a->host->number, c->version,
                       a->host->applied[c->database]);
        }
        a->seen = c->version > a->seen ? c->version : a->seen;
        return;
    }
    if (err == RQ_UNKNOWN) {
        fleet_count(FLEET_unknown);
        return;
    }
    if (err == RQ_REFUSED) {
        fleet_count(FLEET_refused);
    }
    c->failed = true;
    if (c->version != 0) {
        fleet_fail("transaction %" PRIu64 " is committed, and its application is told that it failed: %s", c->number,
                   rq_err_name(err));
    }
}

bool truth_is_fenced(struct fleet_host *h, unsigned database)
{
    struct looking l = { .host = h, .database = database };
    look_at(&l, false);
    return l.there && l.info.state == RQ_DB_QUARANTINED && host_disk_failed(h);
}

void truth_read(struct fleet_app *a, uint64_t at_least, const char *what)
{
    const uint64_t version = a->host->applied[a->database];
    if (version < at_least && !truth_is_fenced(a->host, a->database)) {
        fleet_fail("host %u answers a %s read with version %" PRIu64 ", it had to be %" PRIu64, a->host->number, what,
                   version, at_least);
    }
    if (version < a->seen) {
        fleet_fail("host %u: application %u has seen version %" PRIu64 " and sees %" PRIu64 " now", a->host->number,
                   a->number, a->seen, version);
    }
    a->seen = version;
}
