#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/cluster/cluster_turn.h"
#include "raftd/cluster/voice.h"
#include "raftd/node/message.h"
#include "raftd/ops/journal.h"
#include "raftd/wire/head.h"

#define HEAD_BYTES_MAX  (64u + RQ_MEMBERS_MAX * 8u)
#define APPEND_WAIT_MS  2000 /* for the leader's answer; who gets none asks again */
#define DECIDING_VOTERS 3u   /* of fewer none is more than half against another one */

/* --- to others: raft messages --------------------------------------------------------------------------------------------------- */

_Static_assert(RQ_ASK_HOLDERS_MAX == RQ_MEMBERS_MAX, "all may hold it");

struct sending {
    struct rq_cluster *cluster;
    uint64_t to;
};

static void send_piece(void *ctx, const uint8_t *data, size_t bytes)
{
    const struct sending *s = ctx;
    struct iovec part = { (void *)(uintptr_t)data, bytes };
    (void)rq_peers_send_raft(s->cluster->peers, s->to, &part, 1); /* what is lost is sent again */
}

static void on_send(void *ctx, const struct raft_message *message)
{
    struct sending s = { ctx, message->server_id };
    (void)rq_raft_message_put(message, s.cluster->log, send_piece, &s);
}

static void on_send_round(void *ctx, uint64_t to, const struct rq_round *round)
{
    struct sending s = { ctx, to };
    (void)rq_raft_message_put_round(round, send_piece, &s);
}

/* --- to the leader: entries -------------------------------------------------------------------------------------------------------- */

struct proposal {
    struct rq_cluster *cluster;
    struct rq_submit *submit;
};

static void on_appended(void *ctx, enum rq_err err, const uint8_t *data, size_t bytes)
{
    struct proposal *p = ctx;
    uint64_t term = 0;
    if (err == RQ_OK && rq_ask_get_appended(data, bytes, &term) != RQ_OK) {
        err = RQ_UNKNOWN;
    }
    rq_driver_forwarded(atomic_load(&p->cluster->driver), p->submit, err, term);
    free(p);
}

static void on_propose(void *ctx, uint64_t leader_id, struct rq_submit *s)
{
    struct rq_cluster *c = ctx;
    struct proposal *p = malloc(sizeof *p);
    struct rq_bytes head;
    uint8_t holders[RQ_MEMBERS_MAX * sizeof(uint64_t)];
    for (unsigned i = 0; i < s->holders.count; i++) {
        rq_put_u64(holders + i * sizeof(uint64_t), s->holders.list[i]);
    }
    rq_bytes_init(&head, HEAD_BYTES_MAX);
    const struct rq_ask ask = {
        .kind = RQ_ASK_APPEND,
        .append = { .type = s->type,
                    .holders = { holders, s->holders.count * (uint32_t)sizeof(uint64_t) },
                    .bytes = (uint32_t)s->blob->bytes },
    };
    enum rq_err err = p == NULL ? RQ_NOMEM : rq_ask_put(&head, &ask);
    struct rq_peer_state state;
    if (err == RQ_OK && (!rq_peers_state(c->peers, leader_id, &state) || !state.connected[RQ_PEER_REQUESTS])) {
        err = RQ_AWAY; /* it is not kept until there is a connection: by then another may lead */
    }
    if (err == RQ_OK) {
        *p = (struct proposal){ c, s };
        struct iovec parts[2] = { { head.data, head.size }, { s->blob->data, s->blob->bytes } };
        err = rq_peers_request(c->peers, leader_id, parts, 2, APPEND_WAIT_MS, on_appended, p);
    }
    rq_bytes_fini(&head);
    if (err != RQ_OK) {
        free(p);
        rq_driver_forwarded(atomic_load(&c->driver), s, err == RQ_NOTFOUND ? RQ_AWAY : err, 0);
    }
}

/* --- from others ---------------------------------------------------------------------------------------------------------------------- */

