/* Golden: the exact bytes of every message, record, entry, body and file, against the files beside this one.
 *
 * A difference is a change of the protocol or of the file format: it breaks every peer, log and replica that exists.  When it is
 * meant, golden DIR --update rewrites the files, and docs/protocol.md or docs/file-format.md changes in the same commit. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "raftd/wire/body.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/msg.h"
#include "raftd/wire/peer.h"
#include "raftd/wire/txn.h"
#include "tests/golden/golden_copy.h"
#include "tests/golden/golden_files.h"
#include "tests/golden/golden_nodes.h"
#include "tests/support/hexfile.h"
#include "tests/support/tap.h"

#define STR(text)  { .data = (text), .bytes = sizeof(text) - 1 }
#define MUST(call) check_eq((call), RQ_OK)

enum { PAGE_SIZE = 512 };

/* --- messages ----------------------------------------------------------------------------------------------------------- */

static void hello(struct rq_bytes *out)
{
    MUST(rq_msg_put_hello(out, 1,
                          &(struct rq_msg_hello){ .protocol = RQ_PROTOCOL_VERSION,
                                                  .session = 0x1122334455667788ull,
                                                  .pid = 4242,
                                                  .program = STR("python3"),
                                                  .sqlite = STR("3.46.1") }));
}
static void welcome(struct rq_bytes *out)
{
    MUST(rq_msg_put_welcome(out, 1,
                            &(struct rq_msg_welcome){ .protocol = RQ_PROTOCOL_VERSION,
                                                      .frame_body_max = RQ_FRAME_BODY_MAX,
                                                      .instance = 0x99aabbccddeeff00ull,
                                                      .node_id = STR("n1"),
                                                      .version = STR("0.1.0") }));
}
static void open_message(struct rq_bytes *out)
{
    MUST(rq_msg_put_open(out, 2, &(struct rq_msg_open){ .name = STR("app.db"), .create = true }));
}
static void opened(struct rq_bytes *out)
{
    MUST(rq_msg_put_opened(out, 2, &(struct rq_msg_opened){ .db_id = 7, .version = 300, .page_size = PAGE_SIZE }));
}

static void put_page(struct rq_bytes *out, uint32_t pgno)
{
    uint8_t piece[4 + PAGE_SIZE];
    memset(piece, (int)pgno, sizeof piece);
    rq_put_u32(piece, pgno);
    MUST(rq_bytes_put(out, piece, sizeof piece));
}
static struct rq_msg_commit commit_of(uint32_t page_count)
{
    return (struct rq_msg_commit){
        .db_id = 7, .seq = 5, .base = 300, .page_size = PAGE_SIZE, .db_page_count = 70000, .page_count = page_count
    };
}
static void pages(struct rq_bytes *out)
{
    struct rq_msg_commit m = commit_of(2);
    MUST(rq_msg_put_commit(out, 3, RQ_MSG_PAGES, &m));
    put_page(out, 1);
    put_page(out, 2);
}
static void commit(struct rq_bytes *out)
{
    struct rq_msg_commit m = commit_of(1);
    MUST(rq_msg_put_commit(out, 4, RQ_MSG_COMMIT, &m));
    put_page(out, 69999);
}
static void outcome_committed(struct rq_bytes *out)
{
    MUST(rq_msg_put_outcome(out, 4, &(struct rq_msg_outcome){ .err = RQ_OK, .version = 301, .text = STR("") }));
}
static void outcome_refused(struct rq_bytes *out)
{
    MUST(rq_msg_put_outcome(
        out, 4,
        &(struct rq_msg_outcome){ .err = RQ_REFUSED, .version = 301, .text = STR("committed by another connection") }));
}
static void ask(struct rq_bytes *out)
{
    MUST(rq_msg_put_ask(out, 5, &(struct rq_msg_ask){ .db_id = 7, .seq = 5, .base = 300 }));
}
static void status(struct rq_bytes *out)
{
    MUST(rq_msg_put_status(out, 6, &(struct rq_msg_status){ .name = STR("app.db") }));
}
static void state(struct rq_bytes *out)
{
    MUST(rq_msg_put_state(out, 6,
                          &(struct rq_msg_state){ .node_id = STR("n1"),
                                                  .role = STR("Leader"),
                                                  .leader = STR("n1"),
                                                  .name = STR("app.db"),
                                                  .db_id = 7,
                                                  .version = 301,
                                                  .applied_index = 1000,
                                                  .commit_index = 1001,
                                                  .checksum = 0x0123456789abcdefull,
                                                  .lag = 1,
                                                  .state = STR("live"),
                                                  .message = STR("") }));
}
static void failed(struct rq_bytes *out)
{
    MUST(rq_msg_put_failed(out, 7, &(struct rq_msg_failed){ .err = RQ_NOTFOUND, .text = STR("no such database") }));
}
static void read_message(struct rq_bytes *out)
{
    MUST(rq_msg_put_read(out, 8, &(struct rq_msg_read){ .db_id = 7, .max_age_ms = 500, .wait_ms = 10000 }));
}
static void ready(struct rq_bytes *out)
{
    MUST(rq_msg_put_ready(out, 8, &(struct rq_msg_ready){ .index = 1001, .left_ms = 480 }));
}

