#include "raftd/db/identity.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "raftd/db/sealed_text.h"

#define NAME           "node"
#define FILE_BYTES_MAX 4096u
#define BODY_BYTES_MAX (RQ_NODE_ID_MAX + 128u)

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

static int print_body(char text[BODY_BYTES_MAX], const struct rq_identity *id)
{
    return snprintf(text, BODY_BYTES_MAX, "cluster=%016llx\ninstance=%016llx\nnode-id=%s\n",
                    (unsigned long long)id->cluster, (unsigned long long)id->instance, id->node_id);
}

enum rq_err rq_identity_write(struct rq_disk *disk, const char *raft_dir, const struct rq_identity *id)
{
    char body[BODY_BYTES_MAX];
    (void)print_body(body, id); /* fits: the node id is the only part without a fixed size */
    return rq_sealed_write(disk, raft_dir, NAME, RQ_DATA_FORMAT, body);
}

/* What follows name in the body; "" when it has no such name. */
static const char *value_of(const char *body, const char *name)
{
    const char *at = strstr(body, name);
    return at != NULL ? at + strlen(name) : "";
}

/* Just the body that would be written for it. */
static bool read_body(const char *body, struct rq_identity *id)
{
    char again[BODY_BYTES_MAX];
    const char *node_id = value_of(body, "\nnode-id=");
    const size_t node_id_bytes = strcspn(node_id, "\n");
    if (node_id_bytes == 0 || node_id_bytes > RQ_NODE_ID_MAX) {
        return false;
    }
    (void)snprintf(id->node_id, sizeof id->node_id, "%.*s", (int)node_id_bytes, node_id);
    id->cluster = strtoull(value_of(body, "cluster="), NULL, 16);
    id->instance = strtoull(value_of(body, "\ninstance="), NULL, 16);
    (void)print_body(again, id);
    return id->cluster != 0 && id->instance != 0 && strcmp(body, again) == 0;
}

enum rq_err rq_identity_read(struct rq_disk *disk, const char *raft_dir, struct rq_identity *ret_identity)
{
    struct rq_identity id = { 0 };
    char *body;
    enum rq_err err = rq_sealed_read(disk, raft_dir, NAME, RQ_DATA_FORMAT, FILE_BYTES_MAX, &body, &id.format);
    if (err == RQ_OK) {
        err = read_body(body, &id) ? RQ_OK : RQ_CORRUPT;
        free(body);
    }
    if (err == RQ_OK || err == RQ_VERSION) {
        *ret_identity = id;
    }
    return err;
}
