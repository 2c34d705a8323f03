/* tls: both ends of a channel in one thread: what the -node-* flags ask for is checked, with words; changed files are used by the
 * next channel; the exporter is the same at both ends and another for each channel. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "raftd/net/tls.h"
#include "tests/support/certs.h"
#include "tests/support/scratch.h"
#include "tests/support/tap.h"

static char folder[64];
static struct cert ca, other_ca;

static const char *in_folder(const char *name)
{
    static char paths[16][128];
    static unsigned at;
    char *path = paths[at++ % 16];
    (void)snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* --- two ends --------------------------------------------------------------------------------------------------------------- */

struct pipe_end {
    uint8_t bytes[262144]; /* on the way to the other end */
    size_t begin, end;
    struct pipe_end *other;
};

static ssize_t receive(void *ctx, void *data, size_t bytes)
{
    struct pipe_end *from = ((struct pipe_end *)ctx)->other;
    size_t n = from->end - from->begin < bytes ? from->end - from->begin : bytes;
    if (n == 0) {
        errno = EAGAIN;
        return -1;
    }
    memcpy(data, from->bytes + from->begin, n);
    from->begin += n;
    return (ssize_t)n;
}

static ssize_t transmit(void *ctx, const void *data, size_t bytes)
{
    struct pipe_end *e = ctx;
    if (sizeof e->bytes - e->end < bytes) {
        errno = ENOSPC;
        return -1;
    }
    memcpy(e->bytes + e->end, data, bytes);
    e->end += bytes;
    return (ssize_t)bytes;
}

static struct pipe_end ends[2];
static struct rq_channel *client, *server;

/* Up to the end of the handshake; the first error of either. */
static enum rq_err shake(struct rq_tls *c, struct rq_tls *s, const char *host, char text[RQ_TEXT_MAX + 1])
{
    for (int i = 0; i < 2; i++) {
        ends[i].begin = ends[i].end = 0;
        ends[i].other = &ends[1 - i];
    }
    check_eq(rq_channel_new(c, host, &(struct rq_tls_transport){ &ends[0], receive, transmit }, &client), RQ_OK);
    check_eq(rq_channel_new(s, NULL, &(struct rq_tls_transport){ &ends[1], receive, transmit }, &server), RQ_OK);
    enum rq_err ce = RQ_BUSY, se = RQ_BUSY;
    for (int round = 0; round < 20 && (ce == RQ_BUSY || se == RQ_BUSY); round++) {
        ce = ce == RQ_BUSY ? rq_channel_handshake(client, text) : ce;
        se = se == RQ_BUSY ? rq_channel_handshake(server, text) : se;
    }
    return ce != RQ_OK ? ce : se;
}

static void hang_up(void)
{
    rq_channel_free(client);
    rq_channel_free(server);
    client = server = NULL;
}

static struct rq_tls *tls_of(const struct rq_tls_files *files)
{
    struct rq_tls *t;
    char text[RQ_TEXT_MAX + 1];
    check_eq(rq_tls_new(files, &t, text), RQ_OK);
    return t;
}

/* What each end says of the other when the client dials host. */
static void verify(const struct rq_tls_files *c, const struct rq_tls_files *s, const char *host,
                   enum rq_err *ret_client, enum rq_err *ret_server, char text[RQ_TEXT_MAX + 1])
{
    struct rq_tls *ct = tls_of(c), *st = tls_of(s);
    text[0] = '\0';
    check_eq(shake(ct, st, host, text), RQ_OK);
    *ret_client = rq_channel_verify(client, text);
    *ret_server = rq_channel_verify(server, text);
    hang_up();
    rq_tls_free(ct);
    rq_tls_free(st);
}

static struct rq_tls_files files_of(const char *name)
{
    char cert[64], key[64];
    (void)snprintf(cert, sizeof cert, "%s.crt", name);
    (void)snprintf(key, sizeof key, "%s.key", name);
    return (struct rq_tls_files){ .cert = in_folder(cert), .key = in_folder(key), .ca_cert = in_folder("ca.crt") };
}

/* --- claims ----------------------------------------------------------------------------------------------------------------- */

