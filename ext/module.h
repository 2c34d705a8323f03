/* Module: what becomes of a host process's SQLite when the extension is loaded into it, by whichever door. */
#ifndef EXT_MODULE_H
#define EXT_MODULE_H

#include <sqlite3ext.h>
#include <stdbool.h>

#define RQ_EXPORT __attribute__((visibility("default")))

/* Registers the VFS, for good, and the SQL functions for each connection that is opened from now on.  An SQLite code;
 * *ret_message, if given, is for sqlite3_free(). */
int rq_module_register(const sqlite3_api_routines *api, bool make_default, char **ret_message);

/* rqvfs_version() and rqvfs_status for one connection. */
int rq_functions_register(sqlite3 *db);

#endif
