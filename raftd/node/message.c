#include "raftd/node/message.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/wire/mp.h"

/* Beside raft's own types. */
#define ROUND_ASKED    101u
#define ROUND_ANSWERED 102u

#define HEAD_FIELDS  3u                                    /* type, version, term */
#define ENTRY_FIELDS 3u                                    /* type, term, bytes */
#define BODY_MAX     (RQ_RAFT_MESSAGE_BYTES + (64u << 20)) /* one entry may be as large as a segment of the log */

static void begin(struct rq_mp_writer *w, struct rq_bytes *out, uint32_t fields, const struct raft_message *m,
                  unsigned version, uint64_t term)
{
    out->size = 0;
    rq_mp_write_begin(w, out, HEAD_FIELDS + fields);
    rq_mp_put_uint(w, (uint64_t)m->type);
    rq_mp_put_uint(w, version);
    rq_mp_put_uint(w, term);
}

/* How many of the entries from first on go into one piece.  They are taken from the log, with their blobs. */
static enum rq_err take_entries(struct rq_log *log, uint64_t first, unsigned count, struct rq_log_entry *taken,
                                unsigned *ret_taken)
{
    size_t bytes = 0;
    unsigned n = 0;
    enum rq_err err = RQ_OK;
    while (n < count && n < RQ_RAFT_MESSAGE_ENTRIES && bytes < RQ_RAFT_MESSAGE_BYTES) {
        err = rq_log_get(log, first + n, &taken[n]);
        if (err != RQ_OK) {
            break;
        }
        bytes += taken[n].blob != NULL ? taken[n].blob->bytes : 0;
        n++;
    }
    *ret_taken = n;
    return err;
}

static enum rq_err put_piece(struct rq_bytes *out, const struct raft_message *m, uint64_t prev, uint64_t prev_term,
                             const struct rq_log_entry *entries, unsigned count)
{
    const struct raft_append_entries *a = &m->append_entries;
    struct rq_mp_writer w;
    begin(&w, out, 3 + ENTRY_FIELDS * count, m, a->version, a->term);
    rq_mp_put_uint(&w, prev);
    rq_mp_put_uint(&w, prev_term);
    rq_mp_put_uint(&w, a->leader_commit);
    for (unsigned i = 0; i < count; i++) {
        const struct rq_blob *blob = entries[i].blob;
        rq_mp_put_uint(&w, entries[i].type);
        rq_mp_put_uint(&w, entries[i].term);
        rq_mp_put_bin(&w, blob != NULL ? blob->data : NULL, blob != NULL ? (uint32_t)blob->bytes : 0);
    }
    return w.err;
}

static enum rq_err put_append(struct rq_bytes *out, const struct raft_message *m, struct rq_log *log,
                              void (*piece)(void *ctx, const uint8_t *data, size_t bytes), void *ctx)
{
    const struct raft_append_entries *a = &m->append_entries;
    uint64_t prev = a->prev_log_index, prev_term = a->prev_log_term;
    unsigned left = a->n_entries;
    struct rq_log_entry taken[RQ_RAFT_MESSAGE_ENTRIES];
    do {
        unsigned n;
        enum rq_err err = take_entries(log, prev + 1, left, taken, &n);
        if (err == RQ_OK) {
            err = put_piece(out, m, prev, prev_term, taken, n);
        }
        if (err == RQ_OK) {
            piece(ctx, out->data, out->size);
        }
        for (unsigned i = 0; i < n; i++) {
            prev_term = taken[i].term;
            rq_blob_unref(taken[i].blob);
        }
        if (err != RQ_OK) {
            return err;
        }
        prev += n;
        left -= n;
    } while (left > 0);
    return RQ_OK;
}

