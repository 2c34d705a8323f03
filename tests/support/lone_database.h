/* Lone database: one struct rq_database on a recording disk, without log, node, sessions or threads. */
#ifndef TESTS_SUPPORT_LONE_DATABASE_H
#define TESTS_SUPPORT_LONE_DATABASE_H

#include <setjmp.h>

#include "raftd/db/database.h"
#include "tests/support/record_disk.h"

extern struct lone {
    struct record_disk *disk;
    struct rq_pool *pool;
    struct rq_place *place;
    struct rq_database *db;
    jmp_buf ended;        /* raftd, because its disk failed */
    bool may_end;         /* else that ends the test */
    struct rq_view *view; /* at the last MARK entry */
    unsigned marks;       /* so many were applied */
    uint64_t delivered;   /* by the log, it says */
    bool is_judged;       /* there are others who tell which page is right */
    unsigned disputed;    /* so often they were asked */
    uint32_t disputed_page;
} lone;

/* The database app.db in /data, on a new disk. */
void lone_begin(uint32_t id);
void lone_end(void);

/* On the disk as it is.  version: of the state machine. */
void lone_open(uint32_t id, uint64_t version);
void lone_close(void);

/* Everything that was posted has run. */
void lone_settle(void);

/* A committed entry, of term 3. */
void lone_apply(uint64_t index, uint16_t type, const struct rq_bytes *entry);

#endif
