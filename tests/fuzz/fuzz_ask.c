/* What one node asks of another, and the answers.  What is taken can be encoded again, and is then taken again, the same. */
#include <stdlib.h>
#include <string.h>

#include "raftd/wire/ask.h"
#include "tests/fuzz/fuzz.h"

static bool same_text(struct rq_str a, struct rq_str b)
{
    return a.bytes == b.bytes && (a.bytes == 0 || memcmp(a.data, b.data, a.bytes) == 0);
}

static void take_ask(const uint8_t *data, size_t bytes)
{
    struct rq_ask ask, back;
    struct rq_bytes again;
    if (rq_ask_get(data, bytes, &ask) != RQ_OK) {
        return;
    }
    rq_bytes_init(&again, bytes + 64);
    MUST(rq_ask_put(&again, &ask) == RQ_OK);
    if (ask.append.bytes > 0) {
        MUST(rq_bytes_put(&again, ask.append.data, ask.append.bytes) == RQ_OK);
    }
    MUST(rq_ask_get(again.data, again.size, &back) == RQ_OK);
    MUST(back.kind == ask.kind && back.append.type == ask.append.type && back.append.bytes == ask.append.bytes);
    MUST(same_text(back.name, ask.name) && back.instance == ask.instance);
    MUST(back.turn.db_id == ask.turn.db_id && back.turn.serial == ask.turn.serial);
    MUST(back.mark.db_id == ask.mark.db_id && back.mark.index == ask.mark.index);
    MUST(back.mark.first == ask.mark.first && back.mark.count == ask.mark.count);
    MUST(back.held.bytes == ask.held.bytes && back.held.bytes % RQ_ASK_HELD_BYTES == 0);
    MUST(back.held.bytes == 0 || memcmp(back.held.data, ask.held.data, back.held.bytes) == 0);
    MUST(back.member.instance == ask.member.instance && back.member.votes == ask.member.votes);
    MUST(same_text(back.member.name, ask.member.name) && same_text(back.member.raft_addr, ask.member.raft_addr) &&
         same_text(back.member.http_addr, ask.member.http_addr));
    MUST((ask.member.key == NULL) == (back.member.key == NULL));
    MUST(ask.member.key == NULL || memcmp(ask.member.key, back.member.key, RQ_ASK_KEY_BYTES) == 0);
    rq_bytes_fini(&again);
}

static void take_turn_answers(const uint8_t *data, size_t bytes, struct rq_bytes *again)
{
    struct rq_ask_held denied, denied_back;
    uint64_t serial, index, serial_back, index_back;
    bool given, given_back;
    if (rq_ask_get_granted(data, bytes, &serial, &index) == RQ_OK) {
        MUST(serial > 0);
        MUST(rq_ask_put_granted(again, serial, index) == RQ_OK);
        MUST(rq_ask_get_granted(again->data, again->size, &serial_back, &index_back) == RQ_OK);
        MUST(serial_back == serial && index_back == index);
    }
    again->size = 0;
    if (rq_ask_get_given(data, bytes, &given, &index) == RQ_OK) {
        MUST(rq_ask_put_given(again, given, index) == RQ_OK);
        MUST(rq_ask_get_given(again->data, again->size, &given_back, &index_back) == RQ_OK);
        MUST(given_back == given && index_back == index);
    }
    again->size = 0;
    if (rq_ask_get_denied(data, bytes, &denied) == RQ_OK) {
        MUST(rq_ask_put_denied(again, &denied) == RQ_OK);
        MUST(rq_ask_get_denied(again->data, again->size, &denied_back) == RQ_OK);
        MUST(denied_back.bytes == denied.bytes && denied.bytes % RQ_ASK_HELD_BYTES == 0);
        MUST(denied.bytes == 0 || memcmp(denied_back.data, denied.data, denied.bytes) == 0);
    }
}

