#include "raftd/cluster/compare.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/cluster/marks.h"
#include "raftd/cluster/verdict.h"
#include "raftd/cluster/voice.h"
#include "raftd/db/catalog.h"
#include "raftd/db/identity.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"

#define SLICE_BYTES   (16u << 20) /* so long a WAL is kept from beginning anew: two seconds at the pace of marks.c */
#define LOOK_MS       200u
#define FIRST_PASS_MS 60000u /* after the start, if a pass is not wanted sooner */
#define ANSWER_MS     5000u
#define AGAIN_MS      100u
#define PATIENCE_MS   20000u /* then who has not answered says nothing */
#define MARK_LOST_MS  10000u /* its entry does not come: another one */
#define MARKS_MAX     8u     /* as many are held: marks.c */

struct marked {
    struct rq_entry_mark mark;
    uint64_t index;
};

struct rq_compare {
    struct rq_cluster *cluster; /* borrows: it lives as long as the process */
    uint64_t every_ms;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct marked
        marks[MARKS_MAX];  /* guarded by lock, as what follows: the newest that were applied, not looked at yet */
    unsigned first, count; /* of them; a ring */
    struct rq_compare_stats stats;

    /* The thread's. */
    bool walks;                  /* a pass is under way */
    uint32_t next_id, next_page; /* it goes on there */
    uint64_t next_pass_ms, proposed_ms;
    uint64_t proposed; /* nonce of the mark that was asked for, and has not come; 0: none */
    uint64_t *hashes;  /* owns; of RQ_VOICES_MAX + 1 members, RQ_MARK_PAGES_MAX each, as far as they were asked */
};

/* --- the slices of a pass -------------------------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
    const uint32_t x = rq_database_id(*(struct rq_database *const *)a),
                   y = rq_database_id(*(struct rq_database *const *)b);
    return (x > y) - (x < y);
}

static uint32_t slice_pages(uint32_t page_size)
{
    const uint32_t pages = SLICE_BYTES / page_size;
    return pages < RQ_MARK_PAGES_MAX ? pages : RQ_MARK_PAGES_MAX;
}

/* The first one from (id, page) on; false: the pass is complete. */
static bool next_slice(struct rq_compare *w, uint32_t id, uint32_t page, struct rq_entry_mark *ret_mark)
{
    struct rq_database **list;
    size_t count;
    bool found = false;
    if (rq_catalog_list(w->cluster->catalog, &list, &count) != RQ_OK) {
        return false;
    }
    qsort(list, count, sizeof *list, by_id);
    for (size_t i = 0; i < count; i++) {
        struct rq_database_info info;
        rq_database_info(list[i], &info);
        const uint32_t first = info.id == id ? page : 1;
        if (!found && info.id >= id && first <= info.page_count) {
            const uint32_t left = info.page_count - first + 1, most = slice_pages(info.page_size);
            *ret_mark = (struct rq_entry_mark){ .db_id = info.id, .first = first, .count = left < most ? left : most };
            found = true;
        }
        rq_database_unref(list[i]);
    }
    free(list);
    return found;
}

/* A page that somebody asks about, being in doubt, is not where the leader is: those are whole slices, but for the last one. */
static bool is_of_a_pass(struct rq_compare *w, const struct rq_entry_mark *mark)
{
    struct rq_entry_mark next;
    return mark->nonce == w->proposed || mark->count > 1 ||
           (w->walks && next_slice(w, w->next_id, w->next_page, &next) && mark->db_id == next.db_id &&
            mark->first == next.first);
}

/* Every member follows what the leader does: it may be the next one. */
static void follow(struct rq_compare *w, const struct rq_entry_mark *mark)
{
    struct rq_entry_mark next;
    if (!w->walks) {
        w->walks = true;
        w->next_pass_ms = rq_clock_ms() + w->every_ms;
    }
    w->next_id = mark->db_id;
    w->next_page = mark->first + mark->count;
    if (!next_slice(w, w->next_id, w->next_page, &next)) {
        w->walks = false;
        pthread_mutex_lock(&w->lock);
        w->stats.passes++;
        pthread_mutex_unlock(&w->lock);
        rq_note(RQ_LEVEL_DEBUG, "databases compared with those of the other members", "passes=%llu",
                (unsigned long long)w->stats.passes);
    }
}

