#include "raftd/node/member.h"

#include <raft.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/node/filter.h"

/* The address that C-Raft carries: "1", "v" or "s", name, raft address, HTTP address, key in hex; a space between them. */
enum { PACKED_BYTES_MAX = 8 + 3 * (RQ_MEMBER_TEXT_MAX + 1) + 2 * RQ_MEMBER_KEY_BYTES + 1 };

bool rq_member_text_ok(const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] <= ' ' || text[i] == 0x7f) {
            return false;
        }
    }
    return n > 0 && n <= RQ_MEMBER_TEXT_MAX;
}

bool rq_member_same_data(const struct rq_member *a, const struct rq_member *b)
{
    return a->votes == b->votes && strcmp(a->name, b->name) == 0 && strcmp(a->raft_addr, b->raft_addr) == 0 &&
           strcmp(a->http_addr, b->http_addr) == 0 && memcmp(a->key, b->key, sizeof a->key) == 0;
}

static void pack(const struct rq_member *m, char out[PACKED_BYTES_MAX])
{
    size_t at = (size_t)snprintf(out, PACKED_BYTES_MAX, "1 %c %s %s %s ", m->votes ? 'v' : 's', m->name, m->raft_addr,
                                 m->http_addr);
    for (unsigned i = 0; i < RQ_MEMBER_KEY_BYTES; i++) {
        at += (size_t)snprintf(out + at, PACKED_BYTES_MAX - at, "%02x", m->key[i]);
    }
}

