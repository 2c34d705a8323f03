/* Golden files of databases on their way from one member to another (cluster/copy_wire.h). */
#ifndef TESTS_GOLDEN_GOLDEN_COPY_H
#define TESTS_GOLDEN_GOLDEN_COPY_H

#include "raftd/wire/bytes.h"

/* A failure aborts: it is no difference of bytes. */
void golden_copy_questions(struct rq_bytes *out); /* one of each kind */
void golden_copy_answer(struct rq_bytes *out);    /* an error's */
void golden_copy_picture(struct rq_bytes *out);
void golden_copy_database(struct rq_bytes *out);
void golden_copy_changed(struct rq_bytes *out);

#endif
