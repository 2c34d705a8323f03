/* log: what was appended and written is there again, cut and recycled as told, and damage is named, never believed. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "raftd/log/format.h"
#include "raftd/log/log.h"
#include "tests/support/log_rig.h"
#include "tests/support/record_disk.h"
#include "tests/support/tap.h"

#define SEGMENT_BYTES 65536u

static struct record_disk *disk;
static struct rq_log *log_;
static struct rq_log_found found;

static void open_log(bool create, uint64_t cache_bytes)
{
    check_eq(rig_open(&disk->disk, "/raft", create, SEGMENT_BYTES, cache_bytes, &log_, &found), RQ_OK);
}

static void begin(void)
{
    record_disk_free(disk);
    disk = record_disk_new();
    record_disk_mkdir_p(disk, "/raft");
    open_log(true, 0);
}

static void end(void)
{
    rq_log_close(log_);
    log_ = NULL;
}

static void append(uint64_t index, uint64_t term, size_t bytes)
{
    check_eq(rig_append(log_, index, term, bytes, index - 1), RQ_OK);
}

static void write_expecting(uint64_t durable)
{
    uint64_t index = 0;
    check_eq(rq_log_write(log_, &index), RQ_OK);
    check_eq(index, durable);
    check_eq(rq_log_durable(log_), durable);
    check(!rq_log_write_pending(log_));
}

static void reopen(uint64_t cache_bytes)
{
    end();
    open_log(false, cache_bytes);
}

static void a_new_log_is_empty_and_there_only_once(void)
{
    begin();
    check_eq(found.first_index, 1);
    check_eq(found.last_index, 0);
    check_eq(found.term, 0);
    uint64_t index;
    check_eq(rq_log_write(log_, &index), RQ_NOTFOUND);
    end();
    check_eq(rig_open(&disk->disk, "/raft", true, SEGMENT_BYTES, 0, &log_, &found), RQ_EXISTS);
    open_log(false, 0);
    check_eq(found.last_index, 0);
    end();
    record_disk_mkdir_p(disk, "/other");
    check_eq(rig_open(&disk->disk, "/other", false, SEGMENT_BYTES, 0, &log_, &found), RQ_NOTFOUND);
}

static void entries_come_back_after_reopen(void)
{
    begin();
    size_t sizes[] = { 0, 1, 7, 8, 9, 440, 512, 4000, 30000 };
    uint64_t last = 0;
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            append(++last, 3, sizes[i]);
        }
        write_expecting(last);
    }
    for (uint64_t cache = 1; cache < 100000; cache += 99998) {
        reopen(cache);
        check_eq(found.last_index, last);
        check_eq(found.committed, last - 1);
        check_eq(found.cut_bytes, 0);
        for (uint64_t i = 1; i <= last; i++) {
            check(rig_holds(log_, i, 3, sizes[(i - 1) % (sizeof sizes / sizeof *sizes)]));
        }
        check_eq(rq_log_term_at(log_, last + 1), 0);
    }
    append(++last, 4, 5);
    write_expecting(last);
    reopen(0);
    check_eq(found.last_index, last);
    check(rig_holds(log_, last, 4, 5));
    end();
}

static void a_cut_holds_in_memory_and_on_disk(void)
{
    begin();
    for (uint64_t i = 1; i <= 10; i++) {
        append(i, 1, 100);
    }
    write_expecting(10);
    append(11, 1, 100);
    append(6, 2, 50); /* 11 was never written */
    check_eq(rq_log_last(log_), 6);
    check_eq(rq_log_durable(log_), 5);
    append(7, 2, 50);
    write_expecting(7);
    check(rig_holds(log_, 6, 2, 50) && rig_holds(log_, 5, 1, 100));
    check_eq(rq_log_term_at(log_, 8), 0);
    reopen(0);
    check_eq(found.last_index, 7);
    check(rig_holds(log_, 6, 2, 50) && rig_holds(log_, 7, 2, 50) && rig_holds(log_, 5, 1, 100));
    append(1, 3, 9); /* all of it */
    write_expecting(1);
    reopen(0);
    check_eq(found.last_index, 1);
    check(rig_holds(log_, 1, 3, 9));
    end();
}

