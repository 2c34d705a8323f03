/* The member list as bytes of an entry.  Guards what every node reads from the log and from descriptors: what was put in comes out,
 * and nothing else is taken for a list. */
#include <raft.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/node/member.h"
#include "tests/support/tap.h"

static void add(struct rq_members *members, uint64_t instance, const char *name, bool votes)
{
    struct rq_member *m = &members->list[members->count++];
    *m =
        (struct rq_member){ .instance = instance, .role = votes ? RQ_MEMBER_VOTER : RQ_MEMBER_STANDBY, .votes = votes };
    snprintf(m->name, sizeof m->name, "%s", name);
    snprintf(m->raft_addr, sizeof m->raft_addr, "%s.example:4002", name);
    snprintf(m->http_addr, sizeof m->http_addr, "%s.example:4001", name);
    for (unsigned i = 0; i < sizeof m->key; i++) {
        m->key[i] = (uint8_t)(instance * 31 + (uint64_t)i * 7);
    }
}

static struct rq_members three(void)
{
    struct rq_members members = { 0 };
    add(&members, UINT64_MAX, "a", true);
    add(&members, 2, "b", true);
    add(&members, 3, "c", false);
    return members;
}

static enum rq_err encode(const struct rq_members *members)
{
    uint8_t *data = NULL;
    size_t bytes;
    enum rq_err err = rq_members_encode(members, &data, &bytes);
    free(data);
    return err;
}

static void a_list_comes_out_as_it_went_in(void)
{
    struct rq_members in = three(), out;
    uint8_t *data;
    size_t bytes;
    in.list[2].votes = true; /* a standby that is to vote */
    memset(in.list[1].name, 'x', RQ_MEMBER_TEXT_MAX);
    memset(in.list[1].raft_addr, 'y', RQ_MEMBER_TEXT_MAX);
    memset(in.list[1].http_addr, 'z', RQ_MEMBER_TEXT_MAX);
    memset(in.list[1].key, 0xff, sizeof in.list[1].key);
    check_eq(rq_members_encode(&in, &data, &bytes), RQ_OK);
    check_eq(rq_members_decode(data, bytes, &out), RQ_OK);
    check_eq(out.count, 3);
    for (unsigned i = 0; i < 3; i++) {
        const struct rq_member *a = &in.list[i], *b = &out.list[i];
        check_eq(b->instance, a->instance);
        check_eq(b->role, a->role);
        check_eq(b->votes, a->votes);
        check(strcmp(b->name, a->name) == 0 && strcmp(b->raft_addr, a->raft_addr) == 0);
        check(strcmp(b->http_addr, a->http_addr) == 0);
        check(memcmp(b->key, a->key, sizeof a->key) == 0);
    }
    free(data);
}

static void as_many_as_there_may_be(void)
{
    struct rq_members in = { 0 }, out;
    uint8_t *data;
    size_t bytes;
    char name[16];
    for (unsigned i = 0; i < RQ_MEMBERS_MAX; i++) {
        snprintf(name, sizeof name, "n%u", i);
        add(&in, i + 1, name, true);
    }
    check_eq(rq_members_encode(&in, &data, &bytes), RQ_OK);
    check_eq(rq_members_decode(data, bytes, &out), RQ_OK);
    check_eq(out.count, RQ_MEMBERS_MAX);
    free(data);
}

static void a_list_that_cannot_be_in_force_is_refused(void)
{
    struct rq_members m = three();
    check_eq(encode(&m), RQ_OK);
    m.list[1].instance = 3;
    check_eq(encode(&m), RQ_MISUSE); /* an instance twice */
    m = three();
    m.list[1].instance = 0;
    check_eq(encode(&m), RQ_MISUSE);
    m = three();
    m.list[0].role = m.list[1].role = RQ_MEMBER_STANDBY;
    check_eq(encode(&m), RQ_MISUSE); /* no voter */
    m = three();
    m.list[0].votes = false;
    check_eq(encode(&m), RQ_MISUSE); /* a voter that is not to vote */
    m = three();
    uint64_t instance = m.list[1].instance;
    m.list[1] = m.list[0];
    m.list[1].instance = instance;
    check_eq(encode(&m), RQ_MISUSE); /* alike in all but the instance */
    m = (struct rq_members){ 0 };
    check_eq(encode(&m), RQ_MISUSE);
}

