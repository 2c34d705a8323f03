/* bodies: brought to a majority before anybody is told, fetched from whoever has it, taken up where it was left, and never let in
 * under a name that is not its own. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raftd/cluster/bodies.h"
#include "raftd/db/staged.h"
#include "raftd/wire/head.h"
#include "tests/support/net_rig.h"
#include "tests/support/scratch.h"
#include "tests/support/tap.h"

#define NODES      3u
#define PAGE       4096u
#define PAGE_COUNT 1000u /* four windows of a stream */

static struct host {
    struct net_node net;
    char dir[64];
    struct rq_shelf *shelf;
    struct rq_bodies *bodies;
    bool runs;
} hosts[NODES];
static struct rq_entry_staged entry;
static struct rq_file *file;
static atomic_uint done_count;
static enum rq_err done_err;
static struct rq_members members;

static void on_members(void *ctx, struct rq_members *ret_members)
{
    (void)ctx;
    *ret_members = members;
}

static atomic_bool superseded;

static bool on_is_superseded(void *ctx)
{
    (void)ctx;
    return atomic_load(&superseded);
}

static enum rq_err on_stream(void *ctx, const struct rq_peer_who *from, struct rq_stream *stream, const uint8_t *head,
                             size_t head_bytes, const struct rq_stream_ops **ret_ops, void **ret_ctx,
                             char text[RQ_TEXT_MAX + 1])
{
    struct host *h = ctx; /* its node is its first */
    (void)from;
    return rq_bodies_stream(h->bodies, stream, head, head_bytes, ret_ops, ret_ctx, text);
}

static void start(unsigned i)
{
    struct host *h = &hosts[i];
    net_start(&h->net, i);
    const struct rq_bodies_config config = {
        .disk = rq_disk_real(),
        .staged_dir = h->dir,
        .shelf = h->shelf,
        .peers = h->net.peers,
        .instance = h->net.instance,
        .members = on_members,
        .is_superseded = on_is_superseded,
    };
    check_eq(rq_bodies_new(&config, &h->bodies), RQ_OK);
    h->runs = true;
}

static void stop(unsigned i)
{
    struct host *h = &hosts[i];
    net_stop(&h->net);
    rq_bodies_free(h->bodies);
    h->runs = false;
}

static void meet(void)
{
    for (unsigned i = 0; i < NODES; i++) {
        struct net_node *others[NODES - 1];
        for (unsigned k = 0, n = 0; k < NODES; k++) {
            if (k != i) {
                others[n++] = &hosts[k].net;
            }
        }
        if (hosts[i].runs) {
            net_know(&hosts[i].net, others, NODES - 1);
        }
    }
    for (unsigned i = 0; i < NODES; i++) {
        for (unsigned k = 0; k < NODES; k++) {
            if (i != k && hosts[i].runs && hosts[k].runs) {
                net_until(net_connected(&hosts[i].net, hosts[k].net.instance));
            }
        }
    }
}

static void begin(unsigned running)
{
    members.count = NODES;
    atomic_store(&done_count, 0);
    for (unsigned i = 0; i < NODES; i++) {
        struct host *h = &hosts[i];
        memset(h, 0, sizeof *h);
        h->net.cluster = NET_CLUSTER;
        (void)snprintf(h->dir, sizeof h->dir, "/tmp/rq-bodies-XXXXXX");
        check(mkdtemp(h->dir) != NULL);
        check_eq(rq_shelf_new(rq_disk_real(), h->dir, &h->shelf), RQ_OK);
        start(i); /* also those that are not to run: now they have an address */
        members.list[i] = (struct rq_member){ .instance = h->net.instance, .role = RQ_MEMBER_VOTER };
    }
    for (unsigned i = running; i < NODES; i++) {
        stop(i);
    }
    meet();
}

static void end(void)
{
    for (unsigned i = 0; i < NODES; i++) {
        if (hosts[i].runs) {
            stop(i);
        }
        rq_shelf_free(hosts[i].shelf);
        check(scratch_remove(hosts[i].dir));
    }
}