static enum rq_err put_other(struct rq_bytes *out, const struct raft_message *m)
{
    struct rq_mp_writer w;
    switch (m->type) {
        case RAFT_APPEND_ENTRIES_RESULT: {
            const struct raft_append_entries_result *r = &m->append_entries_result;
            begin(&w, out, 4, m, r->version, r->term);
            rq_mp_put_uint(&w, r->rejected);
            rq_mp_put_uint(&w, r->last_log_index);
            rq_mp_put_uint(&w, r->features);
            rq_mp_put_uint(&w, r->capacity);
            return w.err;
        }
        case RAFT_REQUEST_VOTE: {
            const struct raft_request_vote *v = &m->request_vote;
            begin(&w, out, 5, m, v->version, v->term);
            rq_mp_put_uint(&w, v->candidate_id);
            rq_mp_put_uint(&w, v->last_log_index);
            rq_mp_put_uint(&w, v->last_log_term);
            rq_mp_put_bool(&w, v->disrupt_leader);
            rq_mp_put_bool(&w, v->pre_vote);
            return w.err;
        }
        case RAFT_REQUEST_VOTE_RESULT: {
            const struct raft_request_vote_result *r = &m->request_vote_result;
            begin(&w, out, 4, m, r->version, r->term);
            rq_mp_put_bool(&w, r->vote_granted);
            rq_mp_put_bool(&w, r->pre_vote);
            rq_mp_put_uint(&w, r->features);
            rq_mp_put_uint(&w, r->capacity);
            return w.err;
        }
        case RAFT_INSTALL_SNAPSHOT: {
            const struct raft_install_snapshot *s = &m->install_snapshot;
            begin(&w, out, 3, m, s->version, s->term);
            rq_mp_put_uint(&w, s->last_index);
            rq_mp_put_uint(&w, s->last_term);
            rq_mp_put_uint(&w, s->conf_index);
            return w.err;
        }
        case RAFT_TIMEOUT_NOW: {
            const struct raft_timeout_now *t = &m->timeout_now;
            begin(&w, out, 2, m, t->version, t->term);
            rq_mp_put_uint(&w, t->last_log_index);
            rq_mp_put_uint(&w, t->last_log_term);
            return w.err;
        }
        case RAFT_APPEND_ENTRIES:
            break;
    }
    return RQ_MISUSE;
}

enum rq_err rq_raft_message_put(const struct raft_message *m, struct rq_log *log,
                                void (*piece)(void *ctx, const uint8_t *data, size_t bytes), void *ctx)
{
    struct rq_bytes out;
    enum rq_err err;
    rq_bytes_init(&out, BODY_MAX);
    if (m->type == RAFT_APPEND_ENTRIES) {
        err = put_append(&out, m, log, piece, ctx);
    } else {
        err = put_other(&out, m);
        if (err == RQ_OK) {
            piece(ctx, out.data, out.size);
        }
    }
    rq_bytes_fini(&out);
    return err;
}

enum rq_err rq_raft_message_put_round(const struct rq_round *round,
                                      void (*piece)(void *ctx, const uint8_t *data, size_t bytes), void *ctx)
{
    struct rq_bytes out;
    struct rq_mp_writer w;
    rq_bytes_init(&out, 64);
    rq_mp_write_begin(&w, &out, HEAD_FIELDS + 1);
    rq_mp_put_uint(&w, round->answer ? ROUND_ANSWERED : ROUND_ASKED);
    rq_mp_put_uint(&w, 0);
    rq_mp_put_uint(&w, round->term);
    rq_mp_put_uint(&w, round->round);
    if (w.err == RQ_OK) {
        piece(ctx, out.data, out.size);
    }
    rq_bytes_fini(&out);
    return w.err;
}

/* --- decoding ------------------------------------------------------------------------------------------------------------ */

static uint64_t get_u64(struct rq_mp_reader *r)
{
    return rq_mp_get_uint(r, 0, UINT64_MAX);
}

static unsigned short get_u16(struct rq_mp_reader *r)
{
    return (unsigned short)rq_mp_get_uint(r, 0, UINT16_MAX);
}

/* Room for one more; most messages have one. */
static bool make_room(struct rq_raft_message *m, unsigned *capacity)
{
    if (m->entry_count < *capacity) {
        return true;
    }
    *capacity = *capacity > 0 ? 2 * *capacity : 1;
    struct rq_log_entry *larger = realloc(m->entries, *capacity * sizeof *larger);
    if (larger == NULL) {
        return false;
    }
    m->entries = larger;
    return true;
}

static void get_entries(struct rq_mp_reader *r, struct rq_raft_message *m)
{
    unsigned capacity = 0;
    struct raft_append_entries *a = &m->message.append_entries;
    while (r->err == RQ_OK && r->next < r->end) {
        uint32_t bytes;
        struct rq_log_entry e = { .index = a->prev_log_index + m->entry_count + 1 };
        e.type = (uint16_t)rq_mp_get_uint(r, 1, UINT16_MAX);
        e.term = rq_mp_get_uint(r, 1, UINT64_MAX);
        const uint8_t *data = rq_mp_get_bin(r, BODY_MAX, &bytes);
        if (r->err == RQ_OK && m->entry_count == RQ_RAFT_MESSAGE_ENTRIES) {
            rq_mp_read_fail(r, RQ_PROTOCOL);
        }
        if (r->err == RQ_OK && !make_room(m, &capacity)) {
            rq_mp_read_fail(r, RQ_NOMEM);
        }
        if (r->err == RQ_OK && bytes > 0) {
            e.blob = rq_blob_new(bytes);
            if (e.blob == NULL) {
                rq_mp_read_fail(r, RQ_NOMEM);
            } else {
                memcpy(e.blob->data, data, bytes);
            }
        }
        if (r->err == RQ_OK) {
            assert(m->entries != NULL); /* or there was no memory for them */
            m->entries[m->entry_count++] = e;
        }
    }
    a->n_entries = m->entry_count;
}