/* --- a slice --------------------------------------------------------------------------------------------------------------- */

/* What a voter says; NULL: nothing. */
static const uint64_t *ask_voice(struct rq_compare *w, uint64_t instance, const struct rq_entry_mark *mark,
                                 uint64_t index, uint64_t deadline_ms, uint64_t *hashes, uint32_t *ret_count)
{
    const struct rq_ask ask = {
        .kind = RQ_ASK_HASHES,
        .mark = { .db_id = mark->db_id, .index = index, .first = mark->first, .count = mark->count },
    };
    struct rq_bytes answer;
    const uint8_t *data;
    rq_bytes_init(&answer, RQ_CLUSTER_REPLY_MAX);
    enum rq_err err;
    while ((err = rq_voice_ask(w->cluster, instance, &ask, ANSWER_MS, &answer)) == RQ_UNREADY &&
           rq_clock_ms() < deadline_ms) {
        nanosleep(&(struct timespec){ .tv_nsec = AGAIN_MS * 1000000l }, NULL);
    }
    if (err == RQ_OK) {
        err = rq_ask_get_hashes(answer.data, answer.size, &data, ret_count);
    }
    if (err == RQ_OK && *ret_count > mark->count) {
        err = RQ_PROTOCOL;
    }
    for (uint32_t i = 0; err == RQ_OK && i < *ret_count; i++) {
        hashes[i] = rq_get_u64(data + i * sizeof *hashes);
    }
    rq_bytes_fini(&answer);
    return err == RQ_OK ? hashes : NULL;
}

static void wrong_here(const struct rq_entry_mark *mark, uint64_t index, struct rq_database *db,
                       const struct rq_verdict *v)
{
    char text[RQ_DB_TEXT_BYTES], more[32] = "";
    if (v->wrong_here > 1) {
        (void)snprintf(more, sizeof more, " and %u more", v->wrong_here - 1);
    }
    (void)snprintf(text, sizeof text, "not what a majority of the hosts holds at log entry %llu: page %u%s",
                   (unsigned long long)index, mark->first + v->first_wrong_here, more);
    rq_database_quarantine(db, text);
}

static void act(struct rq_compare *w, const struct rq_entry_mark *mark, uint64_t index, const struct rq_voice *voices,
                const struct rq_verdict *v)
{
    char name[RQ_DB_NAME_MAX * 2];
    struct rq_database *db = rq_catalog_find_id(w->cluster->catalog, mark->db_id);
    if (db == NULL) {
        return;
    }
    (void)rq_quote(name, sizeof name, rq_database_name(db));
    if (v->wrong_here > 0) {
        wrong_here(mark, index, db, v);
    }
    for (unsigned i = 0; i < RQ_VOICES_MAX - 1; i++) {
        if ((v->wrong_elsewhere >> (i + 1) & 1) != 0) {
            rq_note(RQ_LEVEL_WARN, "another member holds other pages than a majority",
                    "db=%s id=%u member=%016llx index=%llu", name, mark->db_id, (unsigned long long)voices[i].instance,
                    (unsigned long long)index);
        }
    }
    if (v->undecided > 0) {
        rq_note(RQ_LEVEL_ERROR, "hosts hold different pages and no majority holds the same: nothing is changed",
                "db=%s id=%u page=%u pages=%u index=%llu", name, mark->db_id, mark->first + v->first_undecided,
                v->undecided, (unsigned long long)index);
    }
    rq_database_unref(db);
}

