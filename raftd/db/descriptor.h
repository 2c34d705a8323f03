/* Descriptor: the state machine at a log index, durable: what a snapshot is here.  The pages are in the replicas.
 *
 * File raft/descriptor: written beside, synced, renamed, directory synced.  Everything up to `index` is applied and durable in
 * the replicas when it is written.  A database's version may be that of a later index, if it came from another member: entries up
 * to its stamp have no effect on it in replay. */
#ifndef RAFTD_DB_DESCRIPTOR_H
#define RAFTD_DB_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/db/origins.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/err.h"
#include "vfs/disk.h"

struct rq_descriptor_database {
    char name[RQ_DB_NAME_MAX + 1];
    uint32_t id;
    uint64_t version;
    bool file_made;
    struct rq_origins origins; /* owns */
};

struct rq_descriptor {
    uint64_t index, term;
    bool installed; /* it came from another member: a log that does not lead up to it was given up for it */
    uint64_t ahead; /* replicas may be at entries up to this one, past index; 0: none is */
    uint64_t configuration_index;
    uint8_t *configuration; /* owns, as databases */
    size_t configuration_bytes;
    struct rq_descriptor_database *databases;
    uint32_t database_count;
};

void rq_descriptor_fini(struct rq_descriptor *d);

/* IO is final. */
enum rq_err rq_descriptor_write(struct rq_disk *disk, const char *raft_dir, const struct rq_descriptor *d);
/* NOTFOUND, CORRUPT, VERSION. */
enum rq_err rq_descriptor_read(struct rq_disk *disk, const char *raft_dir, struct rq_descriptor *ret_descriptor);

/* Writes a small file whole: beside, sync, rename, sync of the directory. */
enum rq_err rq_file_replace(struct rq_disk *disk, const char *dir, const char *name, const void *data, size_t bytes);
/* Reads a file whole; TOOBIG past max.  Caller frees; a NUL is behind the last byte. */
enum rq_err rq_file_read(struct rq_disk *disk, const char *dir, const char *name, size_t max, uint8_t **ret_data,
                         size_t *ret_bytes);

#endif
