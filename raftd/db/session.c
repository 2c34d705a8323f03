#include "raftd/db/session.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/run/clock.h"
#include "raftd/wire/msg.h"

#define ANSWER_BYTES_MAX 8192u

struct session {
    atomic_uint refs;
    struct rq_session_host *host;
    struct rq_line *line; /* counted */
    uint64_t id;          /* of HELLO; 0 before it */

    /* Between PAGES and COMMIT; the link's thread only. */
    struct rq_admission_waiter waiter;
    atomic_bool admitted; /* its place is to be left; set by who left his */
    struct rq_commit *pending;
    uint32_t pending_db_id, last_pgno; /* last_pgno: of what is not in a body */
    enum rq_err pending_err;
    const char *pending_text;

    struct rq_database *db; /* the last one used; counted */
    atomic_bool reading;    /* a READ is not answered: there is one at a time */
};

static void session_unref(struct session *s)
{
    if (atomic_fetch_sub(&s->refs, 1) != 1) {
        return;
    }
    if (s->db != NULL) {
        rq_database_unref(s->db);
    }
    rq_line_unref(s->line);
    free(s);
}

static struct session *session_ref(struct session *s)
{
    atomic_fetch_add(&s->refs, 1);
    return s;
}

/* --- answers ------------------------------------------------------------------------------------------------------------ */

/* Takes out, which an encoder has filled.  Who would wait for an answer for which there was no memory is cut off instead, and
 * asks again. */
static void send_answer(struct session *s, struct rq_bytes *out, enum rq_err err)
{
    if (err == RQ_OK) {
        rq_line_send(s->line, out->data, out->size);
    } else {
        rq_line_break(s->line);
    }
    rq_bytes_fini(out);
}

static void fail(struct session *s, uint64_t id, enum rq_err why, const char *text)
{
    struct rq_bytes out;
    rq_bytes_init(&out, ANSWER_BYTES_MAX);
    const struct rq_msg_failed m = { why, { text, (uint32_t)strlen(text) } };
    send_answer(s, &out, rq_msg_put_failed(&out, id, &m));
}

static void send_outcome(struct session *s, uint64_t id, const struct rq_msg_outcome *outcome)
{
    struct rq_bytes out;
    rq_bytes_init(&out, ANSWER_BYTES_MAX);
    send_answer(s, &out, rq_msg_put_outcome(&out, id, outcome));
}

/* --- OPEN ----------------------------------------------------------------------------------------------------------------- */

/* Counted; NULL: no such database.  An application that knows a database from its control page sends no OPEN. */
static struct rq_database *recall(struct session *s, uint32_t db_id)
{
    if (s->db == NULL || rq_database_id(s->db) != db_id) {
        struct rq_database *db = rq_catalog_find_id(s->host->catalog, db_id);
        if (db == NULL) {
            return NULL;
        }
        if (s->db != NULL) {
            rq_database_unref(s->db);
        }
        s->db = db;
    }
    return rq_database_ref(s->db);
}

/* Answers OPEN or STATUS on the database's strand, behind the opening of its files. */
struct inquiry {
    struct rq_task task;
    struct session *session; /* counted, as db */
    struct rq_database *db;
    uint64_t id;
    bool status;
};

static void send_opened(struct inquiry *q, const struct rq_database_info *info)
{
    struct rq_bytes out;
    rq_bytes_init(&out, ANSWER_BYTES_MAX);
    const struct rq_msg_opened m = { info->id, info->version, info->page_size };
    send_answer(q->session, &out, rq_msg_put_opened(&out, q->id, &m));
}

static void send_state(struct inquiry *q, const struct rq_database_info *info)
{
    static const char *const states[] = { "", "empty", "live", "quarantined" };
    const struct rq_session_host *host = q->session->host;
    struct rq_driver_view view = rq_driver_view(host->driver);
    const char *role = view.leads ? "Leader" : "Follower", *leader = view.leads ? host->node_id : "";
    const char *name = rq_database_name(q->db);
    struct rq_bytes out;
    rq_bytes_init(&out, ANSWER_BYTES_MAX);
    const struct rq_msg_state m = {
        .node_id = { host->node_id, (uint32_t)strlen(host->node_id) },
        .role = { role, (uint32_t)strlen(role) },
        .leader = { leader, (uint32_t)strlen(leader) },
        .name = { name, (uint32_t)strlen(name) },
        .db_id = info->id,
        .version = info->version,
        .applied_index = info->applied_index,
        .commit_index = view.committed,
        .checksum = rq_database_checksum(q->db),
        .lag = view.committed > view.delivered ? view.committed - view.delivered : 0,
        .state = { states[info->state], (uint32_t)strlen(states[info->state]) },
        .message = { info->message, (uint32_t)strlen(info->message) },
    };
    send_answer(q->session, &out, rq_msg_put_state(&out, q->id, &m));
}

