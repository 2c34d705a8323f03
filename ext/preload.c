/* The door of LD_PRELOAD=librqvfs.so: for a program that is linked to libsqlite3 and cannot be changed at all.
 *
 * Stands in front of sqlite3_open*().  Before the first database is opened it lets the program's own SQLite open an empty
 * database in memory, in which an automatic extension gets that library's table of functions and registers rqvfs as default.
 * Nothing happens before the program opens a database: until then it may configure SQLite, or never use it.
 *
 * Whose SQLite: the one that the caller is linked to, which need not be in the global scope (a driver that was loaded as a
 * plugin has its own).  Loaded by another door, these functions may still be found by later plugins; then they only pass on. */
#define SQLITE_CORE 1 /* here the functions of SQLite are called by their own addresses, not through the table */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "ext/module.h"

/* What is needed of a SQLite library. */
struct host {
    const void *caller; /* where the object is mapped that is linked to it */
    int (*open)(const char *, sqlite3 **);
    int (*open16)(const void *, sqlite3 **);
    int (*open_v2)(const char *, sqlite3 **, int, const char *);
    int (*close)(sqlite3 *);
    int (*initialize)(void);
    sqlite3_vfs *(*vfs_find)(const char *);
    int (*auto_extension)(void (*)(void));
    int (*cancel_auto_extension)(void (*)(void));
};

static bool preloaded;
/* Recursive: an automatic extension of the program's own may open a database while we register. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static bool registering;                  /* under lock */
static struct host last;                  /* under lock: of the last caller, mostly the only one */
static const sqlite3_vfs *default_before; /* under lock: the default VFS that rqvfs took the place of */

static void fork_lock(void)
{
    (void)pthread_mutex_lock(&lock);
}

static void fork_unlock(void)
{
    (void)pthread_mutex_unlock(&lock);
}

/* Not unlocked: a recursive mutex knows its owner by the number of the thread, which is another one in the child. */
static void fork_renew(void)
{
    lock = (pthread_mutex_t)PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
}

/* Only looks how it came here: the program may clear its environment later. */
__attribute__((constructor)) static void look_at_environment(void)
{
    const char *list = getenv("LD_PRELOAD");
    preloaded = list != NULL && strstr(list, "librqvfs") != NULL;
    (void)pthread_atfork(fork_lock, fork_unlock, fork_renew);
}

static bool is_own(const void *address)
{
    Dl_info here, there;
    return dladdr(&last, &here) != 0 && dladdr(address, &there) != 0 && here.dli_fbase == there.dli_fbase;
}

static void *symbol(void *library, const char *name)
{
    void *found = library == NULL ? NULL : dlsym(library, name);
    if (found == NULL || is_own(found)) {
        found = dlsym(RTLD_NEXT, name); /* the program itself, whose first choice is what was preloaded */
    }
    return found != NULL && is_own(found) ? NULL : found;
}

static bool find_symbol(void *library, const char *name, void *ret_function)
{
    void *found = symbol(library, name);
    /* ISO C converts no object to a function; POSIX says that it is the same. */
    memcpy(ret_function, (const void *)&found, sizeof found);
    return found != NULL;
}

#define FIND(function) find_symbol(library, "sqlite3_" #function, (void *)&h.function)

/* The SQLite that the code at caller is linked to. */
static bool find_host(const void *caller, struct host *ret_host)
{
    Dl_info info;
    if (dladdr(caller, &info) == 0) {
        return false;
    }
    (void)pthread_mutex_lock(&lock);
    bool found = last.caller == info.dli_fbase;
    if (!found) {
        struct host h = { .caller = info.dli_fbase };
        void *library = info.dli_fname == NULL ? NULL : dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
        found = FIND(open) && FIND(open16) && FIND(open_v2) && FIND(close) && FIND(initialize) && FIND(vfs_find) &&
                FIND(auto_extension) && FIND(cancel_auto_extension);
        if (library != NULL) {
            (void)dlclose(library); /* stays mapped at least as long as its caller runs */
        }
        if (found) {
            last = h;
        }
    }
    *ret_host = last;
    (void)pthread_mutex_unlock(&lock);
    return found;
}

static int register_default(sqlite3 *db, char **ret_message, const sqlite3_api_routines *api)
{
    (void)db, (void)ret_message;
    char *message = NULL;
    int code = rq_module_register(api, true, &message);
    if (code != SQLITE_OK) {
        api->log(code, "%s", message != NULL ? message : "rqvfs could not be registered");
    }
    api->free(message);
    return SQLITE_OK; /* without us the program works as it always did */
}

/* Makes rqvfs the default VFS, if it is not: the first time, or after sqlite3_shutdown(). */
static void prepare(const struct host *h)
{
    /* As the open that follows would do; after a shutdown it makes SQLite's own VFS the default again. */
    if (!preloaded || h->initialize() != SQLITE_OK) {
        return;
    }
    (void)pthread_mutex_lock(&lock);
    const sqlite3_vfs *now = h->vfs_find(NULL);
    if (!registering && (default_before == NULL || now == default_before)) {
        sqlite3 *db = NULL;
        registering = true;
        if (h->auto_extension((void (*)(void))register_default) == SQLITE_OK) {
            if (h->open_v2(":memory:", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) == SQLITE_OK) {
                default_before = now;
            }
            (void)h->close(db);
            (void)h->cancel_auto_extension((void (*)(void))register_default);
        }
        registering = false;
    }
    (void)pthread_mutex_unlock(&lock);
}

/* Parameters are named as SQLite names them. */
RQ_EXPORT int sqlite3_open(const char *filename, sqlite3 **ppDb)
{
    struct host h;
    if (!find_host(__builtin_return_address(0), &h)) {
        *ppDb = NULL;
        return SQLITE_ERROR;
    }
    prepare(&h);
    return h.open(filename, ppDb);
}

RQ_EXPORT int sqlite3_open16(const void *filename, sqlite3 **ppDb)
{
    struct host h;
    if (!find_host(__builtin_return_address(0), &h)) {
        *ppDb = NULL;
        return SQLITE_ERROR;
    }
    prepare(&h);
    return h.open16(filename, ppDb);
}

RQ_EXPORT int sqlite3_open_v2(const char *filename, sqlite3 **ppDb, int flags, const char *zVfs)
{
    struct host h;
    if (!find_host(__builtin_return_address(0), &h)) {
        *ppDb = NULL;
        return SQLITE_ERROR;
    }
    prepare(&h);
    return h.open_v2(filename, ppDb, flags, zVfs);
}
