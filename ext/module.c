/* The entry point of `.load librqvfs`, sqlite3_load_extension() and load_extension().
 *
 * A VFS is registered with one copy of the SQLite library, and its methods are called until the process ends.  So the module
 * stays mapped (linked with -z nodelete), it keeps the library mapped that it registered with, and it serves no second copy:
 * memory of one must not be freed by the other. */
#include "ext/module.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "ext/bridge.h"
#include "vfs/shim.h"

SQLITE_EXTENSION_INIT1

#define SQLITE_VERSION_MIN 3024000

RQ_EXPORT int sqlite3_rqvfs_init(sqlite3 *db, char **ret_message, const sqlite3_api_routines *api);

static void set_message(const sqlite3_api_routines *api, char **ret_message, const char *text)
{
    if (ret_message != NULL) {
        *ret_message = api->mprintf("%s", text);
    }
}

static int init_connection(sqlite3 *db, char **ret_message, const sqlite3_api_routines *api)
{
    (void)ret_message;
    return api == sqlite3_api ? rq_functions_register(db) : SQLITE_OK;
}

/* The library's code and its table of functions must outlive its list of VFSs, which names us. */
static void keep_mapped(const sqlite3_api_routines *api)
{
    Dl_info info;
    if (dladdr((const void *)api, &info) != 0 && info.dli_fname != NULL) {
        /* Fails for a host with SQLite linked in: that is not unloaded. */
        (void)dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
    }
}

int rq_module_register(const sqlite3_api_routines *api, bool make_default, char **ret_message)
{
    if (api->libversion_number() < SQLITE_VERSION_MIN) {
        set_message(api, ret_message, "rqvfs needs SQLite 3.24.0 or newer");
        return SQLITE_ERROR;
    }
    if (sqlite3_api != NULL && sqlite3_api != api) {
        set_message(api, ret_message, "rqvfs is loaded already, into another copy of SQLite in this process");
        return SQLITE_ERROR;
    }
    if (sqlite3_api == NULL) {
        SQLITE_EXTENSION_INIT2(api);
        keep_mapped(api);
    }
    const struct rq_shim_config config = {
        .disk = rq_disk_real(),
        .sink_new = rq_bridge_new,
        .ctx = (void *)(uintptr_t)sqlite3_libversion(), /* the bridge only reads it */
        .make_default = make_default,
    };
    int code = rq_shim_register(&config);
    if (code == SQLITE_OK) {
        /* Twice is once; and after sqlite3_shutdown() it is needed again. */
        code = sqlite3_auto_extension((void (*)(void))init_connection);
    }
    if (code != SQLITE_OK) {
        set_message(api, ret_message, "rqvfs could not be registered");
    }
    return code;
}

int sqlite3_rqvfs_init(sqlite3 *db, char **ret_message, const sqlite3_api_routines *api)
{
    const char *wish = getenv("RQVFS_DEFAULT");
    int code = rq_module_register(api, wish != NULL && strcmp(wish, "1") == 0, ret_message);
    if (code == SQLITE_OK) {
        code = rq_functions_register(db);
    }
    return code == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : code;
}