static void run_inquiry(struct rq_task *task)
{
    struct inquiry *q = (struct inquiry *)task;
    struct rq_database_info info;
    rq_database_info(q->db, &info);
    if (q->status) {
        send_state(q, &info);
    } else {
        send_opened(q, &info);
    }
    rq_database_unref(q->db);
    session_unref(q->session);
    free(q);
}

static void inquire(struct session *s, struct rq_database *db, uint64_t id, bool status)
{
    struct inquiry *q = malloc(sizeof *q);
    if (q == NULL) {
        fail(s, id, RQ_NOMEM, "");
        return;
    }
    *q = (struct inquiry){ { .run = run_inquiry }, session_ref(s), rq_database_ref(db), id, status };
    rq_strand_post(rq_database_strand(db), &q->task, RQ_CARRY);
}

static void created(struct rq_request *r, enum rq_err err, struct rq_database *db)
{
    struct session *s = r->ctx;
    if (err == RQ_OK) {
        inquire(s, db, r->tag, false);
    } else {
        fail(s, r->tag, err == RQ_UNKNOWN ? RQ_AWAY : err, /* a name may be created twice */
             err == RQ_MISUSE   ? "no name for a database"
             : err == RQ_EXISTS ? "a file of that name is there that is not replicated"
                                : "the database could not be created");
    }
    session_unref(s);
    free(r);
}

static bool on_open(struct session *s, uint64_t id, const struct rq_msg_open *m)
{
    struct rq_database *db = rq_catalog_find(s->host->catalog, m->name.data, m->name.bytes);
    if (db != NULL) {
        rq_database_mend(db); /* who has no use of its control page comes here */
        inquire(s, db, id, false);
        rq_database_unref(db);
        return true;
    }
    if (!m->create) {
        fail(s, id, RQ_NOTFOUND, "no such database");
        return true;
    }
    struct rq_request *r = calloc(1, sizeof *r);
    if (r == NULL) {
        fail(s, id, RQ_NOMEM, "");
        return true;
    }
    r->done = created;
    r->ctx = session_ref(s);
    r->tag = id;
    rq_catalog_create(s->host->catalog, m->name.data, m->name.bytes, r);
    return true;
}

static bool on_status(struct session *s, uint64_t id, const struct rq_msg_status *m)
{
    struct rq_database *db = rq_catalog_find(s->host->catalog, m->name.data, m->name.bytes);
    if (db == NULL) {
        fail(s, id, RQ_NOTFOUND, "no such database");
        return true;
    }
    inquire(s, db, id, true);
    rq_database_unref(db);
    return true;
}

/* --- READ ---------------------------------------------------------------------------------------------------------------- */

/* Waits for the proof, then for the database's strand, which has what was delivered to it before. */
struct read_request {
    struct rq_reading reading; /* first */
    struct rq_task task;
    struct session *session; /* counted, as db */
    struct rq_database *db;  /* NULL: there is none of that id, which is all that there is to read */
    uint64_t id;
};

static void read_request_end(struct read_request *q)
{
    if (q->db != NULL) {
        rq_database_unref(q->db);
    }
    session_unref(q->session);
    free(q);
}

static void send_ready(struct read_request *q)
{
    struct rq_bytes out;
    rq_bytes_init(&out, ANSWER_BYTES_MAX);
    atomic_store(&q->session->reading, false); /* before the answer, which may bring the next */
    const struct rq_msg_ready m = { q->reading.index, q->reading.left_ms };
    send_answer(q->session, &out, rq_msg_put_ready(&out, q->id, &m));
    read_request_end(q);
}

static void run_ready(struct rq_task *task)
{
    send_ready((struct read_request *)((char *)task - offsetof(struct read_request, task)));
}

static void read_done(struct rq_reading *r, enum rq_err err, const char *text)
{
    struct read_request *q = (struct read_request *)r;
    if (err != RQ_OK) {
        atomic_store(&q->session->reading, false);
        fail(q->session, q->id, err, text);
        read_request_end(q);
    } else if (q->db == NULL) {
        send_ready(q);
    } else {
        q->task.run = run_ready;
        rq_strand_post(rq_database_strand(q->db), &q->task, RQ_CARRY);
    }
}

static bool on_read(struct session *s, uint64_t id, const struct rq_msg_read *m)
{
    if (atomic_exchange(&s->reading, true)) {
        return false;
    }
    struct read_request *q = calloc(1, sizeof *q);
    if (q == NULL) {
        atomic_store(&s->reading, false);
        fail(s, id, RQ_NOMEM, "");
        return true;
    }
    q->session = session_ref(s);
    q->db = recall(s, m->db_id);
    q->id = id;
    q->reading.max_age_ms = m->max_age_ms;
    q->reading.deadline_ms = rq_clock_ms() + m->wait_ms;
    q->reading.done = read_done;
    rq_driver_read(s->host->driver, &q->reading);
    return true;
}

