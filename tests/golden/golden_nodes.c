#include "tests/golden/golden_nodes.h"

#include <stdlib.h>
#include <string.h>

#include "raftd/node/member.h"
#include "raftd/node/message.h"
#include "raftd/wire/ask.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/head.h"
#include "tests/support/log_rig.h"
#include "tests/support/record_disk.h"

#define STR(text) { .data = (text), .bytes = sizeof(text) - 1 }
#define INSTANCE  0x1122334455667788ull
#define RAFT      "/data/raft"

static void must(enum rq_err err)
{
    if (err != RQ_OK) {
        abort();
    }
}

/* --- asks ----------------------------------------------------------------------------------------------------------------- */

static const uint8_t drop_entry[] = { 0x91, 0x07 };

static void put_member_ask(struct rq_bytes *out, enum rq_ask_kind kind)
{
    uint8_t key[RQ_ASK_KEY_BYTES];
    memset(key, 0x4b, sizeof key);
    must(rq_ask_put(out, &(struct rq_ask){ .kind = kind,
                                           .member = { .instance = INSTANCE,
                                                       .name = STR("n2"),
                                                       .raft_addr = STR("host2:4002"),
                                                       .http_addr = STR("host2:4001"),
                                                       .votes = true,
                                                       .key = key,
                                                       .user = STR("bob"),
                                                       .password = STR("secret") } }));
}

void golden_ask_append(struct rq_bytes *out)
{
    must(rq_ask_put(out, &(struct rq_ask){ .kind = RQ_ASK_APPEND,
                                           .append = { .type = RQ_ENTRY_DROP, .bytes = sizeof drop_entry } }));
    must(rq_bytes_put(out, drop_entry, sizeof drop_entry));
}

/* The head alone: the entry is entry-staged.hex. */
void golden_ask_append_staged(struct rq_bytes *out)
{
    uint8_t holders[2 * sizeof(uint64_t)];
    rq_put_u64(holders, INSTANCE);
    rq_put_u64(holders + sizeof(uint64_t), INSTANCE + 1);
    must(rq_ask_put(out,
                    &(struct rq_ask){
                        .kind = RQ_ASK_APPEND,
                        .append = { .type = RQ_ENTRY_STAGED, .holders = { holders, sizeof holders }, .bytes = 64 } }));
}

void golden_ask_join(struct rq_bytes *out)
{
    put_member_ask(out, RQ_ASK_JOIN);
}

void golden_ask_notify(struct rq_bytes *out)
{
    put_member_ask(out, RQ_ASK_NOTIFY);
}

void golden_ask_remove(struct rq_bytes *out)
{
    must(rq_ask_put(out, &(struct rq_ask){ .kind = RQ_ASK_REMOVE, .name = STR("n2") }));
}

void golden_ask_reach(struct rq_bytes *out)
{
    must(rq_ask_put(out, &(struct rq_ask){ .kind = RQ_ASK_REACH, .instance = INSTANCE }));
}

static struct rq_head_body head_body(void)
{
    struct rq_head_body head = { .body_bytes = 1000, .origin = { INSTANCE, 3 }, .offset = 100 };
    for (uint8_t i = 0; i < RQ_BODY_HASH_BYTES; i++) {
        head.hash[i] = (uint8_t)(0x10 + i);
    }
    return head;
}

void golden_head_bring(struct rq_bytes *out)
{
    const struct rq_head_body head = head_body();
    must(rq_head_put_body(out, RQ_HEAD_BRING, &head));
}

void golden_head_fetch(struct rq_bytes *out)
{
    const struct rq_head_body head = head_body();
    must(rq_head_put_body(out, RQ_HEAD_FETCH, &head));
}

void golden_ask_index(struct rq_bytes *out)
{
    must(rq_ask_put(out, &(struct rq_ask){ .kind = RQ_ASK_INDEX }));
}

void golden_ask_held(struct rq_bytes *out)
{
    must(rq_ask_put(out, &(struct rq_ask){ .kind = RQ_ASK_HELD }));
}

void golden_ask_about(struct rq_bytes *out)
{
    must(rq_ask_put(out, &(struct rq_ask){ .kind = RQ_ASK_ABOUT }));
}

void golden_ask_transfer(struct rq_bytes *out)
{
    must(rq_ask_put(out, &(struct rq_ask){ .kind = RQ_ASK_TRANSFER, .name = STR("n2") }));
}

