#include "raftd/db/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "raftd/db/descriptor.h"

#define NAME "node"

uint64_t rq_random_id(void)
{
    uint64_t id = 0;
    while (id == 0) {
        if (getrandom(&id, sizeof id, 0) != (ssize_t)sizeof id) { /* 8 bytes never come in part */
            abort();
        }
    }
    return id;
}

enum rq_err rq_identity_write(struct rq_disk *disk, const char *raft_dir, const struct rq_identity *id)
{
    char text[512];
    int n = snprintf(text, sizeof text, "format=%u\ncluster=%016llx\ninstance=%016llx\nnode-id=%s\n", id->format,
                     (unsigned long long)id->cluster, (unsigned long long)id->instance, id->node_id);
    return rq_file_replace(disk, raft_dir, NAME, text, (size_t)n);
}

/* The value of key, or NULL; ends at its line's end. */
static char *value_of(char *text, const char *key)
{
    size_t bytes = strlen(key);
    for (char *line = text; line != NULL && *line != '\0'; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, bytes) == 0 && line[bytes] == '=') {
            return line + bytes + 1;
        }
    }
    return NULL;
}

enum rq_err rq_identity_read(struct rq_disk *disk, const char *raft_dir, struct rq_identity *ret_identity)
{
    uint8_t *data;
    size_t bytes;
    enum rq_err err = rq_file_read(disk, raft_dir, NAME, 4096, &data, &bytes);
    if (err != RQ_OK) {
        return err == RQ_TOOBIG ? RQ_CORRUPT : err;
    }
    char *text = (char *)data;
    char *format = value_of(text, "format"), *cluster = value_of(text, "cluster"),
         *instance = value_of(text, "instance");
    char *node_id = value_of(text, "node-id");
    struct rq_identity id = { 0 };
    err = RQ_CORRUPT;
    if (format != NULL) {
        id.format = (uint32_t)strtoul(format, NULL, 10);
        if (id.format > RQ_DATA_FORMAT) {
            *ret_identity = id;
            err = RQ_VERSION;
        }
    }
    if (id.format == RQ_DATA_FORMAT && cluster != NULL && instance != NULL && node_id != NULL) {
        id.cluster = strtoull(cluster, NULL, 16);
        id.instance = strtoull(instance, NULL, 16);
        size_t id_bytes = strcspn(node_id, "\n");
        if (id.cluster != 0 && id.instance != 0 && id_bytes > 0 && id_bytes <= RQ_NODE_ID_MAX) {
            memcpy(id.node_id, node_id, id_bytes);
            *ret_identity = id;
            err = RQ_OK;
        }
    }
    free(data);
    return err;
}
