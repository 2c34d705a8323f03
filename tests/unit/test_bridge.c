/* bridge, link: whatever raftd does in the middle of a COMMIT, the caller gets the truth, or UNKNOWN only if it can have
 * happened; and nothing that raftd sends, or does not send, holds or hurts the host.
 *
 * A scripted raftd runs in a thread: for each connection, what it does with each request in order. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ext/bridge.h"
#include "ext/link.h"
#include "tests/support/tap.h"

#define PAGE_SIZE_MAX 65536u

/* --- the scripted raftd --------------------------------------------------------------------------------------------------- */

enum deed {
    END,        /* closes the connection without reading the next request, once it is there */
    ANSWER,     /* the message that belongs to the request, with err and version */
    FAIL,       /* FAILED with err */
    HANG_UP,    /* reads the request and closes */
    HALF,       /* sends half of the answer and closes */
    GARBAGE,    /* sends bytes that are no frame */
    OVERSIZED,  /* sends a head that announces more than a frame may have */
    WRONG_ID,   /* answers another request */
    WRONG_TYPE, /* sends a message that is no answer */
    CHATTER,    /* sends more than the answer */
    SILENCE,    /* reads the request and says nothing, until the client closes */
    SLOW,       /* answers byte by byte */
    VANISH,     /* as HANG_UP, and the socket is gone too */
    SIP,        /* reads a little of the request and closes */
};

struct act {
    uint16_t type; /* the request that must come */
    enum deed deed;
    enum rq_err err;
    uint64_t version;
};

struct script {
    struct act acts[7]; /* the deed END ends it */
};

static char dir[300];
static char path[400]; /* of the database */
static char socket_path[400];

static struct {
    const struct script *scripts; /* one for each connection */
    size_t count;
    int listener;
    pthread_t thread;
    _Atomic uint32_t surprises; /* requests other than the script's */
    uint32_t connections;
    uint64_t session[8]; /* of each connection's HELLO */
    uint64_t seq;
    uint32_t pages; /* of the last COMMIT with its PAGES */
    uint32_t pgno_sum;
    bool intact; /* each page held its number */
} raftd;

static bool read_all(int fd, uint8_t *to, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = recv(fd, to + done, bytes - done, 0);
        if (n <= 0) {
            return false;
        }
        done += (size_t)n;
    }
    return true;
}

static void note_pages(const struct rq_frame *frame, const uint8_t *body)
{
    struct rq_msg_commit m;
    if (rq_msg_get_commit(body, frame->body_bytes, &m) != RQ_OK) {
        raftd.surprises++;
        return;
    }
    raftd.seq = m.seq;
    raftd.pages += m.page_count;
    for (uint32_t i = 0; i < m.page_count; i++) {
        const uint8_t *p = m.pages + (size_t)i * (m.page_size + 4);
        uint32_t pgno = rq_get_u32(p);
        raftd.pgno_sum += pgno;
        raftd.intact = raftd.intact && p[4] == (uint8_t)pgno && p[4 + m.page_size - 1] == (uint8_t)pgno;
    }
}

static void put_answer(struct rq_bytes *out, const struct rq_frame *request, const struct act *act)
{
    static const struct rq_str text = { "why", 3 };
    uint64_t id = act->deed == WRONG_ID ? request->id + 1 : request->id;
    uint16_t type = act->deed == WRONG_TYPE ? RQ_MSG_STATUS : request->type;
    if (act->deed == FAIL) {
        (void)rq_msg_put_failed(out, id, &(struct rq_msg_failed){ .err = act->err, .text = text });
    } else if (type == RQ_MSG_HELLO) {
        (void)rq_msg_put_welcome(out, id,
                                 &(struct rq_msg_welcome){ .protocol = RQ_PROTOCOL_VERSION,
                                                           .frame_body_max = RQ_FRAME_BODY_MAX,
                                                           .instance = 1,
                                                           .node_id = text,
                                                           .version = text });
    } else if (type == RQ_MSG_OPEN) {
        (void)rq_msg_put_opened(out, id, &(struct rq_msg_opened){ .db_id = 5 });
    } else if (type == RQ_MSG_READ) {
        (void)rq_msg_put_ready(out, id, &(struct rq_msg_ready){ .index = 7, .left_ms = act->version });
    } else if (type == RQ_MSG_STATUS) {
        (void)rq_msg_put_opened(out, id, &(struct rq_msg_opened){ .db_id = 6 }); /* no answer to anything we ask */
    } else {
        (void)rq_msg_put_outcome(out, id,
                                 &(struct rq_msg_outcome){ .err = act->err, .version = act->version, .text = text });
    }
}