/* The body is ended at that host, and open to be brought; then sealed. */
static void make(unsigned i)
{
    const struct rq_body_head head = { PAGE, PAGE_COUNT };
    struct rq_staged *s;
    static uint8_t record[4 + PAGE];
    entry = (struct rq_entry_staged){ .head = { 7, PAGE, PAGE_COUNT, 0, 1, 1 }, .origin = { 11, 1 } };
    check_eq(rq_staged_new(rq_disk_real(), hosts[i].dir, &head, &s), RQ_OK);
    for (uint32_t pgno = 1; pgno <= PAGE_COUNT; pgno++) {
        rq_put_u32(record, pgno);
        memset(record + 4, (int)pgno, PAGE);
        check_eq(rq_staged_add(s, record, sizeof record), RQ_OK);
    }
    check_eq(rq_staged_end(s, entry.hash, &entry.body_bytes), RQ_OK);
    check_eq(rq_shelf_expect(hosts[i].shelf, entry.hash, entry.origin, RQ_SHELF_FOR_EVER), RQ_OK);
    check_eq(rq_staged_reopen(s, &file), RQ_OK);
    check_eq(rq_staged_seal(s, entry.hash, &entry.body_bytes), RQ_OK);
    rq_staged_free(s);
}

static uint64_t size_of(unsigned i, const char *prefix)
{
    struct stat st;
    char *path = rq_staged_path(hosts[i].dir, prefix, entry.hash);
    const uint64_t size = stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
    free(path);
    return size;
}

/* Are the bytes what the hash says? */
static bool has(unsigned i)
{
    struct rq_staged_reader *r;
    uint32_t pgno;
    const uint8_t *page;
    if (rq_staged_open(rq_disk_real(), hosts[i].dir, &entry, &r) != RQ_OK) {
        return false;
    }
    enum rq_err err;
    while ((err = rq_staged_next(r, &pgno, &page)) == RQ_OK) {
    }
    rq_staged_close(r);
    return err == RQ_NOTFOUND;
}

static enum rq_err count_name(void *ctx, const char *name)
{
    (void)name;
    ++*(unsigned *)ctx;
    return RQ_OK;
}

static unsigned files_at(unsigned i)
{
    unsigned count = 0;
    struct rq_disk *disk = rq_disk_real();
    check_eq(disk->ops->list(disk, hosts[i].dir, count_name, &count), RQ_OK);
    return count;
}

static uint64_t received(unsigned i, unsigned from)
{
    struct rq_peer_state state;
    return rq_peers_state(hosts[i].net.peers, hosts[from].net.instance, &state) ? state.received_bytes : 0;
}

static void brought(void *ctx)
{
    (void)ctx;
    atomic_fetch_add(&done_count, 1);
}

static void fetched(void *ctx, enum rq_err err)
{
    (void)ctx;
    done_err = err;
    atomic_fetch_add(&done_count, 1);
}

static const struct rq_carrier *carrier(unsigned i)
{
    return rq_bodies_carrier(hosts[i].bodies);
}

static struct rq_carriage *bring(unsigned i, struct rq_file *from)
{
    struct rq_carriage *c;
    check_eq(carrier(i)->bring(carrier(i)->ctx, &entry, from, brought, NULL, &c), RQ_OK);
    return c;
}

static void fetch(unsigned i)
{
    carrier(i)->fetch(carrier(i)->ctx, &entry, fetched, NULL);
}

/* --- bringing --------------------------------------------------------------------------------------------------------------- */

static void a_body_is_brought_to_all_voters(void)
{
    begin(3);
    make(0);
    struct rq_carriage *c = bring(0, file);
    net_until(atomic_load(&done_count) == 1);
    check_eq(carrier(0)->state(c), RQ_CARRIAGE_DONE);
    check(has(1) || has(2));
    net_until(has(1) && has(2)); /* the other one goes on */
    carrier(0)->leave(c);
    check_eq(atomic_load(&done_count), 1);
    end();
}

static void one_that_is_there_already_is_not_sent_again(void)
{
    begin(3);
    make(0);
    struct rq_carriage *c = bring(0, file);
    net_until(has(1) && has(2));
    carrier(0)->leave(c);
    net_until(received(1, 0) >= entry.body_bytes && received(2, 0) >= entry.body_bytes);
    const uint64_t before = received(1, 0) + received(2, 0);
    c = bring(0, NULL);
    net_until(carrier(0)->state(c) == RQ_CARRIAGE_DONE);
    carrier(0)->leave(c);
    check(received(1, 0) + received(2, 0) - before < entry.body_bytes); /* of two: a window each at the most */
    end();
}