static void look(struct rq_bytes *out)
{
    MUST(rq_msg_put_look(out, 8, &(struct rq_msg_look){ .db_id = 7 }));
}

/* --- between nodes ------------------------------------------------------------------------------------------------------ */

static void put_peer_hello(struct rq_bytes *out, enum rq_peer_type type)
{
    uint8_t key[RQ_NODE_KEY_BYTES], signature[RQ_NODE_SIGNATURE_BYTES];
    memset(key, 0x4b, sizeof key);
    memset(signature, 0x53, sizeof signature);
    MUST(rq_peer_put_hello(out, type,
                           &(struct rq_peer_hello){ .version = RQ_PEER_VERSION,
                                                    .cluster = 0x0123456789abcdefull,
                                                    .instance = 0x1122334455667788ull,
                                                    .epoch = 0x99aabbccddeeff00ull,
                                                    .to = 0x2233445566778899ull,
                                                    .kind = RQ_PEER_REQUESTS,
                                                    .node_name = STR("n1"),
                                                    .address = STR("host1:4002"),
                                                    .key = key,
                                                    .signature = signature }));
}
static void peer_hello(struct rq_bytes *out)
{
    put_peer_hello(out, RQ_PEER_HELLO);
}
static void peer_welcome(struct rq_bytes *out)
{
    put_peer_hello(out, RQ_PEER_WELCOME);
}
static void peer_failed(struct rq_bytes *out)
{
    MUST(rq_peer_put_failed(
        out, 0, &(struct rq_peer_failed){ RQ_FOREIGN, STR("node n2 belongs to cluster 0000000000000001") }));
}
/* The frames whose bodies are not the transport's. */
static void peer_frames(struct rq_bytes *out)
{
    static const struct rq_frame frames[] = {
        { .type = RQ_PEER_PING },
        { .type = RQ_PEER_PONG },
        { .type = RQ_PEER_MESSAGE, .body_bytes = 3 },
        { .type = RQ_PEER_REQUEST, .body_bytes = 2, .id = 1025 },
        { .type = RQ_PEER_ANSWER, .body_bytes = 1, .id = 1025 },
        { .type = RQ_PEER_OPEN, .body_bytes = 2, .id = 1 },
        { .type = RQ_PEER_DATA, .body_bytes = 5, .id = 1 },
        { .type = RQ_PEER_CREDIT, .body_bytes = 4, .id = 1 },
        { .type = RQ_PEER_END, .id = 1 },
    };
    static const uint8_t body[] = { 0, 4, 0, 0, 1 }; /* CREDIT: 262,144 */
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        uint8_t head[RQ_FRAME_HEAD_BYTES];
        struct rq_frame back;
        rq_frame_encode(&frames[i], head);
        MUST(rq_peer_frame_decode(head, &back));
        MUST(rq_bytes_put(out, head, sizeof head));
        MUST(rq_bytes_put(out, body, frames[i].body_bytes));
    }
}

/* --- records -------------------------------------------------------------------------------------------------------------- */

/* One transaction: page 1 changes in two places that join and one that does not, page 300 is new. */
static void record(struct rq_bytes *out)
{
    uint8_t base[PAGE_SIZE], page[PAGE_SIZE];
    struct rq_txn_head head = {
        .db_id = 7, .page_size = PAGE_SIZE, .page_count = 300, .base = 300, .version = 301, .origin_count = 1
    };
    size_t start = out->size;
    MUST(rq_txn_begin(out, &head, &(struct rq_origin){ .session = 0x1122334455667788ull, .seq = 5 }));
    memset(base, 0x11, sizeof base);
    rq_page1_normalise(base);
    memcpy(page, base, sizeof page);
    page[24] = 0xa1;
    page[27] = 0xa2;
    memset(page + 200, 0xb0, 3);
    MUST(rq_txn_add(out, 1, base, page, PAGE_SIZE));
    memset(page, 0, sizeof page);
    memset(page + 500, 0xc0, 12);
    MUST(rq_txn_add(out, 300, NULL, page, PAGE_SIZE));
    MUST(rq_txn_end(out, start));
}

