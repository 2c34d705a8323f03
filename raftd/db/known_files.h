/* Known files: which inode each replica on this host is, so that one which was replaced or removed is noticed.
 *
 * File raft/files, sealed_text.h with a line "id inode device" for each.  Of this host alone: neither replicated nor needed to
 * read a database.  A replica that it does not know is taken as it is found. */
#ifndef RAFTD_DB_KNOWN_FILES_H
#define RAFTD_DB_KNOWN_FILES_H

#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/disk.h"

#define RQ_KNOWN_FILES_NAME   "files"
#define RQ_KNOWN_FILES_FORMAT 1u

struct rq_known_file {
    uint32_t id; /* of the database, not 0 */
    uint64_t inode, device;
};
struct rq_known_files {         /* zeroed: none */
    struct rq_known_file *list; /* owns */
    size_t count;
};

void rq_known_files_fini(struct rq_known_files *f);

/* NOTFOUND; CORRUPT; VERSION: a newer raftd's. */
enum rq_err rq_known_files_read(struct rq_disk *disk, const char *raft_dir, struct rq_known_files *ret_files);
enum rq_err rq_known_files_write(struct rq_disk *disk, const char *raft_dir, const struct rq_known_files *f);

/* NULL. */
struct rq_known_file *rq_known_files_find(const struct rq_known_files *f, uint32_t id);
/* One that is not there yet.  NOMEM. */
enum rq_err rq_known_files_add(struct rq_known_files *f, struct rq_known_file file);
void rq_known_files_remove(struct rq_known_files *f, struct rq_known_file *file);

#endif