static void take_mark_answers(const uint8_t *data, size_t bytes, struct rq_bytes *again)
{
    const uint8_t *hashes, *back;
    uint32_t count, count_back;
    struct rq_ask_state state, state_back;
    if (rq_ask_get_state(data, bytes, &state) == RQ_OK) {
        MUST(rq_ask_put_state(again, &state) == RQ_OK);
        MUST(rq_ask_get_state(again->data, again->size, &state_back) == RQ_OK);
        MUST(state_back.version == state.version && state_back.stamp_index == state.stamp_index);
        MUST(state_back.stamp_term == state.stamp_term && state_back.page_size == state.page_size);
        MUST(state_back.page_count == state.page_count);
    }
    again->size = 0;
    if (rq_ask_get_pages(data, bytes, &hashes, &count) == RQ_OK) {
        MUST(rq_ask_put_pages(again, hashes, count) == RQ_OK);
        MUST(rq_ask_get_pages(again->data, again->size, &back, &count_back) == RQ_OK && count_back == count);
        MUST(count == 0 || memcmp(back, hashes, count) == 0);
    }
    again->size = 0;
    if (rq_ask_get_hashes(data, bytes, &hashes, &count) != RQ_OK) {
        return;
    }
    uint64_t *numbers = malloc((count + (size_t)1) * sizeof *numbers);
    MUST(numbers != NULL);
    for (uint32_t i = 0; i < count; i++) {
        numbers[i] = rq_get_u64(hashes + i * sizeof *numbers);
    }
    MUST(rq_ask_put_hashes(again, numbers, count) == RQ_OK);
    free(numbers);
    MUST(rq_ask_get_hashes(again->data, again->size, &back, &count_back) == RQ_OK && count_back == count);
    MUST(count == 0 || memcmp(back, hashes, count * sizeof *numbers) == 0);
}

static void take_answers(const uint8_t *data, size_t bytes)
{
    struct rq_ask_joined joined, back;
    struct rq_bytes again;
    uint64_t term, term_back;
    rq_bytes_init(&again, bytes + 64);
    if (rq_ask_get_appended(data, bytes, &term) == RQ_OK) {
        MUST(term > 0);
        MUST(rq_ask_put_appended(&again, term) == RQ_OK);
        MUST(rq_ask_get_appended(again.data, again.size, &term_back) == RQ_OK && term_back == term);
    }
    again.size = 0;
    if (rq_ask_get_index(data, bytes, &term) == RQ_OK) {
        MUST(rq_ask_put_index(&again, term) == RQ_OK);
        MUST(rq_ask_get_index(again.data, again.size, &term_back) == RQ_OK && term_back == term);
    }
    again.size = 0;
    struct rq_ask_has has, has_back;
    if (rq_ask_get_has(data, bytes, &has) == RQ_OK) {
        MUST(rq_ask_put_has(&again, &has) == RQ_OK);
        MUST(rq_ask_get_has(again.data, again.size, &has_back) == RQ_OK);
        MUST(has_back.index == has.index && has_back.fenced_count == has.fenced_count);
        MUST(memcmp(has_back.fenced, has.fenced, has.fenced_count * sizeof *has.fenced) == 0);
    }
    again.size = 0;
    if (rq_ask_get_joined(data, bytes, &joined) == RQ_OK) {
        MUST(rq_ask_put_joined(&again, &joined) == RQ_OK);
        MUST(rq_ask_get_joined(again.data, again.size, &back) == RQ_OK);
        MUST(back.cluster == joined.cluster && back.waiting == joined.waiting);
        MUST(back.members_bytes == joined.members_bytes);
        MUST(back.members_bytes == 0 || memcmp(back.members, joined.members, back.members_bytes) == 0);
    }
    again.size = 0;
    take_turn_answers(data, bytes, &again);
    again.size = 0;
    take_mark_answers(data, bytes, &again);
    rq_bytes_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    take_ask(data, bytes);
    take_answers(data, bytes);
    return 0;
}