static void get_fields(struct rq_mp_reader *r, struct rq_raft_message *m, unsigned char version, uint64_t term)
{
    struct raft_message *to = &m->message;
    switch (to->type) {
        case RAFT_APPEND_ENTRIES:
            to->append_entries = (struct raft_append_entries){ .version = version, .term = term };
            to->append_entries.prev_log_index = rq_mp_get_uint(r, 0, UINT64_MAX - RQ_RAFT_MESSAGE_ENTRIES);
            to->append_entries.prev_log_term = get_u64(r);
            to->append_entries.leader_commit = get_u64(r);
            get_entries(r, m);
            return;
        case RAFT_APPEND_ENTRIES_RESULT:
            to->append_entries_result = (struct raft_append_entries_result){ .version = version, .term = term };
            to->append_entries_result.rejected = get_u64(r);
            to->append_entries_result.last_log_index = get_u64(r);
            to->append_entries_result.features = get_u16(r);
            to->append_entries_result.capacity = get_u16(r);
            return;
        case RAFT_REQUEST_VOTE:
            to->request_vote = (struct raft_request_vote){ .version = version, .term = term };
            to->request_vote.candidate_id = rq_mp_get_uint(r, 1, UINT64_MAX);
            to->request_vote.last_log_index = get_u64(r);
            to->request_vote.last_log_term = get_u64(r);
            to->request_vote.disrupt_leader = rq_mp_get_bool(r);
            to->request_vote.pre_vote = rq_mp_get_bool(r);
            return;
        case RAFT_REQUEST_VOTE_RESULT:
            to->request_vote_result = (struct raft_request_vote_result){ .version = version, .term = term };
            to->request_vote_result.vote_granted = rq_mp_get_bool(r);
            to->request_vote_result.pre_vote = rq_mp_get_bool(r);
            to->request_vote_result.features = get_u16(r);
            to->request_vote_result.capacity = get_u16(r);
            return;
        case RAFT_INSTALL_SNAPSHOT:
            to->install_snapshot = (struct raft_install_snapshot){ .version = version, .term = term };
            to->install_snapshot.last_index = rq_mp_get_uint(r, 1, UINT64_MAX);
            to->install_snapshot.last_term = rq_mp_get_uint(r, 1, UINT64_MAX);
            to->install_snapshot.conf_index = get_u64(r);
            return;
        case RAFT_TIMEOUT_NOW:
            to->timeout_now = (struct raft_timeout_now){ .version = version, .term = term };
            to->timeout_now.last_log_index = get_u64(r);
            to->timeout_now.last_log_term = get_u64(r);
            return;
    }
}

enum rq_err rq_raft_message_get(const uint8_t *data, size_t bytes, struct rq_raft_message *ret)
{
    struct rq_raft_message m = { .entries = NULL };
    struct rq_mp_reader r;
    rq_mp_read_begin(&r, data, bytes);
    const uint64_t type = rq_mp_get_uint(&r, RAFT_APPEND_ENTRIES, ROUND_ANSWERED);
    const unsigned char version = (unsigned char)rq_mp_get_uint(&r, 0, UINT8_MAX);
    const uint64_t term = rq_mp_get_uint(&r, 1, UINT64_MAX);
    const bool is_raft = type >= RAFT_APPEND_ENTRIES && type <= RAFT_TIMEOUT_NOW;
    m.is_round = type >= ROUND_ASKED;
    if (r.err == RQ_OK && is_raft) {
        m.message.type = (enum raft_message_type)type;
        get_fields(&r, &m, version, term);
    } else if (r.err == RQ_OK && m.is_round) {
        m.round = (struct rq_round){ term, rq_mp_get_uint(&r, 1, UINT64_MAX), type == ROUND_ANSWERED };
    } else {
        rq_mp_read_fail(&r, RQ_PROTOCOL);
    }
    enum rq_err err = rq_mp_read_end(&r);
    if (err == RQ_OK && r.end != data + bytes) { /* nothing may stand behind the array */
        err = RQ_PROTOCOL;
    }
    if (err != RQ_OK) {
        rq_raft_message_fini(&m);
        return err;
    }
    *ret = m;
    return RQ_OK;
}

void rq_raft_message_fini(struct rq_raft_message *m)
{
    for (unsigned i = 0; i < m->entry_count; i++) {
        rq_blob_unref(m->entries[i].blob);
    }
    free(m->entries);
}