static bool take_text(const char **p, char out[RQ_MEMBER_TEXT_MAX + 1])
{
    size_t n = strcspn(*p, " ");
    if (n == 0 || n > RQ_MEMBER_TEXT_MAX || (*p)[n] != ' ') {
        return false;
    }
    memcpy(out, *p, n);
    out[n] = '\0';
    *p += n + 1;
    return rq_member_text_ok(out);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool unpack(const char *p, struct rq_member *m)
{
    if (p[0] != '1' || p[1] != ' ' || (p[2] != 'v' && p[2] != 's') || p[3] != ' ') {
        return false;
    }
    m->votes = p[2] == 'v';
    p += 4;
    if (!take_text(&p, m->name) || !take_text(&p, m->raft_addr) || !take_text(&p, m->http_addr) ||
        strlen(p) != sizeof m->key * 2) {
        return false;
    }
    for (size_t i = 0; i < RQ_MEMBER_KEY_BYTES; i++) {
        int high = hex_digit(p[2 * i]), low = hex_digit(p[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        m->key[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* What C-Raft would refuse, or free twice, never gets there. */
static bool may_be_in_force(const struct rq_members *members)
{
    unsigned voters = 0;
    for (unsigned i = 0; i < members->count; i++) {
        const struct rq_member *m = &members->list[i];
        voters += m->role == RQ_MEMBER_VOTER;
        if (m->instance == 0 || !rq_member_text_ok(m->name) || !rq_member_text_ok(m->raft_addr) ||
            !rq_member_text_ok(m->http_addr) || (m->role == RQ_MEMBER_VOTER && !m->votes)) {
            return false;
        }
        for (unsigned j = 0; j < i; j++) {
            const struct rq_member *other = &members->list[j];
            if (other->instance == m->instance || rq_member_same_data(other, m)) {
                return false;
            }
        }
    }
    return voters > 0 && members->count <= RQ_MEMBERS_MAX;
}

enum rq_err rq_members_encode(const struct rq_members *members, uint8_t **ret_data, size_t *ret_bytes)
{
    if (!may_be_in_force(members)) {
        return RQ_MISUSE;
    }
    struct raft_configuration conf;
    struct raft_buffer buf;
    raft_configuration_init(&conf);
    int rv = 0;
    for (unsigned i = 0; rv == 0 && i < members->count; i++) {
        char address[PACKED_BYTES_MAX];
        pack(&members->list[i], address);
        rv = raft_configuration_add(&conf, members->list[i].instance, address,
                                    members->list[i].role == RQ_MEMBER_VOTER ? RAFT_VOTER : RAFT_STANDBY);
    }
    rv = rv == 0 ? raft_configuration_encode(&conf, &buf) : rv;
    raft_configuration_close(&conf);
    if (rv != 0) {
        return RQ_NOMEM;
    }
    *ret_data = buf.base; /* raft_malloc() is malloc() */
    *ret_bytes = buf.len;
    return RQ_OK;
}

enum rq_err rq_members_decode(const uint8_t *data, size_t bytes, struct rq_members *ret_members)
{
    struct raft_configuration conf;
    struct raft_buffer buf = { (void *)(uintptr_t)data, bytes };
    if (!rq_filter_configuration_ok(data, bytes)) {
        return RQ_PROTOCOL;
    }
    if (raft_configuration_decode(&buf, &conf) != 0) {
        return RQ_NOMEM;
    }
    bool ok = conf.n <= RQ_MEMBERS_MAX;
    ret_members->count = 0;
    for (unsigned i = 0; ok && i < conf.n; i++) {
        struct rq_member *m = &ret_members->list[ret_members->count++];
        *m = (struct rq_member){ .instance = conf.servers[i].id };
        ok = unpack(conf.servers[i].address, m) && conf.servers[i].role != RAFT_SPARE;
        m->role = conf.servers[i].role == RAFT_VOTER ? RQ_MEMBER_VOTER : RQ_MEMBER_STANDBY;
    }
    raft_configuration_close(&conf);
    return ok ? RQ_OK : RQ_PROTOCOL;
}

bool rq_members_are_only(const struct rq_members *members, uint64_t instance)
{
    return members->count == 1 && members->list[0].instance == instance;
}

const struct rq_member *rq_members_find(const struct rq_members *members, uint64_t instance)
{
    for (unsigned i = 0; i < members->count; i++) {
        if (members->list[i].instance == instance) {
            return &members->list[i];
        }
    }
    return NULL;
}

const struct rq_member *rq_members_find_name(const struct rq_members *members, const char *name)
{
    for (unsigned i = members->count; i-- > 0;) {
        if (strcmp(members->list[i].name, name) == 0) {
            return &members->list[i];
        }
    }
    return NULL;
}

bool rq_instances_has(const struct rq_instances *set, uint64_t instance)
{
    bool has = false;
    for (unsigned i = 0; i < set->count; i++) {
        has = has || set->list[i] == instance;
    }
    return has;
}

/* The voters, and how many of them are in the set. */
static unsigned count_voters(const struct rq_members *members, const struct rq_instances *set, unsigned *ret_in_set)
{
    unsigned voters = 0;
    *ret_in_set = 0;
    for (unsigned i = 0; i < members->count; i++) {
        const bool votes = members->list[i].role == RQ_MEMBER_VOTER;
        voters += votes;
        *ret_in_set += votes && rq_instances_has(set, members->list[i].instance);
    }
    return voters;
}

bool rq_members_are_majority(const struct rq_members *members, const struct rq_instances *set)
{
    unsigned in_set;
    const unsigned voters = count_voters(members, set, &in_set);
    return in_set > voters / 2;
}

uint64_t rq_members_majorities_have(const struct rq_members *members, const uint64_t has[RQ_MEMBERS_MAX])
{
    uint64_t most = 0;
    for (unsigned i = 0; i < members->count; i++) {
        struct rq_instances set = { 0 };
        unsigned in_set;
        for (unsigned j = 0; j < members->count; j++) {
            if (has[j] >= has[i]) {
                set.list[set.count++] = members->list[j].instance;
            }
        }
        const unsigned voters = count_voters(members, &set, &in_set);
        most = voters - in_set <= voters / 2 && has[i] > most ? has[i] : most;
    }
    return most;
}