struct incoming {
    struct rq_task task;
    struct rq_cluster *cluster;
    uint64_t from;
    struct rq_raft_message message;
};

static void run_incoming(struct rq_task *task)
{
    struct incoming *i = (struct incoming *)task;
    struct rq_driver *d = atomic_load(&i->cluster->driver);
    if (i->message.message.type == RAFT_REQUEST_VOTE) {
        rq_cluster_stands(i->cluster, i->message.message.server_id);
    }
    if (i->message.is_round) {
        rq_driver_receive_round(d, i->from, &i->message.round);
    } else {
        rq_driver_receive(d, &i->message.message, i->message.entries);
    }
    rq_raft_message_fini(&i->message);
    free(i);
}

static void on_raft(void *ctx, uint64_t from, const uint8_t *data, size_t bytes)
{
    struct rq_cluster *c = ctx;
    struct rq_driver *d = atomic_load(&c->driver);
    struct incoming *i = d != NULL ? malloc(sizeof *i) : NULL;
    if (i == NULL) {
        return;
    }
    enum rq_err err = rq_raft_message_get(data, bytes, &i->message);
    if (err != RQ_OK) {
        rq_note(RQ_LEVEL_WARN, "a message of another node is not understood", "from=%016llx err=%s",
                (unsigned long long)from, rq_err_name(err));
        free(i);
        return;
    }
    i->task.run = run_incoming;
    i->cluster = c;
    i->from = from;
    i->message.message.server_id = from;
    i->message.message.server_address = "";
    rq_strand_post(rq_driver_loop(d), &i->task, RQ_CARRY);
}

void rq_cluster_reply(struct rq_call *call, struct rq_bytes *body, enum rq_err err)
{
    if (err == RQ_OK) {
        struct iovec part = { body->data, body->size };
        rq_call_answer(call, &part, 1);
    } else {
        rq_call_fail(call, err, rq_err_text(err));
    }
    rq_bytes_fini(body);
}

struct asked_append {
    struct rq_submit submit; /* first */
    struct rq_call *call;
    uint64_t from;
};

static void appended(struct rq_submit *s, enum rq_err err)
{
    struct asked_append *a = (struct asked_append *)s;
    struct rq_bytes reply;
    rq_bytes_init(&reply, 64);
    if (err == RQ_OK) {
        rq_node_awaited(rq_driver_node(s->driver), a->from, s->index);
        err = rq_ask_put_appended(&reply, s->term);
    }
    if (err == RQ_OK) { /* who asked learns more from the entry itself */
        struct iovec part = { reply.data, reply.size };
        rq_call_answer_later(a->call, &part, 1);
    } else {
        rq_call_fail(a->call, err, rq_err_text(err));
    }
    rq_bytes_fini(&reply);
    free(a);
}

static void asked_append(struct rq_cluster *c, uint64_t from, struct rq_call *call, const struct rq_ask *ask)
{
    struct rq_driver *d = atomic_load(&c->driver);
    struct asked_append *a = calloc(1, sizeof *a);
    struct rq_blob *blob = rq_blob_new(ask->append.bytes);
    if (d == NULL || a == NULL || blob == NULL) {
        free(a);
        rq_blob_unref(blob);
        rq_call_fail(call, d == NULL ? RQ_AWAY : RQ_NOMEM, "");
        return;
    }
    memcpy(blob->data, ask->append.data, ask->append.bytes);
    a->call = call;
    a->from = from;
    a->submit = (struct rq_submit){ .type = ask->append.type, .here = true, .blob = blob, .done = appended };
    for (uint32_t at = 0; at < ask->append.holders.bytes; at += sizeof(uint64_t)) {
        a->submit.holders.list[a->submit.holders.count++] = rq_get_u64(ask->append.holders.data + at);
    }
    rq_driver_submit(d, &a->submit);
}

