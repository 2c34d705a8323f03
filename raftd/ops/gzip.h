/* Gzip: a sink that compresses what it is given for another one. */
#ifndef RAFTD_OPS_GZIP_H
#define RAFTD_OPS_GZIP_H

#include "raftd/ops/backup.h"

struct rq_gzip;

enum rq_err rq_gzip_new(const struct rq_backup_sink *to, struct rq_gzip **ret_gzip); /* borrows to */
struct rq_backup_sink rq_gzip_sink(struct rq_gzip *g);
enum rq_err rq_gzip_end(struct rq_gzip *g); /* the rest goes out */
void rq_gzip_free(struct rq_gzip *g);

#endif
