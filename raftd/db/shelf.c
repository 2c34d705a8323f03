#include "raftd/db/shelf.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/staged.h"
#include "raftd/run/room.h"

/* Somebody's need for a body. */
struct need {
    uint8_t hash[RQ_BODY_HASH_BYTES];
    struct rq_origin origin;
    uint64_t index; /* of the entry that names it; 0: expected or lingering */
    uint64_t bytes; /* named: of the body */
    uint32_t db_id; /* named: whose transaction it is */
    unsigned looks; /* that are left, when it is not named */
};

struct rq_shelf {
    struct rq_disk *disk;
    char *dir;
    pthread_mutex_t lock;
    struct need *needs; /* guarded by lock, as the rest */
    size_t count, capacity;
    uint64_t named_bytes;
    unsigned readers; /* of bodies that may be deleted meanwhile: none becomes the spare, which is written over */
};

enum rq_err rq_shelf_new(struct rq_disk *disk, const char *dir, struct rq_shelf **ret_shelf)
{
    struct rq_shelf *s = calloc(1, sizeof *s);
    char *copy = strdup(dir);
    if (s == NULL || copy == NULL) {
        free(s);
        free(copy);
        return RQ_NOMEM;
    }
    s->disk = disk;
    s->dir = copy;
    pthread_mutex_init(&s->lock, NULL);
    *ret_shelf = s;
    return RQ_OK;
}

void rq_shelf_free(struct rq_shelf *s)
{
    if (s != NULL) {
        pthread_mutex_destroy(&s->lock);
        free(s->needs);
        free(s->dir);
        free(s);
    }
}

/* --- with the lock ---------------------------------------------------------------------------------------------------------- */

static bool same_hash(const struct need *n, const uint8_t hash[RQ_BODY_HASH_BYTES])
{
    return memcmp(n->hash, hash, RQ_BODY_HASH_BYTES) == 0;
}

static bool is_needed(const struct rq_shelf *s, const uint8_t hash[RQ_BODY_HASH_BYTES])
{
    for (size_t i = 0; i < s->count; i++) {
        if (same_hash(&s->needs[i], hash)) {
            return true;
        }
    }
    return false;
}

static struct need *find_expected(const struct rq_shelf *s, const uint8_t hash[RQ_BODY_HASH_BYTES],
                                  struct rq_origin origin)
{
    for (size_t i = 0; i < s->count; i++) {
        struct need *n = &s->needs[i];
        if (n->index == 0 && n->origin.session == origin.session && n->origin.seq == origin.seq && same_hash(n, hash)) {
            return n;
        }
    }
    return NULL;
}

static struct need *add(struct rq_shelf *s)
{
    struct need *needs = rq_room_for_one(s->needs, s->count, &s->capacity, sizeof *needs);
    if (needs == NULL) {
        return NULL;
    }
    s->needs = needs;
    return &needs[s->count++];
}

static void drop(struct rq_shelf *s, struct need *n)
{
    *n = s->needs[--s->count];
}

/* Bodies that have lost their name, to be deleted without the lock: a big one takes its time. */
struct rests {
    char **paths;
    size_t count;
};

/* A need is gone; if it was the last one, so is the body's name. */
static enum rq_err put_away(struct rq_shelf *s, const uint8_t hash[RQ_BODY_HASH_BYTES], struct rests *rests)
{
    char *rest;
    if (is_needed(s, hash)) {
        return RQ_OK;
    }
    char **paths = realloc(rests->paths, (rests->count + 1) * sizeof *paths);
    if (paths == NULL) {
        return RQ_NOMEM;
    }
    rests->paths = paths;
    enum rq_err err = rq_staged_set_aside(s->disk, s->dir, hash, s->readers == 0, &rest);
    if (err == RQ_OK && rest != NULL) {
        rests->paths[rests->count++] = rest;
    }
    return err == RQ_NOTFOUND ? RQ_OK : err; /* it was fetched by nobody yet, or somebody has been quicker */
}