static void asked_mark(struct rq_cluster *c, struct rq_call *call, const struct rq_ask *ask)
{
    struct rq_marks *marks = atomic_load(&c->marks);
    if (marks != NULL && atomic_load(&c->driver) != NULL) {
        rq_marks_asked(marks, call, ask);
    } else {
        rq_call_fail(call, RQ_UNREADY, rq_err_text(RQ_UNREADY));
    }
}

static bool may_be_asked_for(uint16_t type)
{
    return (type >= RQ_ENTRY_TXN && type <= RQ_ENTRY_DROP) || type == RQ_ENTRY_MARK;
}

static void on_request(void *ctx, const struct rq_peer_who *from, struct rq_call *call, const uint8_t *data,
                       size_t bytes)
{
    struct rq_cluster *c = ctx;
    struct rq_ask ask;
    enum rq_err err = rq_ask_get(data, bytes, &ask);
    const bool stranger = from->kind == RQ_PEER_JOIN;
    if (err == RQ_OK && stranger && ask.kind != RQ_ASK_JOIN && ask.kind != RQ_ASK_NOTIFY) {
        err = RQ_PERM;
    }
    if (err == RQ_OK && ask.kind == RQ_ASK_APPEND && !may_be_asked_for(ask.append.type)) {
        err = RQ_PROTOCOL;
    }
    if (err != RQ_OK) {
        rq_call_fail(call, err, rq_err_text(err));
        return;
    }
    switch (ask.kind) {
        case RQ_ASK_APPEND:
            asked_append(c, from->instance, call, &ask);
            break;
        case RQ_ASK_JOIN:
            rq_cluster_asked_join(c, from, call, &ask, data, bytes);
            break;
        case RQ_ASK_NOTIFY:
            rq_cluster_asked_notify(c, from, call, &ask);
            break;
        case RQ_ASK_REMOVE:
            rq_cluster_asked_remove(c, call, &ask, data, bytes);
            break;
        case RQ_ASK_INDEX:
            rq_cluster_asked_index(c, from->instance, call);
            break;
        case RQ_ASK_REACH:
            rq_cluster_asked_reach(c, from, call, &ask);
            break;
        case RQ_ASK_HELD:
            rq_cluster_asked_held(c, call);
            break;
        case RQ_ASK_ABOUT:
            rq_cluster_asked_about(c, call);
            break;
        case RQ_ASK_TRANSFER:
            rq_cluster_asked_transfer(c, call, &ask, data, bytes);
            break;
        case RQ_ASK_TURN_TAKE:
        case RQ_ASK_TURN_WANTED:
        case RQ_ASK_TURN_HELD:
            rq_cluster_asked_turn(c->turns, from, call, &ask);
            break;
        case RQ_ASK_STATE:
        case RQ_ASK_HASHES:
        case RQ_ASK_PAGES:
            asked_mark(c, call, &ask);
            break;
    }
}

static enum rq_err on_stream(void *ctx, const struct rq_peer_who *from, struct rq_stream *stream, const uint8_t *head,
                             size_t head_bytes, const struct rq_stream_ops **ret_ops, void **ret_ctx,
                             char text[RQ_TEXT_MAX + 1])
{
    struct rq_cluster *c = ctx;
    (void)from;
    struct rq_bodies *bodies = atomic_load(&c->bodies);
    switch (rq_head_kind(head, head_bytes)) {
        case RQ_HEAD_BRING:
        case RQ_HEAD_FETCH:
            if (bodies != NULL) {
                return rq_bodies_stream(bodies, stream, head, head_bytes, ret_ops, ret_ctx, text);
            }
            (void)snprintf(text, RQ_TEXT_MAX + 1, "%s", rq_err_text(RQ_UNREADY));
            return RQ_UNREADY;
        case RQ_HEAD_COPY:
            return rq_cluster_asked_copy(c, stream, ret_ops, ret_ctx);
        default:
            (void)snprintf(text, RQ_TEXT_MAX + 1, "no such stream");
            return RQ_PROTOCOL;
    }
}

