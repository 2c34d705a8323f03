/* Sealed text: a small file of lines that people can read, and that no accident can change unnoticed.
 *
 * First line format=N, then the body's lines, last line check= and the 16 hexadecimal digits of XXH3-64 of all before it.  Both
 * lines keep their places in all formats to come. */
#ifndef RAFTD_DB_SEALED_TEXT_H
#define RAFTD_DB_SEALED_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/disk.h"

/* body: whole lines.  As rq_file_replace(). */
enum rq_err rq_sealed_write(struct rq_disk *disk, const char *dir, const char *name, uint32_t format, const char *body);

/* The body, which the caller frees.  NOTFOUND; CORRUPT; VERSION: of a format above `format`; it is in *ret_format then. */
enum rq_err rq_sealed_read(struct rq_disk *disk, const char *dir, const char *name, uint32_t format, size_t bytes_max,
                           char **ret_body, uint32_t *ret_format);

#endif
