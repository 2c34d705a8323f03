#include "tests/support/raftd_model.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/ops/journal.h"
#include "raftd/wire/bytes.h"
#include "tests/support/page1.h"
#include "tests/support/seeded.h"

#define SESSION 77u

/* Ids of frames that are no addresses. */
#define ID_ASK  2u
#define ID_LOOK 3u

bool raftd_model_must(struct raftd_model *m, bool condition, const char *format, ...)
{
    if (!condition && m->wrong[0] == '\0') {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(m->wrong, sizeof m->wrong, format, args);
        va_end(args);
    }
    return condition;
}

static void *some_memory(size_t bytes)
{
    void *p = calloc(1, bytes);
    if (p == NULL) {
        abort();
    }
    return p;
}

static void heard(void *ctx, const struct rq_frame *frame, const uint8_t *body);

void raftd_model_init(struct raftd_model *m, struct rig *rig, uint64_t seed)
{
    static const char *const names[MODEL_NAMES] = { "app.db", "b.db", "with space.sqlite" };
    *m = (struct raftd_model){ .rig = rig, .seed = seed };
    for (unsigned i = 0; i < MODEL_NAMES; i++) {
        m->names[i].name = names[i];
    }
    rq_bytes_init(&m->frame, 65536);
    if (rq_bytes_reserve(&m->frame, 65536) != RQ_OK) {
        abort();
    }
    m->door.heard = heard;
    m->door.ctx = m;
}

/* --- transactions --------------------------------------------------------------------------------------------------------- */

static void forget_open(struct model_name *n)
{
    memset((void *)n->open, 0, sizeof n->open);
}

static void acknowledge(struct raftd_model *m, struct model_name *n, struct model_commit *t)
{
    n->origins[t->base] = t->origin;
    n->now = t->after;
    forget_open(n); /* what else was open on that base is refused from now on, whoever asks */
    m->acknowledged++;
}

static void close_commit(struct model_commit *t)
{
    t->answered = true;
    for (unsigned i = 0; i < MODEL_OPEN_MAX; i++) {
        if (t->name->open[i] == t) {
            t->name->open[i] = NULL;
        }
    }
}

static void outcome_is(struct model_commit *t, const struct rq_msg_outcome *outcome)
{
    struct raftd_model *m = t->model;
    struct model_name *n = t->name;
    enum rq_err err = outcome->err;
    if (t->life != m->life || m->silent(m)) {
        return;
    }
    raftd_model_must(m, !t->answered, "answered twice");
    close_commit(t);
    if (t->db_id != n->id || n->dropping) {
        if (err == RQ_OK) {
            raftd_model_must(m, t->db_id == n->id && t->base == n->now.version, "OK for a database that was dropped");
            if (t->db_id == n->id && t->base == n->now.version) {
                acknowledge(m, n, t);
            }
        }
        return;
    }
    switch ((int)err) {
        case RQ_OK:
            if (raftd_model_must(m, t->base == n->now.version, "%s: OK for base %llu, the head is %llu", n->name,
                                 (unsigned long long)t->base, (unsigned long long)n->now.version)) {
                raftd_model_must(m, outcome->version == t->base + 1, "the answer names another version");
                acknowledge(m, n, t);
            }
            break;
        case RQ_REFUSED:
            m->refused++;
            raftd_model_must(m, t->base < n->now.version, "%s: refused on the head", n->name);
            break;
        default:
            m->failed++;
            raftd_model_must(m, m->fails, "%s: a commit is answered %s", n->name, rq_err_name(err));
            break;
    }
}

static void answered(struct rq_commit *c, const struct rq_msg_outcome *outcome)
{
    struct model_commit *t = c->ctx;
    outcome_is(t, outcome);
    rq_commit_free(c);
}