/* --- members ---------------------------------------------------------------------------------------------------------------------------- */

static enum rq_err on_judge(void *ctx, const struct rq_peer_who *who, char text[RQ_TEXT_MAX + 1])
{
    struct rq_cluster *c = ctx;
    if (who->kind == RQ_PEER_JOIN) {
        return RQ_OK;
    }
    pthread_mutex_lock(&c->lock);
    const struct rq_member *m = rq_members_find(&c->members, who->instance);
    m = m != NULL ? m : rq_members_find(&c->told, who->instance);
    const bool known = m != NULL, right = known && memcmp(m->key, who->key, RQ_NODE_KEY_BYTES) == 0;
    pthread_mutex_unlock(&c->lock);
    if (!known) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "node %.255s (%016llx) is not a member of this cluster", who->node_name,
                       (unsigned long long)who->instance);
        return RQ_PERM;
    }
    if (!right) {
        (void)snprintf(text, RQ_TEXT_MAX + 1, "node %.255s does not have the key that it joined with", who->node_name);
        return RQ_PERM;
    }
    return RQ_OK;
}

struct dialled {
    size_t count;
    struct rq_peer_member list[2 * RQ_MEMBERS_MAX];
};

static void dial_all(struct dialled *d, const struct rq_members *members, uint64_t self)
{
    for (unsigned i = 0; i < members->count; i++) {
        const struct rq_member *m = &members->list[i];
        bool there = m->instance == self;
        for (size_t k = 0; k < d->count && !there; k++) {
            there = d->list[k].instance == m->instance;
        }
        if (!there) {
            d->list[d->count] = (struct rq_peer_member){ .instance = m->instance, .address = m->raft_addr };
            memcpy(d->list[d->count++].key, m->key, RQ_NODE_KEY_BYTES);
        }
    }
}

static bool holds_all(const struct rq_members *members, const struct rq_members *others)
{
    bool all = true;
    for (unsigned i = 0; i < others->count; i++) {
        all = all && rq_members_find(members, others->list[i].instance) != NULL;
    }
    return all;
}

/* Loop context, or before the node starts: of members and told one is as it was.  What was told counts until the log says as much. */
static void set_members(struct rq_cluster *c, const struct rq_members *members, const struct rq_members *told)
{
    struct dialled dialled = { 0 };
    pthread_mutex_lock(&c->lock);
    c->members = *members;
    c->told = *told;
    if (holds_all(&c->members, &c->told)) {
        c->told.count = 0;
    }
    pthread_mutex_unlock(&c->lock);
    dial_all(&dialled, &c->told, c->config.instance); /* newer addresses first */
    dial_all(&dialled, &c->members, c->config.instance);
    enum rq_err err = rq_peers_set_members(c->peers, dialled.list, dialled.count);
    if (err != RQ_OK) {
        rq_fatal("no memory for the members of the cluster", err);
    }
}

void rq_cluster_told(struct rq_cluster *c, const struct rq_members *told)
{
    const struct rq_members members = c->members; /* nobody else writes it */
    set_members(c, &members, told);
}

void rq_cluster_is(struct rq_cluster *c, uint64_t cluster, const struct rq_members *members)
{
    pthread_mutex_lock(&c->lock);
    c->cluster = cluster;
    pthread_mutex_unlock(&c->lock);
    rq_peers_set_cluster(c->peers, cluster);
    if (members != NULL) {
        rq_cluster_told(c, members);
    }
}

bool rq_cluster_is_alone(struct rq_cluster *c)
{
    struct rq_members members;
    unsigned voters = 0;
    rq_cluster_members(c, &members);
    for (unsigned i = 0; i < members.count; i++) {
        voters += members.list[i].role == RQ_MEMBER_VOTER;
    }
    const struct rq_member *self = rq_members_find(&members, c->config.instance);
    return voters == 1 && self != NULL && self->role == RQ_MEMBER_VOTER;
}

