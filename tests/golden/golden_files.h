/* Golden files of what lies in a data directory: each is made by the code of production on a recording disk. */
#ifndef TESTS_GOLDEN_GOLDEN_FILES_H
#define TESTS_GOLDEN_GOLDEN_FILES_H

#include "raftd/wire/bytes.h"

/* A failure aborts: it is no difference of bytes. */
void golden_log_segment(struct rq_bytes *out); /* without the zeros at its end */
void golden_log_spare(struct rq_bytes *out);   /* of its sector 0 the 64 bytes that are not zero */
void golden_log_record(struct rq_bytes *out);  /* the first of the segment, with its padding */
void golden_log_meta(struct rq_bytes *out);    /* a slot: 64 bytes that are not zero */
void golden_descriptor(struct rq_bytes *out);
void golden_node(struct rq_bytes *out);
void golden_key(struct rq_bytes *out);
void golden_files(struct rq_bytes *out);
void golden_replica(struct rq_bytes *out); /* app.db, then of app.db-wal what is not reserved space */
void golden_hashes(struct rq_bytes *out);
void golden_shm(struct rq_bytes *out);     /* headers, checkpoint info and the page numbers of the frames */
void golden_control(struct rq_bytes *out); /* the header up to the end of `waiting`; then slot 0 */

#endif
