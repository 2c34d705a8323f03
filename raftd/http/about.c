#include "raftd/http/about.h"

static const char licenses[] =
    "raftd is distributed under the MIT License (Copyright (c) 2026 The rqvfs authors); its text is in the file "
    "LICENSE of\n"
    "the sources.\n"
    "\n"
    "It is made with these libraries, each of which has its license beside it where it is installed\n"
    "(/usr/share/doc/PACKAGE/copyright on Debian):\n"
    "\n"
    "C-Raft (libraft)    LGPL-3.0 with an exception for static and dynamic linking\n"
    "GnuTLS              LGPL-2.1-or-later\n"
    "libcurl             curl\n"
    "libmicrohttpd       LGPL-2.1-or-later\n"
    "libxcrypt           LGPL-2.1-or-later\n"
    "msgpack-c           BSL-1.0\n"
    "nng                 MIT\n"
    "SQLite              public domain\n"
    "xxHash              BSD-2-Clause\n"
    "yyjson              MIT\n"
    "zlib                Zlib\n";

static void get_licenses(void *ctx, const struct rq_http_request *request, struct rq_http_response *response)
{
    (void)ctx;
    (void)request;
    rq_http_text(response, 200, licenses);
}

const struct rq_http_route rq_about_routes[] = {
    { "/licenses", false, false, "GET", "status", get_licenses, .type = "text/plain; charset=utf-8" },
};
const size_t rq_about_route_count = sizeof rq_about_routes / sizeof *rq_about_routes;