static void segments_are_recycled_and_the_rest_stays(void)
{
    begin();
    uint64_t last = 0;
    for (unsigned round = 0; round < 60; round++) {
        for (unsigned i = 0; i < 10; i++) {
            append(++last, 1, 900);
        }
        write_expecting(last);
        if (last > 300) {
            check_eq(rq_log_release(log_, last - 300), RQ_OK);
        }
        if (rq_log_prepare_wanted(log_)) {
            check_eq(rq_log_prepare(log_), RQ_OK);
        }
        check(!rq_log_prepare_wanted(log_));
    }
    struct rq_log_stats stats;
    rq_log_stats(log_, &stats);
    check(stats.segments <= 300 * 1000 / SEGMENT_BYTES + 5);
    check_eq(stats.entries, last);
    check(rq_log_first(log_) > 1 && rq_log_first(log_) <= last - 299);
    reopen(0);
    check(found.first_index <= last - 299);
    check_eq(found.last_index, last);
    for (uint64_t i = found.first_index; i <= last; i++) {
        check(rig_holds(log_, i, 1, 900));
    }
    check_eq(rq_log_release(log_, last), RQ_OK);
    append(last + 1, 2, 10);
    write_expecting(last + 1);
    end();
}

static void release_above_the_last_restarts_the_log_there(void)
{
    begin();
    for (uint64_t i = 1; i <= 5; i++) {
        append(i, 1, 100);
    }
    write_expecting(5);
    append(6, 1, 100);
    check_eq(rq_log_release(log_, 1000), RQ_OK);
    check_eq(rq_log_first(log_), 1001);
    check_eq(rq_log_last(log_), 1000);
    check_eq(rq_log_durable(log_), 1000);
    append(1001, 7, 100);
    write_expecting(1001);
    reopen(0);
    check_eq(found.last_index, 1001);
    check_eq(found.first_index, 1001);
    check(rig_holds(log_, 1001, 7, 100));
    end();
}

/* A descriptor of another member takes the place of entries that disagree with it: none of them may come back beside the new. */
static void a_restarted_log_forgets_what_it_held(void)
{
    begin();
    for (uint64_t i = 1; i <= 9; i++) {
        append(i, 3, 100);
    }
    write_expecting(9);
    check_eq(rq_log_restart(log_, 5), RQ_OK);
    check_eq(rq_log_first(log_), 6);
    check_eq(rq_log_last(log_), 5);
    check_eq(rq_log_durable(log_), 5);
    reopen(0); /* nothing new was durable: the old log is there, and its reader knows what to do */
    check_eq(found.first_index, 1);
    check_eq(found.last_index, 9);
    check_eq(rq_log_restart(log_, 5), RQ_OK);
    append(6, 2, 100);
    append(7, 2, 100);
    write_expecting(7);
    reopen(0);
    check_eq(found.first_index, 6);
    check_eq(found.last_index, 7);
    check(rig_holds(log_, 6, 2, 100));
    end();
}

static void big_records_skip_to_a_segment_that_holds_them(void)
{
    begin();
    size_t max = rq_log_payload_bytes_max(log_);
    check_eq(rq_log_reserve(log_, max + 1, 1), RQ_TOOBIG);
    append(1, 1, 10);
    append(2, 1, max);
    append(3, 1, 10);
    append(4, 1, max);
    append(5, 1, max);
    write_expecting(5);
    reopen(1);
    for (uint64_t i = 1; i <= 5; i++) {
        check(rig_holds(log_, i, 1, i == 2 || i > 3 ? max : 10));
    }
    end();
}

static void a_batch_larger_than_buffer_and_segments_goes_out_whole(void)
{
    begin();
    for (uint64_t i = 1; i <= 3000; i++) {
        append(i, 1, 600);
    }
    write_expecting(3000);
    reopen(0);
    check_eq(found.last_index, 3000);
    end();
}

static void reservations_make_room_before_it_is_needed(void)
{
    begin();
    check_eq(rq_log_reserve(log_, 50000, 100), RQ_OK);
    uint64_t moments = disk->moments;
    for (uint64_t i = 1; i <= 100; i++) {
        struct rq_log_entry e = rig_entry(i, 1, 500);
        check_eq(rq_log_append(log_, &e, 1, 0), RQ_OK);
        rq_blob_unref(e.blob);
        write_expecting(i);
    }
    check_eq(disk->moments - moments, 100); /* each batch one write, and nothing else */
    end();
}

