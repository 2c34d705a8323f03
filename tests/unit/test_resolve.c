/* resolve: which addresses a name has, and in which order they are tried. */
#include <netinet/in.h>
#include <string.h>

#include "raftd/net/resolve.h"
#include "tests/support/tap.h"

/* Whoever is told localhost:4001 may connect to 127.0.0.1:4001; only the first address is listened on. */
static void a_name_to_listen_on_is_its_ipv4_address(void)
{
    struct rq_addresses a;
    const char *why;
    check_eq(rq_resolve_now("localhost:4001", true, &a, &why), RQ_OK);
    const struct sockaddr_in *first = (const struct sockaddr_in *)&a.all[0];
    check(a.count > 0 && first->sin_family == AF_INET && a.bytes[0] == sizeof *first);
    check_eq(first->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    check_eq(first->sin_port, htons(4001));
}

static void what_is_no_address_is_said(void)
{
    struct rq_addresses a;
    const char *why = NULL;
    check_eq(rq_resolve_now("localhost", true, &a, &why), RQ_NOTFOUND);
    check(why != NULL);
    check_eq(rq_resolve_digits("localhost:4001", &a), RQ_NOTFOUND);
    check_eq(rq_resolve_now("localhost:65536", true, &a, &why), RQ_NOTFOUND);
    check(strcmp(why, "invalid port") == 0);
    check_eq(rq_resolve_now("localhost:65535", true, &a, &why), RQ_OK);
    check_eq(rq_resolve_digits("[::1]:4001", &a), RQ_OK);
    check_eq(a.all[0].ss_family, AF_INET6);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(a_name_to_listen_on_is_its_ipv4_address),
        TAP(what_is_no_address_is_said),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
