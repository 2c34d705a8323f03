/* raft messages: what goes out comes in, in pieces of a bounded size; nothing else does. */
#include <stdlib.h>
#include <string.h>

#include "raftd/node/message.h"
#include "raftd/wire/entry.h"
#include "tests/support/memory_log.h"
#include "tests/support/tap.h"

enum { PIECES_MAX = 32 };

static struct {
    uint8_t *data;
    size_t bytes;
} pieces[PIECES_MAX];
static unsigned piece_count;

static void on_piece(void *ctx, const uint8_t *data, size_t bytes)
{
    (void)ctx;
    check(piece_count < PIECES_MAX);
    pieces[piece_count].data = malloc(bytes);
    memcpy(pieces[piece_count].data, data, bytes);
    pieces[piece_count++].bytes = bytes;
}

static void forget(void)
{
    while (piece_count > 0) {
        free(pieces[--piece_count].data);
    }
}

static struct rq_log *log_with(unsigned count, size_t bytes)
{
    struct rq_log *log = memory_log_new();
    check_eq(rq_log_put_meta(log, 20, 0), RQ_OK);
    for (unsigned i = 1; i <= count; i++) {
        struct rq_log_entry e = { .index = i, .term = 1 + i / 10, .type = RQ_ENTRY_TXN, .blob = rq_blob_new(bytes) };
        memset(e.blob->data, (int)i, bytes);
        check_eq(rq_log_reserve(log, bytes, 1), RQ_OK);
        check_eq(rq_log_append(log, &e, 1, 0), RQ_OK);
        rq_blob_unref(e.blob);
    }
    return log;
}

/* Every prefix, a byte more, and every byte changed: never more than an error, or another message. */
static void damage(const uint8_t *data, size_t bytes)
{
    struct rq_raft_message m;
    uint8_t *copy = malloc(bytes);
    for (size_t i = 0; i < bytes; i++) {
        check_eq(rq_raft_message_get(data, i, &m), RQ_PROTOCOL);
    }
    uint8_t *longer = calloc(1, bytes + 1);
    memcpy(longer, data, bytes);
    check_eq(rq_raft_message_get(longer, bytes + 1, &m), RQ_PROTOCOL);
    free(longer);
    for (size_t i = 0; i < bytes; i++) {
        memcpy(copy, data, bytes);
        for (unsigned bit = 1; bit < 256; bit <<= 1) {
            copy[i] = data[i] ^ (uint8_t)bit;
            if (rq_raft_message_get(copy, bytes, &m) == RQ_OK) {
                rq_raft_message_fini(&m);
            }
        }
    }
    free(copy);
}

static struct rq_raft_message round_trip(const struct raft_message *m)
{
    struct rq_raft_message got;
    check_eq(rq_raft_message_put(m, NULL, on_piece, NULL), RQ_OK);
    check_eq(piece_count, 1);
    check_eq(rq_raft_message_get(pieces[0].data, pieces[0].bytes, &got), RQ_OK);
    check_eq(got.message.type, m->type);
    damage(pieces[0].data, pieces[0].bytes);
    forget();
    rq_raft_message_fini(&got);
    return got;
}

static void every_kind_comes_back(void)
{
    struct raft_message m = { .type = RAFT_REQUEST_VOTE };
    m.request_vote = (struct raft_request_vote){ 2, 7, UINT64_MAX - 1, 9, 6, true, true };
    struct rq_raft_message got = round_trip(&m);
    check_eq(got.message.request_vote.version, 2);
    check_eq(got.message.request_vote.term, 7);
    check(got.message.request_vote.candidate_id == UINT64_MAX - 1);
    check_eq(got.message.request_vote.last_log_index, 9);
    check_eq(got.message.request_vote.last_log_term, 6);
    check(got.message.request_vote.disrupt_leader);
    check(got.message.request_vote.pre_vote);

    m = (struct raft_message){ .type = RAFT_REQUEST_VOTE_RESULT };
    m.request_vote_result = (struct raft_request_vote_result){ 2, 8, true, false, 3, 4 };
    got = round_trip(&m);
    check_eq(got.message.request_vote_result.version, 2);
    check_eq(got.message.request_vote_result.term, 8);
    check(got.message.request_vote_result.vote_granted);
    check(!got.message.request_vote_result.pre_vote);
    check_eq(got.message.request_vote_result.features, 3);
    check_eq(got.message.request_vote_result.capacity, 4);

    m = (struct raft_message){ .type = RAFT_APPEND_ENTRIES_RESULT };
    m.append_entries_result = (struct raft_append_entries_result){ 2, 9, 11, 12, 1, 2 };
    got = round_trip(&m);
    check_eq(got.message.append_entries_result.version, 2);
    check_eq(got.message.append_entries_result.term, 9);
    check_eq(got.message.append_entries_result.rejected, 11);
    check_eq(got.message.append_entries_result.last_log_index, 12);
    check_eq(got.message.append_entries_result.features, 1);
    check_eq(got.message.append_entries_result.capacity, 2);

    m = (struct raft_message){ .type = RAFT_INSTALL_SNAPSHOT };
    m.install_snapshot.term = 3;
    m.install_snapshot.last_index = 1000;
    m.install_snapshot.last_term = 2;
    m.install_snapshot.conf_index = 5;
    got = round_trip(&m);
    check_eq(got.message.install_snapshot.term, 3);
    check_eq(got.message.install_snapshot.last_index, 1000);
    check_eq(got.message.install_snapshot.last_term, 2);
    check_eq(got.message.install_snapshot.conf_index, 5);

    m = (struct raft_message){ .type = RAFT_TIMEOUT_NOW };
    m.timeout_now = (struct raft_timeout_now){ 0, 4, 5, 6 };
    got = round_trip(&m);
    check_eq(got.message.timeout_now.term, 4);
    check_eq(got.message.timeout_now.last_log_index, 5);
    check_eq(got.message.timeout_now.last_log_term, 6);
}

