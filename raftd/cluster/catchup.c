#include "raftd/cluster/catchup.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/cluster/conduit.h"
#include "raftd/cluster/copy_wire.h"
#include "raftd/cluster/mend.h"
#include "raftd/db/catalog.h"
#include "raftd/ops/journal.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"
#include "raftd/wire/head.h"
#include "raftd/wire/mp.h"

#define LOOK_MS          1000 /* is a database quarantined? */
#define AGAIN_MS         200  /* after all members were asked in vain; then twice that, and so on */
#define AGAIN_MAX_MS     5000
#define COPY_MEMBERS_MAX (2 * RQ_MEMBERS_MAX)

struct rq_catchup {
    struct rq_cluster *cluster; /* borrows: it lives as long as the process */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    uint64_t wanted; /* 0: nothing; guarded by lock, as stats */
    struct rq_catchup_stats stats;
    uint64_t repair_due_ms, repair_pause_ms; /* the thread's, as what follows */
    bool copies_left;                        /* there may be what a copy that broke off has fetched */
};

/* --- a member that is copied from ---------------------------------------------------------------------------------------- */

struct remote {
    struct rq_conduit *conduit;
    struct rq_bytes answer;
};

/* What went wrong there is no trouble of this host's disk or memory. */
static enum rq_err from_there(enum rq_err err)
{
    const bool plain = err == RQ_OK || err == RQ_UNREADY || err == RQ_BUSY || err == RQ_NOTFOUND ||
                       err == RQ_QUARANTINED || err == RQ_PROTOCOL || err == RQ_CORRUPT;
    return plain ? err : RQ_AWAY;
}

static enum rq_err remote_open(struct rq_cluster *c, uint64_t instance, struct remote *ret_remote)
{
    struct rq_bytes head;
    struct rq_mp_writer w;
    rq_bytes_init(&head, 64);
    rq_mp_write_begin(&w, &head, 1);
    rq_mp_put_uint(&w, RQ_HEAD_COPY);
    enum rq_err err = w.err;
    if (err == RQ_OK) {
        err = rq_conduit_open(c->peers, instance, head.data, head.size, &ret_remote->conduit);
    }
    rq_bytes_fini(&head);
    rq_bytes_init(&ret_remote->answer, RQ_COPY_ANSWER_MAX);
    return err;
}

static void remote_close(struct remote *r)
{
    rq_conduit_free(r->conduit);
    rq_bytes_fini(&r->answer);
}

/* The answer to q, behind which so many bytes are sent. */
static enum rq_err ask(struct remote *r, const struct rq_copy_question *q, const void *more, size_t more_bytes)
{
    uint8_t asked[RQ_COPY_QUESTION_BYTES], head[RQ_COPY_ANSWER_BYTES];
    struct rq_copy_answer a = { RQ_OK, 0 };
    rq_copy_put_question(asked, q);
    enum rq_err err = rq_conduit_write(r->conduit, asked, sizeof asked);
    if (err == RQ_OK) {
        err = rq_conduit_write(r->conduit, more, more_bytes);
    }
    if (err == RQ_OK) {
        err = rq_conduit_read_exactly(r->conduit, head, sizeof head);
    }
    if (err != RQ_OK) {
        return from_there(err);
    }
    rq_copy_get_answer(head, &a);
    r->answer.size = 0;
    if (a.bytes > RQ_COPY_ANSWER_MAX) {
        return RQ_PROTOCOL;
    }
    err = rq_bytes_reserve(&r->answer, a.bytes);
    if (err == RQ_OK) {
        err = from_there(rq_conduit_read_exactly(r->conduit, r->answer.data, a.bytes));
        r->answer.size = a.bytes;
    }
    return err == RQ_OK && a.err != RQ_OK ? from_there(a.err) : err;
}

static enum rq_err on_open(void *ctx, uint32_t id, struct rq_replica_state *ret_state, struct rq_origins *ret_origins)
{
    struct remote *r = ctx;
    enum rq_err err = ask(r, &(struct rq_copy_question){ RQ_COPY_DATABASE, id, 0 }, NULL, 0);
    return err == RQ_OK ? rq_copy_get_database(r->answer.data, r->answer.size, ret_state, ret_origins) : err;
}

