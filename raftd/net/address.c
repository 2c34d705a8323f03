#include "raftd/net/address.h"

#include <string.h>

bool rq_split_host_port(const char *address, char host[256], char port[64])
{
    const char *begin = address, *end, *colon;
    if (*address == '[') {
        begin = address + 1;
        end = strchr(begin, ']');
        if (end == NULL || end[1] != ':') {
            return false;
        }
        colon = end + 1;
    } else {
        colon = strrchr(address, ':');
        if (colon == NULL) {
            return false;
        }
        end = colon;
        if (memchr(begin, ':', (size_t)(end - begin)) != NULL) {
            return false; /* a bare IPv6 address */
        }
    }
    size_t host_bytes = (size_t)(end - begin);
    if (host_bytes >= 256 || strlen(colon + 1) >= 64) {
        return false;
    }
    memcpy(host, begin, host_bytes);
    host[host_bytes] = '\0';
    memcpy(port, colon + 1, strlen(colon + 1) + 1);
    return true;
}
