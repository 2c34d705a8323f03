#include "raftd/db/stamps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/wire/entry.h"
#include "vfs/replica.h"

struct check {
    struct rq_disk *disk;
    const char *dir;
    struct rq_catalog *catalog;
    const struct rq_descriptor *descriptor;
    struct rq_log *log;
    bool fetching;
    uint64_t newest;
    char *text; /* [512]; empty: no contradiction so far */
};

/* Does the log hold the entry that made this database?  A replica whose maker died before it had noted that is known in no other
 * way. */
static bool is_made_by_log(const struct check *c, const char *name, uint32_t id)
{
    struct rq_log_entry e;
    struct rq_entry_create create;
    struct rq_entry_adopt adopt;
    struct rq_str made = { 0 };
    if (id < rq_log_first(c->log) || id > rq_log_last(c->log) || rq_log_get(c->log, id, &e) != RQ_OK) {
        return false;
    }
    if (e.blob == NULL) {
        return false;
    }
    if (e.type == RQ_ENTRY_CREATE && rq_entry_get_create(e.blob->data, e.blob->bytes, &create) == RQ_OK) {
        made = create.name;
    } else if (e.type == RQ_ENTRY_ADOPT && rq_entry_get_adopt(e.blob->data, e.blob->bytes, &adopt) == RQ_OK) {
        made = adopt.name;
    }
    const bool same = made.bytes > 0 && strlen(name) == made.bytes && memcmp(name, made.data, made.bytes) == 0;
    rq_blob_unref(e.blob);
    return same;
}

/* Is this file one of ours?  Others may lie here, also replicas of other clusters. */
static bool is_ours(const struct check *c, const char *name, uint32_t id, const struct rq_file_info *info)
{
    for (uint32_t i = 0; i < c->descriptor->database_count; i++) {
        const struct rq_descriptor_database *db = &c->descriptor->databases[i];
        if (db->id == id && strcmp(db->name, name) == 0) {
            return true;
        }
    }
    return rq_catalog_knows_file(c->catalog, id, info->inode, info->device) || is_made_by_log(c, name, id);
}

/* The term of an entry, and where the log ends.  A log that was given up for the descriptor says nothing. */
static uint64_t term_of(const struct check *c, uint64_t index, uint64_t *ret_last)
{
    const struct rq_descriptor *d = c->descriptor;
    const bool given_up =
        d->installed && rq_log_first(c->log) != d->index + 1 && rq_log_term_at(c->log, d->index) != d->term;
    *ret_last = given_up ? d->index : rq_log_last(c->log);
    *ret_last = d->ahead > *ret_last ? d->ahead : *ret_last;
    return index == d->index ? d->term : given_up ? 0 : rq_log_term_at(c->log, index);
}

static void compare(struct check *c, const char *name, const struct rq_replica_state *state)
{
    const uint64_t index = state->stamp.index;
    uint64_t last;
    c->newest = index > c->newest ? index : c->newest;
    const uint64_t term = term_of(c, index, &last);
    if (c->fetching) {
        return;
    }
    if (index > last) {
        (void)snprintf(c->text, 512, "%.200s: the file was made by log entry %llu of term %u; the log ends at %llu",
                       name, (unsigned long long)index, state->stamp.term, (unsigned long long)last);
    } else if (term != 0 && term != state->stamp.term) { /* 0: compacted, nothing is known of its term */
        (void)snprintf(c->text, 512,
                       "%.200s: the file was made by log entry %llu of term %u; in the log its term is %llu", name,
                       (unsigned long long)index, state->stamp.term, (unsigned long long)term);
    }
}

static enum rq_err look(void *ctx, const char *name)
{
    struct check *c = ctx;
    struct rq_replica_state state;
    struct rq_file_info info;
    char *path;
    if (c->text[0] != '\0' || !rq_db_name_valid(name, strlen(name))) {
        return RQ_OK;
    }
    if (asprintf(&path, "%s/%s", c->dir, name) < 0) {
        return RQ_NOMEM;
    }
    enum rq_err err = c->disk->ops->stat(c->disk, path, &info);
    if (err == RQ_OK && info.regular) {
        err = rq_replica_peek(c->disk, path, &state);
    }
    if (err == RQ_OK && info.regular && is_ours(c, name, state.stamp.db_id, &info)) {
        compare(c, name, &state);
    }
    free(path);
    return err == RQ_NOMEM ? err : RQ_OK; /* what cannot be read is told when it is opened */
}

enum rq_err rq_stamps_check(struct rq_disk *disk, const char *dir, struct rq_catalog *catalog,
                            const struct rq_descriptor *descriptor, struct rq_log *log, bool fetching,
                            uint64_t *ret_newest, char text[512])
{
    struct check c = { disk, dir, catalog, descriptor, log, fetching, 0, text };
    text[0] = '\0';
    enum rq_err err = disk->ops->list(disk, dir, look, &c);
    *ret_newest = c.newest;
    return err == RQ_OK && text[0] != '\0' ? RQ_CORRUPT : err;
}
