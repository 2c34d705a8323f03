#include "raftd/net/resolve.h"

#include <netdb.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/net/address.h"

struct rq_resolver {
    void (*done)(void *ctx, struct rq_resolve_job *job);
    void *ctx;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct rq_resolve_job *first, *last; /* guarded by lock, as stop */
    bool stop;
};

static enum rq_err look_up(const char *address, int flags, struct rq_addresses *ret, const char **ret_why)
{
    char host[256], port[64];
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV };
    struct addrinfo *list;
    if (!rq_split_host_port(address, host, port)) {
        *ret_why = "not of the form host:port";
        return RQ_NOTFOUND;
    }
    if (strspn(port, "0123456789") == strlen(port) && strtoul(port, NULL, 10) > UINT16_MAX) {
        *ret_why = "invalid port"; /* of which getaddrinfo() takes what fits */
        return RQ_NOTFOUND;
    }
    int rc = getaddrinfo(host[0] != '\0' ? host : NULL, port, &hints, &list);
    if (rc != 0) {
        *ret_why = gai_strerror(rc);
        return RQ_NOTFOUND;
    }
    /* A name to listen on is its IPv4 address, if it has one, as with rqlited: clients of localhost take it to be 127.0.0.1. */
    const bool listens = (flags & AI_PASSIVE) != 0;
    ret->count = 0;
    for (int later = 0; later <= (int)listens; later++) {
        for (struct addrinfo *a = list; a != NULL && ret->count < RQ_ADDRESSES_MAX; a = a->ai_next) {
            if (!listens || (a->ai_family != AF_INET) == (later != 0)) {
                memcpy(&ret->all[ret->count], a->ai_addr, a->ai_addrlen);
                ret->bytes[ret->count++] = a->ai_addrlen;
            }
        }
    }
    freeaddrinfo(list);
    return RQ_OK;
}

enum rq_err rq_resolve_now(const char *address, bool to_listen, struct rq_addresses *ret_addresses,
                           const char **ret_why)
{
    return look_up(address, to_listen ? AI_PASSIVE : 0, ret_addresses, ret_why);
}

enum rq_err rq_resolve_digits(const char *address, struct rq_addresses *ret_addresses)
{
    const char *why;
    return look_up(address, AI_NUMERICHOST, ret_addresses, &why);
}

static void *resolver_thread(void *arg)
{
    struct rq_resolver *r = arg;
    for (;;) {
        pthread_mutex_lock(&r->lock);
        while (r->first == NULL && !r->stop) {
            pthread_cond_wait(&r->work, &r->lock);
        }
        struct rq_resolve_job *job = r->first;
        bool stop = r->stop;
        if (job != NULL) {
            r->first = job->next;
        }
        pthread_mutex_unlock(&r->lock);
        if (job == NULL) {
            return NULL;
        }
        job->err = stop ? RQ_SHUTDOWN : rq_resolve_now(job->address, false, &job->addresses, &job->why);
        r->done(r->ctx, job);
    }
}

enum rq_err rq_resolver_new(void (*done)(void *ctx, struct rq_resolve_job *job), void *ctx,
                            struct rq_resolver **ret_resolver)
{
    struct rq_resolver *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return RQ_NOMEM;
    }
    r->done = done;
    r->ctx = ctx;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->work, NULL);
    if (pthread_create(&r->thread, NULL, resolver_thread, r) != 0) {
        free(r);
        return RQ_NOMEM;
    }
    (void)pthread_setname_np(r->thread, "raftd-names"); /* for ps only */
    *ret_resolver = r;
    return RQ_OK;
}

void rq_resolver_free(struct rq_resolver *r)
{
    if (r == NULL) {
        return;
    }
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_signal(&r->work);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    pthread_cond_destroy(&r->work);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

void rq_resolver_post(struct rq_resolver *r, struct rq_resolve_job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&r->lock);
    *(r->first != NULL ? &r->last->next : &r->first) = job;
    r->last = job;
    pthread_cond_signal(&r->work);
    pthread_mutex_unlock(&r->lock);
}
