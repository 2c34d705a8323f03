/* Small replica: a database of 512-byte pages on a recording disk whose every byte is known: two pages at version 1, a third in
 * version 2.  For the golden files of a replica, and for fuzz targets that spoil it. */
#ifndef TESTS_SUPPORT_SMALL_REPLICA_H
#define TESTS_SUPPORT_SMALL_REPLICA_H

#include "raftd/wire/bytes.h"
#include "tests/support/record_disk.h"
#include "vfs/replica.h"

#define SMALL_PATH       "/data/app.db"
#define SMALL_BOOT       0x5566778899aabbccull
#define SMALL_PAGE_SIZE  512u
#define SMALL_PAGE_COUNT 3u
#define SMALL_DB_BYTES   ((size_t)2 * SMALL_PAGE_SIZE) /* of the file; the third page is in the WAL alone */
#define SMALL_WAL_BYTES  (32 + 3 * (24 + SMALL_PAGE_SIZE))

struct small_replica {
    struct record_disk *disk;
    struct rq_control control;
    struct rq_replica *replica;
};

/* Aborts when it cannot be made. */
void small_replica_init(struct small_replica *s);
void small_replica_close(struct small_replica *s); /* replica and control page; the disk stays */
void small_replica_fini(struct small_replica *s);

/* The page, in normal form, at version 2. */
void small_replica_page(uint32_t pgno, uint8_t page[SMALL_PAGE_SIZE]);
/* Version `after`: page 2 of version after - 1 changes, and the page count is as it was (at 2: grows to 3). */
enum rq_err small_replica_append(struct rq_replica *r, const struct rq_replica_state *after);

struct rq_replica_config small_replica_config(struct small_replica *s);

/* A file of the disk as processes see it.  write: the whole content. */
void small_file_read(struct record_disk *d, const char *path, struct rq_bytes *out);
void small_file_write(struct record_disk *d, const char *path, const uint8_t *data, size_t bytes);

#endif