/* The i-th need goes, and another one takes its place. */
static enum rq_err end_need(struct rq_shelf *s, size_t i, struct rests *rests)
{
    uint8_t hash[RQ_BODY_HASH_BYTES];
    memcpy(hash, s->needs[i].hash, sizeof hash);
    drop(s, &s->needs[i]);
    return put_away(s, hash, rests);
}

static enum rq_err delete_rests(struct rq_shelf *s, struct rests *rests)
{
    enum rq_err err = RQ_OK;
    for (size_t i = 0; i < rests->count; i++) {
        enum rq_err e = rq_staged_delete_rest(s->disk, rests->paths[i]);
        err = err != RQ_OK ? err : e;
    }
    free(rests->paths);
    return err;
}

/* --- needs ------------------------------------------------------------------------------------------------------------------ */

enum rq_err rq_shelf_expect(struct rq_shelf *s, const uint8_t hash[RQ_BODY_HASH_BYTES], struct rq_origin origin,
                            unsigned looks)
{
    pthread_mutex_lock(&s->lock);
    struct need *n = find_expected(s, hash, origin);
    if (n == NULL) {
        n = add(s);
        if (n != NULL) {
            *n = (struct need){ .origin = origin, .looks = looks };
            memcpy(n->hash, hash, sizeof n->hash);
        }
    } else if (n->looks != RQ_SHELF_FOR_EVER) {
        n->looks = looks;
    }
    pthread_mutex_unlock(&s->lock);
    return n == NULL ? RQ_NOMEM : RQ_OK;
}

enum rq_err rq_shelf_forget(struct rq_shelf *s, const uint8_t hash[RQ_BODY_HASH_BYTES], struct rq_origin origin)
{
    struct rests rests = { 0 };
    enum rq_err err = RQ_OK;
    pthread_mutex_lock(&s->lock);
    struct need *n = find_expected(s, hash, origin);
    if (n != NULL) {
        err = end_need(s, (size_t)(n - s->needs), &rests);
    }
    pthread_mutex_unlock(&s->lock);
    enum rq_err deleted = delete_rests(s, &rests);
    return err != RQ_OK ? err : deleted;
}

enum rq_err rq_shelf_name(struct rq_shelf *s, const struct rq_entry_staged *entry, uint64_t index)
{
    pthread_mutex_lock(&s->lock);
    struct need *n = find_expected(s, entry->hash, entry->origin);
    if (n == NULL) {
        n = add(s);
    }
    if (n != NULL) {
        *n = (struct need){
            .origin = entry->origin, .index = index, .bytes = entry->body_bytes, .db_id = entry->head.db_id
        };
        memcpy(n->hash, entry->hash, sizeof n->hash);
        s->named_bytes += entry->body_bytes;
    }
    pthread_mutex_unlock(&s->lock);
    return n == NULL ? RQ_NOMEM : RQ_OK;
}

enum rq_err rq_shelf_list_named(struct rq_shelf *s, uint64_t behind, struct rq_shelf_named **ret_list,
                                size_t *ret_count)
{
    size_t count = 0;
    pthread_mutex_lock(&s->lock);
    struct rq_shelf_named *list = malloc((s->count + 1) * sizeof *list);
    for (size_t i = 0; list != NULL && i < s->count; i++) {
        const struct need *n = &s->needs[i];
        if (n->index > behind) {
            list[count] = (struct rq_shelf_named){ .bytes = n->bytes, .index = n->index, .db_id = n->db_id };
            memcpy(list[count++].hash, n->hash, sizeof n->hash);
        }
    }
    pthread_mutex_unlock(&s->lock);
    if (list == NULL) {
        return RQ_NOMEM;
    }
    *ret_list = list;
    *ret_count = count;
    return RQ_OK;
}

uint64_t rq_shelf_named_bytes(struct rq_shelf *s)
{
    pthread_mutex_lock(&s->lock);
    const uint64_t bytes = s->named_bytes;
    pthread_mutex_unlock(&s->lock);
    return bytes;
}