/* False: the connection is to be closed. */
static bool perform(int fd, const struct act *act, const struct rq_frame *request)
{
    struct rq_bytes out;
    rq_bytes_init(&out, 1 << 20);
    put_answer(&out, request, act);
    bool on = false;
    char byte;
    switch (act->deed) {
        case END:
        case HANG_UP:
        case SIP:
            break;
        case VANISH:
            (void)unlink(socket_path);
            (void)close(raftd.listener);
            raftd.listener = -1;
            break;
        case ANSWER:
        case FAIL:
        case WRONG_ID:
        case WRONG_TYPE:
            on = send(fd, out.data, out.size, MSG_NOSIGNAL) == (ssize_t)out.size;
            break;
        case CHATTER:
            (void)rq_bytes_put(&out, out.data, 9);
            on = send(fd, out.data, out.size, MSG_NOSIGNAL) == (ssize_t)out.size;
            break;
        case SLOW:
            on = true;
            for (size_t i = 0; i < out.size && on; i++) {
                on = send(fd, out.data + i, 1, MSG_NOSIGNAL) == 1;
                (void)sched_yield();
            }
            break;
        case HALF:
            (void)send(fd, out.data, out.size / 2, MSG_NOSIGNAL);
            break;
        case GARBAGE:
            (void)send(fd, "HTTP/1.1 400 Bad Request\r\n\r\nHTTP/1.1 400 Bad Request", 52, MSG_NOSIGNAL);
            on = true;
            break;
        case OVERSIZED:
            rq_put_u32(out.data, 0x7fffffff);
            on = send(fd, out.data, out.size, MSG_NOSIGNAL) == (ssize_t)out.size;
            break;
        case SILENCE:
            while (recv(fd, &byte, 1, 0) > 0) {
            }
            break;
    }
    rq_bytes_fini(&out);
    return on;
}

static void serve(int fd, const struct script *script)
{
    uint8_t head[RQ_FRAME_HEAD_BYTES];
    uint8_t *body = malloc(RQ_FRAME_BODY_MAX);
    raftd.pages = raftd.pgno_sum = 0;
    raftd.intact = true;
    for (const struct act *act = script->acts;;) {
        struct rq_frame frame;
        struct pollfd p = { .fd = fd, .events = POLLIN };
        (void)poll(&p, 1, 20000);
        if (act->deed == END) {
            break;
        }
        if (act->deed == SIP) {
            (void)recv(fd, head, sizeof head, 0);
            break;
        }
        if (!read_all(fd, head, sizeof head) || rq_frame_decode(head, &frame) != RQ_OK ||
            !read_all(fd, body, frame.body_bytes)) {
            raftd.surprises++;
            break;
        }
        struct rq_msg_hello hello;
        struct rq_msg_ask ask;
        if (frame.type == RQ_MSG_HELLO && rq_msg_get_hello(body, frame.body_bytes, &hello) == RQ_OK) {
            raftd.session[raftd.connections] = hello.session;
        }
        if (frame.type == RQ_MSG_ASK &&
            (rq_msg_get_ask(body, frame.body_bytes, &ask) != RQ_OK || ask.seq < raftd.seq)) {
            raftd.surprises++;
        }
        if (frame.type == RQ_MSG_PAGES || frame.type == RQ_MSG_COMMIT) {
            note_pages(&frame, body);
            if (frame.type == RQ_MSG_PAGES) {
                continue;
            }
        }
        if (frame.type != act->type) {
            raftd.surprises++;
            break;
        }
        if (!perform(fd, act, &frame)) {
            break;
        }
        act++;
    }
    free(body);
    (void)close(fd);
}

