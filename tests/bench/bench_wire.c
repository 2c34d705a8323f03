/* Nanoseconds of what every commit pays in raftd/wire: diff, hash, encode and decode of a commit of three pages of 4 KiB.
 * Best of several rounds, so that a busy machine disturbs little. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "raftd/wire/msg.h"
#include "raftd/wire/txn.h"
#include "tests/support/seeded.h"

enum { PAGE_SIZE = 4096, PAGES = 3, ROUNDS = 20, CALLS = 20000 };

static uint8_t base[PAGES][PAGE_SIZE], page[PAGES][PAGE_SIZE], work[PAGE_SIZE];
static struct rq_bytes out;
static uint8_t commit_frame[RQ_FRAME_HEAD_BYTES + RQ_COMMIT_ARRAY_BYTES_MAX + PAGES * (4 + PAGE_SIZE)];
static size_t commit_frame_bytes;
static volatile uint64_t sink; /* so that nothing is optimised away */

static void hash_page(void)
{
    sink += rq_page_hash(page[1], PAGE_SIZE);
}

static void add_page(void)
{
    out.size = 0;
    sink += rq_txn_add(&out, 2, base[1], page[1], PAGE_SIZE);
}

static void build_record(void)
{
    const struct rq_txn_head head = {
        .db_id = 3, .page_size = PAGE_SIZE, .page_count = 9, .version = 1, .origin_count = 1
    };
    const struct rq_origin origin = { .session = 1, .seq = 1 };
    out.size = 0;
    (void)rq_txn_begin(&out, &head, &origin);
    for (uint32_t i = 0; i < PAGES; i++) {
        (void)rq_txn_add(&out, i + 1, base[i], page[i], PAGE_SIZE);
    }
    (void)rq_txn_end(&out, 0);
}

static void read_record(void)
{
    struct rq_txn_reader reader;
    struct rq_delta delta;
    sink += rq_txn_read(&reader, out.data, out.size);
    while (rq_txn_next(&reader, &delta) == RQ_OK) {
        sink += delta.pgno;
    }
}

static void read_and_apply_record(void)
{
    struct rq_txn_reader reader;
    struct rq_delta delta;
    sink += rq_txn_read(&reader, out.data, out.size);
    for (unsigned i = 0; rq_txn_next(&reader, &delta) == RQ_OK; i++) {
        memcpy(work, base[i], PAGE_SIZE);
        sink += rq_delta_apply(&delta, work, PAGE_SIZE);
    }
}

static const struct rq_msg_commit commit = {
    .db_id = 3, .seq = 1000, .base = 100000, .page_size = PAGE_SIZE, .db_page_count = 9, .page_count = PAGES
};

static void encode_commit(void)
{
    out.size = 0;
    sink += rq_msg_put_commit(&out, 1, RQ_MSG_COMMIT, &commit);
}

static void decode_commit(void)
{
    struct rq_msg_commit m;
    sink += rq_msg_get_commit(commit_frame + RQ_FRAME_HEAD_BYTES, commit_frame_bytes - RQ_FRAME_HEAD_BYTES, &m);
    sink += m.page_count;
}

static void encode_outcome(void)
{
    const struct rq_msg_outcome m = { .version = 100001, .text = { .data = "" } };
    out.size = 0;
    sink += rq_msg_put_outcome(&out, 1, &m);
}

static void measure(const char *what, void (*call)(void))
{
    double best = 1e18;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct timespec begin, end;
        clock_gettime(CLOCK_MONOTONIC, &begin);
        for (unsigned i = 0; i < CALLS; i++) {
            call();
        }
        clock_gettime(CLOCK_MONOTONIC, &end);
        double ns = (double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec);
        ns /= (double)CALLS;
        best = ns < best ? ns : best;
    }
    printf("%-44s %8.0f ns\n", what, best);
}

int main(void)
{
    uint64_t seed = 1;
    rq_bytes_init(&out, 1 << 20);
    for (unsigned i = 0; i < PAGES; i++) {
        seeded_fill(&seed, base[i], PAGE_SIZE);
        memcpy(page[i], base[i], PAGE_SIZE);
    }
    page[0][27]++;
    page[0][95]++;
    for (unsigned i = 1; i < PAGES; i++) {
        page[i][4]++;
        seeded_fill(&seed, page[i] + 2000, 2);
        seeded_fill(&seed, page[i] + 2500, 100);
    }
    encode_commit();
    memcpy(commit_frame, out.data, out.size);
    commit_frame_bytes = out.size;
    for (uint32_t i = 0; i < PAGES; i++) {
        rq_put_u32(commit_frame + commit_frame_bytes, i + 1);
        memcpy(commit_frame + commit_frame_bytes + 4, page[i], PAGE_SIZE);
        commit_frame_bytes += 4 + PAGE_SIZE;
    }
    measure("hash of a page", hash_page);
    measure("add a page: diff, two hashes", add_page);
    measure("encode COMMIT without its pages", encode_commit);
    measure("decode COMMIT of 3 pages", decode_commit);
    measure("encode OUTCOME", encode_outcome);
    measure("build a record of 3 pages", build_record);
    build_record();
    measure("read it", read_record);
    measure("read it and apply it: two hashes a page", read_and_apply_record);
    printf("%-44s %8zu bytes\n", "its size", out.size);
    rq_bytes_fini(&out);
    return 0;
}