/* This host was in doubt about a page that is compared now.  Without a majority it goes on being. */
static void settle_doubt(struct rq_compare *w, const struct rq_entry_mark *mark, const struct rq_opinion *opinions,
                         unsigned count, unsigned voters)
{
    uint64_t right;
    const uint32_t page = rq_doubts_page(&w->cluster->doubts, mark->db_id);
    if (page < mark->first || page - mark->first >= mark->count ||
        !rq_verdict_page(opinions, count, page - mark->first, voters / 2 + 1, &right)) {
        return;
    }
    rq_doubts_end(&w->cluster->doubts, mark->db_id);
    rq_note(RQ_LEVEL_INFO, "a majority has told who is wrong about the page of a transaction",
            "id=%u page=%u wrong_here=%s", mark->db_id, page,
            rq_verdict_agrees(&opinions[0], page - mark->first, right) ? "no" : "yes");
}

static void compare(struct rq_compare *w, const struct rq_entry_mark *mark, uint64_t index)
{
    struct rq_voice voices[RQ_VOICES_MAX];
    struct rq_opinion opinions[RQ_VOICES_MAX + 1] = { 0 };
    struct rq_verdict verdict;
    unsigned voters, voting = 0;
    bool self_votes;
    uint32_t own;
    const unsigned others = rq_voices(w->cluster, voices, &voters, &self_votes);
    if (rq_marks_compare(atomic_load(&w->cluster->marks), mark, index, w->hashes, &own) != RQ_OK || voters < 2) {
        return; /* fenced: it has nothing to say, and is mended by then */
    }
    const uint64_t deadline_ms = rq_clock_ms() + PATIENCE_MS;
    opinions[0] = (struct rq_opinion){ self_votes, w->hashes, own };
    unsigned count = 1;
    for (unsigned i = 0; i < others && count < RQ_VOICES_MAX; i++, count++) {
        uint64_t *room = w->hashes + (size_t)count * RQ_MARK_PAGES_MAX;
        opinions[count].votes = voices[i].votes;
        opinions[count].hashes =
            ask_voice(w, voices[i].instance, mark, index, deadline_ms, room, &opinions[count].count);
    }
    for (unsigned i = 0; i < count; i++) {
        voting += opinions[i].votes && opinions[i].hashes != NULL;
    }
    rq_verdict(opinions, count, voters, &verdict);
    settle_doubt(w, mark, opinions, count, voters);
    act(w, mark, index, voices, &verdict);
    pthread_mutex_lock(&w->lock);
    w->stats.compared += voting > voters / 2 ? own : 0;
    w->stats.wrong += verdict.wrong_here;
    w->stats.undecided += verdict.undecided;
    pthread_mutex_unlock(&w->lock);
}

/* --- what is to be compared ------------------------------------------------------------------------------------------------ */

static void on_proposed(struct rq_request *r, enum rq_err err, struct rq_database *db)
{
    (void)err, (void)db; /* it comes, or is asked for again */
    free(r);
}

/* 0: it will not come. */
static uint64_t have_it_marked(struct rq_compare *w, struct rq_entry_mark mark)
{
    struct rq_request *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return 0;
    }
    r->done = on_proposed;
    mark.nonce = rq_random_id();
    rq_catalog_mark(w->cluster->catalog, &mark, r);
    return mark.nonce;
}

/* The next slice of the leader's pass. */
static void propose(struct rq_compare *w)
{
    struct rq_entry_mark mark;
    const uint64_t now = rq_clock_ms();
    if (w->proposed != 0 && now - w->proposed_ms < MARK_LOST_MS) {
        return;
    }
    if (!w->walks && now < w->next_pass_ms) {
        return;
    }
    if (!next_slice(w, w->walks ? w->next_id : 0, w->walks ? w->next_page : 1, &mark)) {
        w->walks = false;
        w->next_pass_ms = now + w->every_ms;
        return;
    }
    w->proposed = have_it_marked(w, mark);
    w->proposed_ms = now;
}

