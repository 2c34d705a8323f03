/* wal: the same bytes as SQLite's, read and written; and no content of shared memory makes a lookup run on or astray. */
#include <sqlite3.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "raftd/wire/bytes.h"
#include "tests/support/tap.h"
#include "vfs/wal.h"

#define REGIONS 4
static _Alignas(8) uint8_t region_memory[REGIONS][RQ_WAL_INDEX_REGION];
static uint8_t *regions[REGIONS] = { region_memory[0], region_memory[1], region_memory[2], region_memory[3] };

static uint64_t random_state;
static uint32_t random_u32(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static uint8_t *file_load(const char *path, size_t *ret_bytes)
{
    FILE *f = fopen(path, "rb");
    check(f != NULL);
    check(fseek(f, 0, SEEK_END) == 0);
    *ret_bytes = (size_t)ftell(f);
    check(fseek(f, 0, SEEK_SET) == 0);
    uint8_t *data = malloc(*ret_bytes);
    check(data != NULL);
    check_eq(fread(data, 1, *ret_bytes, f), *ret_bytes);
    check(fclose(f) == 0);
    return data;
}

static void reads_wal_and_index_that_sqlite_wrote(void)
{
    char dir[] = "/tmp/rqwal.XXXXXX";
    check(mkdtemp(dir) != NULL);
    char path[64], wal_path[80], shm_path[80];
    snprintf(path, sizeof path, "%s/a.db", dir);
    snprintf(wal_path, sizeof wal_path, "%s-wal", path);
    snprintf(shm_path, sizeof shm_path, "%s-shm", path);
    sqlite3 *db;
    check_eq(sqlite3_open(path, &db), SQLITE_OK);
    check_eq(
        sqlite3_exec(db,
                     "pragma page_size=512; pragma journal_mode=wal; pragma wal_autocheckpoint=0; create table t(a,b);"
                     "create index i on t(b);"
                     "with recursive c(x) as (select 1 union all select x+1 from c where x<20000)"
                     "insert into t select x, hex(randomblob(20)) from c;"
                     "update t set b = hex(randomblob(19)) where a % 10 = 1;",
                     NULL, NULL, NULL),
        SQLITE_OK);
    size_t wal_bytes, shm_bytes;
    uint8_t *wal = file_load(wal_path, &wal_bytes);
    uint8_t *shm = file_load(shm_path, &shm_bytes);

    struct rq_wal_index_head index_head;
    memcpy(&index_head, shm, sizeof index_head);
    check(rq_wal_index_valid(&index_head));
    check_eq(rq_wal_index_page_size(&index_head), 512);

    struct rq_wal_head head;
    check_eq(rq_wal_head_decode(wal, &head), RQ_OK);
    check_eq(head.page_size, 512);
    check(memcmp(head.salt, index_head.aSalt, sizeof head.salt) == 0);
    uint8_t encoded[RQ_WAL_HEAD_BYTES];
    struct rq_wal_head again = head;
    rq_wal_head_encode(&again, encoded);
    check(memcmp(encoded, wal, sizeof encoded) == 0);

    uint8_t *views[16];
    const uint32_t view_count = (uint32_t)(shm_bytes / RQ_WAL_INDEX_REGION);
    check(view_count >= 2 && view_count <= 16); /* more than one region, or this test proves little */
    for (uint32_t i = 0; i < view_count; i++) {
        views[i] = shm + (size_t)i * RQ_WAL_INDEX_REGION;
    }
    uint32_t newest[65536] = { 0 };
    uint32_t sum[2] = { head.checksum[0], head.checksum[1] };
    uint32_t commit_size = 0;
    for (uint32_t frame = 1; frame <= index_head.mxFrame; frame++) {
        const uint8_t *at = wal + rq_wal_frame_offset(frame, 512);
        uint32_t pgno, sum_encode[2] = { sum[0], sum[1] };
        uint8_t frame_head[RQ_WAL_FRAME_BYTES];
        check_eq(rq_wal_frame_decode(&head, sum, at, at + RQ_WAL_FRAME_BYTES, &pgno, &commit_size), RQ_OK);
        rq_wal_frame_encode(&head, sum_encode, pgno, commit_size, at + RQ_WAL_FRAME_BYTES, frame_head);
        check(memcmp(frame_head, at, sizeof frame_head) == 0);
        check(pgno < 65536);
        newest[pgno] = frame;
    }
    check_eq(commit_size, index_head.nPage);
    check(sum[0] == index_head.aFrameCksum[0] && sum[1] == index_head.aFrameCksum[1]);
    for (uint32_t pgno = 1; pgno < 65536; pgno++) {
        uint32_t frame;
        check_eq(rq_wal_index_find(views, view_count, 1, index_head.mxFrame, pgno, &frame), RQ_OK);
        check_eq(frame, newest[pgno]);
    }
    check_eq(sqlite3_close(db), SQLITE_OK);
    free(wal);
    free(shm);
    unlink(path);
    rmdir(dir);
}

static void both_byte_orders_verify(void)
{
    uint8_t page[1024];
    for (size_t i = 0; i < sizeof page; i++) {
        page[i] = (uint8_t)(i * 7);
    }
    uint32_t sums[2][2];
    for (int big = 0; big < 2; big++) {
        struct rq_wal_head head = { .page_size = sizeof page,
                                    .salt = { 1, 2, 3, 4, 5, 6, 7, 8 },
                                    .big_endian = big != 0 };
        uint8_t bytes[RQ_WAL_HEAD_BYTES], frame[RQ_WAL_FRAME_BYTES];
        rq_wal_head_encode(&head, bytes);
        check_eq(rq_get_u32(bytes), 0x377f0682 + big);
        struct rq_wal_head decoded;
        check_eq(rq_wal_head_decode(bytes, &decoded), RQ_OK);
        check_eq(decoded.big_endian, big);
        uint32_t sum[2] = { head.checksum[0], head.checksum[1] }, back[2] = { sum[0], sum[1] };
        rq_wal_frame_encode(&head, sum, 9, 77, page, frame);
        uint32_t pgno, commit_size;
        check_eq(rq_wal_frame_decode(&decoded, back, frame, page, &pgno, &commit_size), RQ_OK);
        check(pgno == 9 && commit_size == 77 && sum[0] == back[0] && sum[1] == back[1]);
        memcpy(sums[big], sum, sizeof sum);
    }
    check(memcmp(sums[0], sums[1], sizeof sums[0]) != 0);
    /* Known answer: words 1 and 2. */
    const uint8_t little[8] = { 1, 0, 0, 0, 2, 0, 0, 0 }, big[8] = { 0, 0, 0, 1, 0, 0, 0, 2 };
    const uint32_t zero[2] = { 0, 0 };
    uint32_t out[2];
    rq_wal_checksum(false, little, 8, zero, out);
    check(out[0] == 1 && out[1] == 3);
    rq_wal_checksum(true, big, 8, zero, out);
    check(out[0] == 1 && out[1] == 3);
}

static void every_changed_bit_of_a_frame_is_seen(void)
{
    uint8_t page[512] = { 1 }, bytes[RQ_WAL_HEAD_BYTES], frame[RQ_WAL_FRAME_BYTES];
    struct rq_wal_head head = { .page_size = 512, .salt = { 9 } };
    rq_wal_head_encode(&head, bytes);
    uint32_t sum[2] = { head.checksum[0], head.checksum[1] };
    rq_wal_frame_encode(&head, sum, 3, 3, page, frame);
    uint32_t pgno, commit_size;
    for (size_t bit = 0; bit < 8 * (sizeof frame + sizeof page); bit++) {
        uint8_t *at = bit < 8 * sizeof frame ? &frame[bit / 8] : &page[bit / 8 - sizeof frame];
        *at ^= (uint8_t)(1u << bit % 8);
        uint32_t from[2] = { head.checksum[0], head.checksum[1] };
        check_eq(rq_wal_frame_decode(&head, from, frame, page, &pgno, &commit_size), RQ_CORRUPT);
        check(from[0] == head.checksum[0] && from[1] == head.checksum[1]);
        *at ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        struct rq_wal_head decoded;
        check(rq_wal_head_decode(bytes, &decoded) != RQ_OK);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* Sealed by a right checksum, so that nothing else speaks against it. */
static void heads_and_frames_that_are_none_are_refused(void)
{
    static const uint32_t zero[2], sizes[] = { 0, 256, 1000, 131072 };
    uint8_t bytes[RQ_WAL_HEAD_BYTES], page[512] = { 1 }, frame[RQ_WAL_FRAME_BYTES];
    struct rq_wal_head head, decoded;
    uint32_t sum[2], pgno, commit_size;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        head = (struct rq_wal_head){ .page_size = sizes[i] };
        rq_wal_head_encode(&head, bytes);
        check_eq(rq_wal_head_decode(bytes, &decoded), RQ_CORRUPT);
    }
    head = (struct rq_wal_head){ .page_size = 512 };
    rq_wal_head_encode(&head, bytes);
    check_eq(rq_wal_head_decode(bytes, &decoded), RQ_OK);
    memcpy(sum, head.checksum, sizeof sum);
    rq_wal_frame_encode(&head, sum, 0, 1, page, frame);
    memcpy(sum, head.checksum, sizeof sum);
    check_eq(rq_wal_frame_decode(&head, sum, frame, page, &pgno, &commit_size), RQ_CORRUPT);
    rq_put_u32(bytes + 4, rq_get_u32(bytes + 4) + 1);
    rq_wal_checksum(head.big_endian, bytes, 24, zero, sum);
    rq_put_u32(bytes + 24, sum[0]);
    rq_put_u32(bytes + 28, sum[1]);
    check_eq(rq_wal_head_decode(bytes, &decoded), RQ_VERSION);
}

static void index_head_is_sealed(void)
{
    struct rq_wal_index_head h = { .mxFrame = 5, .nPage = 6, .szPage = 1 };
    check(!rq_wal_index_valid(&h));
    rq_wal_index_seal(&h);
    check(rq_wal_index_valid(&h));
    check_eq(rq_wal_index_page_size(&h), 65536);
    h.mxFrame = 6;
    check(!rq_wal_index_valid(&h));
    /* Nobody has made it yet, whatever its checksum says. */
    static const uint32_t zero[2];
    rq_wal_index_seal(&h);
    h.isInit = 0;
    rq_wal_checksum(__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__, &h, offsetof(struct rq_wal_index_head, aCksum), zero,
                    h.aCksum);
    check(!rq_wal_index_valid(&h));
}

static void regions_begin_where_sqlite_has_them(void)
{
    check_eq(rq_wal_region_of(0), 0);
    check_eq(rq_wal_region_of(1), 0);
    check_eq(rq_wal_region_of(4062), 0);
    check_eq(rq_wal_region_of(4063), 1);
    check_eq(rq_wal_region_of(4062 + 4096), 1);
    check_eq(rq_wal_region_of(4062 + 4096 + 1), 2);
}

/* Puts, cuts and lookups against a plain array; pgno_step 8192 makes every key collide with every other. */
static void model_run(uint32_t pgno_count, uint32_t pgno_step)
{
    enum { FRAMES = 4062 + 3 * 4096 };
    static uint32_t pgno_of[FRAMES + 1];
    uint32_t mx = 0;
    memset(region_memory, 0xa5, sizeof region_memory);
    for (int round = 0; round < 6; round++) {
        const uint32_t target = 1 + random_u32() % FRAMES;
        if (target < mx) {
            /* A writer that died left frames beyond mx: cut, also over a region's border by cutting at each end. */
            for (uint32_t r = rq_wal_region_of(mx); r > rq_wal_region_of(target); r--) {
                rq_wal_index_cut(regions, 4062 + (r - 1) * 4096 + 1);
            }
            rq_wal_index_cut(regions, target);
            mx = target;
        }
        while (mx < target) {
            mx++;
            pgno_of[mx] = 1 + random_u32() % pgno_count * pgno_step;
            check_eq(rq_wal_index_put(regions, mx, pgno_of[mx]), RQ_OK);
        }
        for (int i = 0; i < 300; i++) {
            const uint32_t pgno = 1 + random_u32() % (pgno_count + 2) * pgno_step;
            const uint32_t max = 1 + random_u32() % mx, min = 1 + random_u32() % max;
            uint32_t expected = max;
            while (expected >= min && pgno_of[expected] != pgno) {
                expected--;
            }
            uint32_t frame;
            check_eq(rq_wal_index_find(regions, REGIONS, min, max, pgno, &frame), RQ_OK);
            check_eq(frame, expected >= min ? expected : 0);
        }
    }
}

static void lookups_match_a_plain_array(void)
{
    random_state = 1;
    model_run(3000, 1);
    model_run(20, 1);
    model_run(100000, 1);
}

static void colliding_pages_are_told_apart(void)
{
    random_state = 2;
    model_run(200, 8192);
}

static void put_over_a_dead_writers_entries_forgets_them(void)
{
    memset(region_memory, 0, sizeof region_memory);
    for (uint32_t frame = 1; frame <= 10; frame++) {
        check_eq(rq_wal_index_put(regions, frame, 100 + frame), RQ_OK);
    }
    check_eq(rq_wal_index_put(regions, 6, 200), RQ_OK); /* 6..10 were never published */
    uint32_t frame;
    check_eq(rq_wal_index_find(regions, 1, 1, 10, 108, &frame), RQ_OK);
    check_eq(frame, 0);
    check_eq(rq_wal_index_find(regions, 1, 1, 10, 200, &frame), RQ_OK);
    check_eq(frame, 6);
    check_eq(rq_wal_index_find(regions, 1, 1, 10, 105, &frame), RQ_OK);
    check_eq(frame, 5);
}

static void the_first_frame_of_a_region_forgets_an_earlier_life(void)
{
    uint32_t frame;
    memset(region_memory, 0, sizeof region_memory);
    memset(region_memory[0] + sizeof(uint32_t) * 4096, 0xff, 2 * 8192); /* slots, all taken */
    check_eq(rq_wal_index_put(regions, 1, 7), RQ_OK);
    check_eq(rq_wal_index_find(regions, 1, 1, 1, 7, &frame), RQ_OK);
    check_eq(frame, 1);
    check_eq(rq_wal_index_find(NULL, 0, 0, 0, 7, &frame), RQ_OK); /* a WAL without frames */
    check_eq(frame, 0);
}

/* A slot that names a place behind the page numbers of its region: what lies there are slots. */
static void a_place_behind_its_region_is_not_looked_at(void)
{
    const uint32_t pgno = 1, place = 4100;
    const uint16_t slot = (uint16_t)place;
    uint32_t frame;
    memset(region_memory, 0, sizeof region_memory);
    memcpy(region_memory[0] + 136 + sizeof pgno * (place - 1), &pgno, sizeof pgno);
    memcpy(region_memory[0] + sizeof(uint32_t) * 4096 + sizeof slot * 383, &slot, sizeof slot);
    check_eq(rq_wal_index_find(regions, 2, 1, 5000, pgno, &frame), RQ_OK);
    check_eq(frame, 0);
}

static void scribbled_memory_ends_every_call(void)
{
    random_state = 3;
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < sizeof region_memory; i += 4) {
            const uint32_t word = round == 0 ? UINT32_MAX : round == 1 ? 0x00010001 : random_u32();
            memcpy(&region_memory[0][0] + i, &word, sizeof word);
        }
        for (int i = 0; i < 20; i++) {
            const uint32_t max = random_u32() % 20000, min = random_u32() % 20000;
            uint32_t frame = 0;
            const enum rq_err err = rq_wal_index_find(regions, REGIONS, min, max, random_u32() % 5000, &frame);
            check(err == RQ_OK || err == RQ_CORRUPT);
            check(frame == 0 || (frame >= min && frame <= max));
        }
        const enum rq_err err = rq_wal_index_put(regions, 2 + random_u32() % 16000, random_u32());
        check(err == RQ_OK || err == RQ_CORRUPT);
    }
    uint32_t frame;
    check_eq(rq_wal_index_find(regions, REGIONS, 1, UINT32_MAX, 1, &frame),
             RQ_CORRUPT); /* a region that is not mapped */
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(reads_wal_and_index_that_sqlite_wrote),
        TAP(both_byte_orders_verify),
        TAP(every_changed_bit_of_a_frame_is_seen),
        TAP(index_head_is_sealed),
        TAP(regions_begin_where_sqlite_has_them),
        TAP(lookups_match_a_plain_array),
        TAP(colliding_pages_are_told_apart),
        TAP(put_over_a_dead_writers_entries_forgets_them),
        TAP(scribbled_memory_ends_every_call),
        TAP(heads_and_frames_that_are_none_are_refused),
        TAP(the_first_frame_of_a_region_forgets_an_earlier_life),
        TAP(a_place_behind_its_region_is_not_looked_at),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
