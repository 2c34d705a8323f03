/* Bridge: a transaction and its way over the socket, until its outcome is known (ext/fate.h) or it is too late. */
#include "ext/bridge.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ext/awake.h"
#include "ext/fate.h"
#include "ext/link.h"

#define READY_MS       500u /* a raftd that is asked for the right to write answers within this, or is away */
#define AGAIN_MS       250u /* a busy handler tries many times, and does not count how long each takes */
#define PAUSE_MS_MAX   50u
#define TIMEOUT_MS_MIN 100u /* a commit may take that long anywhere: with less, an ordinary one would end as UNKNOWN */
#define BYTES_PER_MS   16384u /* what a big transaction may take on top of timeout_ms */

struct bridge {
    struct rq_sink sink; /* first */
    struct rq_link link;
    struct rq_awake awake;
    uint64_t seq; /* of the last COMMIT in this session */
    unsigned timeout_ms;
};

static struct bridge *bridge_of(struct rq_sink *s)
{
    return (struct bridge *)s;
}

/* Longer each time, so that a raftd that starts is not asked by everybody all the time.  False: the deadline comes first. */
static bool pause_before_retry(unsigned *pause_ms, uint64_t deadline_ms)
{
    if (rq_now_ms() + *pause_ms >= deadline_ms) {
        return false;
    }
    struct timespec t = { .tv_nsec = (long)*pause_ms * 1000000 };
    (void)nanosleep(&t, NULL); /* cut short by a signal: the next try comes earlier */
    *pause_ms = *pause_ms * 2 < PAUSE_MS_MAX ? *pause_ms * 2 : PAUSE_MS_MAX;
    return true;
}

/* raftd is starting up, or the cluster has no leader just now: who opens waits.  To ask for the same name again does no harm. */
static bool gets_better(enum rq_err err)
{
    return err == RQ_UNREADY || err == RQ_AWAY || err == RQ_BUSY || err == RQ_UNKNOWN;
}

static enum rq_err bridge_open(struct rq_sink *s, const char *name, bool create)
{
    struct bridge *b = bridge_of(s);
    uint64_t deadline = rq_now_ms() + b->timeout_ms;
    unsigned pause_ms = 1;
    for (;;) {
        (void)rq_link_alive(&b->link); /* a connection that died unnoticed is no reason to fail */
        enum rq_err err = rq_link_open(&b->link, deadline);
        if (err != RQ_OK) {
            return err;
        }
        struct rq_msg_open open = { .name = { .data = name, .bytes = (uint32_t)strlen(name) }, .create = create };
        uint64_t id = rq_link_begin(&b->link);
        struct rq_answer answer;
        err = rq_msg_put_open(&b->link.out, id, &open);
        if (err == RQ_OK) {
            err = rq_link_call(&b->link, id, RQ_MSG_OPENED, deadline, &answer);
        }
        bool told = err == RQ_OK;
        if (told) {
            err = answer.err;
            if (err == RQ_OK) {
                struct rq_msg_opened opened;
                return rq_msg_get_opened(answer.body, answer.bytes, &opened);
            }
        }
        if (!told || !gets_better(err) || !pause_before_retry(&pause_ms, deadline)) {
            return err;
        }
    }
}

static enum rq_err bridge_ready(struct rq_sink *s, uint64_t *ret_session)
{
    struct bridge *b = bridge_of(s);
    if (!rq_link_alive(&b->link)) {
        enum rq_err err = rq_link_open(&b->link, rq_now_ms() + READY_MS);
        if (err != RQ_OK) {
            return err;
        }
    }
    *ret_session = b->link.session;
    return RQ_OK;
}

static void bridge_look(struct rq_sink *s, uint32_t db_id)
{
    struct bridge *b = bridge_of(s);
    const struct rq_msg_look look = { .db_id = db_id };
    const uint64_t id = rq_link_begin(&b->link);
    if (rq_link_alive(&b->link) && rq_msg_put_look(&b->link.out, id, &look) == RQ_OK) {
        (void)rq_link_send(&b->link, rq_now_ms() + READY_MS); /* lost with the connection: who waits says it again */
    }
}

/* --- commit ------------------------------------------------------------------------------------------------------------- */

