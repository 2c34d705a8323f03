/* How fast the log makes records durable one by one, beside what the disk can do: bare loops that write the same sectors into a
 * file that was written before, with fdatasync() after each write as SQLite does, and as synced writes like the log's own.  The
 * three alternate, so that a disk that changes its mind changes all.
 *
 *   bench_log [DIRECTORY [RECORD_BYTES [SECONDS]]]      defaults: . 512 4 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "raftd/log/log.h"

#define FILE_BYTES   ((uint64_t)64 << 20)
#define ALIGN_BYTES  4096u
#define ROUNDS       40
#define RECORD_EXTRA 72u

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void must(enum rq_err err, const char *what)
{
    if (err != RQ_OK) {
        fprintf(stderr, "bench_log: %s: %s\n", what, rq_err_text(err));
        exit(1);
    }
}

struct rate {
    uint64_t writes;
    double seconds, cpu_seconds;
};

struct bare {
    struct rq_file *file;
    uint64_t offset;
    bool syncs; /* its writes are not synced ones */
};

static void open_bare(const char *dir, const char *name, int how, const uint8_t *sectors, struct bare *ret_bare)
{
    struct rq_disk *disk = rq_disk_real();
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    *ret_bare = (struct bare){ .syncs = (how & RQ_OPEN_DSYNC) == 0 };
    must(disk->ops->open(disk, path, RQ_OPEN_WRITE | RQ_OPEN_CREATE | how, 0600, &ret_bare->file), "open");
    for (uint64_t at = 0; at < FILE_BYTES; at += 1u << 19) {
        must(disk->ops->write(ret_bare->file, sectors, 1u << 19, at), "fill");
    }
    must(disk->ops->sync(ret_bare->file), "sync");
}

static void bare_loop(struct bare *bare, const uint8_t *sectors, size_t bytes, double seconds, struct rate *rate)
{
    const struct rq_disk_ops *ops = bare->file->disk->ops;
    double begin = now(), cpu_begin = cpu();
    do {
        must(ops->write(bare->file, sectors, bytes, bare->offset), "write");
        if (bare->syncs) {
            must(ops->sync(bare->file), "sync");
        }
        bare->offset = bare->offset + 2 * bytes <= FILE_BYTES ? bare->offset + bytes : 0;
        rate->writes++;
    } while (now() - begin < seconds);
    rate->seconds += now() - begin;
    rate->cpu_seconds += cpu() - cpu_begin;
}

static void log_loop(struct rq_log *log, size_t bytes, double seconds, struct rate *rate)
{
    double begin = now(), cpu_begin = cpu();
    do {
        must(rq_log_reserve(log, bytes, 1), "reserve");
        struct rq_log_entry e = { .index = rq_log_last(log) + 1, .term = 1, .type = 3, .blob = rq_blob_new(bytes) };
        if (e.blob == NULL) {
            must(RQ_NOMEM, "blob");
        }
        memset(e.blob->data, (int)e.index, bytes);
        must(rq_log_append(log, &e, 1, e.index - 1), "append");
        rq_blob_unref(e.blob);
        uint64_t durable;
        must(rq_log_write(log, &durable), "write");
        rate->writes++;
    } while (now() - begin < seconds);
    rate->seconds += now() - begin;
    rate->cpu_seconds += cpu() - cpu_begin;
}

static double per_second(const struct rate *r)
{
    return (double)r->writes / r->seconds;
}

static void print_rate(const char *name, const struct rate *r)
{
    printf("%-28s %9.0f /s   %6.1f us each, %5.1f us of cpu\n", name, per_second(r),
           r->seconds * 1e6 / (double)r->writes, r->cpu_seconds * 1e6 / (double)r->writes);
}

static enum rq_err remove_name(void *ctx, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", (const char *)ctx, name);
    (void)rq_disk_real()->ops->unlink(rq_disk_real(), path); /* fails for the folder, which goes last */
    return RQ_OK;
}

int main(int argc, char **argv)
{
    struct rq_disk *disk = rq_disk_real();
    size_t bytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 512;
    double seconds = argc > 3 ? strtod(argv[3], NULL) : 4;
    char dir[2048], path[4096];
    snprintf(dir, sizeof dir, "%s/bench_log.XXXXXX", argc > 1 ? argv[1] : ".");
    if (mkdtemp(dir) == NULL) {
        perror(dir);
        return 1;
    }

    size_t sectors_bytes = (bytes + RECORD_EXTRA + 511) / 512 * 512;
    uint8_t *sectors = aligned_alloc(ALIGN_BYTES, (sectors_bytes + (1u << 20)) / ALIGN_BYTES * ALIGN_BYTES);
    if (sectors == NULL) {
        must(RQ_NOMEM, "buffer");
    }
    memset(sectors, 7, sectors_bytes + (1u << 20) - ALIGN_BYTES);
    struct bare synced, direct;
    open_bare(dir, "synced", 0, sectors, &synced);
    open_bare(dir, "direct", RQ_OPEN_DSYNC, sectors, &direct);

    struct rq_log *log;
    struct rq_log_found found;
    struct rq_log_config config = {
        .disk = disk, .dir = dir, .instance = 1, .segment_bytes = FILE_BYTES, .create = true, .first_index = 1
    };
    double begin = now();
    must(rq_log_open(&config, &log, &found), "open log");
    printf("founding took %.1f ms; then a segment is prepared\n", (now() - begin) * 1e3);
    must(rq_log_prepare(log), "prepare");

    struct rate with_sync = { 0 }, without = { 0 }, logged = { 0 };
    for (int round = 0; round < ROUNDS; round++) {
        bare_loop(&synced, sectors, sectors_bytes, seconds / ROUNDS / 3, &with_sync);
        bare_loop(&direct, sectors, sectors_bytes, seconds / ROUNDS / 3, &without);
        log_loop(log, bytes, seconds / ROUNDS / 3, &logged);
    }
    printf("records of %zu bytes, one by one, in %s\n", bytes, dir);
    print_rate("bare: write, fdatasync", &with_sync);
    print_rate("bare: synced direct write", &without);
    print_rate("log", &logged);
    printf("log / bare: %.3f, %.3f\n", per_second(&logged) / per_second(&with_sync),
           per_second(&logged) / per_second(&without));

    rq_log_close(log);
    disk->ops->close(synced.file);
    disk->ops->close(direct.file);
    free(sectors);
    snprintf(path, sizeof path, "%s/log", dir);
    must(disk->ops->list(disk, path, remove_name, path), "clean up");
    must(disk->ops->list(disk, dir, remove_name, dir), "clean up");
    rmdir(path);
    rmdir(dir);
    return 0;
}
