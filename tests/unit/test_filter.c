/* Filter: guards over single messages and configurations.  What a guard does inside a running node is in test_node.c. */
#include <stdlib.h>

#include "raftd/node/filter.h"
#include "raftd/wire/entry.h"
#include "tests/support/exact.h"
#include "tests/support/tap.h"

enum { SELF = 7, PEER = 8 };

static struct raft_buffer encoded(unsigned servers, int role_of_first)
{
    struct raft_configuration conf;
    struct raft_buffer buf;
    raft_configuration_init(&conf);
    for (unsigned i = 0; i < servers; i++) {
        char address[32];
        snprintf(address, sizeof address, "host%u:4002", i);
        check_eq(raft_configuration_add(&conf, SELF + i, address, i == 0 ? role_of_first : RAFT_VOTER), 0);
    }
    check_eq(raft_configuration_encode(&conf, &buf), 0);
    raft_configuration_close(&conf);
    return buf;
}

static void configuration_is_accepted_as_the_core_encodes_it(void)
{
    for (unsigned servers = 1; servers <= 64; servers++) {
        struct raft_buffer buf = encoded(servers, RAFT_VOTER);
        check(rq_filter_configuration_ok(buf.base, buf.len));
        raft_free(buf.base);
    }
}

/* Bytes on disk: those of tests/golden/entry-change.hex. */
static void configuration_is_encoded_as_it_always_was(void)
{
    static const uint8_t expected[] =
        "\x01"
        "\x02\0\0\0\0\0\0\0"
        "\x07\0\0\0\0\0\0\0"
        "host0:4002\0\x01"
        "\x08\0\0\0\0\0\0\0"
        "host1:4002\0\x01"
        "\0\0\0\0\0\0";
    struct raft_buffer buf = encoded(2, RAFT_VOTER);
    check_eq(buf.len, sizeof expected);
    check(memcmp(buf.base, expected, sizeof expected) == 0);
    raft_free(buf.base);
}

static void configuration_cut_short_is_refused(void)
{
    struct raft_buffer buf = encoded(3, RAFT_VOTER);
    size_t padded = buf.len;
    while (((uint8_t *)buf.base)[padded - 1] == 0) {
        padded--;
    }
    check(!rq_filter_configuration_ok(buf.base, 0));
    for (size_t bytes = 1; bytes < padded; bytes++) {
        uint8_t *copy = exact_copy(buf.base, bytes);
        check(!rq_filter_configuration_ok(copy, bytes));
        free(copy);
    }
    raft_free(buf.base);
}

/* What passes must be decodable: the core's decoder would read past the end, or free twice. */
static void configuration_with_any_byte_changed_is_refused_or_decodes(void)
{
    struct raft_buffer buf = encoded(3, RAFT_VOTER);
    uint8_t *data = buf.base;
    for (size_t at = 0; at < buf.len; at++) {
        for (unsigned flip = 1; flip < 256; flip++) {
            data[at] ^= (uint8_t)flip;
            if (rq_filter_configuration_ok(data, buf.len)) {
                struct raft_configuration conf;
                check_eq(raft_configuration_decode(&buf, &conf), 0);
                raft_configuration_close(&conf);
            }
            data[at] ^= (uint8_t)flip;
        }
    }
    raft_free(buf.base);
}

static void configuration_with_a_member_twice_is_refused(void)
{
    struct raft_buffer buf = encoded(2, RAFT_VOTER);
    uint8_t *data = buf.base;
    size_t server_bytes = 8 + sizeof "host0:4002" + 1;
    memcpy(data + 9 + server_bytes, data + 9, 8);
    check(!rq_filter_configuration_ok(data, buf.len)); /* the id */
    data[9 + server_bytes]++;
    check(rq_filter_configuration_ok(data, buf.len));
    memcpy(data + 9 + server_bytes + 8, data + 9 + 8, sizeof "host0:4002");
    check(!rq_filter_configuration_ok(data, buf.len)); /* the address */
    raft_free(buf.base);
}