/* --- PAGES, COMMIT, ASK ----------------------------------------------------------------------------------------------------- */

static void answered(struct rq_commit *c, const struct rq_msg_outcome *outcome)
{
    struct session *s = c->ctx;
    send_outcome(s, c->tag, outcome);
    session_unref(s);
    rq_commit_free(c);
}

static void drop_pending(struct session *s)
{
    rq_commit_free(s->pending);
    s->pending = NULL;
}

static void admitted(struct rq_admission_waiter *w)
{
    struct session *s = (struct session *)((char *)w - offsetof(struct session, waiter));
    atomic_store(&s->admitted, true);
    rq_line_resume(s->line);
}

/* Before the first frame of a transaction that has several.  False: the line waits. */
static bool enter(struct session *s)
{
    if (s->pending == NULL && !atomic_load(&s->admitted)) {
        s->waiter.admitted = admitted;
        if (!rq_admission_enter(&s->host->half_sent, &s->waiter)) {
            return false;
        }
        atomic_store(&s->admitted, true);
    }
    return true;
}

/* All of it has come, or nothing more will. */
static void leave(struct session *s)
{
    if (atomic_exchange(&s->admitted, false)) {
        rq_admission_leave(&s->host->half_sent);
    }
}

/* One piece of a transaction.  What is wrong with it is told at COMMIT.  False: not even one transaction. */
static bool add_pages(struct session *s, const struct rq_msg_commit *m)
{
    struct rq_commit *c = s->pending;
    size_t bytes = (size_t)m->page_count * (m->page_size + 4);

    if (c == NULL) {
        if (rq_commit_new(&c) != RQ_OK) {
            return false;
        }
        c->origin = (struct rq_origin){ s->id, m->seq };
        c->base = m->base;
        c->page_size = m->page_size;
        c->db_page_count = m->db_page_count;
        s->pending = c;
        s->pending_db_id = m->db_id;
        s->last_pgno = 0;
        s->pending_err = RQ_OK;
        s->pending_text = "";
    } else if (m->seq != c->origin.seq || m->base != c->base || m->page_size != c->page_size ||
               m->db_page_count != c->db_page_count || m->db_id != s->pending_db_id) {
        return false;
    }
    if (s->pending_err != RQ_OK) {
        return true;
    }
    s->pending_err =
        rq_commit_add_pages(c, s->host->disk, s->host->staged_dir, m->pages, bytes, &s->last_pgno, &s->pending_text);
    return true;
}

static bool on_commit(struct session *s, uint64_t id, const struct rq_msg_commit *m)
{
    if (!add_pages(s, m)) {
        return false;
    }
    struct rq_commit *c = s->pending;
    s->pending = NULL;
    leave(s);
    if (s->pending_err == RQ_OK && s->last_pgno == 0) {
        s->pending_err = RQ_PROTOCOL;
        s->pending_text = "a transaction without pages";
    }
    if (s->pending_err == RQ_OK) {
        c->db = recall(s, m->db_id);
        if (c->db == NULL) {
            s->pending_err = RQ_NOTFOUND;
            s->pending_text = "no such database; it may have been dropped";
        }
    }
    c->answer = answered;
    c->ctx = session_ref(s);
    c->tag = id;
    if (s->pending_err != RQ_OK) {
        const struct rq_msg_outcome outcome = {
            .err = s->pending_err,
            .text = { s->pending_text, (uint32_t)strlen(s->pending_text) },
        };
        answered(c, &outcome);
        return true;
    }
    rq_database_commit(c);
    return true;
}

static bool on_ask(struct session *s, uint64_t id, const struct rq_msg_ask *m)
{
    struct rq_commit *c;
    struct rq_database *db = recall(s, m->db_id);
    if (db == NULL) {
        const char *text = "no such database; it may have been dropped";
        send_outcome(s, id, &(struct rq_msg_outcome){ .err = RQ_UNKNOWN, .text = { text, (uint32_t)strlen(text) } });
        return true;
    }
    if (rq_commit_new(&c) != RQ_OK) {
        rq_database_unref(db);
        return false;
    }
    c->ask = true;
    c->db = db;
    c->origin = (struct rq_origin){ s->id, m->seq };
    c->base = m->base;
    c->answer = answered;
    c->ctx = session_ref(s);
    c->tag = id;
    rq_database_commit(c);
    return true;
}