static void *run_raftd(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < raftd.count && raftd.listener >= 0; i++) {
        struct pollfd p = { .fd = raftd.listener, .events = POLLIN };
        int fd = poll(&p, 1, 10000) == 1 ? accept(raftd.listener, NULL, NULL) : -1;
        if (fd < 0) {
            break; /* a connection that the script expects does not come */
        }
        serve(fd, &raftd.scripts[i]);
        raftd.connections++;
    }
    if (raftd.listener >= 0) {
        (void)close(raftd.listener);
        raftd.listener = -1;
    }
    return NULL;
}

static void raftd_start(const struct script *scripts, size_t count)
{
    memset(&raftd, 0, sizeof raftd);
    raftd.scripts = scripts;
    raftd.count = count;
    raftd.listener = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    char here[200];
    check(getcwd(here, sizeof here) != NULL);
    (void)snprintf(a.sun_path, sizeof a.sun_path, "raftd.sock");
    (void)unlink(socket_path);
    check_eq(chdir(dir), 0); /* a long directory does not fit into an address */
    int bound = bind(raftd.listener, (struct sockaddr *)&a, sizeof a);
    check_eq(chdir(here), 0);
    check_eq(bound, 0);
    check_eq(listen(raftd.listener, 8), 0);
    check_eq(pthread_create(&raftd.thread, NULL, run_raftd, NULL), 0);
}

static void raftd_end(void)
{
    (void)pthread_join(raftd.thread, NULL);
    (void)unlink(socket_path);
    check_eq(raftd.surprises, 0);
    check_eq(raftd.connections, raftd.count);
}

#define HELLO_OK { RQ_MSG_HELLO, ANSWER, RQ_OK, 0 }
#define START(...)                                   \
    const struct script scripts[] = { __VA_ARGS__ }; \
    raftd_start(scripts, sizeof scripts / sizeof *scripts)

/* --- a transaction -------------------------------------------------------------------------------------------------------- */

struct pages {
    uint32_t count, at, page_size, rewinds;
    enum rq_err err; /* instead of the last page */
    uint8_t page[PAGE_SIZE_MAX];
};

static void pages_rewind(void *ctx)
{
    struct pages *p = ctx;
    p->at = 0;
    p->rewinds++;
}

static enum rq_err pages_next(void *ctx, uint32_t *ret_pgno, const uint8_t **ret_page)
{
    struct pages *p = ctx;
    if (p->at == p->count) {
        return RQ_NOTFOUND;
    }
    p->at++;
    if (p->at == p->count && p->err != RQ_OK) {
        return p->err;
    }
    memset(p->page, (int)(uint8_t)p->at, p->page_size);
    *ret_pgno = p->at;
    *ret_page = p->page;
    return RQ_OK;
}

static struct pages pages;
static uint64_t version;
static uint64_t took_ms;

static enum rq_err commit(struct rq_sink *s, uint32_t count, uint32_t page_size, enum rq_err page_err)
{
    pages = (struct pages){ .count = count, .page_size = page_size, .err = page_err };
    struct rq_sink_pages source = { .ctx = &pages, .rewind = pages_rewind, .next = pages_next };
    struct rq_sink_commit c = {
        .db_id = 5,
        .base = 9,
        .page_size = page_size,
        .db_page_count = count + 1,
        .page_count = count,
        .pages = &source,
    };
    version = 0;
    uint64_t begin = rq_now_ms();
    enum rq_err err = s->ops->commit(s, &c, &version);
    took_ms = rq_now_ms() - begin;
    return err;
}