static void nobody_is_told_before_a_majority_has_it(void)
{
    begin(1);
    make(0);
    struct rq_carriage *c = bring(0, file);
    for (unsigned i = 0; i < 300; i++) { /* longer than until the next attempt */
        check_eq(carrier(0)->state(c), RQ_CARRIAGE_WAITS);
        net_pause();
    }
    check_eq(atomic_load(&done_count), 0);
    start(2);
    meet();
    net_until(atomic_load(&done_count) == 1);
    check(has(2) && !has(1));
    carrier(0)->leave(c);
    end();
}

static void voters_count_and_others_do_not(void)
{
    begin(3);
    members.list[1].role = members.list[2].role = RQ_MEMBER_STANDBY;
    make(0);
    check(!carrier(0)->is_alone(carrier(0)->ctx));
    struct rq_carriage *c = bring(0, file);
    check_eq(carrier(0)->state(c), RQ_CARRIAGE_DONE);
    carrier(0)->leave(c);
    check(!has(1) && !has(2));
    members.list[2].votes = true; /* it is to, and gets it as well, but nobody waits for it */
    c = bring(0, NULL);
    check_eq(carrier(0)->state(c), RQ_CARRIAGE_DONE);
    net_until(has(2));
    check(!has(1));
    carrier(0)->leave(c);
    members.list[2].votes = false;
    check_eq(rq_shelf_discard(hosts[2].shelf, entry.hash), RQ_OK);
    members.list[0].role = RQ_MEMBER_STANDBY; /* one that writes, and does not vote */
    members.list[1].role = RQ_MEMBER_VOTER;
    c = bring(0, NULL);
    net_until(atomic_load(&done_count) == 1);
    check(has(1) && !has(2));
    carrier(0)->leave(c);
    members.count = 1;
    check(carrier(0)->is_alone(carrier(0)->ctx));
    end();
}

static void who_leaves_hears_nothing_any_more(void)
{
    begin(1);
    make(0);
    struct rq_carriage *c = bring(0, file);
    carrier(0)->leave(c);
    start(1);
    start(2);
    meet();
    check_eq(atomic_load(&done_count), 0);
    check(!has(1) && !has(2));
    end();
}

static void a_body_under_another_name_is_not_let_in(void)
{
    begin(3);
    make(0);
    entry.hash[3] ^= 1;
    struct rq_carriage *c = bring(0, file);
    for (unsigned i = 0; i < 400; i++) {
        check(carrier(0)->state(c) != RQ_CARRIAGE_DONE);
        net_pause();
    }
    carrier(0)->leave(c);
    net_until(files_at(1) == 0 && files_at(2) == 0);
    check_eq(atomic_load(&done_count), 0);
    end();
}

/* --- fetching --------------------------------------------------------------------------------------------------------------- */

static void a_missing_body_is_fetched_from_who_has_it(void)
{
    begin(3);
    make(2);
    rq_shelf_reads(hosts[2].shelf);
    rq_shelf_close(hosts[2].shelf, file);
    fetch(0); /* the first that is asked has none */
    net_until(atomic_load(&done_count) == 1);
    check_eq(done_err, RQ_OK);
    check(has(0) && !has(1));
    check_eq(files_at(0), 1);
    end();
}

static void put_part(unsigned to, unsigned from, uint64_t bytes, bool damaged)
{
    char *source = rq_staged_path(hosts[from].dir, "", entry.hash),
         *target = rq_staged_path(hosts[to].dir, RQ_STAGED_PART, entry.hash);
    check(scratch_copy(source, target));
    check_eq(truncate(target, (off_t)bytes), 0);
    if (damaged) {
        int fd = open(target, O_WRONLY | O_CLOEXEC);
        check(fd >= 0 && pwrite(fd, "xxxx", 4, 32) == 4);
        close(fd);
    }
    free(source);
    free(target);
}

