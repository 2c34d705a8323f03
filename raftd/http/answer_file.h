/* Answer file: what of an answer does not stay in memory.
 *
 * A run writes it as fast as the disk takes it, so that nothing the run holds, a snapshot, a connection or an executor, waits for a
 * client; and since nothing goes out before the run has ended, what an error undoes can be taken back.  Together these files take no
 * more of the disk than they leave free, beside what is left for the log (scratch.h).
 *
 * One thread at a time. */
#ifndef RAFTD_HTTP_ANSWER_FILE_H
#define RAFTD_HTTP_ANSWER_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/http/go_json.h"
#include "raftd/wire/err.h"

/* What all answers that are not small take, until their clients have them.  Any thread. */
struct rq_answer_room {
    const char *dir; /* borrows */
    atomic_size_t memory;
    _Atomic uint64_t disk;
};

/* Where it has got to. */
struct rq_answer_mark {
    uint64_t bytes; /* in the file */
    struct rq_go_indent indent;
};

struct rq_answer_file {
    struct rq_answer_room *room; /* borrows */
    int fd;                      /* owns; -1: there is none yet, or no more */
    bool pretty;                 /* what is put is indented */
    struct rq_answer_mark end;
};

void rq_answer_file_init(struct rq_answer_file *f, struct rq_answer_room *room);
void rq_answer_file_fini(struct rq_answer_file *f);

/* FULL: there is no room for it; IO, NOMEM: then nothing of it is there. */
enum rq_err rq_answer_file_put(struct rq_answer_file *f, const void *data, size_t bytes);
/* What is behind the mark is taken back. */
void rq_answer_file_cut(struct rq_answer_file *f, const struct rq_answer_mark *mark);
/* The file is the caller's; until fini it takes its room. */
int rq_answer_file_give(struct rq_answer_file *f);

#endif