static struct rq_sink *sink_new(unsigned timeout_ms)
{
    static char sqlite_version[] = "3.46.1";
    struct rq_sink *s = rq_bridge_new(sqlite_version, path, NULL, timeout_ms);
    check(s != NULL);
    return s;
}

/* Commits three small pages on a bridge of its own. */
static enum rq_err commit_once(unsigned timeout_ms)
{
    struct rq_sink *s = sink_new(timeout_ms);
    uint64_t session;
    enum rq_err err = s->ops->ready(s, &session);
    if (err == RQ_OK) {
        err = commit(s, 3, 4096, RQ_OK);
    }
    s->ops->close(s);
    return err;
}

/* --- claims --------------------------------------------------------------------------------------------------------------- */

static void good_answers_are_passed_on(void)
{
    START({ { HELLO_OK,
              { RQ_MSG_OPEN, ANSWER, RQ_OK, 0 },
              { RQ_MSG_COMMIT, ANSWER, RQ_OK, 10 },
              { RQ_MSG_COMMIT, SLOW, RQ_REFUSED, 0 } } });
    struct rq_sink *s = sink_new(5000);
    uint64_t session = 0;
    check_eq(s->ops->open(s, "app.db", true), RQ_OK);
    check_eq(s->ops->ready(s, &session), RQ_OK);
    check(session != 0);
    check_eq(commit(s, 3, 4096, RQ_OK), RQ_OK);
    check_eq(version, 10);
    check_eq(raftd.session[0], session);
    check_eq(commit(s, 2, 512, RQ_OK), RQ_REFUSED);
    check(strcmp(s->ops->text(s), "why") == 0);
    s->ops->close(s);
    raftd_end();
    check_eq(raftd.seq, 2);
    check_eq(raftd.pages, 5);
    check_eq(raftd.pgno_sum, 1 + 2 + 3 + 1 + 2);
    check(raftd.intact);
}

static void large_transactions_travel_in_several_frames(void)
{
    for (uint32_t page_size = 512; page_size <= PAGE_SIZE_MAX; page_size *= 128) {
        START({ { HELLO_OK, { RQ_MSG_COMMIT, ANSWER, RQ_OK, 10 } } });
        struct rq_sink *s = sink_new(5000);
        uint32_t count = 5000000 / page_size;
        check_eq(commit(s, count, page_size, RQ_OK), RQ_OK);
        s->ops->close(s);
        raftd_end();
        check_eq(raftd.pages, count);
        check_eq(raftd.pgno_sum, (uint32_t)((uint64_t)count * (count + 1) / 2));
        check(raftd.intact);
    }
}

static void answers_that_mean_not_passed_on_end_the_commit(void)
{
    static const enum rq_err errs[] = {
        RQ_AWAY, RQ_FULL, RQ_BUSY, RQ_UNREADY, RQ_QUARANTINED, RQ_PAGESIZE, RQ_CORRUPT
    };
    for (size_t i = 0; i < sizeof errs / sizeof *errs; i++) {
        START({ { HELLO_OK, { RQ_MSG_COMMIT, i % 2 == 0 ? ANSWER : FAIL, errs[i], 0 } } });
        check_eq(commit_once(5000), errs[i]);
        raftd_end();
    }
}

static void dies_before_it_read_the_commit_then_it_is_sent_again(void)
{
    START({ { HELLO_OK } },
          { { HELLO_OK, { RQ_MSG_ASK, ANSWER, RQ_NOTFOUND, 0 }, { RQ_MSG_COMMIT, ANSWER, RQ_OK, 10 } } });
    check_eq(commit_once(5000), RQ_OK);
    raftd_end();
    check_eq(version, 10);
    check_eq(raftd.session[0], raftd.session[1]);
    check_eq(raftd.seq, 1);
    check_eq(raftd.pages, 3);
}