void rq_cluster_members(struct rq_cluster *c, struct rq_members *ret_members)
{
    pthread_mutex_lock(&c->lock);
    *ret_members = c->members;
    pthread_mutex_unlock(&c->lock);
}

void rq_cluster_self(const struct rq_cluster *c, struct rq_member *ret_member)
{
    *ret_member = (struct rq_member){
        .instance = c->config.instance,
        .role = c->config.votes ? RQ_MEMBER_VOTER : RQ_MEMBER_STANDBY,
        .votes = c->config.votes,
    };
    (void)snprintf(ret_member->name, sizeof ret_member->name, "%s", c->config.node_name);
    (void)snprintf(ret_member->raft_addr, sizeof ret_member->raft_addr, "%s", c->config.raft_address);
    (void)snprintf(ret_member->http_addr, sizeof ret_member->http_addr, "%s", c->config.http_address);
    memcpy(ret_member->key, rq_node_key_public(c->config.key), RQ_NODE_KEY_BYTES);
}

static void on_members(void *ctx, const struct rq_members *members)
{
    struct rq_cluster *c = ctx;
    const struct rq_members told = c->told; /* nobody else writes it */
    set_members(c, members, &told);
    rq_cluster_turn_members(c->turns);
}

static void on_role(void *ctx, bool leads, uint64_t term, uint64_t leader_id)
{
    struct rq_cluster *c = ctx;
    if (leader_id != 0) {
        atomic_store(&c->removed, false); /* it is a member again */
    }
    rq_cluster_turn_role(c->turns, leads, term, leader_id);
}

static void on_install(void *ctx, uint64_t index, uint64_t term, uint64_t leader_id)
{
    const struct rq_cluster *c = ctx;
    rq_note(RQ_LEVEL_INFO, "the log that this node needs was released: it gets the databases themselves",
            "index=%llu term=%llu leader=%016llx", (unsigned long long)index, (unsigned long long)term,
            (unsigned long long)leader_id);
    rq_catchup_wanted(c->catchup, index);
}