static bool sole(unsigned servers, int role_of_first)
{
    struct raft_buffer buf = encoded(servers, role_of_first);
    struct raft_configuration conf;
    check_eq(raft_configuration_decode(&buf, &conf), 0);
    bool is = rq_filter_sole_voter(&conf, SELF);
    raft_configuration_close(&conf);
    raft_free(buf.base);
    return is;
}

static void sole_voter_is_who_votes_alone(void)
{
    check(sole(1, RAFT_VOTER));
    check(!sole(1, RAFT_STANDBY));
    check(!sole(2, RAFT_VOTER));
    check(!sole(2, RAFT_STANDBY)); /* the other one is */
}

static void change_is_first_of_its_piece(void)
{
    const struct rq_log_entry e[] = { { .type = RQ_ENTRY_CHANGE },
                                      { .type = RQ_ENTRY_TXN },
                                      { .type = RQ_ENTRY_BARRIER },
                                      { .type = RQ_ENTRY_CHANGE },
                                      { .type = RQ_ENTRY_CHANGE } };
    check_eq(rq_filter_piece(e, 5), 3);
    check_eq(rq_filter_piece(e + 1, 4), 2);
    check_eq(rq_filter_piece(e + 3, 2), 1);
    check_eq(rq_filter_piece(e + 4, 1), 1);
    check_eq(rq_filter_piece(e, 0), 0);
}

/* A follower of term 5, with a descriptor at 20 and a log from 11 on. */
static struct raft follower(void)
{
    struct raft r = { .id = SELF, .state = RAFT_FOLLOWER, .current_term = 5 };
    r.trail.snapshot.index = 20;
    r.trail.snapshot.term = 3;
    r.trail.offset = 10;
    return r;
}

static struct raft_message append(uint64_t term, uint64_t prev, uint64_t prev_term, unsigned count)
{
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES, .server_id = PEER, .server_address = "peer" };
    m.append_entries.term = term;
    m.append_entries.prev_log_index = prev;
    m.append_entries.prev_log_term = prev_term;
    m.append_entries.n_entries = count;
    return m;
}

static enum rq_filter_verdict judge(struct raft_message *m, const struct rq_log_entry *entries, unsigned *ret_clipped)
{
    struct raft r = follower();
    struct raft_message answer;
    return rq_filter_receive(&r, m, entries, ret_clipped, &answer);
}

static void anchor_moves_to_the_descriptor(void)
{
    static const struct {
        uint64_t prev;
        unsigned count, clipped;
        uint64_t anchor;
    } cases[] = {
        { 0, 0, 0, 20 },   { 10, 0, 0, 20 }, { 11, 0, 0, 11 }, { 20, 0, 0, 20 }, { 25, 0, 0, 25 }, { 0, 20, 20, 20 },
        { 0, 21, 20, 20 }, { 15, 3, 3, 20 }, { 15, 9, 5, 20 }, { 20, 4, 0, 20 }, { 30, 4, 0, 30 },
    };
    struct rq_log_entry entries[32];
    for (unsigned i = 0; i < 32; i++) {
        entries[i] = (struct rq_log_entry){ .term = 3, .type = RQ_ENTRY_TXN };
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct raft_message m = append(5, cases[i].prev, cases[i].prev > 0 ? 2 : 0, cases[i].count);
        unsigned clipped;
        check_eq(judge(&m, entries, &clipped), RQ_FILTER_FEED);
        check_eq(clipped, cases[i].clipped);
        check_eq(m.append_entries.prev_log_index, cases[i].anchor);
        check_eq(m.append_entries.n_entries, cases[i].count - cases[i].clipped);
        check_eq(m.append_entries.prev_log_term, cases[i].anchor == 20 && cases[i].prev != 20 ? 3 : 2);
    }
}