/* A former life may have passed it on: what the present one says of its own try is not the last word. */
static void sent_again_to_a_raftd_that_was_started_anew_only_the_state_machine_can_refuse_it(void)
{
    static const struct {
        enum rq_err said, known;
    } cases[] = { { RQ_FULL, RQ_UNKNOWN }, { RQ_AWAY, RQ_UNKNOWN }, { RQ_REFUSED, RQ_REFUSED }, { RQ_OK, RQ_OK } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        START({ { HELLO_OK, { RQ_MSG_COMMIT, HANG_UP, RQ_OK, 0 } } },
              { { HELLO_OK, { RQ_MSG_ASK, ANSWER, RQ_NOTFOUND, 0 }, { RQ_MSG_COMMIT, ANSWER, cases[i].said, 10 } } });
        check_eq(commit_once(5000), cases[i].known);
        raftd_end();
    }
}

static void dies_after_the_commit_arrived_then_the_truth_is_asked_for(void)
{
    START({ { HELLO_OK, { RQ_MSG_COMMIT, HANG_UP, RQ_OK, 0 } } }, { { HELLO_OK, { RQ_MSG_ASK, ANSWER, RQ_OK, 10 } } });
    check_eq(commit_once(5000), RQ_OK);
    raftd_end();
    check_eq(version, 10);
    check_eq(pages.rewinds, 1);
}

static void refusal_of_a_commit_that_was_asked_for_is_passed_on(void)
{
    START({ { HELLO_OK, { RQ_MSG_COMMIT, HANG_UP, RQ_OK, 0 } } },
          { { HELLO_OK, { RQ_MSG_ASK, ANSWER, RQ_REFUSED, 0 } } });
    check_eq(commit_once(5000), RQ_REFUSED);
    raftd_end();
}

static void dies_with_a_transaction_half_sent_then_it_is_sent_again_unasked(void)
{
    START({ { HELLO_OK, { RQ_MSG_COMMIT, SIP, RQ_OK, 0 } } }, { { HELLO_OK, { RQ_MSG_COMMIT, ANSWER, RQ_OK, 10 } } });
    struct rq_sink *s = sink_new(5000);
    check_eq(commit(s, 100, PAGE_SIZE_MAX, RQ_OK), RQ_OK);
    s->ops->close(s);
    raftd_end();
    check_eq(raftd.pages, 100);
    check_eq(pages.rewinds, 2);
}

static void bad_answers_break_the_connection_and_the_truth_is_asked_for(void)
{
    static const enum deed deeds[] = { HALF, GARBAGE, OVERSIZED, WRONG_ID, WRONG_TYPE, CHATTER };
    for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++) {
        START({ { HELLO_OK, { RQ_MSG_COMMIT, deeds[i], RQ_OK, 99 } } },
              { { HELLO_OK, { RQ_MSG_ASK, ANSWER, RQ_OK, 10 } } });
        check_eq(commit_once(5000), RQ_OK);
        raftd_end();
        check_eq(version, 10);
    }
}

static void asks_until_raftd_knows(void)
{
    START({ { HELLO_OK,
              { RQ_MSG_COMMIT, ANSWER, RQ_UNKNOWN, 0 },
              { RQ_MSG_ASK, ANSWER, RQ_UNREADY, 0 },
              { RQ_MSG_ASK, FAIL, RQ_SHUTDOWN, 0 } } },
          { { HELLO_OK, { RQ_MSG_ASK, HANG_UP, RQ_OK, 0 } } }, { { { RQ_MSG_HELLO, GARBAGE, RQ_OK, 0 } } },
          { { { RQ_MSG_HELLO, HANG_UP, RQ_OK, 0 } } }, { { HELLO_OK, { RQ_MSG_ASK, ANSWER, RQ_OK, 10 } } });
    check_eq(commit_once(5000), RQ_OK);
    raftd_end();
    check_eq(version, 10);
}