static void a_fetch_goes_on_where_one_was_killed(void)
{
    begin(3);
    make(2);
    rq_shelf_reads(hosts[2].shelf);
    rq_shelf_close(hosts[2].shelf, file);
    put_part(0, 2, entry.body_bytes - 300000, false);
    const uint64_t before = received(0, 2);
    fetch(0);
    net_until(atomic_load(&done_count) == 1);
    check(has(0));
    check_eq(size_of(0, RQ_STAGED_PART), 0);
    net_until(received(0, 2) - before >= 300000); /* it is counted now and then */
    check(received(0, 2) - before < 900000);

    check_eq(rq_shelf_discard(hosts[0].shelf, entry.hash), RQ_OK);
    put_part(0, 2, entry.body_bytes, false); /* it was killed before it gave the name */
    fetch(0);
    net_until(atomic_load(&done_count) == 2);
    check(has(0));

    check_eq(rq_shelf_discard(hosts[0].shelf, entry.hash), RQ_OK);
    put_part(0, 2, entry.body_bytes - 300000, true); /* what was left is not what it was: all of it again */
    fetch(0);
    net_until(atomic_load(&done_count) == 3);
    check(has(0));
    end();
}

static void a_damaged_body_of_another_is_not_let_in(void)
{
    begin(3);
    make(1);
    rq_shelf_reads(hosts[1].shelf);
    rq_shelf_close(hosts[1].shelf, file);
    char *from = rq_staged_path(hosts[1].dir, "", entry.hash), *to = rq_staged_path(hosts[2].dir, "", entry.hash);
    check(scratch_copy(from, to));
    int fd = open(from, O_WRONLY | O_CLOEXEC);
    check(fd >= 0 && pwrite(fd, "xxxx", 4, 50000) == 4);
    close(fd);
    free(from);
    free(to);
    fetch(0);
    net_until(atomic_load(&done_count) == 1);
    check_eq(done_err, RQ_OK);
    check(has(0));
    end();
}

/* One of three has it, and one of two voters, who is away: the other voter alone is no majority, and cannot say that it is gone. */
static void begin_fetching_what_is_away(void)
{
    begin(2);
    members.list[1].role = RQ_MEMBER_STANDBY;
    make(2);
    rq_shelf_reads(hosts[2].shelf);
    rq_shelf_close(hosts[2].shelf, file);
    fetch(0);
    for (unsigned i = 0; i < 400; i++) {
        check_eq(atomic_load(&done_count), 0);
        net_pause();
    }
}

static void it_is_gone_only_when_all_have_said_so(void)
{
    begin_fetching_what_is_away();
    start(2);
    meet();
    net_until(atomic_load(&done_count) == 1);
    check_eq(done_err, RQ_OK);
    check(has(0));
    entry.hash[0] ^= 1;
    fetch(1);
    net_until(atomic_load(&done_count) == 2);
    check_eq(done_err, RQ_NOTFOUND);
    end();
}

/* Whoever had it has released it, if this node and those that are left are a majority: nobody waits for who is lost for good. */
static void it_is_gone_when_a_majority_of_the_voters_lacks_it(void)
{
    begin(2);
    make(2);
    rq_shelf_reads(hosts[2].shelf);
    rq_shelf_close(hosts[2].shelf, file);
    fetch(0);
    net_until(atomic_load(&done_count) == 1);
    check_eq(done_err, RQ_NOTFOUND);
    check(!has(0));
    end();
}

static void it_is_given_up_when_nothing_needs_it_any_more(void)
{
    begin_fetching_what_is_away();
    atomic_store(&superseded, true);
    net_until(atomic_load(&done_count) == 1);
    check_eq(done_err, RQ_NOTFOUND);
    atomic_store(&superseded, false);
    end();
}

static bool holds(struct rq_carriage *c, unsigned i)
{
    struct rq_instances set;
    carrier(0)->holders(carrier(0)->ctx, c, &set);
    return rq_instances_has(&set, hosts[i].net.instance);
}