/* The next state: some pages changed, perhaps more or fewer of them; and which pages the transaction carries. */
static void make_after(struct raftd_model *m, const struct model_content *base, struct model_content *after,
                       bool carried[MODEL_PAGES_MAX])
{
    uint64_t *seed = &m->seed;
    uint32_t count = base->page_count == 0 ? 1 + seeded_below(seed, 6) : base->page_count;
    uint32_t kind = seeded_below(seed, 8);
    if (kind == 0) {
        count = 1 + seeded_below(seed, MODEL_PAGES_MAX);
    } else if (kind < 3 && count < MODEL_PAGES_MAX) {
        count += 1 + seeded_below(seed, MODEL_PAGES_MAX - count < 4 ? MODEL_PAGES_MAX - count : 4);
    }
    memset(carried, 0, MODEL_PAGES_MAX * sizeof *carried);
    memset(after, 0, sizeof *after);
    after->version = base->version + 1;
    after->page_count = count;
    memcpy(after->pages, base->pages, (size_t)(count < base->page_count ? count : base->page_count) * MODEL_PAGE);
    for (uint32_t k = seeded_below(seed, 6); k > 0; k--) {
        uint32_t i = seeded_below(seed, count);
        seeded_change(seed, after->pages + (size_t)i * MODEL_PAGE, MODEL_PAGE);
        carried[i] = true;
    }
    uint8_t *page1 = after->pages;
    carried[0] = true;
    page1_head(page1, MODEL_PAGE, after->version, count);
}

static enum rq_err put_pages(struct rq_commit *c, const struct model_content *after, const bool *carried)
{
    enum rq_err err = RQ_OK;
    for (uint32_t i = 0; err == RQ_OK && i < after->page_count; i++) {
        uint8_t number[4];
        rq_put_u32(number, i + 1);
        if (carried[i]) {
            err = rq_bytes_put(&c->pages, number, sizeof number);
            err = err == RQ_OK ? rq_bytes_put(&c->pages, after->pages + (size_t)i * MODEL_PAGE, MODEL_PAGE) : err;
        }
    }
    return err;
}

/* The frame's id is where t is: raftd only repeats it. */
static bool send_pages(struct raftd_model *m, struct model_commit *t, enum rq_msg_type type, const bool *carried,
                       uint32_t begin, uint32_t end)
{
    struct rq_msg_commit c = {
        .db_id = t->db_id,
        .seq = t->origin.seq,
        .base = t->base,
        .page_size = MODEL_PAGE,
        .db_page_count = t->after.page_count,
    };
    for (uint32_t i = begin; i < end; i++) {
        c.page_count += carried[i];
    }
    m->frame.size = 0;
    enum rq_err err = rq_msg_put_commit(&m->frame, (uint64_t)(uintptr_t)t, type, &c);
    for (uint32_t i = begin; err == RQ_OK && i < end; i++) {
        uint8_t number[4];
        rq_put_u32(number, i + 1);
        if (carried[i]) {
            err = rq_bytes_put(&m->frame, number, sizeof number);
            err = err == RQ_OK ? rq_bytes_put(&m->frame, t->after.pages + (size_t)i * MODEL_PAGE, MODEL_PAGE) : err;
        }
    }
    return raftd_model_must(m, err == RQ_OK, "a frame of pages: %s", rq_err_name(err)) &&
           raftd_door_send(&m->door, &m->frame);
}

/* In two frames.  What is not answered stays open. */
static void commit_at_door(struct raftd_model *m, struct model_commit *t, const bool *carried)
{
    uint32_t half = (t->after.page_count + 1) / 2;
    if (send_pages(m, t, RQ_MSG_PAGES, carried, 0, half)) {
        (void)send_pages(m, t, RQ_MSG_COMMIT, carried, half, t->after.page_count);
    }
}