void golden_ask_state(struct rq_bytes *out)
{
    must(rq_ask_put(out, &(struct rq_ask){ .kind = RQ_ASK_STATE, .mark = { .db_id = 7, .index = 1001 } }));
}

void golden_ask_hashes(struct rq_bytes *out)
{
    must(rq_ask_put(out, &(struct rq_ask){ .kind = RQ_ASK_HASHES,
                                           .mark = { .db_id = 7, .index = 1001, .first = 4097, .count = 4096 } }));
}

void golden_ask_pages(struct rq_bytes *out)
{
    must(rq_ask_put(
        out, &(struct rq_ask){ .kind = RQ_ASK_PAGES, .mark = { .db_id = 7, .index = 1001, .first = 12, .count = 1 } }));
}

void golden_answer_state(struct rq_bytes *out)
{
    must(rq_ask_put_state(
        out, &(struct rq_ask_state){
                 .version = 300, .stamp_index = 1000, .stamp_term = 3, .page_size = 4096, .page_count = 8000 }));
}

void golden_answer_hashes(struct rq_bytes *out)
{
    must(rq_ask_put_hashes(out, (const uint64_t[]){ 0x0102030405060708, UINT64_MAX }, 2));
}

void golden_answer_pages(struct rq_bytes *out)
{
    must(rq_ask_put_pages(out, (const uint8_t[]){ 1, 2, 3, 4 }, 4));
}

void golden_answer_index(struct rq_bytes *out)
{
    must(rq_ask_put_index(out, 1001));
}

void golden_answer_held(struct rq_bytes *out)
{
    must(rq_ask_put_has(out, &(struct rq_ask_has){ 1001, 2, { 7, 300 } }));
}

void golden_answer_about(struct rq_bytes *out)
{
    must(rq_ask_put_about(out, &(struct rq_ask_about){ .version = STR("0.1.0"),
                                                       .api_url = STR("http://host2:4001"),
                                                       .leads = true,
                                                       .term = 3,
                                                       .committed = 300 }));
}

static const uint8_t held[2 * RQ_ASK_HELD_BYTES] = { 0, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 8 };

void golden_ask_turn_take(struct rq_bytes *out)
{
    must(rq_ask_put(out, &(struct rq_ask){ .kind = RQ_ASK_TURN_TAKE, .turn = { .db_id = 7 } }));
}

void golden_ask_turn_wanted(struct rq_bytes *out)
{
    must(rq_ask_put(out,
                    &(struct rq_ask){ .kind = RQ_ASK_TURN_WANTED, .turn = { .db_id = 7, .serial = 0x200000009ull } }));
}

void golden_ask_turn_held(struct rq_bytes *out)
{
    must(rq_ask_put(out, &(struct rq_ask){ .kind = RQ_ASK_TURN_HELD, .held = { held, sizeof held } }));
}

void golden_answer_turn_take(struct rq_bytes *out)
{
    must(rq_ask_put_granted(out, 0x200000009ull, 1000));
}

void golden_answer_turn_wanted(struct rq_bytes *out)
{
    must(rq_ask_put_given(out, true, 1000));
}

void golden_answer_turn_held(struct rq_bytes *out)
{
    must(rq_ask_put_denied(out, &(struct rq_ask_held){ held, RQ_ASK_HELD_BYTES }));
}

void golden_answer_append(struct rq_bytes *out)
{
    must(rq_ask_put_appended(out, 300));
}

void golden_members(struct rq_bytes *out)
{
    struct rq_members members = { .count = 2 };
    uint8_t *data;
    size_t bytes;
    members.list[0] = (struct rq_member){
        .instance = 1, .role = RQ_MEMBER_VOTER, .votes = true, .name = "n1", .raft_addr = "host1:4002"
    };
    members.list[1] = (struct rq_member){
        .instance = INSTANCE, .role = RQ_MEMBER_STANDBY, .votes = false, .name = "n2", .raft_addr = "host2:4002"
    };
    for (unsigned i = 0; i < members.count; i++) {
        memcpy(members.list[i].http_addr, i == 0 ? "host1:4001" : "host2:4001", sizeof "host1:4001");
        memset(members.list[i].key, (int)(0x4a + i), sizeof members.list[i].key);
    }
    must(rq_members_encode(&members, &data, &bytes));
    must(rq_bytes_put(out, data, bytes));
    free(data);
}