static enum rq_err on_hashes(void *ctx, uint32_t first, uint32_t count, uint64_t *ret_hashes)
{
    struct remote *r = ctx;
    enum rq_err err = ask(r, &(struct rq_copy_question){ RQ_COPY_HASHES, count, first }, NULL, 0);
    if (err == RQ_OK && r->answer.size != count * sizeof(uint64_t)) {
        err = RQ_PROTOCOL;
    }
    for (uint32_t i = 0; err == RQ_OK && i < count; i++) {
        ret_hashes[i] = rq_get_u64(r->answer.data + i * sizeof(uint64_t));
    }
    return err;
}

static enum rq_err on_pages(void *ctx, const uint32_t *pgnos, uint32_t count, uint32_t page_size, uint8_t *ret_pages)
{
    struct remote *r = ctx;
    const size_t number_bytes = count * sizeof(uint32_t);
    uint8_t *numbers = malloc(number_bytes);
    if (numbers == NULL) {
        return RQ_NOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        rq_put_u32(numbers + i * sizeof(uint32_t), pgnos[i]);
    }
    enum rq_err err = ask(r, &(struct rq_copy_question){ RQ_COPY_PAGES, count, 0 }, numbers, number_bytes);
    free(numbers);
    if (err == RQ_OK && r->answer.size != (size_t)count * page_size) {
        err = RQ_PROTOCOL;
    }
    if (err == RQ_OK) {
        memcpy(ret_pages, r->answer.data, r->answer.size);
    }
    return err;
}

static enum rq_err on_changed(void *ctx, bool hold, struct rq_copy_changed *ret_changed)
{
    struct remote *r = ctx;
    enum rq_err err = ask(r, &(struct rq_copy_question){ RQ_COPY_CHANGED, 0, hold }, NULL, 0);
    return err == RQ_OK ? rq_copy_get_changed(r->answer.data, r->answer.size, ret_changed) : err;
}

static enum rq_err on_held(void *ctx, struct rq_replica_state *ret_state, struct rq_origins *ret_origins)
{
    struct remote *r = ctx;
    enum rq_err err = ask(r, &(struct rq_copy_question){ RQ_COPY_HELD, 0, 0 }, NULL, 0);
    return err == RQ_OK ? rq_copy_get_database(r->answer.data, r->answer.size, ret_state, ret_origins) : err;
}

static struct rq_copy_source source_of(struct remote *r)
{
    return (struct rq_copy_source){ r, on_open, on_hashes, on_pages, on_changed, on_held };
}

/* --- all databases ------------------------------------------------------------------------------------------------------- */

/* Nobody has it in order: the others are not to wait for it. */
static enum rq_err fence(struct rq_database *db, struct remote *r)
{
    struct rq_replica_state state;
    struct rq_origins origins;
    enum rq_err err = ask(r, &(struct rq_copy_question){ RQ_COPY_HEAD, rq_database_id(db), 0 }, NULL, 0);
    if (err == RQ_OK) {
        err = rq_copy_get_database(r->answer.data, r->answer.size, &state, &origins);
    }
    if (err == RQ_OK && origins.next != state.version) {
        rq_origins_fini(&origins);
        err = RQ_PROTOCOL;
    }
    return err == RQ_OK ? rq_database_fence(db, state.version, &origins) : err;
}

/* all: a database that is quarantined there ends it. */
static enum rq_err install_databases(struct rq_cluster *c, struct remote *r, const struct rq_descriptor *picture,
                                     bool all, struct rq_copy_count *count)
{
    const struct rq_copy_source source = source_of(r);
    enum rq_err err = RQ_OK;
    for (uint32_t i = 0; err == RQ_OK && i < picture->database_count; i++) {
        struct rq_database *db = rq_catalog_find_id(c->catalog, picture->databases[i].id);
        if (db != NULL) { /* else an entry behind the picture has dropped it */
            err = rq_database_install(db, &source, false, count);
            if (err == RQ_QUARANTINED && !all) {
                err = fence(db, r);
            }
            rq_database_unref(db);
        }
    }
    return err;
}

