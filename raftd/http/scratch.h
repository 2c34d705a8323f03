/* Scratch: files that live no longer than the request they are for, beside the log: they leave it what it may take. */
#ifndef RAFTD_HTTP_SCRATCH_H
#define RAFTD_HTTP_SCRATCH_H

#include <stdint.h>

#define RQ_SCRATCH_LEAVE_FREE (256ull << 20) /* of the file system: what the log may take */

/* So many bytes may such files still take of the file system that dir is on. */
uint64_t rq_scratch_room(const char *dir);
/* One without a name, to be read and written, and gone with its descriptor; -1: it cannot be made. */
int rq_scratch_open(const char *dir);

#endif
