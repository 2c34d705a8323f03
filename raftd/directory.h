/* Data directory: its folders, its lock, whose it is, and how a node begins in one.  Whatever is wrong with it ends the start
 * (refuse.h), which leaves it as it was found.
 *
 * raft/ of the data directory:
 *   lock        flock'd as long as we live       node        who we are (identity.h)
 *   log/, meta  entries, term and vote (log.h)   descriptor  state machine at an index (descriptor.h)
 *   files       inode of each replica            staged/     pages of big transactions (staged.h)
 *   founding    there until adoption is done     trash/      dropped databases
 *   hashes/     of the replicas' pages (page_hashes.h)     key         of this instance, for its peers (node_key.h)
 *   fetching    there while the databases' state comes from another member (catalog.h)
 *   peers.json  by an operator who has lost a majority (recovery.h); peers.info: that was done */
#ifndef RAFTD_DIRECTORY_H
#define RAFTD_DIRECTORY_H

#include <stdbool.h>

#include "raftd/db/identity.h"
#include "vfs/disk.h"

struct rq_directory {
    struct rq_disk *disk; /* borrows */
    char *dir, *raft_dir, *staged_dir, *trash_dir, *hashes_dir, *copies_dir;
    int lock_fd;
    bool founding;       /* there was no node here, or its founding did not come to its end */
    bool takes_replicas; /* files that bear a stamp are adopted too */
    struct rq_identity identity;
};

/* Makes what is not there, and locks it for this process.  refound: what is in raft/ is moved out of the way. */
void rq_directory_open(struct rq_directory *d, struct rq_disk *disk, const char *path, bool refound);
/* Who we are; or a new cluster begins. */
void rq_directory_find_identity(struct rq_directory *d, const char *node_id);
/* What is in raft/ was nobody's, or is not any more; a kill from here on is followed by the same again. */
void rq_directory_begin(struct rq_directory *d);
void rq_directory_write_identity(struct rq_directory *d, const char *node_id);

char *rq_path_join(const char *a, const char *b); /* "a/b", to be freed */

#endif