/* OK also when the log has come that far by itself. */
static enum rq_err install_from(struct rq_catchup *u, uint64_t instance, uint64_t index, bool all)
{
    struct rq_cluster *c = u->cluster;
    struct remote r;
    struct rq_descriptor picture = { 0 };
    struct rq_copy_count count = { 0 };
    const uint64_t begin_ms = rq_clock_ms();
    enum rq_err err = remote_open(c, instance, &r);
    if (err != RQ_OK) {
        return err;
    }
    err = ask(&r, &(struct rq_copy_question){ RQ_COPY_PICTURE, 0, index }, NULL, 0);
    if (err == RQ_OK) {
        err = rq_copy_get_picture(r.answer.data, r.answer.size, &picture);
    }
    if (err == RQ_OK && picture.index < index) {
        err = RQ_PROTOCOL;
    }
    if (err == RQ_OK) {
        err = rq_catalog_install_begin(c->catalog, &picture);
        if (err == RQ_OK) {
            err = install_databases(c, &r, &picture, all, &count);
            if (err == RQ_OK) {
                err = rq_catalog_install_end(c->catalog, &picture);
            } else {
                rq_catalog_install_abandon(c->catalog);
            }
        }
    }
    remote_close(&r);
    u->copies_left = u->copies_left || err != RQ_OK;
    if (err == RQ_IO) {
        rq_fatal("the state of another member could not be made durable", err);
    }
    pthread_mutex_lock(&u->lock);
    u->stats.pages_compared += count.compared;
    u->stats.pages_fetched += count.fetched;
    u->stats.installs += err == RQ_OK;
    pthread_mutex_unlock(&u->lock);
    if (err == RQ_OK) {
        RQ_COUNT(store, num_restores);
    } else {
        RQ_COUNT(store, num_restores_failed);
    }
    if (err == RQ_OK) {
        rq_note(RQ_LEVEL_INFO, "caught up by the databases of another member",
                "from=%016llx index=%llu databases=%u pages_compared=%llu pages_fetched=%llu ms=%llu",
                (unsigned long long)instance, (unsigned long long)picture.index, picture.database_count,
                (unsigned long long)count.compared, (unsigned long long)count.fetched,
                (unsigned long long)(rq_clock_ms() - begin_ms));
    }
    rq_descriptor_fini(&picture);
    return err == RQ_EXISTS ? RQ_OK : err;
}

/* --- one database -------------------------------------------------------------------------------------------------------- */

static enum rq_err repair_from(struct rq_catchup *u, uint64_t instance, struct rq_database *db)
{
    char name[RQ_DB_NAME_MAX * 2];
    struct remote r;
    struct rq_copy_count count = { 0 };
    enum rq_err err = remote_open(u->cluster, instance, &r);
    if (err != RQ_OK) {
        return err;
    }
    const struct rq_copy_source source = source_of(&r);
    err = rq_database_install(db, &source, true, &count);
    u->copies_left = u->copies_left || err != RQ_OK;
    remote_close(&r);
    pthread_mutex_lock(&u->lock);
    u->stats.pages_compared += count.compared;
    u->stats.pages_fetched += count.fetched;
    u->stats.repairs += err == RQ_OK;
    pthread_mutex_unlock(&u->lock);
    if (err == RQ_OK) {
        rq_note(RQ_LEVEL_WARN, "a quarantined database was made anew from another member",
                "db=%s id=%u from=%016llx pages_fetched=%llu", rq_quote(name, sizeof name, rq_database_name(db)),
                rq_database_id(db), (unsigned long long)instance, (unsigned long long)count.fetched);
    }
    return err;
}

/* --- whom to ask --------------------------------------------------------------------------------------------------------- */

