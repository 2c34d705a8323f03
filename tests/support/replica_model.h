/* A replica under test: a directory of its own, a control page, and for each version the pages that it must have.
 *
 * Two ways to make transactions: model_sql() runs SQL on a rollback-mode twin and appends what it changed, so that stock SQLite
 * can read the replica; model_random() makes pages of noise, for what looks at bytes only. */
#ifndef TESTS_SUPPORT_REPLICA_MODEL_H
#define TESTS_SUPPORT_REPLICA_MODEL_H

#include <sqlite3.h>

#include "vfs/replica.h"

struct model {
    char dir[64];
    char path[96];
    char twin_path[96];
    char hashes_path[96];
    struct rq_disk *disk;
    struct rq_control control;
    struct rq_replica *replica; /* NULL: closed, or not created */
    struct rq_replica_state state;
    sqlite3 *twin;
    uint8_t *pages; /* state.page_count pages in normal form */
    uint64_t random;
    uint32_t soft_frames, hard_frames; /* for the next open, as what follows */
    bool keeps_hashes;
    const char *forgotten; /* by the last open: why the hashes that were there are not kept */
    char text[160];        /* of the last open */
};

void model_init(struct model *m, uint32_t page_size, uint64_t seed);
void model_fini(struct model *m);
uint32_t model_random_u32(struct model *m);

enum rq_err model_open(struct model *m);
void model_close(struct model *m);

/* One transaction on the twin, then on the replica (the first creates it). */
enum rq_err model_sql(struct model *m, const char *sql);

/* One transaction of noise: size_new pages afterwards (0: about as many as before), some of them changed. */
enum rq_err model_random(struct model *m, uint32_t size_new);

/* Every page of the replica is the model's.  False and a diagnostic line if not. */
bool model_matches(struct model *m);
/* Also after copying all of the WAL into the database file: the file, byte by byte. */
bool model_file_matches(struct model *m);

/* A stock connection to the replica. */
sqlite3 *model_stock_open(struct model *m);
/* The first column of the first row as a number; -1000 - code on error. */
int64_t stock_int(sqlite3 *db, const char *sql);
/* integrity_check, and equal to the twin in content. */
bool stock_agrees(struct model *m, sqlite3 *db);

/* A stock connection in a process of its own.  To be started before the replica is created: a child would share its files and
 * locks.  In this process it would not do: when the replica closes its files, POSIX locks of this process go, too. */
struct stock_process {
    int pid;
    int fd;
};
struct stock_process stock_process_start(struct model *m);
int64_t stock_process_int(const struct stock_process *p, const char *sql); /* like stock_int() */
void stock_process_end(struct stock_process *p);

#endif