static void messages_that_no_member_sends_are_dropped(void)
{
    struct rq_log_entry entry = { .term = 5, .type = RQ_ENTRY_TXN };
    unsigned clipped;
    struct raft_message good = append(5, 30, 4, 1), m;
    m = good;
    check_eq(judge(&m, &entry, &clipped), RQ_FILTER_FEED);
    m = good;
    m.server_id = SELF;
    check_eq(judge(&m, &entry, &clipped), RQ_FILTER_DROP);
    m = good;
    m.server_id = 0;
    check_eq(judge(&m, &entry, &clipped), RQ_FILTER_DROP);
    m = good;
    m.server_address = NULL;
    check_eq(judge(&m, &entry, &clipped), RQ_FILTER_DROP);
    m = good;
    m.append_entries.version = 1;
    check_eq(judge(&m, &entry, &clipped), RQ_FILTER_DROP);
    m = good;
    m.append_entries.prev_log_term = 0;
    check_eq(judge(&m, &entry, &clipped), RQ_FILTER_DROP);
    m = good;
    const int unknown = 99;
    memcpy(&m.type, &unknown, sizeof unknown);
    check_eq(judge(&m, &entry, &clipped), RQ_FILTER_DROP);
    for (uint64_t term = 0; term < 9; term++) { /* entries of terms before their anchor's, or after the leader's own */
        m = good;
        entry.term = term;
        check_eq(judge(&m, &entry, &clipped), term == 4 || term == 5 ? RQ_FILTER_FEED : RQ_FILTER_DROP);
    }
    entry = (struct rq_log_entry){ .term = 5, .type = RQ_ENTRY_CHANGE }; /* without bytes */
    m = good;
    check_eq(judge(&m, &entry, &clipped), RQ_FILTER_DROP);
}

static void votes_of_other_versions_and_for_others_are_dropped(void)
{
    unsigned clipped;
    struct raft_message m = { .type = RAFT_REQUEST_VOTE, .server_id = PEER, .server_address = "peer" };
    m.request_vote.version = 2;
    m.request_vote.term = 5;
    m.request_vote.candidate_id = PEER;
    check_eq(judge(&m, NULL, &clipped), RQ_FILTER_FEED);
    m.request_vote.candidate_id = PEER + 1;
    check_eq(judge(&m, NULL, &clipped), RQ_FILTER_DROP);
    m.request_vote.candidate_id = PEER;
    m.request_vote.version = 1;
    check_eq(judge(&m, NULL, &clipped), RQ_FILTER_DROP);
}

/* The core would look for the kind of its candidacy where a follower keeps an address, and take the term or not by its bits. */
static void answer_to_a_candidacy_that_has_ended_is_dropped(void)
{
    unsigned clipped;
    struct raft r = follower();
    struct raft_message answer, m = { .type = RAFT_REQUEST_VOTE_RESULT, .server_id = PEER, .server_address = "peer" };
    m.request_vote_result.version = 2;
    m.request_vote_result.term = 6;
    m.request_vote_result.pre_vote = true;
    check_eq(rq_filter_receive(&r, &m, NULL, &clipped, &answer), RQ_FILTER_DROP);
    r.state = RAFT_LEADER;
    check_eq(rq_filter_receive(&r, &m, NULL, &clipped, &answer), RQ_FILTER_DROP);
    r.state = RAFT_CANDIDATE;
    check_eq(rq_filter_receive(&r, &m, NULL, &clipped, &answer), RQ_FILTER_FEED);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(configuration_is_accepted_as_the_core_encodes_it),
        TAP(configuration_is_encoded_as_it_always_was),
        TAP(configuration_cut_short_is_refused),
        TAP(configuration_with_any_byte_changed_is_refused_or_decodes),
        TAP(configuration_with_a_member_twice_is_refused),
        TAP(sole_voter_is_who_votes_alone),
        TAP(change_is_first_of_its_piece),
        TAP(anchor_moves_to_the_descriptor),
        TAP(messages_that_no_member_sends_are_dropped),
        TAP(votes_of_other_versions_and_for_others_are_dropped),
        TAP(answer_to_a_candidacy_that_has_ended_is_dropped),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