/* Puts one frame with the next count pages into the link's buffer. */
static enum rq_err put_pages(struct bridge *b, uint64_t id, enum rq_msg_type type, const struct rq_sink_commit *commit,
                             uint32_t count)
{
    struct rq_msg_commit m = {
        .db_id = commit->db_id,
        .seq = b->seq,
        .base = commit->base,
        .page_size = commit->page_size,
        .db_page_count = commit->db_page_count,
        .page_count = count,
    };
    enum rq_err err = rq_msg_put_commit(&b->link.out, id, type, &m);
    for (uint32_t i = 0; i < count && err == RQ_OK; i++) {
        uint32_t pgno = 0;
        const uint8_t *page = NULL;
        uint8_t number[4];
        err = commit->pages->next(commit->pages->ctx, &pgno, &page);
        if (err == RQ_NOTFOUND) {
            return RQ_MISUSE; /* fewer than were promised */
        }
        if (err == RQ_OK) {
            rq_put_u32(number, pgno);
            err = rq_bytes_put(&b->link.out, number, sizeof number);
        }
        if (err == RQ_OK) {
            err = rq_bytes_put(&b->link.out, page, commit->page_size);
        }
    }
    return err;
}

/* What an OUTCOME or FAILED says.  UNKNOWN: nothing that is understood. */
static enum rq_err outcome_of(struct bridge *b, const struct rq_answer *answer, uint64_t *ret_version)
{
    struct rq_msg_outcome outcome;
    if (answer->err != RQ_OK) {
        return answer->err;
    }
    if (rq_msg_get_outcome(answer->body, answer->bytes, &outcome) != RQ_OK) {
        rq_link_close(&b->link);
        return RQ_UNKNOWN;
    }
    rq_link_set_text(&b->link, outcome.text.data, outcome.text.bytes);
    if (outcome.err == RQ_OK) {
        *ret_version = outcome.version;
    }
    return outcome.err;
}

/* True: *ret_err is how it ended. */
static bool send_commit(struct bridge *b, const struct rq_sink_commit *commit, uint64_t deadline_ms,
                        struct rq_fate *fate, enum rq_err *ret_err, uint64_t *ret_version)
{
    uint32_t count_max = (b->link.frame_body_max - RQ_COMMIT_ARRAY_BYTES_MAX) / (commit->page_size + 4);
    uint32_t left = commit->page_count;
    uint64_t id = 0;
    commit->pages->rewind(commit->pages->ctx);
    for (bool last = false; !last;) {
        uint32_t count = left < count_max ? left : count_max;
        last = count == left;
        left -= count;
        id = rq_link_begin(&b->link);
        enum rq_err err = put_pages(b, id, last ? RQ_MSG_COMMIT : RQ_MSG_PAGES, commit, count);
        if (err != RQ_OK) {
            rq_link_close(&b->link); /* so raftd forgets the pages it has */
            *ret_err = rq_fate_unsent(fate, err);
            return true;
        }
        if (rq_link_send(&b->link, deadline_ms) != RQ_OK) {
            return false;
        }
    }
    rq_fate_sent(fate);
    (void)rq_awake_wait(&b->awake, b->link.fd); /* if in vain the wait goes on asleep */
    struct rq_answer answer;
    return rq_link_receive(&b->link, id, RQ_MSG_OUTCOME, deadline_ms, &answer) == RQ_OK &&
           rq_fate_outcome(fate, outcome_of(b, &answer, ret_version), ret_err);
}

/* As send_commit. */
static bool ask_outcome(struct bridge *b, const struct rq_sink_commit *commit, uint64_t deadline_ms,
                        struct rq_fate *fate, enum rq_err *ret_err, uint64_t *ret_version)
{
    struct rq_msg_ask ask = { .db_id = commit->db_id, .seq = b->seq, .base = commit->base };
    struct rq_answer answer;
    uint64_t id = rq_link_begin(&b->link);
    return rq_msg_put_ask(&b->link.out, id, &ask) == RQ_OK &&
           rq_link_call(&b->link, id, RQ_MSG_OUTCOME, deadline_ms, &answer) == RQ_OK &&
           rq_fate_asked(fate, outcome_of(b, &answer, ret_version), ret_err);
}