static bool on_look(struct session *s, const struct rq_msg_look *m)
{
    struct rq_database *db = recall(s, m->db_id);
    if (db != NULL) {
        rq_database_turn_look(db);
        rq_database_unref(db);
    }
    return true;
}

/* --- frames ------------------------------------------------------------------------------------------------------------------- */

static bool on_hello(struct session *s, uint64_t id, const struct rq_msg_hello *m)
{
    const struct rq_session_host *host = s->host;
    if (m->session == 0) {
        fail(s, id, RQ_PROTOCOL, "session 0");
        return false;
    }
    if (m->protocol != RQ_PROTOCOL_VERSION) {
        fail(s, id, RQ_VERSION, "this raftd speaks protocol version 1");
        return false;
    }
    s->id = m->session;
    struct rq_bytes out;
    rq_bytes_init(&out, ANSWER_BYTES_MAX);
    const struct rq_msg_welcome w = {
        .protocol = RQ_PROTOCOL_VERSION,
        .frame_body_max = RQ_FRAME_BODY_MAX,
        .instance = host->instance,
        .node_id = { host->node_id, (uint32_t)strlen(host->node_id) },
        .version = { host->version, (uint32_t)strlen(host->version) },
    };
    send_answer(s, &out, rq_msg_put_welcome(&out, id, &w));
    return true;
}

static bool take_frame(struct session *s, const struct rq_frame *f, const uint8_t *body)
{
    union {
        struct rq_msg_hello hello;
        struct rq_msg_open open;
        struct rq_msg_commit commit;
        struct rq_msg_ask ask;
        struct rq_msg_status status;
        struct rq_msg_read read;
        struct rq_msg_look look;
    } m;
    if ((f->type == RQ_MSG_HELLO) != (s->id == 0)) {
        return false; /* first comes HELLO, and once */
    }
    switch ((enum rq_msg_type)f->type) {
        case RQ_MSG_HELLO:
            return rq_msg_get_hello(body, f->body_bytes, &m.hello) == RQ_OK && on_hello(s, f->id, &m.hello);
        case RQ_MSG_OPEN:
            return rq_msg_get_open(body, f->body_bytes, &m.open) == RQ_OK && on_open(s, f->id, &m.open);
        case RQ_MSG_PAGES:
            return rq_msg_get_commit(body, f->body_bytes, &m.commit) == RQ_OK && add_pages(s, &m.commit);
        case RQ_MSG_COMMIT:
            return rq_msg_get_commit(body, f->body_bytes, &m.commit) == RQ_OK && on_commit(s, f->id, &m.commit);
        case RQ_MSG_ASK:
            return rq_msg_get_ask(body, f->body_bytes, &m.ask) == RQ_OK && on_ask(s, f->id, &m.ask);
        case RQ_MSG_STATUS:
            return rq_msg_get_status(body, f->body_bytes, &m.status) == RQ_OK && on_status(s, f->id, &m.status);
        case RQ_MSG_READ:
            return rq_msg_get_read(body, f->body_bytes, &m.read) == RQ_OK && on_read(s, f->id, &m.read);
        case RQ_MSG_LOOK:
            return rq_msg_get_look(body, f->body_bytes, &m.look) == RQ_OK && on_look(s, &m.look);
        case RQ_MSG_WELCOME:
        case RQ_MSG_READY:
        case RQ_MSG_OPENED:
        case RQ_MSG_OUTCOME:
        case RQ_MSG_STATE:
        case RQ_MSG_FAILED:
            break; /* answers: raftd asks nothing */
    }
    return false;
}

static enum rq_line_next on_frame(void *user, const struct rq_frame *f, const uint8_t *body)
{
    struct session *s = user;
    if (f->type == RQ_MSG_PAGES && s->id != 0 && !enter(s)) {
        return RQ_LINE_WAITS;
    }
    if (!take_frame(s, f, body)) {
        return RQ_LINE_ENDS;
    }
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the line has a reference of its own */
    return s->pending != NULL ? RQ_LINE_OWES : RQ_LINE_GOES_ON;
}

static void *on_opened(void *ctx, struct rq_line *line)
{
    struct session *s = calloc(1, sizeof *s);
    if (s != NULL) {
        atomic_init(&s->refs, 1);
        s->host = ctx;
        s->line = line;
    }
    return s;
}

static void on_closed(void *user)
{
    struct session *s = user;
    drop_pending(s);
    leave(s);
    if (s->id != 0) {
        rq_catalog_session_ended(s->host->catalog, s->id);
    }
    session_unref(s);
}

void rq_session_ops(struct rq_session_host *host, struct rq_link_ops *ret_ops)
{
    rq_admission_init(&host->half_sent, RQ_HALF_SENT_MAX);
    *ret_ops = (struct rq_link_ops){ host, on_opened, on_frame, on_closed };
}