/* A group of two, which leaves page 2 full of zeros. */
static void record_group(struct rq_bytes *out)
{
    uint8_t base[PAGE_SIZE], page[PAGE_SIZE];
    struct rq_txn_head head = {
        .db_id = 7, .page_size = PAGE_SIZE, .page_count = 2, .base = 301, .version = 303, .origin_count = 2
    };
    const struct rq_origin origins[] = { { .session = 1, .seq = 1 }, { .session = UINT64_MAX, .seq = 2 } };
    size_t start = out->size;
    MUST(rq_txn_begin(out, &head, origins));
    memset(base, 0x11, sizeof base);
    memset(page, 0, sizeof page);
    MUST(rq_txn_add(out, 2, base, page, PAGE_SIZE));
    MUST(rq_txn_end(out, start));
}

/* --- entries and body ----------------------------------------------------------------------------------------------------- */

static void entry_staged(struct rq_bytes *out)
{
    struct rq_entry_staged e = {
        .head = { .db_id = 7, .page_size = 4096, .page_count = 250000, .base = 303, .version = 304, .origin_count = 1 },
        .origin = { .session = 0x1122334455667788ull, .seq = 6 },
        .body_bytes = 1024000056,
        .hash = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
    };
    MUST(rq_entry_put_staged(out, &e));
}
static void entry_create(struct rq_bytes *out)
{
    MUST(rq_entry_put_create(out, &(struct rq_entry_create){ .name = STR("app.db"), .nonce = 0x0102030405060708ull }));
}
static void entry_drop(struct rq_bytes *out)
{
    MUST(rq_entry_put_drop(out, &(struct rq_entry_drop){ .db_id = 7 }));
}
static void entry_adopt(struct rq_bytes *out)
{
    MUST(rq_entry_put_adopt(
        out, &(struct rq_entry_adopt){ .name = STR("old.db"), .page_size = 4096, .page_count = 1000, .version = 12 }));
}

static void entry_mark(struct rq_bytes *out)
{
    MUST(rq_entry_put_mark(
        out, &(struct rq_entry_mark){ .db_id = 7, .nonce = 0x0102030405060708ull, .first = 4097, .count = 4096 }));
}

static void body(struct rq_bytes *out)
{
    struct rq_body_writer w;
    uint8_t head[RQ_BODY_HEAD_BYTES], tail[RQ_BODY_TAIL_BYTES], record[RQ_BODY_PAGE_HEAD_BYTES + PAGE_SIZE];
    MUST(rq_body_writer_init(&w, &(struct rq_body_head){ .page_size = PAGE_SIZE, .db_page_count = 9 }, head));
    MUST(rq_bytes_put(out, head, sizeof head));
    for (uint32_t pgno = 1; pgno <= 9; pgno += 8) {
        rq_put_u32(record, pgno);
        memset(record + RQ_BODY_PAGE_HEAD_BYTES, (int)pgno, PAGE_SIZE);
        MUST(rq_body_writer_pages(&w, record, sizeof record));
        MUST(rq_bytes_put(out, record, sizeof record));
    }
    rq_body_writer_end(&w, tail);
    MUST(rq_bytes_put(out, tail, sizeof tail));
    rq_body_writer_fini(&w);
}

/* --- the table, and what is done with it -------------------------------------------------------------------------------- */

