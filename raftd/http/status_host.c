/* Status of the host: this process, its machine, its network. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>

#include "raftd/http/json.h"
#include "raftd/http/status_parts.h"

#define INTERFACES_MAX 1024u /* with all their addresses; those beyond are not shown */

/* "up|broadcast|multicast", as Go says it. */
static void put_flags(yyjson_mut_doc *doc, yyjson_mut_val *in, unsigned flags)
{
    static const struct {
        unsigned bit;
        const char *name;
    } known[] = { { IFF_UP, "up" },
                  { IFF_BROADCAST, "broadcast" },
                  { IFF_LOOPBACK, "loopback" },
                  { IFF_POINTOPOINT, "pointtopoint" },
                  { IFF_MULTICAST, "multicast" },
                  { IFF_RUNNING, "running" } };
    char text[128] = "";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if ((flags & known[i].bit) != 0) {
            const size_t used = strlen(text);
            (void)snprintf(text + used, sizeof text - used, "%s%s", used > 0 ? "|" : "", known[i].name);
        }
    }
    yyjson_mut_obj_add_strcpy(doc, in, "flags", text);
}

static unsigned ones_of(const void *mask, size_t bytes)
{
    unsigned ones = 0;
    for (size_t i = 0; i < bytes; i++) {
        ones += (unsigned)__builtin_popcount(((const uint8_t *)mask)[i]);
    }
    return ones;
}

/* "127.0.0.1/8" */
static void put_address(yyjson_mut_doc *doc, yyjson_mut_val *addresses, const struct ifaddrs *i)
{
    char host[INET6_ADDRSTRLEN], text[sizeof host + 8];
    const bool four = i->ifa_addr->sa_family == AF_INET;
    const void *address = four ? (const void *)&((const struct sockaddr_in *)i->ifa_addr)->sin_addr
                               : &((const struct sockaddr_in6 *)i->ifa_addr)->sin6_addr;
    unsigned ones = 0;
    if (i->ifa_netmask != NULL) {
        ones = four ? ones_of(&((const struct sockaddr_in *)i->ifa_netmask)->sin_addr, 4)
                    : ones_of(&((const struct sockaddr_in6 *)i->ifa_netmask)->sin6_addr, 16);
    }
    if (inet_ntop(i->ifa_addr->sa_family, address, host, sizeof host) != NULL) {
        (void)snprintf(text, sizeof text, "%s/%u", host, ones);
        yyjson_mut_obj_add_strcpy(doc, yyjson_mut_arr_add_obj(doc, addresses), "address", text);
    }
}

/* "02:fc:00:00:00:01"; that of a loopback is all zeros, and "" */
static void put_hardware(yyjson_mut_doc *doc, yyjson_mut_val *one, const struct ifaddrs *i)
{
    const struct sockaddr_ll *link = (const struct sockaddr_ll *)i->ifa_addr;
    char text[3 * sizeof link->sll_addr + 1] = "";
    for (unsigned n = 0;
         n < link->sll_halen && n < sizeof link->sll_addr && ones_of(link->sll_addr, link->sll_halen) > 0; n++) {
        (void)snprintf(text + strlen(text), 4, "%s%02x", n > 0 ? ":" : "", link->sll_addr[n]);
    }
    yyjson_mut_obj_add_strcpy(doc, one, "hardware_address", text);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Keys in the order of their bytes, here as everywhere. */
static void put_interface(yyjson_mut_doc *doc, yyjson_mut_val *interfaces, const struct ifaddrs *list, const char *name)
{
    const struct ifaddrs *link = NULL;
    unsigned flags = 0;
    yyjson_mut_val *one = yyjson_mut_obj(doc), *addresses = yyjson_mut_obj_add_arr(doc, one, "addresses");
    yyjson_mut_obj_add(interfaces, yyjson_mut_strcpy(doc, name), one);
    for (const struct ifaddrs *i = list; i != NULL; i = i->ifa_next) {
        if (strcmp(i->ifa_name, name) != 0) {
            continue;
        }
        flags = i->ifa_flags;
        const int family = i->ifa_addr != NULL ? i->ifa_addr->sa_family : AF_UNSPEC;
        if (family == AF_INET || family == AF_INET6) {
            put_address(doc, addresses, i);
        } else if (family == AF_PACKET) {
            link = i;
        }
    }
    put_flags(doc, one, flags);
    if (link != NULL) {
        put_hardware(doc, one, link);
    }
}

static void put_network(yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    struct ifaddrs *list = NULL;
    const char *names[INTERFACES_MAX];
    size_t count = 0;
    yyjson_mut_val *interfaces =
        yyjson_mut_obj_add_obj(doc, yyjson_mut_obj_add_obj(doc, root, "network"), "interfaces");
    if (getifaddrs(&list) != 0) {
        return;
    }
    for (const struct ifaddrs *i = list; i != NULL && count < INTERFACES_MAX; i = i->ifa_next) {
        names[count++] = i->ifa_name; /* once for each of its addresses */
    }
    qsort(names, count, sizeof *names, by_name);
    for (size_t n = 0; n < count; n++) {
        if (n == 0 || strcmp(names[n], names[n - 1]) != 0) {
            put_interface(doc, interfaces, list, names[n]);
        }
    }
    freeifaddrs(list);
}

void rq_status_put_host(struct rq_admin *a, yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    struct utsname uts = { 0 };
    char host[256] = "", executable[4096] = "";
    time_t now = time(NULL);

    put_network(doc, root);
    yyjson_mut_val *node = yyjson_mut_obj_add_obj(doc, root, "node");
    rq_http_put_time(doc, node, "current_time", now);
    rq_http_put_time(doc, node, "start_time", (time_t)a->started_s);
    rq_http_put_duration(doc, node, "uptime", ((uint64_t)now - a->started_s) * 1000000000u);

    yyjson_mut_val *os = yyjson_mut_obj_add_obj(doc, root, "os");
    ssize_t n = readlink("/proc/self/exe", executable, sizeof executable - 1);
    executable[n > 0 ? n : 0] = '\0';
    yyjson_mut_obj_add_strcpy(doc, os, "executable", executable);
    (void)gethostname(host, sizeof host - 1); /* then it is "" */
    yyjson_mut_obj_add_strcpy(doc, os, "hostname", host);
    yyjson_mut_obj_add_int(doc, os, "page_size", sysconf(_SC_PAGESIZE));
    yyjson_mut_obj_add_int(doc, os, "pid", getpid());
    yyjson_mut_obj_add_int(doc, os, "ppid", getppid());

    yyjson_mut_val *runtime = yyjson_mut_obj_add_obj(doc, root, "runtime");
    (void)uname(&uts); /* cannot fail with a good pointer */
    yyjson_mut_obj_add_strcpy(doc, runtime, "GOARCH",
                              strcmp(uts.machine, "x86_64") == 0    ? "amd64"
                              : strcmp(uts.machine, "aarch64") == 0 ? "arm64"
                                                                    : uts.machine);
    yyjson_mut_obj_add_int(doc, runtime, "GOMAXPROCS", sysconf(_SC_NPROCESSORS_ONLN));
    yyjson_mut_obj_add_str(doc, runtime, "GOOS", "linux");
    yyjson_mut_obj_add_bool(doc, runtime, "kubernetes_hint", getenv("KUBERNETES_SERVICE_HOST") != NULL);
    yyjson_mut_obj_add_int(doc, runtime, "num_cpu", sysconf(_SC_NPROCESSORS_ONLN));
    yyjson_mut_obj_add_str(doc, runtime, "version", "C, " __VERSION__);
}
