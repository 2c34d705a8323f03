/* Go JSON: values as Go's encoding/json writes them, which rqlite's clients have seen for years.
 *
 * Every function appends to out; NOMEM or TOOBIG leave a part of the value there. */
#ifndef RAFTD_HTTP_GO_JSON_H
#define RAFTD_HTTP_GO_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/bytes.h"

enum rq_err rq_go_put_integer(struct rq_bytes *out, int64_t v);
/* Shortest digits that give v again; infinity, which JSON has not, as a string. */
enum rq_err rq_go_put_real(struct rq_bytes *out, double v);
/* Quoted; what is not UTF-8 becomes U+FFFD. */
enum rq_err rq_go_put_text(struct rq_bytes *out, const uint8_t *text, size_t bytes);
enum rq_err rq_go_put_base64(struct rq_bytes *out, const uint8_t *data, size_t bytes); /* quoted */
enum rq_err rq_go_put_array(struct rq_bytes *out, const uint8_t *data, size_t bytes);  /* [1,2,255] */

/* A point in time (UTC) or date in any of the notations that rqlite knows, as RFC 3339.  False, with nothing written, if it is
 * none, or outside the years 0 to 9999. */
bool rq_go_time_of_integer(int64_t v, char text[40]); /* seconds, or milliseconds beyond 1e12 */
bool rq_go_time_of_text(const char *s, size_t bytes, char text[40]);

/* json again, with four blanks for each level; in as many pieces as it comes in, wherever they are cut. */
struct rq_go_indent { /* zeroed at first; may be copied */
    size_t depth;
    bool opened; /* the last byte has opened a level, unless the next one closes it */
    bool in_string, escaped;
};
enum rq_err rq_go_indent(struct rq_go_indent *state, struct rq_bytes *out, const uint8_t *json, size_t bytes);

#endif