static void round_comes_back(void)
{
    for (unsigned answer = 0; answer < 2; answer++) {
        const struct rq_round round = { .term = UINT64_MAX, .round = 77, .answer = answer };
        struct rq_raft_message got;
        check_eq(rq_raft_message_put_round(&round, on_piece, NULL), RQ_OK);
        check_eq(piece_count, 1);
        check_eq(rq_raft_message_get(pieces[0].data, pieces[0].bytes, &got), RQ_OK);
        check(got.is_round);
        check(got.round.term == UINT64_MAX);
        check_eq(got.round.round, 77);
        check_eq(got.round.answer, answer);
        damage(pieces[0].data, pieces[0].bytes);
        forget();
        rq_raft_message_fini(&got);
    }
}

/* What the pieces hold together is what the core has sent, each with the prev that the log has. */
static void expect_entries(uint64_t prev, unsigned count, size_t bytes)
{
    uint64_t next = prev + 1;
    for (unsigned i = 0; i < piece_count; i++) {
        struct rq_raft_message got;
        check_eq(rq_raft_message_get(pieces[i].data, pieces[i].bytes, &got), RQ_OK);
        const struct raft_append_entries *a = &got.message.append_entries;
        check_eq(a->term, 20);
        check_eq(a->leader_commit, 17);
        check_eq(a->prev_log_index, next - 1);
        check_eq(a->prev_log_term, next == 1 ? 0 : 1 + (next - 1) / 10);
        check_eq(a->n_entries, got.entry_count);
        for (unsigned k = 0; k < got.entry_count; k++, next++) {
            check_eq(got.entries[k].index, next);
            check_eq(got.entries[k].term, 1 + next / 10);
            check_eq(got.entries[k].type, RQ_ENTRY_TXN);
            check_eq(got.entries[k].blob->bytes, bytes);
            check_eq(got.entries[k].blob->data[bytes - 1], (uint8_t)next);
        }
        rq_raft_message_fini(&got);
    }
    check_eq(next, prev + 1 + count);
}

static void entries_travel_with_the_message(void)
{
    struct rq_log *log = log_with(40, 100);
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES };
    m.append_entries = (struct raft_append_entries){ 0, 20, 0, 0, 17, NULL, 40 };
    check_eq(rq_raft_message_put(&m, log, on_piece, NULL), RQ_OK);
    check_eq(piece_count, 1);
    expect_entries(0, 40, 100);
    forget();
    m.append_entries = (struct raft_append_entries){ 0, 20, 39, 4, 17, NULL, 1 };
    check_eq(rq_raft_message_put(&m, log, on_piece, NULL), RQ_OK);
    expect_entries(39, 1, 100);
    damage(pieces[0].data, pieces[0].bytes);
    forget();
    m.append_entries = (struct raft_append_entries){ 0, 20, 40, 5, 17, NULL, 0 }; /* a heartbeat */
    check_eq(rq_raft_message_put(&m, log, on_piece, NULL), RQ_OK);
    expect_entries(40, 0, 0);
    forget();
    rq_log_close(log);
}

static void what_is_large_is_split(void)
{
    struct rq_log *log = log_with(12, 400000);
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES };
    m.append_entries = (struct raft_append_entries){ 0, 20, 2, 1, 17, NULL, 10 };
    check_eq(rq_raft_message_put(&m, log, on_piece, NULL), RQ_OK);
    check_eq(piece_count, 4);
    expect_entries(2, 10, 400000);
    forget();
    rq_log_close(log);
}

static void entries_that_are_gone_are_not_made_up(void)
{
    struct rq_log *log = log_with(5, 10);
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES };
    m.append_entries = (struct raft_append_entries){ 0, 20, 2, 1, 17, NULL, 10 };
    check_eq(rq_raft_message_put(&m, log, on_piece, NULL), RQ_NOTFOUND);
    check_eq(piece_count, 0);
    rq_log_close(log);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(every_kind_comes_back),
        TAP(round_comes_back),
        TAP(entries_travel_with_the_message),
        TAP(what_is_large_is_split),
        TAP(entries_that_are_gone_are_not_made_up),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