static void term_and_vote_are_kept(void)
{
    begin();
    check_eq(rq_log_put_meta(log_, 5, 0), RQ_OK);
    check_eq(rq_log_put_meta(log_, 5, 42), RQ_OK);
    reopen(0);
    check_eq(found.term, 5);
    check_eq(found.vote, 42);
    end();
}

static void flip(const char *path, uint64_t offset)
{
    struct rq_file *f;
    uint8_t byte;
    size_t n;
    check_eq(disk->disk.ops->open(&disk->disk, path, RQ_OPEN_WRITE, 0, &f), RQ_OK);
    check_eq(f->disk->ops->read(f, &byte, 1, offset, &n), RQ_OK);
    byte ^= 1;
    check_eq(f->disk->ops->write(f, &byte, 1, offset), RQ_OK);
    f->disk->ops->close(f);
}

static enum rq_err try_open(void)
{
    enum rq_err err = rig_open(&disk->disk, "/raft", false, SEGMENT_BYTES, 0, &log_, &found);
    if (err == RQ_OK) {
        end();
    }
    return err;
}

static void one_damaged_slot_costs_nothing_and_two_are_told(void)
{
    begin();
    check_eq(rq_log_put_meta(log_, 5, 42), RQ_OK);
    end();
    flip("/raft/meta", 33);
    check_eq(try_open(), RQ_OK);
    check_eq(found.term, 5);
    flip("/raft/meta", 4096 + 33); /* the opening has mended the first */
    check_eq(try_open(), RQ_OK);
    flip("/raft/meta", 33);
    flip("/raft/meta", 4096 + 33);
    check_eq(try_open(), RQ_CORRUPT);
    check(strstr(found.problem, "meta") != NULL);
    check_eq(disk->disk.ops->unlink(&disk->disk, "/raft/meta"), RQ_OK);
    check_eq(try_open(), RQ_NOTFOUND); /* nothing was ever written: as if founding had died */
}

static void another_instance_and_a_newer_format_are_refused(void)
{
    begin();
    append(1, 1, 1);
    write_expecting(1);
    end();
    struct rq_log_config config = {
        .disk = &disk->disk, .dir = "/raft", .instance = 7, .segment_bytes = SEGMENT_BYTES
    };
    check_eq(rq_log_open(&config, &log_, &found), RQ_FOREIGN);
    check(strstr(found.problem, "meta") != NULL);
    struct rq_file *f;
    uint8_t sector[RQ_LOG_SECTOR_BYTES];
    check_eq(disk->disk.ops->open(&disk->disk, "/raft/log/00000001.seg", RQ_OPEN_WRITE, 0, &f), RQ_OK);
    struct rq_log_segment_head head = { .instance = 7, .number = 1, .first_index = 1, .bytes = SEGMENT_BYTES };
    rq_log_put_segment_head(sector, &head);
    check_eq(f->disk->ops->write(f, sector, sizeof sector, 0), RQ_OK);
    f->disk->ops->close(f);
    check_eq(try_open(), RQ_FOREIGN);
    check(strstr(found.problem, "00000001.seg") != NULL);
    check_eq(disk->disk.ops->unlink(&disk->disk, "/raft/meta"), RQ_OK);
    check_eq(try_open(), RQ_FOREIGN);
}

/* 30 batches of 3 entries, each acknowledged; then what? */
static void write_thirty_batches(void)
{
    begin();
    for (uint64_t i = 1; i <= 90; i++) {
        append(i, 1, 200);
        if (i % 3 == 0) {
            write_expecting(i);
        }
    }
    end();
}