void golden_answer_join(struct rq_bytes *out)
{
    struct rq_bytes members;
    rq_bytes_init(&members, 1u << 16);
    golden_members(&members);
    must(rq_ask_put_joined(out, &(struct rq_ask_joined){ .cluster = 0x0123456789abcdefull,
                                                         .waiting = 1,
                                                         .members = members.data,
                                                         .members_bytes = (uint32_t)members.size }));
    rq_bytes_fini(&members);
}

/* --- raft messages -------------------------------------------------------------------------------------------------------- */

static void on_piece(void *ctx, const uint8_t *data, size_t bytes)
{
    must(rq_bytes_put(ctx, data, bytes));
}

static void append(struct rq_log *log, uint64_t index, uint16_t type, const uint8_t *data, size_t bytes)
{
    struct rq_log_entry e = { .index = index, .term = 3, .type = type };
    if (bytes > 0) {
        e.blob = rq_blob_new(bytes);
        memcpy(e.blob->data, data, bytes);
    }
    must(rq_log_reserve(log, bytes, 1));
    must(rq_log_append(log, &e, 1, 0));
    rq_blob_unref(e.blob);
}

/* A barrier and a DROP behind an entry that the receiver has. */
void golden_raft_append(struct rq_bytes *out)
{
    struct record_disk *d = record_disk_new();
    struct rq_log *log;
    struct rq_log_found found;
    record_disk_mkdir_p(d, RAFT);
    must(rig_open(&d->disk, RAFT, true, 16384, 1 << 20, &log, &found));
    must(rq_log_put_meta(log, 3, 0));
    append(log, 1, RQ_ENTRY_BARRIER, NULL, 0);
    append(log, 2, RQ_ENTRY_BARRIER, NULL, 0);
    append(log, 3, RQ_ENTRY_DROP, drop_entry, sizeof drop_entry);
    const struct raft_message m = {
        .type = RAFT_APPEND_ENTRIES,
        .append_entries = { .version = 0,
                            .term = 3,
                            .prev_log_index = 1,
                            .prev_log_term = 3,
                            .leader_commit = 1,
                            .n_entries = 2 },
    };
    must(rq_raft_message_put(&m, log, on_piece, out));
    rq_log_close(log);
    record_disk_free(d);
}

static void put(struct rq_bytes *out, const struct raft_message *m)
{
    must(rq_raft_message_put(m, NULL, on_piece, out));
}

void golden_raft_append_result(struct rq_bytes *out)
{
    put(out, &(struct raft_message){
                 .type = RAFT_APPEND_ENTRIES_RESULT,
                 .append_entries_result = {
                     .version = 1, .term = 3, .rejected = 0, .last_log_index = 300, .features = 1, .capacity = 70 } });
}

void golden_raft_vote(struct rq_bytes *out)
{
    put(out, &(struct raft_message){ .type = RAFT_REQUEST_VOTE,
                                     .request_vote = { .version = 2,
                                                       .term = 4,
                                                       .candidate_id = INSTANCE,
                                                       .last_log_index = 300,
                                                       .last_log_term = 3,
                                                       .disrupt_leader = false,
                                                       .pre_vote = true } });
}

void golden_raft_vote_result(struct rq_bytes *out)
{
    put(out,
        &(struct raft_message){
            .type = RAFT_REQUEST_VOTE_RESULT,
            .request_vote_result = {
                .version = 2, .term = 4, .vote_granted = true, .pre_vote = true, .features = 1, .capacity = 70 } });
}

void golden_raft_install(struct rq_bytes *out)
{
    put(out, &(struct raft_message){
                 .type = RAFT_INSTALL_SNAPSHOT,
                 .install_snapshot = { .version = 0, .term = 4, .last_index = 300, .last_term = 3, .conf_index = 7 } });
}

void golden_raft_timeout(struct rq_bytes *out)
{
    put(out, &(struct raft_message){
                 .type = RAFT_TIMEOUT_NOW,
                 .timeout_now = { .version = 0, .term = 4, .last_log_index = 300, .last_log_term = 3 } });
}

void golden_raft_round(struct rq_bytes *out)
{
    must(rq_raft_message_put_round(&(struct rq_round){ .term = 7, .round = 300 }, on_piece, out));
}

void golden_raft_round_result(struct rq_bytes *out)
{
    must(rq_raft_message_put_round(&(struct rq_round){ .term = 7, .round = 300, .answer = true }, on_piece, out));
}