bool raftd_model_commit(struct raftd_model *m, struct model_name *n, bool staged)
{
    unsigned slot = 0;
    while (slot < MODEL_OPEN_MAX && n->open[slot] != NULL) {
        slot++;
    }
    if (n->id == 0 || n->dropping || slot == MODEL_OPEN_MAX || n->now.version == MODEL_VERSIONS_MAX) {
        return false;
    }
    struct rq_database *db = rq_catalog_find_id(m->rig->catalog, n->id);
    if (!raftd_model_must(m, db != NULL, "%s is not there any more", n->name)) {
        return false;
    }
    bool carried[MODEL_PAGES_MAX];
    struct model_commit *t = some_memory(sizeof *t);
    struct rq_commit *c = NULL;
    *t = (struct model_commit){ .model = m, .name = n, .db_id = n->id, .life = m->life, .base = n->now.version };
    t->origin = (struct rq_origin){ SESSION, ++m->seq };
    make_after(m, &n->now, &t->after, carried);
    if (raftd_door_open(&m->door) && !staged) {
        rq_database_unref(db);
        n->open[slot] = t;
        commit_at_door(m, t, carried);
        return true;
    }
    uint32_t last = 0;
    const char *text = "";
    enum rq_err err = rq_commit_new(&c);
    if (err == RQ_OK) {
        err = put_pages(c, &t->after, carried);
    }
    if (err == RQ_OK) {
        c->origin = t->origin;
        c->base = t->base;
        c->page_size = MODEL_PAGE;
        c->db_page_count = t->after.page_count;
        err =
            rq_commit_check_pages(c->pages.data, c->pages.size, MODEL_PAGE, t->after.page_count, t->base, &last, &text);
    }
    if (err == RQ_OK && staged) { /* as session.c does */
        const struct rq_body_head head = { MODEL_PAGE, t->after.page_count };
        err = rq_staged_new(m->rig->disk, RIG_STAGED_DIR, &head, &c->body);
        err = err == RQ_OK ? rq_staged_add(c->body, c->pages.data, c->pages.size) : err;
        c->pages.size = 0;
        if (err == RQ_IO) {
            rq_fatal("a staged body could not be written", err);
        }
        m->staged += err == RQ_OK;
    }
    if (err != RQ_OK) {
        raftd_model_must(m, m->fails, "a commit cannot be handed in: %s", rq_err_name(err));
        rq_commit_free(c);
        rq_database_unref(db);
        free(t);
        return false;
    }
    n->open[slot] = t;
    c->db = db;
    c->answer = answered;
    c->ctx = t;
    rq_database_commit(c);
    return true;
}

/* --- databases ------------------------------------------------------------------------------------------------------------- */

struct request {
    struct rq_request request; /* first */
    struct raftd_model *model;
    struct model_name *name;
    unsigned life;
};

static struct rq_request *request_new(struct raftd_model *m, struct model_name *n,
                                      void (*done)(struct rq_request *r, enum rq_err err, struct rq_database *db))
{
    struct request *q = some_memory(sizeof *q);
    *q = (struct request){ .model = m, .name = n, .life = m->life };
    q->request.done = done;
    return &q->request;
}

static void is_created(struct raftd_model *m, struct model_name *n, uint32_t id)
{
    raftd_model_must(m, id > n->last_id, "%s: id %u was used before", n->name, id);
    n->creating = false;
    n->id = id;
    n->now.version = n->now.page_count = 0;
    forget_open(n);
}

static void is_dropped(struct raftd_model *m, struct model_name *n)
{
    n->last_id = n->id;
    n->id = 0;
    n->dropping = false;
    forget_open(n);
    m->dropped++;
}

static void created(struct rq_request *r, enum rq_err err, struct rq_database *db)
{
    struct request *q = (struct request *)r;
    struct raftd_model *m = q->model;
    if (q->life == m->life && !m->silent(m)) {
        if (err == RQ_OK) {
            is_created(m, q->name, rq_database_id(db));
        } else {
            q->name->creating = false;
            m->failed++;
            raftd_model_must(m, m->fails && err != RQ_EXISTS, "%s: CREATE is answered %s", q->name->name,
                             rq_err_name(err));
        }
    }
    free(q);
}

static void open_at_door(struct raftd_model *m, struct model_name *n, bool create)
{
    const struct rq_msg_open open = { { n->name, (uint32_t)strlen(n->name) }, create };
    m->frame.size = 0;
    if (raftd_model_must(m, rq_msg_put_open(&m->frame, (uint64_t)(uintptr_t)n, &open) == RQ_OK, "a frame of OPEN")) {
        (void)raftd_door_send(&m->door, &m->frame);
    }
}

void raftd_model_create(struct raftd_model *m, struct model_name *n)
{
    n->creating = true;
    if (raftd_door_open(&m->door)) {
        open_at_door(m, n, true);
        return;
    }
    rq_catalog_create(m->rig->catalog, n->name, strlen(n->name), request_new(m, n, created));
}

static void dropped(struct rq_request *r, enum rq_err err, struct rq_database *db)
{
    struct request *q = (struct request *)r;
    struct raftd_model *m = q->model;
    (void)db;
    if (q->life == m->life && !m->silent(m)) {
        if (err == RQ_OK) {
            is_dropped(m, q->name);
        } else {
            q->name->dropping = false;
            m->failed++;
            raftd_model_must(m, m->fails, "%s: DROP is answered %s", q->name->name, rq_err_name(err));
        }
    }
    free(q);
}

