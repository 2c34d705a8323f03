/* Database env: a raftd around one database that leads, is ready and has room, and that nothing is asked of: what a test does not care
 * for.  Where files are, and on which disk, is the test's to say. */
#ifndef TESTS_SUPPORT_DATABASE_ENV_H
#define TESTS_SUPPORT_DATABASE_ENV_H

#include "raftd/db/database.h"

/* To submit, to wait, or to fail ends the process. */
struct rq_database_env database_env(struct rq_pool *pool);

#endif