/* Any member's. */
static void ask_about_doubt(struct rq_compare *w)
{
    struct rq_doubt doubt;
    struct rq_database_info info = { 0 };
    if (!rq_doubts_due(&w->cluster->doubts, rq_clock_ms(), &doubt)) {
        return;
    }
    struct rq_database *db = rq_catalog_find_id(w->cluster->catalog, doubt.db_id);
    if (db != NULL) {
        rq_database_info(db, &info);
        rq_database_unref(db);
    }
    if (doubt.page > info.page_count) { /* dropped, or it has no such page any more */
        rq_doubts_end(&w->cluster->doubts, doubt.db_id);
    } else {
        (void)have_it_marked(w, (struct rq_entry_mark){ .db_id = doubt.db_id, .first = doubt.page, .count = 1 });
    }
}

/* --- the thread ------------------------------------------------------------------------------------------------------------ */

static bool next_mark(struct rq_compare *w, struct marked *ret_marked)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_MS * 1000000l;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&w->lock);
    for (int waited = 0; w->count == 0 && waited == 0;) {
        waited = pthread_cond_timedwait(&w->wake, &w->lock, &until);
    }
    const bool is_one = w->count > 0;
    if (is_one) {
        *ret_marked = w->marks[w->first];
        w->first = (w->first + 1) % MARKS_MAX;
        w->count--;
    }
    pthread_mutex_unlock(&w->lock);
    return is_one;
}

static void *compare_thread(void *arg)
{
    struct rq_compare *w = arg;
    struct rq_cluster *c = w->cluster;
    for (;;) {
        struct marked m;
        if (next_mark(w, &m)) {
            if (is_of_a_pass(w, &m.mark)) {
                w->proposed = m.mark.nonce == w->proposed ? 0 : w->proposed;
                follow(w, &m.mark);
            }
            compare(w, &m.mark, m.index);
        }
        struct rq_driver *d = atomic_load(&c->driver);
        if (d == NULL || !rq_catalog_ready(c->catalog) || rq_cluster_is_alone(c)) {
            continue;
        }
        if (w->every_ms > 0 && rq_driver_view(d).leads) {
            propose(w);
        }
        ask_about_doubt(w);
    }
    return NULL;
}

void rq_compare_marked(struct rq_compare *w, const struct rq_entry_mark *mark, uint64_t index)
{
    pthread_mutex_lock(&w->lock);
    if (w->count == MARKS_MAX) { /* the oldest is held no more */
        w->first = (w->first + 1) % MARKS_MAX;
        w->count--;
    }
    w->marks[(w->first + w->count++) % MARKS_MAX] = (struct marked){ *mark, index };
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

void rq_compare_stats(struct rq_compare *w, struct rq_compare_stats *ret_stats)
{
    pthread_mutex_lock(&w->lock);
    *ret_stats = w->stats;
    pthread_mutex_unlock(&w->lock);
}

enum rq_err rq_compare_new(struct rq_cluster *c, uint64_t every_ms, struct rq_compare **ret_compare)
{
    pthread_t thread;
    pthread_condattr_t attr;
    struct rq_compare *w = calloc(1, sizeof *w);
    if (w != NULL) {
        /* Touched as far as used. */
        w->hashes = malloc((size_t)(RQ_VOICES_MAX + 1) * RQ_MARK_PAGES_MAX * sizeof *w->hashes);
    }
    if (w == NULL || w->hashes == NULL) {
        free(w);
        return RQ_NOMEM;
    }
    w->cluster = c;
    w->every_ms = every_ms;
    w->next_pass_ms = rq_clock_ms() + (every_ms < FIRST_PASS_MS ? every_ms : FIRST_PASS_MS);
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&thread, NULL, compare_thread, w) != 0) {
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->lock);
        free(w->hashes);
        free(w);
        return RQ_NOMEM;
    }
    (void)pthread_detach(thread);
    *ret_compare = w;
    return RQ_OK;
}