void raftd_model_drop(struct raftd_model *m, struct model_name *n)
{
    n->dropping = true;
    rq_catalog_drop(m->rig->catalog, n->id, request_new(m, n, dropped));
}

/* --- questions ------------------------------------------------------------------------------------------------------------- */

static void told(struct rq_commit *c, const struct rq_msg_outcome *outcome)
{
    *(enum rq_err *)c->ctx = outcome->err;
    rq_commit_free(c);
}

static enum rq_err ask_at_door(struct raftd_model *m, struct rq_database *db, struct rq_origin origin, uint64_t base)
{
    const struct rq_msg_ask q = { rq_database_id(db), origin.seq, base };
    enum rq_err err = RQ_PROTOCOL;
    m->frame.size = 0;
    m->asked = &err;
    if (raftd_model_must(m, rq_msg_put_ask(&m->frame, ID_ASK, &q) == RQ_OK, "a frame of ASK") &&
        raftd_door_send(&m->door, &m->frame)) {
        rig_settle(m->rig);
    }
    m->asked = NULL;
    return err;
}

/* PROTOCOL: no answer came. */
static enum rq_err ask(struct raftd_model *m, struct rq_database *db, struct rq_origin origin, uint64_t base)
{
    if (raftd_door_open(&m->door) && origin.session == SESSION) {
        return ask_at_door(m, db, origin, base);
    }
    struct rq_commit *c;
    enum rq_err err = RQ_PROTOCOL;
    if (rq_commit_new(&c) != RQ_OK) {
        return RQ_NOMEM;
    }
    c->ask = true;
    c->db = rq_database_ref(db);
    c->origin = origin;
    c->base = base;
    c->answer = told;
    c->ctx = &err;
    rq_database_commit(c);
    rig_settle(m->rig);
    return err;
}

static void ask_some(struct raftd_model *m, struct model_name *n, struct rq_database *db)
{
    for (unsigned i = 0; i < 4 && n->now.version > 0; i++) {
        uint64_t base = i == 0 ? n->now.version - 1 : seeded_below(&m->seed, (uint32_t)n->now.version);
        enum rq_err err = ask(m, db, n->origins[base], base);
        if (m->fails && (err == RQ_NOMEM || err == RQ_PROTOCOL)) {
            continue;
        }
        raftd_model_must(m, err == RQ_OK, "%s: asked for what was committed on %llu: %s", n->name,
                         (unsigned long long)base, rq_err_name(err));
        err = ask(m, db, (struct rq_origin){ SESSION + 1, 1 }, base);
        raftd_model_must(m, err == RQ_REFUSED || (m->fails && err == RQ_NOMEM),
                         "%s: asked for what was not committed on %llu: %s", n->name, (unsigned long long)base,
                         rq_err_name(err));
    }
}

void raftd_model_ask(struct raftd_model *m, struct model_name *n)
{
    struct rq_database *db = n->id != 0 ? rq_catalog_find_id(m->rig->catalog, n->id) : NULL;
    if (db != NULL && !n->dropping) {
        ask_some(m, n, db);
    }
    if (db != NULL) {
        rq_database_unref(db);
    }
}

void raftd_model_look(struct raftd_model *m, struct model_name *n)
{
    const struct rq_msg_status status = { { n->name, (uint32_t)strlen(n->name) } };
    if (raftd_door_open(&m->door)) {
        open_at_door(m, n, false);
        rig_settle(m->rig);
    }
    if (raftd_door_open(&m->door)) {
        m->frame.size = 0;
        raftd_model_must(m, rq_msg_put_status(&m->frame, ID_LOOK, &status) == RQ_OK, "a frame of STATUS");
        (void)raftd_door_send(&m->door, &m->frame);
        rig_settle(m->rig);
    }
}

/* --- what is heard at the door ---------------------------------------------------------------------------------------------- */

static struct model_name *name_at(struct raftd_model *m, uint64_t id)
{
    for (unsigned i = 0; i < MODEL_NAMES; i++) {
        if (id == (uint64_t)(uintptr_t)&m->names[i]) {
            return &m->names[i];
        }
    }
    return NULL;
}

