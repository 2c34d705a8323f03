#include "raftd/cluster/recovery.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "raftd/db/descriptor.h"
#include "raftd/net/address.h"

#define NAME           "peers.json"
#define NAME_DONE      "peers.info"
#define FILE_BYTES_MAX (1u << 20)

static const char *text_of(yyjson_val *peer, const char *key)
{
    const char *text = yyjson_get_str(yyjson_obj_get(peer, key));
    return text != NULL ? text : "";
}

static bool is_voter(yyjson_val *peer)
{
    return !yyjson_get_bool(yyjson_obj_get(peer, "non_voter"));
}

/* NULL, or why not; before holds those that stand before it. */
static const char *check_peer(yyjson_val *peer, yyjson_val *peers, size_t before)
{
    const char *id = text_of(peer, "id"), *address = text_of(peer, "address");
    char host[256], port[64];
    if (!yyjson_is_obj(peer)) {
        return "not a list of nodes";
    }
    if (*id == '\0') {
        return "empty ID";
    }
    if (*address == '\0') {
        return "empty address";
    }
    if (strstr(address, "://") != NULL) {
        return "protocol specified in address";
    }
    if (!rq_member_text_ok(id) || !rq_member_text_ok(address) || !rq_split_host_port(address, host, port) ||
        host[0] == '\0') {
        return "invalid ID or address";
    }
    for (size_t i = 0; i < before; i++) {
        yyjson_val *other = yyjson_arr_get(peers, i);
        if (strcmp(text_of(other, "id"), id) == 0) {
            return "duplicate ID";
        }
        if (strcmp(text_of(other, "address"), address) == 0) {
            return "duplicate address";
        }
    }
    return NULL;
}

static enum rq_err take_peers(yyjson_val *peers, struct rq_recovery *ret, char text[RQ_TEXT_MAX + 1])
{
    yyjson_val *survivor = NULL, *peer;
    size_t i, count;
    if (!yyjson_is_arr(peers)) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "not a list of nodes");
        return RQ_MISUSE;
    }
    yyjson_arr_foreach(peers, i, count, peer)
    {
        const char *why = check_peer(peer, peers, i);
        if (why != NULL) {
            (void)snprintf(text, RQ_TEXT_MAX + 1, "node %zu of the list: %s", i + 1, why);
            return RQ_MISUSE;
        }
        survivor = survivor == NULL && is_voter(peer) ? peer : survivor;
    }
    if (survivor == NULL) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "no voter in it");
        return RQ_MISUSE;
    }
    (void)snprintf(ret->survivor, sizeof ret->survivor, "%s", text_of(survivor, "id"));
    (void)snprintf(ret->address, sizeof ret->address, "%s", text_of(survivor, "address"));
    return RQ_OK;
}

enum rq_err rq_recovery_read(struct rq_disk *disk, const char *raft_dir, struct rq_recovery *ret_recovery,
                             char text[RQ_TEXT_MAX + 1])
{
    uint8_t *data;
    size_t bytes;
    enum rq_err err = rq_file_read(disk, raft_dir, NAME, FILE_BYTES_MAX, &data, &bytes);
    if (err != RQ_OK) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "%s", rq_err_text(err));
        return err;
    }
    yyjson_read_err why;
    yyjson_doc *doc = yyjson_read_opts((char *)data, bytes, 0, NULL, &why);
    if (doc == NULL) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "%s at byte %zu", why.msg, why.pos);
        err = RQ_MISUSE;
    } else {
        err = take_peers(yyjson_doc_get_root(doc), ret_recovery, text);
    }
    yyjson_doc_free(doc);
    free(data);
    return err;
}

enum rq_err rq_recovery_done(struct rq_disk *disk, const char *raft_dir)
{
    char *from, *to;
    if (asprintf(&from, "%s/" NAME, raft_dir) < 0) {
        return RQ_NOMEM;
    }
    if (asprintf(&to, "%s/" NAME_DONE, raft_dir) < 0) {
        free(from);
        return RQ_NOMEM;
    }
    enum rq_err err = disk->ops->rename(disk, from, to);
    if (err == RQ_OK) {
        err = disk->ops->sync_dir(disk, raft_dir);
    }
    free(from);
    free(to);
    return err;
}

bool rq_recovery_was_done(struct rq_disk *disk, const char *raft_dir)
{
    struct rq_file_info info;
    char *path;
    if (asprintf(&path, "%s/" NAME_DONE, raft_dir) < 0) {
        return false;
    }
    const bool done = disk->ops->stat(disk, path, &info) == RQ_OK;
    free(path);
    return done;
}