static void a_flipped_bit_is_corruption_unless_it_is_in_the_last_batch(void)
{
    write_thirty_batches();
    /* A batch of three takes 3 * (72 + 200) = 816 bytes: two sectors. */
    uint64_t last_batch = 512 + 29 * 1024;
    for (uint64_t at = 512; at < last_batch + 1024; at += 131) {
        bool padding = (at - 512) % 1024 >= 816;
        flip("/raft/log/00000001.seg", at);
        enum rq_err err = try_open();
        if (padding) {
            check_eq(err, RQ_OK);
            check_eq(found.last_index, 90);
        } else if (at < last_batch) {
            check_eq(err, RQ_CORRUPT);
            check(strstr(found.problem, "00000001.seg") != NULL);
        } else {
            check_eq(err, RQ_OK);
            check_eq(found.last_index, 87 + (at - last_batch) / 272);
            write_thirty_batches();
            continue;
        }
        flip("/raft/log/00000001.seg", at);
    }
}

static void any_truncated_file_is_told(void)
{
    write_thirty_batches();
    for (uint64_t size = 0; size < SEGMENT_BYTES; size += 1777) {
        struct record_disk *whole = disk;
        disk = record_disk_fork(whole);
        record_disk_start(disk);
        struct rq_file *f;
        check_eq(disk->disk.ops->open(&disk->disk, "/raft/log/00000001.seg", RQ_OPEN_WRITE, 0, &f), RQ_OK);
        check_eq(f->disk->ops->truncate(f, size), RQ_OK);
        f->disk->ops->close(f);
        check_eq(try_open(), RQ_CORRUPT);
        record_disk_free(disk);
        disk = whole;
    }
}

static void a_missing_segment_is_corruption(void)
{
    begin();
    uint64_t last = 0;
    while (last < 400) {
        append(++last, 1, 900);
        write_expecting(last);
    }
    end();
    check_eq(disk->disk.ops->unlink(&disk->disk, "/raft/log/00000003.seg"), RQ_OK);
    check_eq(try_open(), RQ_CORRUPT);
    check(strstr(found.problem, "missing") != NULL);
}

/* A segment that lived three times holds whole records of its earlier lives behind its end: none may come back. */
static void earlier_lives_of_a_segment_stay_dead(void)
{
    begin();
    uint64_t last = 0;
    for (unsigned round = 0; round < 200; round++) {
        append(++last, 1, 1000);
        write_expecting(last);
        check_eq(rq_log_release(log_, last), RQ_OK);
        check_eq(rq_log_prepare(log_), RQ_OK);
        if (round % 7 == 0) {
            reopen(0);
            check_eq(found.last_index, last);
            check_eq(found.cut_bytes, 0);
        }
    }
    struct rq_log_stats stats;
    rq_log_stats(log_, &stats);
    check(stats.segments <= 4);
    end();
}

/* The writer is at the disk: nobody holds the lock, and the owner goes on. */
static void (*meanwhile)(void);

static void during_the_write(void *ctx, struct record_disk *d)
{
    (void)ctx;
    record_disk_watch(d, NULL, NULL);
    meanwhile();
}

static void cut_to_eight(void)
{
    append(8, 2, 33);
    check_eq(rq_log_last(log_), 8);
}

static void a_cut_during_a_write_lowers_what_it_reports(void)
{
    begin();
    for (uint64_t i = 1; i <= 5; i++) {
        append(i, 1, 100);
    }
    write_expecting(5);
    for (uint64_t i = 6; i <= 10; i++) {
        append(i, 1, 100);
    }
    meanwhile = cut_to_eight;
    record_disk_watch(disk, during_the_write, NULL);
    uint64_t durable = 0;
    check_eq(rq_log_write(log_, &durable), RQ_OK);
    check_eq(durable, 8); /* the batch up to 7, and then what came meanwhile */
    reopen(0);
    check_eq(found.last_index, 8);
    check(rig_holds(log_, 7, 1, 100) && rig_holds(log_, 8, 2, 33));
    end();
}

static void cut_below_the_batch(void)
{
    append(3, 2, 33);
    check_eq(rq_log_durable(log_), 2);
}

static void a_cut_below_the_batch_that_is_written_holds(void)
{
    begin();
    for (uint64_t i = 1; i <= 5; i++) {
        append(i, 1, 100);
    }
    write_expecting(5);
    append(6, 1, 100);
    meanwhile = cut_below_the_batch;
    record_disk_watch(disk, during_the_write, NULL);
    uint64_t durable = 0;
    check_eq(rq_log_write(log_, &durable), RQ_OK);
    check_eq(durable, 3);
    check_eq(rq_log_last(log_), 3);
    reopen(0);
    check_eq(found.last_index, 3);
    check(rig_holds(log_, 3, 2, 33));
    end();
}

