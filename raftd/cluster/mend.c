#include "raftd/cluster/mend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/cluster/verdict.h"
#include "raftd/cluster/voice.h"
#include "raftd/db/catalog.h"
#include "raftd/db/identity.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"

#define MARK_MS     10000u /* until the entry is applied here */
#define ANSWER_MS   10000u
#define AGAIN_MS    50u
#define PATIENCE_MS 10000u /* for members that are behind */

struct mend {
    struct rq_cluster *cluster;
    uint32_t id;
    uint64_t index;
    struct rq_voice voices[RQ_VOICES_MAX];
    unsigned count, asked; /* of them that give it; that there are */
    unsigned voters;       /* of the cluster, with this node if it is one */
    struct rq_ask_state state;
    uint64_t *hashes[RQ_VOICES_MAX]; /* owns: of pages from first on */
    uint32_t first;
    struct rq_bytes answer;
};

/* --- who gives it, and which state ----------------------------------------------------------------------------------------- */

/* AWAY, QUARANTINED: he says nothing.  Others: who is there has to be waited for, lest one alone decides that is not alone. */
static enum rq_err ask_state(struct mend *m, uint64_t instance, uint64_t deadline_ms, struct rq_ask_state *ret_state)
{
    const struct rq_ask ask = { .kind = RQ_ASK_STATE, .mark = { .db_id = m->id, .index = m->index } };
    enum rq_err err;
    while ((err = rq_voice_ask(m->cluster, instance, &ask, ANSWER_MS, &m->answer)) == RQ_UNREADY &&
           rq_clock_ms() < deadline_ms) {
        nanosleep(&(struct timespec){ .tv_nsec = AGAIN_MS * 1000000l }, NULL);
    }
    if (err == RQ_OK) {
        err = rq_ask_get_state(m->answer.data, m->answer.size, ret_state);
    }
    return err == RQ_NOTFOUND ? RQ_UNREADY : err;
}

static bool same_state(const struct rq_ask_state *a, const struct rq_ask_state *b)
{
    return a->version == b->version && a->stamp_index == b->stamp_index && a->stamp_term == b->stamp_term &&
           a->page_size == b->page_size && a->page_count == b->page_count;
}

/* The state that more than half of them have; only these are asked further. */
static enum rq_err agree(struct mend *m, const struct rq_ask_state *states)
{
    for (unsigned i = 0; i < m->count; i++) {
        unsigned same = 0;
        for (unsigned k = 0; k < m->count; k++) {
            same += same_state(&states[i], &states[k]);
        }
        if (same > m->count / 2) {
            unsigned kept = 0;
            for (unsigned k = 0; k < m->count; k++) {
                if (same_state(&states[i], &states[k])) {
                    m->voices[kept++] = m->voices[k];
                }
            }
            m->state = states[i];
            m->count = kept;
            return RQ_OK;
        }
    }
    return RQ_CORRUPT;
}

static enum rq_err on_open(void *ctx, uint64_t index, struct rq_replica_state *ret_state)
{
    struct mend *m = ctx;
    struct rq_ask_state states[RQ_VOICES_MAX];
    const uint64_t deadline_ms = rq_clock_ms() + PATIENCE_MS;
    unsigned given = 0;
    m->index = index;
    for (unsigned i = 0; i < m->asked; i++) {
        const struct rq_voice voice = m->voices[i];
        enum rq_err err = ask_state(m, voice.instance, deadline_ms, &states[given]);
        if (err == RQ_OK) {
            m->voices[given++] = voice;
        } else if (err != RQ_AWAY && err != RQ_QUARANTINED) {
            return err;
        }
    }
    m->count = given;
    if (given == 0) {
        return RQ_AWAY;
    }
    enum rq_err err = agree(m, states);
    for (unsigned i = 0; err == RQ_OK && i < m->count; i++) {
        m->hashes[i] = malloc(RQ_MARK_PAGES_MAX * sizeof(uint64_t));
        err = m->hashes[i] == NULL ? RQ_NOMEM : RQ_OK;
    }
    *ret_state = (struct rq_replica_state){
        .stamp = { .db_id = m->id,
                   .term = m->state.stamp_term,
                   .index = m->state.stamp_index,
                   .version_high = (uint32_t)(m->state.version >> 32) },
        .version = m->state.version,
        .page_size = m->state.page_size,
        .page_count = m->state.page_count,
    };
    return err;
}

/* --- pages ----------------------------------------------------------------------------------------------------------------- */

static enum rq_err ask_hashes(struct mend *m, unsigned i, uint32_t first, uint32_t count)
{
    const struct rq_ask ask = { .kind = RQ_ASK_HASHES,
                                .mark = { .db_id = m->id, .index = m->index, .first = first, .count = count } };
    const uint8_t *data;
    uint32_t got;
    enum rq_err err = rq_voice_ask(m->cluster, m->voices[i].instance, &ask, ANSWER_MS, &m->answer);
    if (err == RQ_OK) {
        err = rq_ask_get_hashes(m->answer.data, m->answer.size, &data, &got);
    }
    if (err == RQ_OK && got != count) {
        err = RQ_PROTOCOL;
    }
    for (uint32_t k = 0; err == RQ_OK && k < count; k++) {
        m->hashes[i][k] = rq_get_u64(data + k * sizeof(uint64_t));
    }
    return err;
}