/* --- life --------------------------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_cluster_new(const struct rq_cluster_config *config, struct rq_cluster **ret_cluster,
                           char text[RQ_TEXT_MAX + 1])
{
    struct rq_cluster *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return RQ_NOMEM;
    }
    c->config = *config;
    c->cluster = config->cluster;
    c->ops = (struct rq_peers_ops){ c, on_judge, on_raft, on_request, on_stream };
    c->forward = (struct rq_forward){ c,
                                      on_propose,
                                      on_send,
                                      on_members,
                                      on_role,
                                      on_install,
                                      rq_cluster_on_removed,
                                      on_send_round,
                                      rq_cluster_may_vote,
                                      rq_cluster_ask_index };
    pthread_mutex_init(&c->lock, NULL);
    rq_doubts_init(&c->doubts);
    rq_cluster_self(c, &c->waiting[0]);
    c->waiting_count = 1;
    const struct rq_peers_config peers = {
        .listen_address = config->listen_address,
        .advertise_address = config->raft_address,
        .node_name = config->node_name,
        .cluster = config->cluster,
        .instance = config->instance,
        .key = config->key,
        .tls = config->tls,
        .ops = &c->ops,
    };
    enum rq_err err = rq_cluster_turns_new(c, &c->turns);
    if (err == RQ_OK) {
        err = rq_peers_new(&peers, &c->peers, text);
        if (err != RQ_OK) {
            rq_cluster_turns_free(c->turns);
        }
    }
    if (err != RQ_OK) {
        pthread_mutex_destroy(&c->lock);
        free(c);
        return err;
    }
    *ret_cluster = c;
    return RQ_OK;
}

void rq_cluster_free(struct rq_cluster *c)
{
    rq_peers_free(c->peers);
    rq_bodies_free(atomic_load(&c->bodies));
    rq_cluster_turns_free(c->turns);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

struct rq_peers *rq_cluster_peers(struct rq_cluster *c)
{
    return c->peers;
}

const struct rq_forward *rq_cluster_forward(struct rq_cluster *c)
{
    return &c->forward;
}

void rq_cluster_set_log(struct rq_cluster *c, struct rq_log *log)
{
    c->log = log;
}

static void on_members_asked(void *ctx, struct rq_members *ret_members)
{
    rq_cluster_members(ctx, ret_members);
}

static bool on_is_superseded(void *ctx)
{
    const struct rq_cluster *c = ctx;
    return atomic_load(&c->driver) != NULL && rq_catchup_is_wanted(c->catchup);
}

enum rq_err rq_cluster_carry_bodies(struct rq_cluster *c, struct rq_disk *disk, const char *staged_dir,
                                    struct rq_shelf *shelf, const struct rq_carrier **ret_carrier)
{
    const struct rq_bodies_config config = {
        .disk = disk,
        .staged_dir = staged_dir,
        .shelf = shelf,
        .peers = c->peers,
        .instance = c->config.instance,
        .members = on_members_asked,
        .is_superseded = on_is_superseded,
        .ctx = c,
    };
    struct rq_bodies *bodies;
    enum rq_err err = rq_bodies_new(&config, &bodies);
    if (err == RQ_OK) {
        *ret_carrier = rq_bodies_carrier(bodies);
        atomic_store(&c->bodies, bodies);
    }
    return err;
}

struct rq_compare *rq_cluster_compare(struct rq_cluster *c)
{
    return atomic_load(&c->driver) != NULL ? c->compare : NULL;
}

void rq_cluster_marked(void *cluster, struct rq_database *db, const struct rq_entry_mark *mark, uint64_t index,
                       struct rq_view *view)
{
    struct rq_cluster *c = cluster;
    struct rq_marks *marks = atomic_load(&c->marks);
    if (marks == NULL) {
        rq_view_free(view);
        return;
    }
    rq_marks_take(marks, db, mark, index, view);
    if (mark->count > 0) {
        rq_compare_marked(c->compare, mark, index);
    }
}

bool rq_cluster_disputed(void *cluster, struct rq_database *db, uint32_t pgno)
{
    struct rq_cluster *c = cluster;
    struct rq_voice list[RQ_VOICES_MAX];
    char name[RQ_DB_NAME_MAX * 2];
    unsigned voters;
    bool self_votes;
    (void)rq_voices(c, list, &voters, &self_votes);
    if (voters < DECIDING_VOTERS) {
        return false;
    }
    if (rq_doubts_put(&c->doubts, rq_database_id(db), pgno)) {
        rq_note(RQ_LEVEL_ERROR,
                "a transaction was made on another page than the one here: it is applied to ours, and the other "
                "members are asked who is wrong",
                "db=%s id=%u page=%u", rq_quote(name, sizeof name, rq_database_name(db)), rq_database_id(db), pgno);
    }
    return true;
}

struct rq_catchup *rq_cluster_catchup(struct rq_cluster *c)
{
    return atomic_load(&c->driver) != NULL ? c->catchup : NULL;
}

enum rq_err rq_cluster_start(struct rq_cluster *c, struct rq_driver *driver, struct rq_catalog *catalog)
{
    c->catalog = catalog;
    struct rq_marks *marks;
    enum rq_err err = rq_marks_new(c, &marks);
    if (err == RQ_OK) {
        err = rq_compare_new(c, c->config.compare_every_ms, &c->compare);
    }
    if (err == RQ_OK) {
        atomic_store(&c->marks, marks);
        err = rq_catchup_new(c, &c->catchup);
    }
    if (err == RQ_OK) {
        atomic_store(&c->driver, driver);
        rq_reaper_start(c);
        rq_removal_start(c);
        rq_cluster_turn_start(c->turns, catalog);
    }
    return err;
}