static const struct sample {
    const char *name;
    void (*build)(struct rq_bytes *out);
} samples[] = {
    { "msg-hello", hello },
    { "msg-welcome", welcome },
    { "msg-open", open_message },
    { "msg-opened", opened },
    { "msg-pages", pages },
    { "msg-commit", commit },
    { "msg-outcome-committed", outcome_committed },
    { "msg-outcome-refused", outcome_refused },
    { "msg-ask", ask },
    { "msg-status", status },
    { "msg-look", look },
    { "msg-state", state },
    { "msg-failed", failed },
    { "msg-read", read_message },
    { "msg-ready", ready },
    { "peer-hello", peer_hello },
    { "peer-welcome", peer_welcome },
    { "peer-failed", peer_failed },
    { "peer-frames", peer_frames },
    { "head-bring", golden_head_bring },
    { "head-fetch", golden_head_fetch },
    { "copy-questions", golden_copy_questions },
    { "copy-answer", golden_copy_answer },
    { "copy-picture", golden_copy_picture },
    { "copy-database", golden_copy_database },
    { "copy-changed", golden_copy_changed },
    { "ask-append", golden_ask_append },
    { "ask-append-staged", golden_ask_append_staged },
    { "ask-join", golden_ask_join },
    { "ask-notify", golden_ask_notify },
    { "ask-remove", golden_ask_remove },
    { "ask-reach", golden_ask_reach },
    { "ask-index", golden_ask_index },
    { "ask-held", golden_ask_held },
    { "ask-about", golden_ask_about },
    { "ask-transfer", golden_ask_transfer },
    { "ask-state", golden_ask_state },
    { "ask-hashes", golden_ask_hashes },
    { "ask-pages", golden_ask_pages },
    { "answer-state", golden_answer_state },
    { "answer-hashes", golden_answer_hashes },
    { "answer-pages", golden_answer_pages },
    { "ask-turn-take", golden_ask_turn_take },
    { "ask-turn-wanted", golden_ask_turn_wanted },
    { "ask-turn-held", golden_ask_turn_held },
    { "answer-append", golden_answer_append },
    { "answer-turn-take", golden_answer_turn_take },
    { "answer-turn-wanted", golden_answer_turn_wanted },
    { "answer-turn-held", golden_answer_turn_held },
    { "answer-join", golden_answer_join },
    { "answer-about", golden_answer_about },
    { "answer-index", golden_answer_index },
    { "answer-held", golden_answer_held },
    { "members", golden_members },
    { "raft-append", golden_raft_append },
    { "raft-append-result", golden_raft_append_result },
    { "raft-vote", golden_raft_vote },
    { "raft-vote-result", golden_raft_vote_result },
    { "raft-install", golden_raft_install },
    { "raft-timeout", golden_raft_timeout },
    { "raft-round", golden_raft_round },
    { "raft-round-result", golden_raft_round_result },
    { "txn", record },
    { "txn-group", record_group },
    { "entry-staged", entry_staged },
    { "entry-create", entry_create },
    { "entry-drop", entry_drop },
    { "entry-adopt", entry_adopt },
    { "entry-mark", entry_mark },
    { "body", body },
    { "log-segment", golden_log_segment },
    { "log-spare", golden_log_spare },
    { "log-record", golden_log_record },
    { "log-meta", golden_log_meta },
    { "descriptor", golden_descriptor },
    { "node", golden_node },
    { "files", golden_files },
    { "key", golden_key },
    { "replica", golden_replica },
    { "hashes", golden_hashes },
    { "shm", golden_shm },
    { "control", golden_control },
};
enum { SAMPLES = sizeof samples / sizeof *samples };

static bool same_as_file(const char *path, const struct rq_bytes *built)
{
    struct rq_bytes golden;
    rq_bytes_init(&golden, 1 << 20);
    bool same =
        hexfile_read(path, &golden) && golden.size == built->size && memcmp(golden.data, built->data, built->size) == 0;
    rq_bytes_fini(&golden);
    return same;
}

int main(int argc, char **argv)
{
    bool update = argc == 3 && strcmp(argv[2], "--update") == 0;
    if (argc < 2 || (argc > 2 && !update)) {
        fprintf(stderr, "usage: golden DIR [--update]\n");
        return 2;
    }
    unsigned failures = 0;
    for (unsigned i = 0; i < SAMPLES; i++) {
        struct rq_bytes built;
        char path[4096];
        rq_bytes_init(&built, 1 << 20);
        (void)snprintf(path, sizeof path, "%s/%s.hex", argv[1], samples[i].name);
        if (setjmp(tap_jump) != 0) {
            printf("Bail out! %s cannot be built\n", samples[i].name);
            return 1;
        }
        samples[i].build(&built);
        bool good = update ? hexfile_write(path, samples[i].name, built.data, built.size) : same_as_file(path, &built);
        failures += !good;
        printf("%s %u - %s\n", good ? "ok" : "not ok", i + 1, samples[i].name);
        rq_bytes_fini(&built);
    }
    printf("1..%d\n", SAMPLES);
    return failures > 0;
}