static unsigned add_members(struct rq_cluster *c, const struct rq_members *members, uint64_t leader, uint64_t *list,
                            unsigned count)
{
    for (unsigned i = 0; i < members->count; i++) {
        const uint64_t instance = members->list[i].instance;
        bool there = instance == c->config.instance;
        for (unsigned k = 0; k < count && !there; k++) {
            there = list[k] == instance;
        }
        if (there) {
            continue;
        }
        list[count] = instance;
        if (instance == leader) {
            list[count] = list[0];
            list[0] = instance;
        }
        count++;
    }
    return count;
}

/* All other members, also those that only were told of so far, the leader first. */
static unsigned list_members(struct rq_cluster *c, uint64_t list[COPY_MEMBERS_MAX])
{
    const uint64_t leader = rq_driver_view(atomic_load(&c->driver)).leader_id;
    pthread_mutex_lock(&c->lock);
    const struct rq_members members = c->members, told = c->told;
    pthread_mutex_unlock(&c->lock);
    const unsigned count = add_members(c, &members, leader, list, 0);
    return add_members(c, &told, leader, list, count);
}

/* ret_fenced: one that would give its databases has not all of them in order. */
static enum rq_err install_from_any(struct rq_catchup *u, uint64_t index, bool all, bool *ret_fenced)
{
    uint64_t list[COPY_MEMBERS_MAX];
    const unsigned count = list_members(u->cluster, list);
    enum rq_err err = RQ_AWAY;
    *ret_fenced = false;
    for (unsigned i = 0; err != RQ_OK && i < count; i++) {
        err = install_from(u, list[i], index, all);
        *ret_fenced = *ret_fenced || err == RQ_QUARANTINED;
        if (err != RQ_OK) {
            rq_note(RQ_LEVEL_INFO, "a member does not give its databases now", "from=%016llx index=%llu err=%s",
                    (unsigned long long)list[i], (unsigned long long)index, rq_err_name(err));
        }
    }
    return err;
}

/* From one that has them all, or if there is none, what can be had: what is left out is made anew when a member has it. */
static enum rq_err install(struct rq_catchup *u, uint64_t index)
{
    bool fenced;
    enum rq_err err = install_from_any(u, index, true, &fenced);
    return err != RQ_OK && fenced ? install_from_any(u, index, false, &fenced) : err;
}

static bool is_quarantined(struct rq_database *db)
{
    struct rq_database_info info;
    rq_database_info(db, &info);
    return info.state == RQ_DB_QUARANTINED;
}

/* Its wrong pages from a majority.  NOTFOUND: it is such that only a new one helps. */
static enum rq_err mend(struct rq_catchup *u, struct rq_database *db)
{
    uint64_t compared = 0, mended = 0;
    const enum rq_err err = rq_mend(u->cluster, db, &compared, &mended);
    pthread_mutex_lock(&u->lock);
    u->stats.pages_compared += compared;
    u->stats.pages_fetched += mended;
    u->stats.repairs += err == RQ_OK;
    pthread_mutex_unlock(&u->lock);
    return err == RQ_EXISTS ? RQ_OK : err;
}

/* Each quarantined database, from whoever has it.  False: one is left. */
static bool repair_all(struct rq_catchup *u)
{
    struct rq_database **databases;
    size_t database_count;
    uint64_t list[COPY_MEMBERS_MAX];
    const unsigned count = list_members(u->cluster, list);
    bool all = true;
    if (count == 0 || rq_catalog_list(u->cluster->catalog, &databases, &database_count) != RQ_OK) {
        return true;
    }
    for (size_t i = 0; i < database_count; i++) {
        enum rq_err err = is_quarantined(databases[i]) ? mend(u, databases[i]) : RQ_OK;
        const bool anew = err == RQ_NOTFOUND;
        for (unsigned k = 0; anew && err != RQ_OK && k < count; k++) {
            err = repair_from(u, list[k], databases[i]);
        }
        const bool good = err == RQ_OK;
        all = all && good;
        rq_database_unref(databases[i]);
    }
    free(databases);
    return all;
}