static uint64_t written_last;

static void release_all_and_die(void)
{
    check_eq(rq_log_release(log_, written_last), RQ_OK);
    check_eq(rq_log_prepare(log_), RQ_OK);
}

/* The first batch of a new segment is on its way: the segment before it is all the log there is on the disk. */
static void the_last_segment_with_a_header_is_never_given_back(void)
{
    for (uint64_t seed = 0; seed < 20; seed++) {
        begin();
        written_last = 0;
        while (written_last < 3) {
            append(++written_last, 1, 20000);
            write_expecting(written_last);
        }
        append(written_last + 1, 1, 20000); /* three fill a segment */
        meanwhile = release_all_and_die;
        record_disk_watch(disk, during_the_write, NULL);
        record_disk_stop_at(disk, 1);
        uint64_t durable;
        check_eq(rq_log_write(log_, &durable), RQ_IO);
        record_disk_power_loss(disk, seed);
        end();
        record_disk_start(disk);
        open_log(false, 0);
        check(found.last_index >= written_last);
        end();
    }
}

static void a_small_first_segment_holds_until_a_whole_one_is_there(void)
{
    record_disk_free(disk);
    disk = record_disk_new();
    record_disk_mkdir_p(disk, "/raft");
    check_eq(rig_open(&disk->disk, "/raft", true, 4u << 20, 0, &log_, &found), RQ_OK);
    struct rq_log_stats stats;
    rq_log_stats(log_, &stats);
    check_eq(stats.bytes, (4u << 20) / 16);
    append(1, 1, 1u << 20);
    write_expecting(1);
    for (uint64_t i = 2; i < 40; i++) {
        append(i, 1, 300000);
        write_expecting(i);
    }
    check_eq(rq_log_release(log_, 30), RQ_OK);
    check_eq(rq_log_prepare(log_), RQ_OK);
    end();
    check_eq(rig_open(&disk->disk, "/raft", false, 4u << 20, 0, &log_, &found), RQ_OK);
    check_eq(found.last_index, 39);
    check(found.first_index > 1 && found.first_index <= 31);
    end();
}

/* Its name may be in memory alone until somebody syncs the directory. */
static void a_segment_that_a_killed_process_made_stays(void)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        begin();
        record_disk_stop_at(disk, 1 + seed % 10);
        enum rq_err err = rq_log_prepare(log_);
        check_eq(err, disk->stopped ? RQ_IO : RQ_OK);
        record_disk_crash(disk);
        end();
        record_disk_start(disk);
        open_log(false, 0);
        for (uint64_t i = 1; i <= 80; i++) { /* more than one segment, less than two */
            append(i, 1, 900);
            write_expecting(i);
        }
        record_disk_power_loss(disk, seed);
        end();
        record_disk_start(disk);
        open_log(false, 0);
        check_eq(found.last_index, 80);
        end();
    }
}

static atomic_bool owner_done;
static atomic_uint thread_errors;

static void *write_loop(void *ctx)
{
    (void)ctx;
    while (!atomic_load(&owner_done) || rq_log_write_pending(log_)) {
        uint64_t durable;
        enum rq_err err = rq_log_write(log_, &durable);
        if (err == RQ_NOTFOUND) {
            sched_yield();
        } else if (err != RQ_OK) {
            atomic_fetch_add(&thread_errors, 1);
            return NULL;
        }
    }
    return NULL;
}

static void *prepare_loop(void *ctx)
{
    (void)ctx;
    while (!atomic_load(&owner_done)) {
        if (!rq_log_prepare_wanted(log_)) {
            sched_yield();
        } else if (rq_log_prepare(log_) != RQ_OK) {
            atomic_fetch_add(&thread_errors, 1);
            return NULL;
        }
    }
    return NULL;
}