enum rq_err rq_shelf_release(struct rq_shelf *s, uint64_t index, unsigned linger_looks)
{
    struct rests rests = { 0 };
    enum rq_err err = RQ_OK;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->count;) {
        struct need *n = &s->needs[i];
        if (n->index == 0 || n->index > index) {
            i++;
            continue;
        }
        s->named_bytes -= n->bytes;
        if (linger_looks > 0) {
            n->index = 0;
            n->looks = linger_looks;
            i++;
            continue;
        }
        enum rq_err e = end_need(s, i, &rests);
        err = err != RQ_OK ? err : e;
    }
    pthread_mutex_unlock(&s->lock);
    enum rq_err deleted = delete_rests(s, &rests);
    return err != RQ_OK ? err : deleted;
}

bool rq_shelf_is_due(struct rq_shelf *s)
{
    bool due = false;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->count; i++) {
        due = due || (s->needs[i].index == 0 && s->needs[i].looks == 1);
    }
    pthread_mutex_unlock(&s->lock);
    return due;
}

/* One look less, of those that have a number of them. */
static bool was_last_look(struct need *n)
{
    if (n->index != 0 || n->looks == RQ_SHELF_FOR_EVER) {
        return false;
    }
    n->looks--;
    return n->looks == 0;
}

enum rq_err rq_shelf_look(struct rq_shelf *s)
{
    struct rests rests = { 0 };
    enum rq_err err = RQ_OK;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->count;) {
        if (!was_last_look(&s->needs[i])) {
            i++;
            continue;
        }
        enum rq_err e = end_need(s, i, &rests);
        err = err != RQ_OK ? err : e;
    }
    pthread_mutex_unlock(&s->lock);
    enum rq_err deleted = delete_rests(s, &rests);
    return err != RQ_OK ? err : deleted;
}

/* At the start. */
struct sweep {
    struct rq_shelf *shelf;
    unsigned looks;
};

/* With the lock held.  Without memory a body is kept, until the next start. */
static bool keep(void *ctx, const uint8_t hash[RQ_BODY_HASH_BYTES], bool part)
{
    const struct sweep *sweep = ctx;
    struct need *n;
    if (is_needed(sweep->shelf, hash) || part || sweep->looks == 0) {
        return is_needed(sweep->shelf, hash);
    }
    n = add(sweep->shelf);
    if (n != NULL) {
        *n = (struct need){ .looks = sweep->looks };
        memcpy(n->hash, hash, sizeof n->hash);
    }
    return true;
}

enum rq_err rq_shelf_sweep(struct rq_shelf *s, unsigned looks)
{
    struct sweep sweep = { s, looks };
    pthread_mutex_lock(&s->lock);
    enum rq_err err = rq_staged_sweep(s->disk, s->dir, keep, &sweep);
    pthread_mutex_unlock(&s->lock);
    return err;
}

/* --- readers ---------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_shelf_open(struct rq_shelf *s, const uint8_t hash[RQ_BODY_HASH_BYTES], uint64_t body_bytes,
                          struct rq_file **ret_file)
{
    pthread_mutex_lock(&s->lock);
    enum rq_err err = rq_staged_open_file(s->disk, s->dir, hash, body_bytes, ret_file);
    s->readers += err == RQ_OK;
    pthread_mutex_unlock(&s->lock);
    return err;
}

void rq_shelf_reads(struct rq_shelf *s)
{
    pthread_mutex_lock(&s->lock);
    s->readers++;
    pthread_mutex_unlock(&s->lock);
}

void rq_shelf_close(struct rq_shelf *s, struct rq_file *file)
{
    s->disk->ops->close(file);
    pthread_mutex_lock(&s->lock);
    s->readers--;
    pthread_mutex_unlock(&s->lock);
}

enum rq_err rq_shelf_discard(struct rq_shelf *s, const uint8_t hash[RQ_BODY_HASH_BYTES])
{
    char *rest;
    pthread_mutex_lock(&s->lock);
    enum rq_err err = rq_staged_set_aside(s->disk, s->dir, hash, false, &rest);
    pthread_mutex_unlock(&s->lock);
    if (err == RQ_OK) {
        err = rq_staged_delete_rest(s->disk, rest);
    }
    return err == RQ_NOTFOUND ? RQ_OK : err;
}