static void out_of_time_is_unknown_only_if_it_can_have_happened(void)
{
    {
        START({ { HELLO_OK, { RQ_MSG_COMMIT, VANISH, RQ_OK, 0 } } });
        check_eq(commit_once(200), RQ_UNKNOWN);
        raftd_end();
        check(took_ms >= 100 && took_ms < 30000);
    }
    {
        START({ { HELLO_OK, { RQ_MSG_COMMIT, SILENCE, RQ_OK, 0 } } });
        check_eq(commit_once(200), RQ_UNKNOWN);
        raftd_end();
        check(took_ms >= 200 && took_ms < 30000);
    }
    {
        /* Half sent when raftd died for ever: certainly nothing. */
        START({ { HELLO_OK, { RQ_MSG_COMMIT, SIP, RQ_OK, 0 } } });
        struct rq_sink *s = sink_new(200);
        enum rq_err err = commit(s, 100, PAGE_SIZE_MAX, RQ_OK);
        s->ops->close(s);
        raftd_end();
        check_eq(err, RQ_AWAY);
    }
    struct rq_sink *s = sink_new(100);
    enum rq_err err = commit(s, 1, 4096, RQ_OK);
    check_eq(err, RQ_AWAY);
    check(strstr(s->ops->text(s), "start it with: raftd /") != NULL);
    s->ops->close(s);
}

static void page_that_cannot_be_read_sends_nothing(void)
{
    START({ { HELLO_OK, { RQ_MSG_COMMIT, END, RQ_OK, 0 } } }, { { HELLO_OK, { RQ_MSG_COMMIT, ANSWER, RQ_OK, 10 } } });
    struct rq_sink *s = sink_new(5000);
    check_eq(commit(s, 3, 4096, RQ_IO), RQ_IO);
    check_eq(commit(s, 3, 4096, RQ_OK), RQ_OK);
    s->ops->close(s);
    raftd_end();
    check_eq(raftd.seq, 2);
}

static void ready_reconnects_and_says_away_at_once(void)
{
    START({ { HELLO_OK, { RQ_MSG_COMMIT, ANSWER, RQ_OK, 10 }, { RQ_MSG_COMMIT, HANG_UP, RQ_OK, 0 } } },
          { { HELLO_OK, { RQ_MSG_ASK, ANSWER, RQ_OK, 11 }, { RQ_MSG_OPEN, VANISH, RQ_OK, 0 } } });
    struct rq_sink *s = sink_new(10000);
    uint64_t session = 0, again = 0;
    check_eq(s->ops->ready(s, &session), RQ_OK);
    check_eq(s->ops->ready(s, &again), RQ_OK);
    check_eq(session, again);
    check_eq(commit(s, 1, 4096, RQ_OK), RQ_OK);
    check_eq(commit(s, 1, 4096, RQ_OK), RQ_OK);
    check_eq(s->ops->ready(s, &again), RQ_OK);
    check_eq(s->ops->open(s, "app.db", true), RQ_AWAY);
    raftd_end();
    uint64_t begin = rq_now_ms();
    check_eq(s->ops->ready(s, &again), RQ_AWAY);
    check_eq(s->ops->open(s, "app.db", true), RQ_AWAY);
    check(rq_now_ms() - begin < 9000);
    check(strstr(s->ops->text(s), "start it with: raftd /") != NULL);
    const struct script back[] = { { { HELLO_OK, { RQ_MSG_COMMIT, ANSWER, RQ_OK, 12 } } } };
    raftd_start(back, 1);
    check_eq(s->ops->ready(s, &again), RQ_OK);
    check_eq(session, again);
    check_eq(commit(s, 1, 4096, RQ_OK), RQ_OK);
    s->ops->close(s);
    raftd_end();
}

