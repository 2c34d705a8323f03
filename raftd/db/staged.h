/* Staged: bodies on disk (raft/staged/<hash in hex>; bytes: raftd/wire/body.h) of transactions that are too big for the log.
 *
 * A body is durable before the log entry that names it is submitted, and stays until the log is compacted past that entry (shelf.h).
 * While it is written its name is tmp-<number>; part-<hash> while it is fetched from another host (staged_copy.h).  There may be one
 * file named spare, with nothing of interest in it. */
#ifndef RAFTD_DB_STAGED_H
#define RAFTD_DB_STAGED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/body.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/err.h"
#include "vfs/disk.h"

struct rq_staged;

/* <dir>/<prefix><hash in hex>; NULL without memory.  Caller frees. */
char *rq_staged_path(const char *dir, const char *prefix, const uint8_t hash[RQ_BODY_HASH_BYTES]);
#define RQ_STAGED_PART "part-"
/* <dir>/tmp-<number>: of nobody else in this process. */
char *rq_staged_temporary(const char *dir);
/* Opens a file for writing under that name: the spare if there is one, else a new one. */
enum rq_err rq_staged_open_new(struct rq_disk *disk, const char *dir, const char *path, struct rq_file **ret_file);
/* A body was written up to there.  The disk begins with it piece by piece, while more of it comes, so that the sync at its end has little
 * left to wait for.  *begun: up to where it was begun, 0 at first. */
void rq_staged_written(struct rq_file *file, uint64_t size, uint64_t *begun);

/* dir: raft/staged; copied. */
enum rq_err rq_staged_new(struct rq_disk *disk, const char *dir, const struct rq_body_head *head,
                          struct rq_staged **ret_staged);
/* Whole records {u32 page number, page}, in normal form.  MISUSE: pages are not ascending, or past the end of the database, and none
 * of them is in.  FULL: no space; IO: final. */
enum rq_err rq_staged_add(struct rq_staged *s, const uint8_t *records, size_t bytes);
uint32_t rq_staged_page_count(const struct rq_staged *s);
/* The tail: it is complete now, and has its name, but is not durable. */
enum rq_err rq_staged_end(struct rq_staged *s, uint8_t ret_hash[RQ_BODY_HASH_BYTES], uint64_t *ret_bytes);
/* What was written so far, to be read while it is sealed and after. */
enum rq_err rq_staged_reopen(struct rq_staged *s, struct rq_file **ret_file);
/* Ends it if that is not done, sync, rename, sync of the directory. */
enum rq_err rq_staged_seal(struct rq_staged *s, uint8_t ret_hash[RQ_BODY_HASH_BYTES], uint64_t *ret_bytes);
/* Frees; a body that was not sealed is deleted. */
void rq_staged_free(struct rq_staged *s);

struct rq_staged_reader;

/* CORRUPT: not such a body.  NOTFOUND. */
enum rq_err rq_staged_open(struct rq_disk *disk, const char *dir, const struct rq_entry_staged *entry,
                           struct rq_staged_reader **ret_reader);
/* The pages in order, then NOTFOUND: only now is it sure that they are what the hash says.  CORRUPT: they are not, and whoever took
 * some has to undo that.  The page is valid until the next call. */
enum rq_err rq_staged_next(struct rq_staged_reader *r, uint32_t *ret_pgno, const uint8_t **ret_page);
enum rq_err rq_staged_rewind(struct rq_staged_reader *r); /* after an error only close is allowed */
void rq_staged_close(struct rq_staged_reader *r);

/* The whole file, as bytes; NOTFOUND also when it is not of that size. */
enum rq_err rq_staged_open_file(struct rq_disk *disk, const char *dir, const uint8_t hash[RQ_BODY_HASH_BYTES],
                                uint64_t body_bytes, struct rq_file **ret_file);

/* The two halves of rq_staged_delete(), for who must not wait in the first one: the name is gone; then what is left of it, if it is
 * not NULL, is deleted and freed.  spare: see below. */
enum rq_err rq_staged_set_aside(struct rq_disk *disk, const char *dir, const uint8_t hash[RQ_BODY_HASH_BYTES],
                                bool spare, char **ret_rest);
enum rq_err rq_staged_delete_rest(struct rq_disk *disk, char *rest);

/* The log does not need it any more.  Its file becomes the spare that the next body is written over: blocks that are there, and in
 * the page cache, are several times as fast as new ones. */
enum rq_err rq_staged_delete(struct rq_disk *disk, const char *dir, const uint8_t hash[RQ_BODY_HASH_BYTES]);

/* Deletes the spare, if nobody has written to it for so long. */
enum rq_err rq_staged_drop_spare(struct rq_disk *disk, const char *dir, uint64_t unused_ms);

/* At start, before anything is written here: deletes the spare, and what was never finished, but for copies (staged_copy.h). */
enum rq_err rq_staged_sweep_unfinished(struct rq_disk *disk, const char *dir);
/* Deletes the bodies, and what there is of copies (part), that keep() does not want. */
enum rq_err rq_staged_sweep(struct rq_disk *disk, const char *dir,
                            bool (*keep)(void *ctx, const uint8_t hash[RQ_BODY_HASH_BYTES], bool part), void *ctx);

#endif
