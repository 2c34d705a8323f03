/* cluster_join: what nodes say of themselves is believed only as far as it is proved, and only what can be shown and dialled. */
#include <string.h>

#include "raftd/cluster/cluster_impl.h"
#include "tests/support/tap.h"

#define STR(text) { .data = (text), .bytes = sizeof(text) - 1 }

static const uint8_t key[RQ_MEMBER_KEY_BYTES] = { 1, 2, 3 }, other_key[RQ_MEMBER_KEY_BYTES] = { 3, 2, 1 };
static const struct rq_ask_member ask = { 7, STR("n2"), STR("host2:4002"), STR("host2:4001"), true, key };

static struct rq_peer_who who_is(enum rq_peer_kind kind, uint64_t instance, const uint8_t *proved)
{
    return (struct rq_peer_who){ .instance = instance, .key = proved, .kind = kind, .node_name = "n2" };
}

static void what_a_node_says_of_itself_is_taken(void)
{
    struct rq_member m;
    const struct rq_peer_who itself = who_is(RQ_PEER_JOIN, 7, key);
    check_eq(rq_cluster_take_member(&itself, &ask, &m), RQ_OK);
    check_eq(m.instance, 7);
    check(m.votes && m.role == RQ_MEMBER_STANDBY); /* the vote is given later, by the leader */
    check(strcmp(m.name, "n2") == 0 && strcmp(m.raft_addr, "host2:4002") == 0 &&
          strcmp(m.http_addr, "host2:4001") == 0);
    check(memcmp(m.key, key, sizeof key) == 0);

    const struct rq_ask back = rq_cluster_join_ask(RQ_ASK_JOIN, &m);
    check_eq(back.kind, RQ_ASK_JOIN);
    check_eq(back.member.instance, 7);
    check(back.member.name.bytes == 2 && back.member.raft_addr.bytes == 10 && back.member.votes);
    check(memcmp(back.member.key, key, sizeof key) == 0);
}

static void a_stranger_speaks_for_nobody_else(void)
{
    struct rq_member m;
    const struct rq_peer_who another = who_is(RQ_PEER_JOIN, 8, key), thief = who_is(RQ_PEER_JOIN, 7, other_key);
    check_eq(rq_cluster_take_member(&another, &ask, &m), RQ_PERM);
    check_eq(rq_cluster_take_member(&thief, &ask, &m), RQ_PERM);
}

static void a_member_passes_on_what_was_proved_to_it(void)
{
    struct rq_member m;
    const struct rq_peer_who member = who_is(RQ_PEER_REQUESTS, 8, other_key);
    check_eq(rq_cluster_take_member(&member, &ask, &m), RQ_OK);
    check_eq(m.instance, 7);
}

static void text_that_is_no_name_or_address_is_refused(void)
{
    static char words[RQ_MEMBER_TEXT_MAX + 1];
    static const struct rq_str bad[] = {
        STR(""), STR("a b"), STR("a\nb"), STR("a\x7f"), STR("a\0b"), { words, RQ_MEMBER_TEXT_MAX + 1 },
    };
    char taken[RQ_MEMBER_TEXT_MAX + 1];
    const struct rq_peer_who itself = who_is(RQ_PEER_JOIN, 7, key);
    memset(words, 'w', sizeof words);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rq_member m;
        struct rq_ask_member as[3] = { ask, ask, ask };
        check(!rq_cluster_take_text(taken, bad[i]));
        as[0].name = bad[i];
        as[1].raft_addr = bad[i];
        as[2].http_addr = bad[i];
        for (unsigned k = 0; k < 3; k++) {
            check_eq(rq_cluster_take_member(&itself, &as[k], &m), RQ_MISUSE);
        }
    }
    check(rq_cluster_take_text(taken, (struct rq_str){ words, RQ_MEMBER_TEXT_MAX }));
    check_eq(strlen(taken), RQ_MEMBER_TEXT_MAX);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(what_a_node_says_of_itself_is_taken),
        TAP(a_stranger_speaks_for_nobody_else),
        TAP(a_member_passes_on_what_was_proved_to_it),
        TAP(text_that_is_no_name_or_address_is_refused),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