static enum rq_err commit_until_known(struct bridge *b, const struct rq_sink_commit *commit, uint64_t *ret_version)
{
    if (commit->page_size < 512 || commit->page_size > 65536) {
        return RQ_MISUSE;
    }
    uint64_t bytes = (uint64_t)commit->page_count * commit->page_size;
    uint64_t deadline = rq_now_ms() + b->timeout_ms + bytes / BYTES_PER_MS;
    struct rq_fate fate = { 0 };
    unsigned pause_ms = 1;
    b->seq++;
    for (;;) {
        enum rq_err err;
        const bool linked = rq_link_open(&b->link, deadline) == RQ_OK;
        if (linked && fate.may_have_arrived && ask_outcome(b, commit, deadline, &fate, &err, ret_version)) {
            return err;
        }
        if (linked && !fate.may_have_arrived && send_commit(b, commit, deadline, &fate, &err, ret_version)) {
            return err;
        }
        if (!pause_before_retry(&pause_ms, deadline)) {
            return rq_fate_out_of_time(&fate);
        }
    }
}

static enum rq_err bridge_commit(struct rq_sink *s, const struct rq_sink_commit *commit, uint64_t *ret_version)
{
    struct bridge *b = bridge_of(s);
    enum rq_err err = commit_until_known(b, commit, ret_version);
    rq_link_rest(&b->link);
    return err;
}

/* --- reading ------------------------------------------------------------------------------------------------------------ */

/* Over and over until it is too late: raftd may come back, or a leader. */
static enum rq_err bridge_read(struct rq_sink *s, uint32_t db_id, uint64_t max_age_ms, bool again,
                               uint64_t *ret_left_ms)
{
    struct bridge *b = bridge_of(s);
    uint64_t deadline = rq_now_ms() + (again && b->timeout_ms > AGAIN_MS ? AGAIN_MS : b->timeout_ms);
    unsigned pause_ms = 1;
    for (;;) {
        (void)rq_link_alive(&b->link);
        const uint64_t begin = rq_now_ms();
        const struct rq_msg_read read = {
            .db_id = db_id,
            .max_age_ms = max_age_ms,
            .wait_ms = deadline > begin ? (uint32_t)(deadline - begin) : 0,
        };
        struct rq_answer answer;
        enum rq_err err = rq_link_open(&b->link, deadline);
        if (err == RQ_OK) {
            uint64_t id = rq_link_begin(&b->link);
            err = rq_msg_put_read(&b->link.out, id, &read);
            if (err == RQ_OK) { /* raftd gives up in time, and says why */
                err = rq_link_call(&b->link, id, RQ_MSG_READY, deadline + READY_MS, &answer);
            }
        }
        if (err == RQ_OK) {
            err = answer.err;
            if (err == RQ_OK) {
                struct rq_msg_ready ready;
                err = rq_msg_get_ready(answer.body, answer.bytes, &ready);
                if (err == RQ_OK) {
                    *ret_left_ms = ready.left_ms;
                }
                return err;
            }
        }
        if ((err != RQ_AWAY && err != RQ_UNREADY && err != RQ_SHUTDOWN) || !pause_before_retry(&pause_ms, deadline)) {
            return err;
        }
    }
}

static const char *bridge_text(struct rq_sink *s)
{
    return bridge_of(s)->link.text;
}

static void bridge_close(struct rq_sink *s)
{
    rq_link_fini(&bridge_of(s)->link);
    free(s);
}

static void bridge_orphan(struct rq_sink *s)
{
    rq_link_close(&bridge_of(s)->link);
}

static const struct rq_sink_ops bridge_ops = {
    .open = bridge_open,
    .ready = bridge_ready,
    .commit = bridge_commit,
    .read = bridge_read,
    .look = bridge_look,
    .text = bridge_text,
    .close = bridge_close,
    .orphan = bridge_orphan,
};

struct rq_sink *rq_bridge_new(void *ctx, const char *path, const char *raftd_socket, unsigned timeout_ms)
{
    struct bridge *b = calloc(1, sizeof *b);
    if (b == NULL) {
        return NULL;
    }
    b->sink.ops = &bridge_ops;
    b->timeout_ms = timeout_ms < TIMEOUT_MS_MIN ? TIMEOUT_MS_MIN : timeout_ms;
    rq_awake_init(&b->awake);
    if (rq_link_init(&b->link, rq_link_socket_of(path, raftd_socket), ctx) != RQ_OK) {
        bridge_close(&b->sink);
        return NULL;
    }
    return &b->sink;
}