static void texts_have_no_white_space(void)
{
    static const char *const bad[] = { "", " ", "a b", "a\n", "a\tb", "\x7f" };
    char longest[RQ_MEMBER_TEXT_MAX + 2] = { 0 };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rq_members m = three();
        check(!rq_member_text_ok(bad[i]));
        snprintf(m.list[1].name, sizeof m.list[1].name, "%s", bad[i]);
        check_eq(encode(&m), RQ_MISUSE);
        m = three();
        snprintf(m.list[1].raft_addr, sizeof m.list[1].raft_addr, "%s", bad[i]);
        check_eq(encode(&m), RQ_MISUSE);
        m = three();
        snprintf(m.list[1].http_addr, sizeof m.list[1].http_addr, "%s", bad[i]);
        check_eq(encode(&m), RQ_MISUSE);
    }
    memset(longest, 'a', RQ_MEMBER_TEXT_MAX + 1);
    check(!rq_member_text_ok(longest));
    longest[RQ_MEMBER_TEXT_MAX] = '\0';
    check(rq_member_text_ok(longest));
    check(rq_member_text_ok("[2001:db8::1]:4002"));
    check(rq_member_text_ok("n\xc3\xb6rd")); /* UTF-8 */
}

/* A configuration as C-Raft itself encodes it, with an address that is not one of ours. */
static enum rq_err decode_address(const char *address)
{
    struct raft_configuration conf;
    struct raft_buffer buf;
    struct rq_members members;
    raft_configuration_init(&conf);
    check_eq(raft_configuration_add(&conf, 1, address, RAFT_VOTER), 0);
    check_eq(raft_configuration_encode(&conf, &buf), 0);
    raft_configuration_close(&conf);
    enum rq_err err = rq_members_decode(buf.base, buf.len, &members);
    raft_free(buf.base);
    return err;
}