static void heard_outcome(struct raftd_model *m, uint64_t id, const struct rq_msg_outcome *outcome)
{
    if (id == ID_ASK) {
        if (m->asked != NULL) {
            *m->asked = outcome->err;
        }
        return;
    }
    outcome_is((struct model_commit *)(uintptr_t)id, outcome);
}

/* Of an OPEN it does not say whether the database was created: who asks again is told. */
static void heard_failed(struct raftd_model *m, enum rq_err err)
{
    m->failed++;
    raftd_model_must(m, m->fails && err != RQ_EXISTS, "an answer is FAILED: %s", rq_err_name(err));
}

static void heard(void *ctx, const struct rq_frame *frame, const uint8_t *body)
{
    struct raftd_model *m = ctx;
    struct rq_msg_outcome outcome;
    struct rq_msg_opened opened;
    struct rq_msg_state state;
    struct rq_msg_failed failed;
    enum rq_err err = RQ_OK;
    struct model_name *n = name_at(m, frame->id);

    switch ((int)frame->type) {
        case RQ_MSG_WELCOME:
            break;
        case RQ_MSG_OUTCOME:
            err = rq_msg_get_outcome(body, frame->body_bytes, &outcome);
            if (err == RQ_OK) {
                heard_outcome(m, frame->id, &outcome);
            }
            break;
        case RQ_MSG_OPENED:
            err = rq_msg_get_opened(body, frame->body_bytes, &opened);
            if (err == RQ_OK && n->creating) {
                is_created(m, n, opened.db_id);
            } else if (err == RQ_OK) {
                raftd_model_must(m, opened.db_id == n->id && opened.version >= n->now.version, "%s is OPENED wrongly",
                                 n->name);
            }
            break;
        case RQ_MSG_STATE:
            err = rq_msg_get_state(body, frame->body_bytes, &state);
            break;
        case RQ_MSG_FAILED:
            err = rq_msg_get_failed(body, frame->body_bytes, &failed);
            if (err == RQ_OK) {
                heard_failed(m, failed.err);
            }
            break;
        default:
            err = RQ_PROTOCOL;
    }
    raftd_model_must(m, err == RQ_OK, "an answer of type %u: %s", frame->type, rq_err_name(err));
}

/* --- after a restart --------------------------------------------------------------------------------------------------------- */

static bool same_content(struct raftd_model *m, struct rq_replica *r, const struct model_content *want,
                         uint32_t *ret_pgno)
{
    struct rq_replica_state state;
    uint8_t page[MODEL_PAGE];
    rq_replica_get_state(r, &state);
    *ret_pgno = 0;
    if (state.version != want->version || state.page_count != want->page_count || state.page_size != MODEL_PAGE) {
        return false;
    }
    for (uint32_t i = 0; i < want->page_count; i++) {
        *ret_pgno = i + 1;
        enum rq_err err = rq_replica_read(r, i + 1, page);
        if (err != RQ_OK) {
            raftd_model_must(m, false, "page %u cannot be read: %s", i + 1, rq_err_name(err));
            return false;
        }
        if (memcmp(page, want->pages + (size_t)i * MODEL_PAGE, MODEL_PAGE) != 0) {
            return false;
        }
    }
    return true;
}

/* Which of the commits that nobody heard of is the one that is there?  The state machine says it, the pages have to agree. */
static void settle_open(struct raftd_model *m, struct model_name *n, struct rq_database *db, uint64_t version)
{
    struct model_commit *applied = NULL;
    bool some = false;
    for (unsigned i = 0; i < MODEL_OPEN_MAX; i++) {
        struct model_commit *t = n->open[i];
        if (t == NULL) {
            continue;
        }
        enum rq_err err = ask(m, db, t->origin, t->base),
                    nowhere = version == n->now.version ? RQ_NOTFOUND : RQ_REFUSED;
        raftd_model_must(m, err == nowhere || (err == RQ_OK && version > n->now.version && applied == NULL),
                         "%s: an open commit is answered %s", n->name, rq_err_name(err));
        applied = err == RQ_OK ? t : applied;
        some = true;
    }
    if (version == n->now.version) {
        m->lost_unanswered += some;
        forget_open(n);
    } else if (applied == NULL) {
        raftd_model_must(m, false, "%s: version %llu is nobody's", n->name, (unsigned long long)version);
    } else {
        m->found_unanswered++;
        acknowledge(m, n, applied);
    }
}