static void owner_writer_and_preparer_work_at_once(void)
{
    enum { LAST = 6000 };
    static uint64_t terms[LAST + 1];
    begin();
    atomic_store(&owner_done, false);
    pthread_t writer, preparer;
    check_eq(pthread_create(&writer, NULL, write_loop, NULL), 0);
    check_eq(pthread_create(&preparer, NULL, prepare_loop, NULL), 0);
    uint64_t seed = 5, term = 1, last = 0, released = 0, failed = 0;
    while (last < LAST && atomic_load(&thread_errors) == 0) {
        if (last > released + 20 &&
            seeded_below(&seed, 50) == 0) { /* above what is released, as raft's commit index is */
            last -= seeded_below(&seed, 10);
            term++;
        }
        terms[++last] = term;
        failed += rig_append(log_, last, term, 300, 0) != RQ_OK;
        uint64_t durable = rq_log_durable(log_);
        if (seeded_below(&seed, 100) == 0 && durable > released + 40) {
            released = durable - 40;
            failed += rq_log_release(log_, released) != RQ_OK;
        }
        uint64_t some = released + 1 + seeded_below(&seed, (uint32_t)(last - released));
        failed += !rig_holds(log_, some, terms[some], 300);
    }
    atomic_store(&owner_done, true);
    pthread_join(writer, NULL);
    pthread_join(preparer, NULL);
    check_eq(failed, 0);
    check_eq(atomic_load(&thread_errors), 0);
    check_eq(rq_log_durable(log_), last);
    reopen(0);
    check_eq(found.last_index, last);
    for (uint64_t i = released + 1; i <= last; i++) {
        check(rig_holds(log_, i, terms[i], 300));
    }
    end();
}

static void a_founding_that_died_can_be_done_again(void)
{
    for (uint64_t stop = 1; stop < 40; stop++) {
        record_disk_free(disk);
        disk = record_disk_new();
        record_disk_mkdir_p(disk, "/raft");
        record_disk_stop_at(disk, stop);
        enum rq_err err = rig_open(&disk->disk, "/raft", true, SEGMENT_BYTES, 0, &log_, &found);
        if (err == RQ_OK) {
            end();
            return;
        }
        record_disk_power_loss(disk, stop);
        record_disk_start(disk);
        err = rig_open(&disk->disk, "/raft", false, SEGMENT_BYTES, 0, &log_, &found);
        check(err == RQ_OK || err == RQ_NOTFOUND);
        if (err == RQ_NOTFOUND) {
            struct rq_log_config config = { .disk = &disk->disk,
                                            .dir = "/raft",
                                            .instance = 99,
                                            .create = true,
                                            .first_index = 1,
                                            .segment_bytes = SEGMENT_BYTES };
            check_eq(rq_log_open(&config, &log_, &found), RQ_OK);
        }
        append(1, 1, 1);
        write_expecting(1);
        end();
    }
    check(!"founding never ends");
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(a_new_log_is_empty_and_there_only_once),
        TAP(entries_come_back_after_reopen),
        TAP(a_cut_holds_in_memory_and_on_disk),
        TAP(segments_are_recycled_and_the_rest_stays),
        TAP(release_above_the_last_restarts_the_log_there),
        TAP(a_restarted_log_forgets_what_it_held),
        TAP(big_records_skip_to_a_segment_that_holds_them),
        TAP(a_batch_larger_than_buffer_and_segments_goes_out_whole),
        TAP(reservations_make_room_before_it_is_needed),
        TAP(term_and_vote_are_kept),
        TAP(one_damaged_slot_costs_nothing_and_two_are_told),
        TAP(another_instance_and_a_newer_format_are_refused),
        TAP(a_flipped_bit_is_corruption_unless_it_is_in_the_last_batch),
        TAP(any_truncated_file_is_told),
        TAP(a_missing_segment_is_corruption),
        TAP(earlier_lives_of_a_segment_stay_dead),
        TAP(a_cut_during_a_write_lowers_what_it_reports),
        TAP(a_cut_below_the_batch_that_is_written_holds),
        TAP(the_last_segment_with_a_header_is_never_given_back),
        TAP(a_small_first_segment_holds_until_a_whole_one_is_there),
        TAP(a_segment_that_a_killed_process_made_stays),
        TAP(owner_writer_and_preparer_work_at_once),
        TAP(a_founding_that_died_can_be_done_again),
    };
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    record_disk_free(disk);
    return failed;
}