static void what_is_no_list_is_refused(void)
{
    const char key[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    char text[512], name[RQ_MEMBER_TEXT_MAX + 2];
    snprintf(text, sizeof text, "1 v n host:4002 host:4001 %s", key);
    check_eq(decode_address(text), RQ_OK);
    snprintf(text, sizeof text, "2 v n host:4002 host:4001 %s", key); /* another version */
    check_eq(decode_address(text), RQ_PROTOCOL);
    snprintf(text, sizeof text, "1 x n host:4002 host:4001 %s", key);
    check_eq(decode_address(text), RQ_PROTOCOL);
    snprintf(text, sizeof text, "1 v  host:4002 host:4001 %s", key); /* no name */
    check_eq(decode_address(text), RQ_PROTOCOL);
    snprintf(text, sizeof text, "1 v n host:4002 %s", key);
    check_eq(decode_address(text), RQ_PROTOCOL);
    snprintf(text, sizeof text, "1 v n host:4002 host:4001 %s0", key);
    check_eq(decode_address(text), RQ_PROTOCOL);
    snprintf(text, sizeof text, "1 v n host:4002 host:4001 %.63s", key);
    check_eq(decode_address(text), RQ_PROTOCOL);
    snprintf(text, sizeof text, "1 v n host:4002 host:4001 X%.63s", key);
    check_eq(decode_address(text), RQ_PROTOCOL);
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(text, sizeof text, "1 v %s host:4002 host:4001 %s", name, key);
    check_eq(decode_address(text), RQ_PROTOCOL);
    for (size_t cut = 0; cut < 4; cut++) {
        snprintf(text, sizeof text, "%.*s", (int)cut, "1 v ");
        check_eq(decode_address(text), RQ_PROTOCOL);
    }
}

static void every_truncation_and_any_flipped_byte_is_survived(void)
{
    struct rq_members in = three(), out;
    uint8_t *data;
    size_t bytes;
    check_eq(rq_members_encode(&in, &data, &bytes), RQ_OK);
    for (size_t cut = 0; cut < bytes; cut++) {
        uint8_t *piece = malloc(cut + 1);
        memcpy(piece, data, cut);
        enum rq_err err = rq_members_decode(piece, cut, &out);
        check(err == RQ_PROTOCOL || (err == RQ_OK && cut + 8 > bytes)); /* only padding is missing */
        free(piece);
    }
    for (size_t at = 0; at < bytes; at++) {
        data[at] ^= 0x80;
        enum rq_err err = rq_members_decode(data, bytes, &out);
        check(err == RQ_PROTOCOL || err == RQ_OK);
        data[at] ^= 0x80;
    }
    free(data);
}

static void found_by_instance_and_the_newest_by_name(void)
{
    struct rq_members m = three();
    add(&m, 9, "b", true);
    check(rq_members_find(&m, 2) == &m.list[1]);
    check(rq_members_find(&m, 9) == &m.list[3]);
    check(rq_members_find(&m, 4) == NULL);
    check(rq_members_find_name(&m, "b") == &m.list[3]);
    check(rq_members_find_name(&m, "a") == &m.list[0]);
    check(rq_members_find_name(&m, "d") == NULL);
}

static struct rq_members voters(unsigned count)
{
    static const char *const names[] = { "a", "b", "c", "d", "e" };
    struct rq_members m = { 0 };
    for (unsigned i = 0; i < count; i++) {
        add(&m, i + 1, names[i], true);
    }
    return m;
}

/* Whatever set there is, of whatever members: by counting them out. */
static void sets_that_are_a_majority_or_that_majorities_cannot_avoid(void)
{
    for (unsigned count = 1; count <= 5; count++) {
        const struct rq_members m = voters(count);
        for (unsigned in = 0; in < 1u << count; in++) {
            struct rq_instances set = { 0 };
            uint64_t has[RQ_MEMBERS_MAX] = { 0 };
            bool meets = true;
            for (unsigned i = 0; i < count; i++) {
                if ((in >> i & 1) != 0) {
                    set.list[set.count++] = i + 1;
                    has[i] = 7;
                }
            }
            for (unsigned other = 0; other < 1u << count; other++) {
                const bool is_majority = (unsigned)__builtin_popcount(other) * 2 > count;
                meets = meets && (!is_majority || (other & in) != 0);
            }
            check_eq(rq_members_majorities_have(&m, has), meets ? 7 : 0);
            check_eq(rq_members_are_majority(&m, &set), set.count * 2 > count);
        }
    }
    struct rq_members m = three(); /* two of them vote */
    check(!rq_members_are_majority(&m, &(struct rq_instances){ 2, { 2, 3 } }));
}

static void what_majorities_have_is_what_the_last_voter_has_that_one_of_them_needs(void)
{
    const struct rq_members two = voters(2), three_voters = voters(3), four = voters(4), five = voters(5);
    check_eq(rq_members_majorities_have(&two, (uint64_t[RQ_MEMBERS_MAX]){ 10, 20 }), 20);
    check_eq(rq_members_majorities_have(&three_voters, (uint64_t[RQ_MEMBERS_MAX]){ 10, 30, 20 }), 20);
    check_eq(rq_members_majorities_have(&four, (uint64_t[RQ_MEMBERS_MAX]){ 10, 30, 20, 40 }), 30);
    check_eq(rq_members_majorities_have(&five, (uint64_t[RQ_MEMBERS_MAX]){ 10, 30, 20, 40, 50 }), 30);
    struct rq_members m = three(); /* two of them vote */
    check_eq(rq_members_majorities_have(&m, (uint64_t[RQ_MEMBERS_MAX]){ 10, 20, 30 }), 20);
}

/* Who has nothing to say, and goes, takes nothing away, however little the others have. */
static void who_has_nothing_can_go(void)
{
    for (unsigned count = 2; count <= 5; count++) {
        const struct rq_members all = voters(count), rest = voters(count - 1);
        uint64_t has[RQ_MEMBERS_MAX] = { 50, 40, 30, 20 };
        has[count - 1] = 0;
        check(rq_members_majorities_have(&rest, has) >= rq_members_majorities_have(&all, has));
    }
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(a_list_comes_out_as_it_went_in),
        TAP(as_many_as_there_may_be),
        TAP(a_list_that_cannot_be_in_force_is_refused),
        TAP(texts_have_no_white_space),
        TAP(what_is_no_list_is_refused),
        TAP(every_truncation_and_any_flipped_byte_is_survived),
        TAP(found_by_instance_and_the_newest_by_name),
        TAP(sets_that_are_a_majority_or_that_majorities_cannot_avoid),
        TAP(what_majorities_have_is_what_the_last_voter_has_that_one_of_them_needs),
        TAP(who_has_nothing_can_go),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