/* What was on its way when the line broke is decided by now, or never arrived. */
static void settle_name(struct raftd_model *m, struct model_name *n)
{
    struct rq_database *db = rq_catalog_find(m->rig->catalog, n->name, strlen(n->name));
    struct rq_database_info info;
    if (n->creating) {
        n->creating = false;
        if (db != NULL) {
            is_created(m, n, rq_database_id(db));
        }
    }
    bool some = false;
    for (unsigned i = 0; i < MODEL_OPEN_MAX; i++) {
        some = some || n->open[i] != NULL;
    }
    if (db != NULL && some) {
        rq_database_info(db, &info);
        settle_open(m, n, db, info.version);
    }
    if (db != NULL) {
        rq_database_unref(db);
    }
}

bool raftd_model_connect(struct raftd_model *m)
{
    raftd_door_close(&m->door);
    rig_settle(m->rig);
    if (!raftd_door_connect(&m->door, m->rig, SESSION)) {
        return false;
    }
    for (unsigned i = 0; i < MODEL_NAMES; i++) {
        settle_name(m, &m->names[i]);
    }
    return true;
}

static void verify_database(struct raftd_model *m, struct model_name *n, struct rq_database *db)
{
    struct rq_database_info info;
    uint64_t acknowledged = n->now.version;
    uint32_t pgno;
    char text[160] = "";
    rq_database_info(db, &info);
    if (!raftd_model_must(m, info.state != RQ_DB_QUARANTINED, "%s is quarantined: %.120s", n->name, info.message) ||
        !raftd_model_must(m, info.version == acknowledged || info.version == acknowledged + 1,
                          "%s: version %llu, acknowledged %llu", n->name, (unsigned long long)info.version,
                          (unsigned long long)acknowledged)) {
        return;
    }
    settle_open(m, n, db, info.version);
    struct rq_replica *r = rq_database_hold(db);
    if (raftd_model_must(m, (r != NULL) == (n->now.version > 0), "%s: replica where there is no commit, or none",
                         n->name) &&
        r != NULL) {
        struct rq_replica_state state;
        rq_replica_get_state(r, &state);
        raftd_model_must(m, state.stamp.db_id == n->id, "%s: the stamp is of %u", n->name, state.stamp.db_id);
        bool same = same_content(m, r, &n->now, &pgno);
        raftd_model_must(m, same, "%s: page %u of version %llu differs", n->name, pgno,
                         (unsigned long long)n->now.version);
        enum rq_err err = rq_replica_check(r, text);
        raftd_model_must(m, err == RQ_OK, "%s: %s: %.100s", n->name, rq_err_name(err), text);
    }
    rq_database_release(db);
    ask_some(m, n, db);
}

void raftd_model_verify_name(struct raftd_model *m, struct model_name *n)
{
    struct rq_database *db = rq_catalog_find(m->rig->catalog, n->name, strlen(n->name));
    uint32_t id = db != NULL ? rq_database_id(db) : 0;

    if (n->dropping) {
        if (db == NULL) {
            is_dropped(m, n);
        }
        n->dropping = false;
    }
    if (n->creating) {
        if (db != NULL) {
            is_created(m, n, id);
        }
        n->creating = false;
    }
    raftd_model_must(m, id == n->id, "%s is database %u, not %u", n->name, id, n->id);
    if (n->last_id != 0) {
        struct rq_database *old = rq_catalog_find_id(m->rig->catalog, n->last_id);
        raftd_model_must(m, old == NULL, "%s: database %u was dropped and is there", n->name, n->last_id);
    }
    if (db != NULL && id == n->id) {
        verify_database(m, n, db);
    } else if (db == NULL) {
        char path[64];
        struct rq_file_info info;
        (void)snprintf(path, sizeof path, RIG_DIR "/%s", n->name);
        raftd_model_must(m, m->rig->disk->ops->stat(m->rig->disk, path, &info) == RQ_NOTFOUND,
                         "%s: a file of a dropped database", n->name);
    }
    if (db != NULL) {
        rq_database_unref(db);
    }
}

void raftd_model_verify(struct raftd_model *m)
{
    rig_settle(m->rig); /* files of what a replayed DROP dropped may still be on their way */
    for (unsigned i = 0; i < MODEL_NAMES; i++) {
        raftd_model_verify_name(m, &m->names[i]);
    }
}