static void who_comes_to_vote_is_brought_it_as_well(void)
{
    begin(2);
    members.list[2].role = RQ_MEMBER_STANDBY;
    make(0);
    struct rq_carriage *c = bring(0, file);
    net_until(carrier(0)->state(c) == RQ_CARRIAGE_DONE);
    check(holds(c, 0) && holds(c, 1) && !holds(c, 2));
    members.list[2].role = RQ_MEMBER_VOTER;
    check_eq(carrier(0)->state(c), RQ_CARRIAGE_DONE); /* two of three */
    members.list[1].role = RQ_MEMBER_STANDBY;
    check_eq(carrier(0)->state(c), RQ_CARRIAGE_PAST); /* one of two, and nobody is on his way to the other */
    carrier(0)->leave(c);
    check(holds(NULL, 0) && !holds(NULL, 1));
    start(2);
    meet();
    c = bring(0, NULL);
    net_until(carrier(0)->state(c) == RQ_CARRIAGE_DONE);
    check(holds(c, 0) && !holds(c, 1) && holds(c, 2));
    carrier(0)->leave(c);
    end();
}

/* --- heads -------------------------------------------------------------------------------------------------------------------- */

static void heads_are_as_documented(void)
{
    static const uint8_t bring_bytes[] = { 0x95, 10, 0xc4, 16, 0,  1,  2,  3,    4,    5,    6,  7,    8,
                                           9,    10, 11,   12, 13, 14, 15, 0xcd, 0x03, 0xe8, 11, 0xcc, 0x80 };
    static const uint8_t fetch_bytes[] = { 0x94, 11, 0xc4, 16, 0,  1,  2,  3,  4,    5,    6,    7,
                                           8,    9,  10,   11, 12, 13, 14, 15, 0xcd, 0x03, 0xe8, 0x64 };
    struct rq_head_body head = { .body_bytes = 1000, .origin = { 11, 128 }, .offset = 100 }, back;
    struct rq_bytes out;
    for (uint8_t i = 0; i < RQ_BODY_HASH_BYTES; i++) {
        head.hash[i] = i;
    }
    rq_bytes_init(&out, 1000);
    check_eq(rq_head_put_body(&out, RQ_HEAD_BRING, &head), RQ_OK);
    check_eq(out.size, sizeof bring_bytes);
    check(memcmp(out.data, bring_bytes, out.size) == 0);
    check_eq(rq_head_kind(out.data, out.size), RQ_HEAD_BRING);
    check_eq(rq_head_get_body(out.data, out.size, &back), RQ_OK);
    check(back.origin.session == 11 && back.origin.seq == 128 && back.body_bytes == 1000);
    for (size_t n = 0; n < out.size; n++) {
        check_eq(rq_head_get_body(out.data, n, &back), RQ_PROTOCOL);
        check_eq(rq_head_kind(out.data, n), 0);
    }
    out.size = 0;
    check_eq(rq_head_put_body(&out, RQ_HEAD_FETCH, &head), RQ_OK);
    check_eq(out.size, sizeof fetch_bytes);
    check(memcmp(out.data, fetch_bytes, out.size) == 0);
    check_eq(rq_head_get_body(out.data, out.size, &back), RQ_OK);
    check(back.offset == 100 && memcmp(back.hash, head.hash, sizeof back.hash) == 0);
    head.offset = 1001; /* behind its end */
    out.size = 0;
    check_eq(rq_head_put_body(&out, RQ_HEAD_FETCH, &head), RQ_OK);
    check_eq(rq_head_get_body(out.data, out.size, &back), RQ_PROTOCOL);
    out.data[1] = 12;
    check_eq(rq_head_get_body(out.data, out.size, &back), RQ_PROTOCOL);
    rq_bytes_fini(&out);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(a_body_is_brought_to_all_voters),
        TAP(one_that_is_there_already_is_not_sent_again),
        TAP(nobody_is_told_before_a_majority_has_it),
        TAP(voters_count_and_others_do_not),
        TAP(who_leaves_hears_nothing_any_more),
        TAP(a_body_under_another_name_is_not_let_in),
        TAP(a_missing_body_is_fetched_from_who_has_it),
        TAP(a_fetch_goes_on_where_one_was_killed),
        TAP(a_damaged_body_of_another_is_not_let_in),
        TAP(it_is_gone_only_when_all_have_said_so),
        TAP(it_is_gone_when_a_majority_of_the_voters_lacks_it),
        TAP(it_is_given_up_when_nothing_needs_it_any_more),
        TAP(who_comes_to_vote_is_brought_it_as_well),
        TAP(heads_are_as_documented),
    };
    net_stream = on_stream;
    net_begin();
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    net_end();
    return failed;
}