static void raftd_that_does_not_answer_is_away_before_long(void)
{
    START({ { { RQ_MSG_HELLO, SILENCE, RQ_OK, 0 } } });
    struct rq_sink *s = sink_new(60000);
    uint64_t session = 0, begin = rq_now_ms();
    check_eq(s->ops->ready(s, &session), RQ_AWAY);
    check(rq_now_ms() - begin < 30000);
    s->ops->close(s);
    raftd_end();
}

static void a_raftd_that_starts_or_has_no_leader_is_waited_for_at_open(void)
{
    START({ { HELLO_OK,
              { RQ_MSG_OPEN, FAIL, RQ_UNREADY, 0 },
              { RQ_MSG_OPEN, FAIL, RQ_AWAY, 0 },
              { RQ_MSG_OPEN, FAIL, RQ_UNKNOWN, 0 },
              { RQ_MSG_OPEN, ANSWER, RQ_OK, 0 },
              { RQ_MSG_OPEN, FAIL, RQ_NOTFOUND, 0 } } });
    struct rq_sink *s = sink_new(5000);
    check_eq(s->ops->open(s, "app.db", true), RQ_OK);
    check_eq(s->ops->open(s, "other.db", false), RQ_NOTFOUND);
    s->ops->close(s);
    raftd_end();
}

/* --- reading ------------------------------------------------------------------------------------------------------------- */

static void read_waits_for_raftd_and_a_leader(void)
{
    START({ { HELLO_OK, { RQ_MSG_READ, FAIL, RQ_AWAY, 0 }, { RQ_MSG_READ, HANG_UP, RQ_OK, 0 } } },
          { { HELLO_OK,
              { RQ_MSG_READ, FAIL, RQ_UNREADY, 0 },
              { RQ_MSG_READ, ANSWER, RQ_OK, 450 },
              { RQ_MSG_READ, ANSWER, RQ_OK, 0 } } });
    struct rq_sink *s = sink_new(5000);
    uint64_t left_ms = 0;
    check_eq(s->ops->read(s, 5, 500, false, &left_ms), RQ_OK);
    check_eq(left_ms, 450);
    check_eq(s->ops->read(s, 5, 0, false, &left_ms), RQ_OK);
    check_eq(left_ms, 0);
    s->ops->close(s);
    raftd_end();
}

static void read_out_of_time_is_away_and_sooner_when_it_was_refused_before(void)
{
    uint64_t left_ms = 77, begin = rq_now_ms();
    struct rq_sink *s = sink_new(600); /* nobody is there */
    check_eq(s->ops->read(s, 5, 0, false, &left_ms), RQ_AWAY);
    check(rq_now_ms() - begin >= 500);
    check(strstr(s->ops->text(s), "start it with: raftd /") != NULL);
    s->ops->close(s);
    s = sink_new(60000);
    begin = rq_now_ms();
    check_eq(s->ops->read(s, 5, 0, true, &left_ms), RQ_AWAY);
    check(rq_now_ms() - begin < 30000);
    check_eq(left_ms, 77);
    s->ops->close(s);
}

static void read_that_will_never_do_is_told_at_once(void)
{
    START({ { HELLO_OK, { RQ_MSG_READ, FAIL, RQ_PERM, 0 } } });
    struct rq_sink *s = sink_new(60000);
    uint64_t left_ms, begin = rq_now_ms();
    check_eq(s->ops->read(s, 5, 0, false, &left_ms), RQ_PERM);
    check(rq_now_ms() - begin < 30000);
    s->ops->close(s);
    raftd_end();
}

static void forked_child_has_a_session_of_its_own(void)
{
    START({ { HELLO_OK } }, { { HELLO_OK } });
    struct rq_sink *s = sink_new(5000);
    uint64_t session = 0;
    check_eq(s->ops->ready(s, &session), RQ_OK);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        uint64_t child_session = 0;
        alarm(20);
        bool fine = s->ops->ready(s, &child_session) == RQ_OK && child_session != session;
        s->ops->close(s);
        _exit(fine ? 0 : 1);
    }
    /* The child's connection is served when the parent's is closed; closing the inherited one did not close the parent's. */
    uint64_t again = 0;
    check_eq(s->ops->ready(s, &again), RQ_OK);
    check_eq(again, session);
    s->ops->close(s);
    int status = -1;
    (void)waitpid(pid, &status, 0);
    check_eq(status, 0);
    raftd_end();
    check(raftd.session[0] != raftd.session[1]);
}