/* --- the thread ---------------------------------------------------------------------------------------------------------- */

static void look_for_damage(struct rq_catchup *u)
{
    const uint64_t now = rq_clock_ms();
    if (now < u->repair_due_ms || !rq_catalog_ready(u->cluster->catalog)) {
        return;
    }
    if (repair_all(u)) {
        u->repair_pause_ms = LOOK_MS;
        if (u->copies_left && !rq_catalog_is_fetching(u->cluster->catalog)) {
            u->copies_left = rq_catalog_drop_copies(u->cluster->catalog) != RQ_OK;
        }
    } else if (u->repair_pause_ms < AGAIN_MAX_MS) {
        u->repair_pause_ms *= 2;
    }
    u->repair_due_ms = rq_clock_ms() + u->repair_pause_ms;
}

/* Until somebody wants something, or so long. */
static uint64_t wait_for_wish(struct rq_catchup *u, unsigned ms, bool again)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    until.tv_sec += (time_t)(ms / 1000) + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&u->lock);
    int waited = 0;
    while ((u->wanted == 0 || again) && waited == 0) {
        waited = pthread_cond_timedwait(&u->wake, &u->lock, &until);
    }
    const uint64_t wanted = u->wanted;
    pthread_mutex_unlock(&u->lock);
    return wanted;
}

static void *catchup_thread(void *arg)
{
    struct rq_catchup *u = arg;
    unsigned pause_ms = 0; /* after a failure */
    for (;;) {
        const uint64_t wanted = wait_for_wish(u, pause_ms > 0 ? pause_ms : LOOK_MS, pause_ms > 0);
        if (wanted == 0) {
            if (rq_catalog_ready(u->cluster->catalog) && rq_catalog_fetching_ends(u->cluster->catalog) == RQ_IO) {
                rq_fatal("raft/fetching could not be removed", RQ_IO);
            }
            look_for_damage(u);
            continue;
        }
        const bool done =
            rq_driver_view(atomic_load(&u->cluster->driver)).delivered >= wanted || install(u, wanted) == RQ_OK;
        pause_ms = done ? 0 : pause_ms == 0 ? AGAIN_MS : pause_ms * 2 < AGAIN_MAX_MS ? pause_ms * 2 : AGAIN_MAX_MS;
        pthread_mutex_lock(&u->lock);
        if (done && u->wanted == wanted) {
            u->wanted = 0;
        }
        pthread_mutex_unlock(&u->lock);
    }
    return NULL;
}

enum rq_err rq_catchup_new(struct rq_cluster *c, struct rq_catchup **ret_catchup)
{
    pthread_t thread;
    pthread_condattr_t attr;
    struct rq_catchup *u = calloc(1, sizeof *u);
    if (u == NULL) {
        return RQ_NOMEM;
    }
    u->cluster = c;
    u->repair_pause_ms = LOOK_MS;
    u->copies_left = true; /* by another process */
    pthread_mutex_init(&u->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&u->wake, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&thread, NULL, catchup_thread, u) != 0) {
        pthread_cond_destroy(&u->wake);
        pthread_mutex_destroy(&u->lock);
        free(u);
        return RQ_NOMEM;
    }
    (void)pthread_detach(thread);
    *ret_catchup = u;
    return RQ_OK;
}

void rq_catchup_wanted(struct rq_catchup *u, uint64_t index)
{
    pthread_mutex_lock(&u->lock);
    if (index != u->wanted) {
        u->wanted = index;
        pthread_cond_signal(&u->wake);
    }
    pthread_mutex_unlock(&u->lock);
}

bool rq_catchup_is_wanted(struct rq_catchup *u)
{
    pthread_mutex_lock(&u->lock);
    const bool wanted = u->wanted != 0;
    pthread_mutex_unlock(&u->lock);
    return wanted;
}

void rq_catchup_stats(struct rq_catchup *u, struct rq_catchup_stats *ret_stats)
{
    pthread_mutex_lock(&u->lock);
    *ret_stats = u->stats;
    pthread_mutex_unlock(&u->lock);
}