static void without_certificates_there_is_a_channel_and_no_check(void)
{
    char text[RQ_TEXT_MAX + 1] = "";
    struct rq_tls *t = tls_of(NULL);
    uint8_t mine[RQ_PEER_EXPORTER_BYTES], its[RQ_PEER_EXPORTER_BYTES], next[RQ_PEER_EXPORTER_BYTES];
    static uint8_t plain[40000], back[16384];
    size_t n, got = 0;
    check_eq(shake(t, t, "anything", text), RQ_OK);
    check_eq(rq_channel_verify(client, text), RQ_OK);
    check_eq(rq_channel_verify(server, text), RQ_OK);
    check_eq(rq_channel_exporter(client, mine), RQ_OK);
    check_eq(rq_channel_exporter(server, its), RQ_OK);
    check(memcmp(mine, its, sizeof mine) == 0);
    memset(plain, 0x5a, sizeof plain);
    check_eq(rq_channel_send(client, plain, sizeof plain), RQ_OK);
    while (rq_channel_receive(server, back, sizeof back, &n) == RQ_OK) {
        check(memcmp(back, plain, n) == 0);
        got += n;
    }
    check_eq(got, sizeof plain);
    check(memmem(ends[0].bytes, ends[0].end, plain, 16) == NULL);
    ends[1].bytes[ends[1].end] = 0; /* and what was changed on its way is noticed */
    check_eq(rq_channel_send(server, "hello", 5), RQ_OK);
    ends[1].bytes[ends[1].end - 1] ^= 1;
    check_eq(rq_channel_receive(client, back, sizeof back, &n), RQ_AWAY);
    hang_up();
    check_eq(shake(t, t, "anything", text), RQ_OK);
    check_eq(rq_channel_exporter(client, next), RQ_OK);
    check(memcmp(mine, next, sizeof mine) != 0);
    hang_up();
    rq_tls_free(t);
}

static void the_server_is_checked_by_name_and_authority(void)
{
    char text[RQ_TEXT_MAX + 1];
    enum rq_err c, s;
    struct rq_tls_files n1 = files_of("n1"), foreign = files_of("foreign"), dialler = files_of("n2");
    verify(&dialler, &n1, "node1.example", &c, &s, text);
    check(c == RQ_OK && s == RQ_OK);
    verify(&dialler, &n1, "127.0.0.1", &c, &s, text);
    check_eq(c, RQ_OK); /* an address among its names */
    verify(&dialler, &n1, "127.0.0.2", &c, &s, text);
    check_eq(c, RQ_PERM);
    verify(&dialler, &n1, "node2.example", &c, &s, text);
    check(c == RQ_PERM && strstr(text, "node2.example") != NULL);
    dialler.verify_server_name = "node1.example";
    verify(&dialler, &n1, "node2.example", &c, &s, text);
    check_eq(c, RQ_OK);
    verify(&dialler, &foreign, "node1.example", &c, &s, text);
    check(c == RQ_PERM && strstr(text, "certificate of the server") != NULL);
    dialler.no_verify = true;
    verify(&dialler, &foreign, "node1.example", &c, &s, text);
    check_eq(c, RQ_OK);
    dialler = (struct rq_tls_files){ .ca_cert = in_folder("ca.crt") }; /* shows none, but checks */
    verify(&dialler, &foreign, "node1.example", &c, &s, text);
    check_eq(c, RQ_PERM);
    verify(&dialler, &n1, "node1.example", &c, &s, text);
    check_eq(c, RQ_OK);
}

static void the_client_is_checked_when_asked_for(void)
{
    char text[RQ_TEXT_MAX + 1];
    enum rq_err c, s;
    struct rq_tls_files n1 = files_of("n1"), n2 = files_of("n2"), foreign = files_of("foreign");
    verify(&(struct rq_tls_files){ 0 }, &n1, "node1.example", &c, &s, text);
    check(c == RQ_OK && s == RQ_OK); /* nobody asked */
    n1.verify_client = true;
    verify(&n2, &n1, "node1.example", &c, &s, text);
    check(c == RQ_OK && s == RQ_OK);
    verify(&foreign, &n1, "node1.example", &c, &s, text);
    check(s == RQ_PERM && strstr(text, "certificate of the client") != NULL);
    verify(&(struct rq_tls_files){ 0 }, &n1, "node1.example", &c, &s, text);
    check_eq(s, RQ_PERM);
    n1.verify_common_name = "second";
    verify(&n2, &n1, "node1.example", &c, &s, text);
    check_eq(s, RQ_OK);
    n1.verify_common_name = "secon";
    verify(&n2, &n1, "node1.example", &c, &s, text);
    check_eq(s, RQ_PERM);
    check(strcmp(text, "client did not provide any valid certificate that matches CN \"secon\"") == 0);
}

