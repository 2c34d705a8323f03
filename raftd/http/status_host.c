/* Status of the host: this process, its machine, its network. */
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>

#include "raftd/http/json.h"
#include "raftd/http/status_parts.h"

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

static void put_network(yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    struct ifaddrs *list = NULL;
    char host[NI_MAXHOST];
    yyjson_mut_val *interfaces =
        yyjson_mut_obj_add_obj(doc, yyjson_mut_obj_add_obj(doc, root, "network"), "interfaces");
    if (getifaddrs(&list) != 0) {
        return;
    }
    for (const struct ifaddrs *i = list; i != NULL; i = i->ifa_next) {
        yyjson_mut_val *one = yyjson_mut_obj_get(interfaces, i->ifa_name);
        if (one == NULL) {
            one = yyjson_mut_obj(doc);
            yyjson_mut_obj_add(interfaces, yyjson_mut_strcpy(doc, i->ifa_name), one);
            (void)yyjson_mut_obj_add_arr(doc, one, "addresses");
            put_flags(doc, one, i->ifa_flags);
        }
        const int family = i->ifa_addr != NULL ? i->ifa_addr->sa_family : AF_UNSPEC;
        const socklen_t bytes = family == AF_INET    ? sizeof(struct sockaddr_in)
                                : family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                     : 0;
        if (bytes > 0 && getnameinfo(i->ifa_addr, bytes, host, sizeof host, NULL, 0, NI_NUMERICHOST) == 0) {
            yyjson_mut_val *address = yyjson_mut_arr_add_obj(doc, yyjson_mut_obj_get(one, "addresses"));
            yyjson_mut_obj_add_strcpy(doc, address, "address", host);
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