static enum rq_err on_hashes(void *ctx, uint32_t first, uint32_t count, uint64_t *ret_hashes)
{
    struct mend *m = ctx;
    struct rq_opinion opinions[RQ_VOICES_MAX];
    enum rq_err err = RQ_OK;
    m->first = first;
    for (unsigned i = 0; err == RQ_OK && i < m->count; i++) {
        err = ask_hashes(m, i, first, count);
        opinions[i] = (struct rq_opinion){ true, m->hashes[i], count };
    }
    for (uint32_t k = 0; err == RQ_OK && k < count; k++) {
        if (!rq_verdict_page(opinions, m->count, k, m->count / 2 + 1, &ret_hashes[k])) {
            rq_note(
                RQ_LEVEL_ERROR,
                "a quarantined database cannot be mended: the others hold different pages, and no majority the same",
                "id=%u page=%u index=%llu", m->id, first + k, (unsigned long long)m->index);
            err = RQ_CORRUPT;
        }
    }
    return err;
}

/* Against a page that nothing speaks against but the others it takes a majority of all voters: one of two alone is not more right than
 * the other. */
static bool is_decided(struct mend *m, uint32_t pgno)
{
    struct rq_opinion opinions[RQ_VOICES_MAX];
    const uint32_t at = pgno - m->first;
    uint64_t right;
    for (unsigned i = 0; i < m->count; i++) {
        opinions[i] = (struct rq_opinion){ m->voices[i].votes, m->hashes[i], at + 1 };
    }
    return rq_verdict_page(opinions, m->count, at, m->voters / 2 + 1, &right);
}

/* From one of those that have the right one; which it then has to be. */
static enum rq_err on_page(void *ctx, uint32_t pgno, uint32_t page_size, bool disputed, uint8_t *page)
{
    struct mend *m = ctx;
    struct rq_opinion opinions[RQ_VOICES_MAX];
    const struct rq_ask ask = { .kind = RQ_ASK_PAGES,
                                .mark = { .db_id = m->id, .index = m->index, .first = pgno, .count = 1 } };
    const uint32_t at = pgno - m->first;
    const uint8_t *data;
    uint64_t right = 0;
    uint32_t got;
    if (disputed && !is_decided(m, pgno)) {
        rq_note(RQ_LEVEL_ERROR,
                "a quarantined database is not mended: too few voters are there to tell whose page is the right one",
                "id=%u page=%u index=%llu asked=%u of=%u", m->id, pgno, (unsigned long long)m->index, m->count,
                m->voters);
        return RQ_CORRUPT;
    }
    for (unsigned i = 0; i < m->count; i++) {
        opinions[i] = (struct rq_opinion){ true, m->hashes[i], at + 1 };
    }
    (void)rq_verdict_page(opinions, m->count, at, m->count / 2 + 1, &right); /* there is one: on_hashes() */
    unsigned i = 0;
    while (m->hashes[i][at] != right) {
        i++;
    }
    enum rq_err err = rq_voice_ask(m->cluster, m->voices[i].instance, &ask, ANSWER_MS, &m->answer);
    if (err == RQ_OK) {
        err = rq_ask_get_pages(m->answer.data, m->answer.size, &data, &got);
    }
    if (err == RQ_OK && got != page_size) {
        err = RQ_PROTOCOL;
    }
    if (err == RQ_OK) {
        memcpy(page, data, page_size);
    }
    return err;
}

/* --- the whole ------------------------------------------------------------------------------------------------------------- */

static void on_proposed(struct rq_request *r, enum rq_err err, struct rq_database *db)
{
    (void)err, (void)db; /* it comes, or does not in time */
    free(r);
}

static enum rq_err have_it_marked(struct rq_cluster *c, uint32_t id, uint64_t nonce)
{
    struct rq_request *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return RQ_NOMEM;
    }
    r->done = on_proposed;
    rq_catalog_mark(c->catalog, &(struct rq_entry_mark){ .db_id = id, .nonce = nonce }, r);
    return RQ_OK;
}

static void note_mended(const struct mend *m, struct rq_database *db, const struct rq_repair *r)
{
    char name[RQ_DB_NAME_MAX * 2];
    rq_note(RQ_LEVEL_WARN, "a quarantined database was mended by the pages of other members",
            "db=%s id=%u pages=%llu first=%s compared=%llu vouched_by=%u of=%u index=%llu",
            rq_quote(name, sizeof name, rq_database_name(db)), m->id, (unsigned long long)r->mended,
            r->first_pages[0] != '\0' ? r->first_pages : "none", (unsigned long long)r->compared, m->count, m->asked,
            (unsigned long long)m->index);
}

enum rq_err rq_mend(struct rq_cluster *c, struct rq_database *db, uint64_t *ret_compared, uint64_t *ret_mended)
{
    bool self_votes;
    struct mend *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return RQ_NOMEM;
    }
    m->cluster = c;
    m->id = rq_database_id(db);
    m->asked = rq_voices(c, m->voices, &m->voters, &self_votes);
    rq_bytes_init(&m->answer, RQ_CLUSTER_REPLY_MAX);
    struct rq_repair r = { .nonce = rq_random_id(), .source = { m, on_open, on_hashes, on_page } };
    rq_database_repair_begin(db, &r);
    enum rq_err marked = have_it_marked(c, m->id, r.nonce);
    enum rq_err err = rq_database_repair_wait(db, &r, marked == RQ_OK ? MARK_MS : 0);
    if (err == RQ_OK) {
        note_mended(m, db, &r);
    }
    *ret_compared = r.compared;
    *ret_mended = r.mended;
    for (unsigned i = 0; i < RQ_VOICES_MAX; i++) {
        free(m->hashes[i]);
    }
    rq_bytes_fini(&m->answer);
    free(m);
    return err;
}