static void environment_and_uri_name_another_socket(void)
{
    char *a = rq_link_socket_of("/srv/app.db", NULL);
    char *b = rq_link_socket_of("/srv/app.db", "/run/x.sock");
    check_eq(setenv("RQVFS_RAFTD", "/run/env.sock", 1), 0);
    char *c = rq_link_socket_of("/srv/app.db", NULL);
    char *d = rq_link_socket_of("/srv/app.db", "/run/x.sock");
    check_eq(unsetenv("RQVFS_RAFTD"), 0);
    check(strcmp(a, "/srv/raftd.sock") == 0);
    check(strcmp(b, "/run/x.sock") == 0);
    check(strcmp(c, "/run/env.sock") == 0);
    check(strcmp(d, "/run/x.sock") == 0);
    free(a);
    free(b);
    free(c);
    free(d);
}

static void set_dir(const char *base, const char *deeper)
{
    (void)snprintf(dir, sizeof dir, "%s%s", base, deeper);
    (void)snprintf(path, sizeof path, "%s/app.db", dir);
    (void)snprintf(socket_path, sizeof socket_path, "%s/raftd.sock", dir);
}

static char base[64] = "/tmp/rq-bridge-XXXXXX";

static void long_directory_is_connected_to(void)
{
    char deeper[160];
    memset(deeper, 'd', sizeof deeper);
    deeper[0] = '/';
    deeper[sizeof deeper - 1] = '\0';
    set_dir(base, deeper);
    check_eq(mkdir(dir, 0700), 0);
    START({ { HELLO_OK, { RQ_MSG_COMMIT, ANSWER, RQ_OK, 10 } } });
    enum rq_err err = commit_once(5000);
    raftd_end();
    (void)rmdir(dir);
    set_dir(base, "");
    check_eq(err, RQ_OK);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(good_answers_are_passed_on),
        TAP(large_transactions_travel_in_several_frames),
        TAP(answers_that_mean_not_passed_on_end_the_commit),
        TAP(dies_before_it_read_the_commit_then_it_is_sent_again),
        TAP(sent_again_to_a_raftd_that_was_started_anew_only_the_state_machine_can_refuse_it),
        TAP(dies_after_the_commit_arrived_then_the_truth_is_asked_for),
        TAP(refusal_of_a_commit_that_was_asked_for_is_passed_on),
        TAP(dies_with_a_transaction_half_sent_then_it_is_sent_again_unasked),
        TAP(bad_answers_break_the_connection_and_the_truth_is_asked_for),
        TAP(asks_until_raftd_knows),
        TAP(out_of_time_is_unknown_only_if_it_can_have_happened),
        TAP(page_that_cannot_be_read_sends_nothing),
        TAP(ready_reconnects_and_says_away_at_once),
        TAP(raftd_that_does_not_answer_is_away_before_long),
        TAP(a_raftd_that_starts_or_has_no_leader_is_waited_for_at_open),
        TAP(read_waits_for_raftd_and_a_leader),
        TAP(read_out_of_time_is_away_and_sooner_when_it_was_refused_before),
        TAP(read_that_will_never_do_is_told_at_once),
        TAP(forked_child_has_a_session_of_its_own),
        TAP(environment_and_uri_name_another_socket),
        TAP(long_directory_is_connected_to),
    };
    if (mkdtemp(base) == NULL) {
        return 1;
    }
    set_dir(base, "");
    int code = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    (void)rmdir(base);
    return code;
}