static void changed_files_are_used_by_the_next_channel(void)
{
    char text[RQ_TEXT_MAX + 1] = "";
    struct cert fresh;
    struct rq_tls_files moved = { .cert = in_folder("moved.crt"), .key = in_folder("moved.key") },
                        dialler = files_of("n2");
    check(scratch_copy(in_folder("foreign.crt"), moved.cert) && scratch_copy(in_folder("foreign.key"), moved.key));
    struct rq_tls *s = tls_of(&moved), *c = tls_of(&dialler);
    check_eq(shake(c, s, "node1.example", text), RQ_OK);
    check_eq(rq_channel_verify(client, text), RQ_PERM);
    struct rq_channel *old_client = client, *old_server = server;

    FILE *half = fopen(moved.cert, "w"); /* nothing useful: the former stays */
    check(half != NULL && fputs("half of a cert", half) >= 0 && fclose(half) == 0);
    check_eq(shake(c, s, "node1.example", text), RQ_OK);
    hang_up();

    check(cert_make(&fresh, &ca, "first", "node1.example", NULL));
    check(cert_save(&fresh, moved.cert, moved.key));
    cert_fini(&fresh);
    check_eq(shake(c, s, "node1.example", text), RQ_OK);
    check_eq(rq_channel_verify(client, text), RQ_OK);
    hang_up();
    rq_channel_free(old_client); /* it was of the former ones, and lived on */
    rq_channel_free(old_server);
    rq_tls_free(s);
    rq_tls_free(c);
}

static void a_file_that_cannot_be_used_is_named(void)
{
    struct rq_tls *t;
    char text[RQ_TEXT_MAX + 1];
    struct rq_tls_files files = files_of("n1");
    files.cert = in_folder("nothing.crt");
    check_eq(rq_tls_new(&files, &t, text), RQ_IO);
    check(strstr(text, "nothing.crt") != NULL);
    files = files_of("n1");
    files.key = in_folder("n2.key"); /* of another certificate */
    check_eq(rq_tls_new(&files, &t, text), RQ_IO);
    check(strstr(text, "n2.key") != NULL);
    files = files_of("n1");
    files.ca_cert = in_folder("n1.key");
    check_eq(rq_tls_new(&files, &t, text), RQ_IO);
    check(strstr(text, "n1.key") != NULL);
}

static void garbage_is_no_handshake(void)
{
    char text[RQ_TEXT_MAX + 1] = "";
    struct rq_tls *t = tls_of(NULL);
    ends[0].begin = ends[1].begin = ends[1].end = 0;
    static const char http[] = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";
    memcpy(ends[0].bytes, http, sizeof http);
    ends[0].end = sizeof http - 1;
    ends[1].other = &ends[0];
    check_eq(rq_channel_new(t, NULL, &(struct rq_tls_transport){ &ends[1], receive, transmit }, &server), RQ_OK);
    check_eq(rq_channel_handshake(server, text), RQ_PROTOCOL);
    check(strncmp(text, "TLS: ", 5) == 0);
    hang_up();
    rq_tls_free(t);
}

static void make_certs(void)
{
    static const char loopback[4] = { 127, 0, 0, 1 };
    struct cert n1, n2, foreign;
    check(cert_make(&ca, NULL, "authority", NULL, NULL) && cert_make(&other_ca, NULL, "another", NULL, NULL));
    check(cert_make(&n1, &ca, "first", "node1.example", loopback) &&
          cert_make(&n2, &ca, "second", "node2.example", NULL));
    check(cert_make(&foreign, &other_ca, "second", "node1.example", loopback));
    check(cert_save(&ca, in_folder("ca.crt"), NULL) && cert_save(&n1, in_folder("n1.crt"), in_folder("n1.key")));
    check(cert_save(&n2, in_folder("n2.crt"), in_folder("n2.key")));
    check(cert_save(&foreign, in_folder("foreign.crt"), in_folder("foreign.key")));
    cert_fini(&n1);
    cert_fini(&n2);
    cert_fini(&foreign);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(without_certificates_there_is_a_channel_and_no_check),
        TAP(the_server_is_checked_by_name_and_authority),
        TAP(the_client_is_checked_when_asked_for),
        TAP(changed_files_are_used_by_the_next_channel),
        TAP(a_file_that_cannot_be_used_is_named),
        TAP(garbage_is_no_handshake),
    };
    (void)snprintf(folder, sizeof folder, "/tmp/test_tls.XXXXXX");
    if (mkdtemp(folder) == NULL || setjmp(tap_jump) != 0) {
        printf("Bail out! no certificates\n");
        return 1;
    }
    make_certs();
    int failed = tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
    cert_fini(&ca);
    cert_fini(&other_ca);
    (void)scratch_remove(folder);
    return failed;
}
